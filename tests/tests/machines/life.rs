//! The life of a node: join, restart, reboot, power cut, leave.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use keelson_tests::harness::images::BUSYBOX;
use keelson_tests::machines::SYSTEMD_CGROUP;

use super::Test;
use super::context::{Context, INSTALL};
use super::pods::LONG;

pub const JOINING: &[Test] = &[("join_makes_a_ready_node_of_a_debian", join)];
pub const TROUBLE: &[Test] = &[
    ("restarting_the_agent_restarts_no_container", restart),
    ("an_upgrade_of_the_package_restarts_no_container", upgrade),
    ("doctor_says_what_is_wrong", doctor),
    ("pods_come_back_after_a_reboot", reboot),
    ("pods_come_back_after_a_power_cut", power_cut),
    ("pods_end_by_priority_before_the_machine_is_powered_off", power_off),
];
pub const LEAVING: &[Test] =
    &[("leave_leaves_nothing", leave), ("a_machine_without_its_runtime_leaves_by_force", leave_again)];
/// Once more, with containerd's other cgroup driver.
pub const AGAIN: &[Test] = &[
    ("systemd_driver: join", join_with_systemd),
    ("systemd_driver: limits", super::pods::limits),
    ("systemd_driver: slices_survive_a_reload", reload),
    ("systemd_driver: restart", restart),
    ("systemd_driver: purging_the_package_leaves_nothing", purge_with_systemd),
];

fn join(context: &Context) -> Result<()> {
    context.provision()?;
    let guest = context.guest();
    let command = context.cluster().join_command()?;
    let said = guest.say(&format!("{command} --dry-run"))?;
    ensure!(said.contains("nothing is in the way of node v1"), "{said}");
    guest.say("agent doctor --leftovers")?;
    let begun = Instant::now();
    let said = guest.say(&command)?;
    eprintln!("join took {} s:\n{said}", begun.elapsed().as_secs());
    ensure!(said.contains("node v1 is Ready"), "{said}");
    context.wait_node("True")?;
    let unit = guest
        .say("systemctl show agent -p ActiveState,Type,Slice,Delegate,KillMode,WatchdogUSec,NRestarts,UnitFileState")?;
    for expected in [
        "ActiveState=active",
        "Type=notify",
        "Slice=keelson.slice",
        "Delegate=yes",
        "KillMode=process",
        "NRestarts=0",
        "UnitFileState=enabled",
    ] {
        ensure!(unit.lines().any(|l| l == expected), "{expected} is not in\n{unit}");
    }
    let flags = guest.say("cd /proc/sys && cat vm/overcommit_memory kernel/panic kernel/panic_on_oops")?;
    ensure!(flags.split_whitespace().eq(["1", "10", "1"]), "flags of the kernel: {flags}");
    // Or it would lose the default route of IPv6 that routers advertise, for pods that it does not have.
    let ipv6 =
        guest.say("cat /proc/sys/net/ipv6/conf/all/forwarding; grep -c ipv6 /etc/sysctl.d/90-keelson.conf || true")?;
    ensure!(ipv6.split_whitespace().eq(["0", "0"]), "forwarding of IPv6, now and at boot: {ipv6}");
    ensure!(!unit.contains("WatchdogUSec=0") && !unit.contains("infinity"), "no watchdog: {unit}");
    Ok(())
}

/// How often containers of the pod were started, and when.
pub fn starts(context: &Context) -> Result<String> {
    context.pod(
        LONG,
        "{range .status.containerStatuses[*]}{.restartCount} {.containerID} {.state.running.startedAt};{end}",
    )
}

/// Also with another configuration, which holds from then on.
fn restart(context: &Context) -> Result<()> {
    replaced(context, super::pods::RESERVE)?;
    super::pods::reserved(context)?;
    replaced(context, super::pods::UNRESERVE)
}

/// The new program takes over what the old one ran.
fn upgrade(context: &Context) -> Result<()> {
    replaced(context, INSTALL)
}

/// A command after which another process is the agent, and containers are the same.
pub fn replaced(context: &Context, command: &str) -> Result<()> {
    let guest = context.guest();
    let before = starts(context)?;
    let pid = guest.say("systemctl show agent -p MainPID --value")?;
    guest.say_within(command, Duration::from_secs(600))?;
    ensure!(guest.say("systemctl show agent -p MainPID --value")? != pid, "it was not restarted");
    let active = guest.say("systemctl is-active agent")?;
    ensure!(active == "active\n", "{active}");
    // What the new agent sees and reports within its first passes.
    context.wait_node("True")?;
    std::thread::sleep(Duration::from_secs(5));
    context.wait_pod(LONG)?;
    let after = starts(context)?;
    ensure!(before == after, "before {before}\nafter {after}");
    Ok(())
}

fn reboot(context: &Context) -> Result<()> {
    let before = starts(context)?;
    context.machine().reboot()?;
    back(context, &before)
}

fn power_cut(context: &Context) -> Result<()> {
    let before = starts(context)?;
    let kept = "echo kept > /kept/file && sync";
    context.kubectl.run(&["exec", LONG, "-c", "side", "--", "sh", "-c", kept])?;
    context.machine().power_cut()?;
    context.machine().power_on()?;
    back(context, &before)?;
    let said = context.kubectl.say(&format!("exec {LONG} -c side -- cat /kept/file"))?;
    ensure!(said == "kept\n", "{said:?}");
    Ok(())
}

/// How long a shutdown waits, and how much of that is for critical pods.
const SHUTDOWN: &str = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n\
                        shutdownGracePeriod: 40s\nshutdownGracePeriodCriticalPods: 20s\n";
const LOGIN: &str = "org.freedesktop.login1 /org/freedesktop/login1 org.freedesktop.login1.Manager";

fn power_off(context: &Context) -> Result<()> {
    let guest = context.guest();
    let file = "/etc/keelson/agent.conf.d/20-shutdown.conf";
    guest.say(&format!("mkdir -p $(dirname {file}) && printf '{SHUTDOWN}' > {file} && systemctl restart agent"))?;
    context.until("shutdowns to be held back", || {
        let held = guest.say("systemd-inhibit --list --no-legend --no-pager")?;
        ensure!(held.lines().any(|l| l.contains("agent") && l.contains("shutdown") && l.contains("delay")), "{held}");
        Ok(())
    })?;
    let delay = guest.say(&format!("busctl get-property {LOGIN} InhibitDelayMaxUSec"))?;
    ensure!(delay == "t 40000000\n", "{delay}");
    context.kubectl.apply(&format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: critical}}, spec: {{priorityClassName: system-node-critical, containers: [\
         {{name: main, image: {BUSYBOX}, command: [sh, -c, \"trap exit TERM; sleep 1000000 & wait\"]}}]}}}}"
    ))?;
    context.wait_pod("critical")?;
    context.wait_pod(LONG)?;
    guest.say(&format!("busctl call {LOGIN} PowerOff b false"))?;
    let expected = "Failed Terminated Pod was terminated in response to imminent node shutdown. TerminationByKubelet";
    let told = "{.status.phase} {.status.reason} {.status.message} {.status.conditions[?(@.type==\"DisruptionTarget\")].reason}";
    for name in [LONG, "critical"] {
        context.until(&format!("{name} to end with its machine"), || {
            let said = context.pod(name, told)?;
            ensure!(said == expected, "{said}");
            Ok(())
        })?;
    }
    let ready = "jsonpath={.status.conditions[?(@.type==\"Ready\")].message}";
    let said = context.kubectl.run(&["get", "node", "v1", "-o", ready])?;
    ensure!(said == "node is shutting down", "{said}");
    let ended = |name| context.pod(name, "{.status.containerStatuses[0].state.terminated.finishedAt}");
    let (first, last) = (ended(LONG)?, ended("critical")?);
    ensure!(!first.is_empty() && first <= last, "the critical pod ended at {last}, before the other at {first}");
    context.machine().wait_down()?;
    context.machine().power_on()?;
    context.wait_node("True")?;
    guest.say(&format!("rm -r $(dirname {file}) && systemctl restart agent"))?;
    context.kubectl.say(&format!("delete pod {LONG} critical --wait --timeout=120s"))?;
    context.wait_node("True")?;
    super::pods::limits(context)
}

/// The same pod runs again, in new containers.
fn back(context: &Context, before: &str) -> Result<()> {
    context.until("other containers", || {
        let now = starts(context)?;
        ensure!(now.matches("containerd://").count() == 2 && now.matches('Z').count() == 2, "{now}");
        ensure!(now != before, "still {now}");
        Ok(())
    })?;
    context.wait_node("True")?;
    context.wait_pod(LONG)?;
    let said = context.kubectl.say(&format!("exec {LONG} -c side -- echo here"))?;
    ensure!(said == "here\n", "{said:?}");
    Ok(())
}

fn join_with_systemd(context: &Context) -> Result<()> {
    context.provision()?;
    let config = "/etc/containerd/config.toml";
    context.guest().say(&format!(
        "cp {config} /root/config.toml && cat >> {config} <<'EOF'{SYSTEMD_CGROUP}EOF\nsystemctl restart containerd"
    ))?;
    join(context)?;
    let driver = context.guest().say("grep cgroupDriver /etc/keelson/agent.yaml")?;
    ensure!(driver.contains("systemd"), "{driver}");
    Ok(())
}

/// systemd knows the limits: when it looks at its units anew, they stay.
fn reload(context: &Context) -> Result<()> {
    let folder = super::pods::pod_cgroup(context, LONG)?;
    ensure!(folder.starts_with("/sys/fs/cgroup/kubepods.slice/kubepods-pod"), "{folder}");
    let unit = folder.rsplit('/').next().unwrap_or_default();
    let guest = context.guest();
    guest.say("systemctl daemon-reload")?;
    let shown = guest.say(&format!("systemctl show {unit} -p ActiveState,MemoryMax,CPUQuotaPerSecUSec,CPUWeight"))?;
    for expected in ["ActiveState=active", "MemoryMax=100663296", "CPUQuotaPerSecUSec=500ms", "CPUWeight=59"] {
        ensure!(shown.lines().any(|l| l == expected), "{expected} is not in\n{shown}");
    }
    let kept = guest.say(&format!("cat {folder}/memory.max"))?;
    ensure!(kept == "100663296\n", "{kept}");
    let scopes = guest.say(&format!("ls -d {folder}/cri-containerd-*.scope | wc -l"))?;
    ensure!(scopes == "3\n", "not a scope for each container and the sandbox: {scopes}");
    figures(context)
}

/// What metrics-server and dashboards ask for has the containers of these scopes, and the pod's network.
fn figures(context: &Context) -> Result<()> {
    let of_the_pod = format!("pod=\"{LONG}\"");
    for (path, metric) in [
        ("resource", "container_memory_working_set_bytes{container=\"side\""),
        ("cadvisor", "container_cpu_usage_seconds_total{container=\"side\""),
        ("cadvisor", "container_network_receive_bytes_total{"),
    ] {
        let said = context.kubectl.say(&format!("get --raw /api/v1/nodes/v1/proxy/metrics/{path}"))?;
        let found = said.lines().any(|line| line.starts_with(metric) && line.contains(&of_the_pod));
        ensure!(found, "{metric}…}} of {LONG} is not in /metrics/{path}:\n{said}");
    }
    Ok(())
}

/// Without its runtime a node leaves by force alone, and no pod runs on; what the runtime keeps of it goes when the machine is a node again and leaves.
fn leave_again(context: &Context) -> Result<()> {
    join(context)?;
    super::pods::limits(context)?;
    let guest = context.guest();
    let leave = "agent leave --force --drain-timeout 5";
    let said = guest.say_within(&format!("systemctl stop containerd && {leave}"), Duration::from_secs(300))?;
    ensure!(said.contains("killing what runs, and leaving the rest to the runtime"), "{said}");
    guest.say(
        "test ! -e /sys/fs/cgroup/kubepods && test ! -e /sys/fs/cgroup/kubepods.slice && test ! -e /etc/keelson",
    )?;
    context.kubectl.say("delete node v1")?;
    context.kubectl.say(&format!("delete pod {LONG} --force --grace-period=0 --ignore-not-found"))?;
    guest.say(&format!("systemctl start containerd && {}", context.cluster().join_command()?))?;
    guest.say_within(leave, Duration::from_secs(300))?;
    context.kubectl.say("delete node v1")?;
    let changes = context.changes()?;
    ensure!(changes.is_empty(), "leave left\n{}", changes.join("\n"));
    Ok(())
}

/// Of a machine that still is a node: it leaves, and then nothing is left of the package either.
fn purge_with_systemd(context: &Context) -> Result<()> {
    let guest = context.guest();
    guest.say(
        "cp /root/config.toml /etc/containerd/config.toml && rm /root/config.toml && systemctl restart containerd",
    )?;
    let said = guest.say("dpkg --purge keelson-agent")?;
    ensure!(said.contains("this machine is as it was before it joined"), "{said}");
    context.kubectl.say("delete node v1")?;
    context.kubectl.say(&format!("delete pod {LONG} --force --grace-period=0 --ignore-not-found"))?;
    let changes = context.changes_since_bare()?;
    if !changes.is_empty() {
        let heard = guest.say("journalctl --no-pager -o short-precise -u containerd -u agent -n 150")?;
        bail!("the package left\n{}\n{heard}", changes.join("\n"));
    }
    Ok(())
}

/// A node that is well says so; without its runtime it names what to start.
fn doctor(context: &Context) -> Result<()> {
    let guest = context.guest();
    let said = guest.say("agent doctor")?;
    for expected in [
        "ok      service: agent.service is active",
        "ok      node: v1 is Ready",
        "ok      client certificate: valid for another",
    ] {
        ensure!(said.contains(expected), "{expected} is not in\n{said}");
    }
    guest.say(
        "nft add table inet strict && nft add chain inet strict forward '{ type filter hook forward priority 0; policy drop; }'",
    )?;
    let closed = guest.say("agent doctor; nft delete table inet strict")?;
    ensure!(closed.contains("warning firewall: inet strict forward drops what it does not accept"), "{closed}");
    guest.say("systemctl stop containerd")?;
    let sick = guest.run("agent doctor --output json", Duration::from_secs(60))?;
    guest.say("systemctl start containerd")?;
    ensure!(sick.code == 1 && sick.stdout.contains("systemctl start containerd"), "{sick:?}");
    context.wait_node("True")
}

fn leave(context: &Context) -> Result<()> {
    // Its pod has no controller, and would not come back elsewhere.
    let refused = context.guest().run("agent leave", Duration::from_secs(60))?;
    ensure!(refused.code != 0 && refused.stderr.contains(LONG), "{refused:?}");
    // Of one that has, the node sees that it is gone by its own rights.
    context.kubectl.say(&format!("delete pod {LONG}"))?;
    context.kubectl.apply(&format!(
        "{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: mover}}, spec: {{replicas: 2, selector: {{matchLabels: {{app: mover}}}}, \
         template: {{metadata: {{labels: {{app: mover}}}}, spec: {{terminationGracePeriodSeconds: 2, containers: [{{name: c, image: {BUSYBOX}, command: [sleep, 1d]}}]}}}}}}}}"
    ))?;
    context.kubectl.say("rollout status deployment mover --timeout=120s")?;
    // What is not ours in its folders is nobody's to remove.
    context.guest().say("touch /var/lib/keelson/precious")?;
    let said = context.guest().say_within("agent leave", Duration::from_secs(300))?;
    ensure!(said.matches("pod default/mover-").count() == 2 && said.contains("kubectl delete node v1"), "{said}");
    ensure!(said.contains("/var/lib/keelson stays"), "{said}");
    context.guest().say("rm /var/lib/keelson/precious && rmdir /var/lib/keelson")?;
    // The module stays loaded; the machine did not have it.
    let bridged = context.guest().say("sysctl -n net.bridge.bridge-nf-call-iptables")?;
    ensure!(bridged == "0\n", "{bridged}");
    context.kubectl.say("delete node v1")?;
    context.kubectl.say("delete deployment mover")?;
    context.guest().say("agent doctor --leftovers")?;
    let changes = context.changes()?;
    ensure!(changes.is_empty(), "leave left\n{}", changes.join("\n"));
    Ok(())
}
