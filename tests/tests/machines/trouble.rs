//! A node in trouble: what happens to machines that nobody has planned for. Each ends with all as it was before.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use keelson_tests::harness::images::BUSYBOX;
use keelson_tests::machines::Payload;

use super::Test;
use super::context::Context;
use super::life::starts;
use super::pods::LONG;

pub const TESTS: &[Test] = &[
    ("trouble: a_power_cut_under_load_loses_nothing_that_was_written", power_cut),
    ("trouble: containers_outlive_a_containerd_that_crashes_or_is_upgraded", containerd),
    ("trouble: a_containerd_with_other_folders_and_another_pause_image_has_them", other_containerd),
    ("trouble: a_pod_that_fills_the_disk_is_evicted_and_the_rest_goes_on", full_disk),
    ("trouble: a_node_that_was_cut_off_goes_on_and_catches_up", cut_off),
    ("trouble: a_clock_that_is_stepped_moves_no_container", clock),
    ("trouble: certificates_are_renewed_after_months_offline", months_offline),
    ("trouble: a_token_repairs_a_node_whose_agent_runs_without_a_good_certificate", repair),
];

/// What has to be as before when a trouble is over: the node, the pod that lives through all, and the agent's word for it.
fn well(context: &Context) -> Result<()> {
    context.wait_node("True")?;
    context.wait_pod(LONG)?;
    context.until("the doctor's consent", || context.guest().say("agent doctor")).map(drop)
}

/// Containers come and go while the power does; somebody writes to a volume that stays.
fn power_cut(context: &Context) -> Result<()> {
    const REPLICAS: usize = 6;
    context.node()?;
    context.kubectl.apply(&format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: writer}}, spec: {{terminationGracePeriodSeconds: 0, containers: [{{name: c, image: {BUSYBOX}, \
         command: [sh, -c, \"n=$(cat /kept/done || echo 0); while true; do n=$((n+1)); echo $n > /kept/new; sync; mv /kept/new /kept/done; sync; echo $n; done\"], \
         volumeMounts: [{{name: kept, mountPath: /kept}}]}}], volumes: [{{name: kept, hostPath: {{path: /var/kept, type: DirectoryOrCreate}}}}]}}}}"
    ))?;
    context.wait_pod("writer")?;
    context.kubectl.apply(&format!(
        "{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: load}}, spec: {{replicas: {REPLICAS}, selector: {{matchLabels: {{app: load}}}}, \
         template: {{metadata: {{labels: {{app: load}}}}, spec: {{terminationGracePeriodSeconds: 0, containers: [{{name: c, image: {BUSYBOX}, command: [sleep, 1d]}}]}}}}}}}}"
    ))?;
    context.until("the first containers of the load", || {
        let phases = context.kubectl.say("get pods -l app=load -o jsonpath={.items[*].status.phase}")?;
        ensure!(phases.contains("Running"), "{phases}");
        Ok(())
    })?;
    // The rest are on their way, and some end.
    context.kubectl.say("delete pods -l app=load --wait=false")?;
    let written: u64 = context.kubectl.say("logs writer --tail=1")?.trim().parse().context("a number")?;
    context.machine().power_cut()?;
    context.machine().power_on()?;

    context.kubectl.say("rollout status deployment load --timeout=400s").with_context(|| context.journal())?;
    context.wait_pod("writer")?;
    context.until("what was written before", || {
        let kept: u64 = context.guest().say("cat /var/kept/done")?.trim().parse()?;
        ensure!(kept >= written, "{kept} is less than {written}, which was written before the power went");
        Ok(())
    })?;
    well(context)?;
    context.kubectl.say("delete deployment load")?;
    context.kubectl.say("delete pod writer")?;
    context.until("one sandbox a pod", || {
        let sandboxes = context.guest().say("ctr -n k8s.io tasks ls | grep -c RUNNING")?;
        // A sandbox and two containers.
        ensure!(sandboxes.trim() == "3", "{sandboxes} tasks");
        let gone = context.kubectl.say("get pods -l app=load -o name")?;
        ensure!(gone.is_empty(), "{gone}");
        Ok(())
    })?;
    // Whatever containerd was about to make when the power went it keeps for a day by leases of its own.
    context.guest().say("ctr -n k8s.io leases ls -q | xargs -r ctr -n k8s.io leases delete --sync")?;
    context.guest().say("rm -r /var/kept").map(drop)
}

/// Once by a crash, once by its package.
fn containerd(context: &Context) -> Result<()> {
    context.node()?;
    let before = starts(context)?;
    let guest = context.guest();
    // Not the shims beside it, which systemctl kill would end, too.
    guest.say("kill -KILL $(systemctl show containerd -p MainPID --value)")?;
    well(context)?;
    let pid = guest.say("systemctl show containerd -p MainPID --value")?;
    let (mount, folder) = (Payload::MOUNT, Payload::REPOSITORY);
    guest.say(&format!("mount -o ro /dev/vdb {mount} && dpkg -i {mount}/{folder}/containerd_*.deb; umount {mount}"))?;
    well(context)?;
    ensure!(guest.say("systemctl show containerd -p MainPID --value")? != pid, "containerd was not started anew");
    let after = starts(context)?;
    ensure!(before == after, "before {before}\nafter {after}");
    // What it starts is started by the new one.
    context.kubectl.apply(&sleeper("later"))?;
    context.wait_pod("later")?;
    context.kubectl.say("delete pod later").map(drop)
}

/// As Docker's package is configured, and `containerd config default`, beside Debian's. There is no registry: the image is ours.
fn other_containerd(context: &Context) -> Result<()> {
    context.node()?;
    let (guest, config) = (context.guest(), "/etc/containerd/config.toml");
    let before = starts(context)?;
    guest.say(&format!(
        "cp {config} /root/config.toml && sed -i -e 's#/usr/lib/cni#/opt/cni/bin#' \
         -e 's#^ *.plugins.\"io.containerd.grpc.v1.cri\".$#&\\nsandbox_image = \"pause.example/pause:9\"#' {config} && \
         grep -q pause.example {config} && systemctl restart containerd"
    ))?;
    context.until("another pod", || {
        guest.say("test -e /opt/cni/bin/bridge && ctr -n k8s.io images ls -q | grep -q pause.example").map(drop)
    })?;
    context.kubectl.apply(&sleeper("elsewhere"))?;
    context.wait_pod("elsewhere")?;
    guest.say("agent doctor | grep '^ok *CNI plugins: /opt/cni/bin/bridge'")?;
    guest.say(&format!("cp /root/config.toml {config} && rm /root/config.toml && systemctl restart containerd"))?;
    well(context)?;
    context.kubectl.say("delete pod elsewhere")?;
    let after = starts(context)?;
    ensure!(before == after, "before {before}\nafter {after}");
    Ok(())
}

fn sleeper(name: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{terminationGracePeriodSeconds: 0, \
         containers: [{{name: c, image: {BUSYBOX}, command: [sleep, 1d]}}]}}}}"
    )
}

/// How often systemd had to start the agent.
fn restarts(context: &Context) -> Result<String> {
    context.guest().say("systemctl show agent -p NRestarts,MainPID")
}

fn full_disk(context: &Context) -> Result<()> {
    context.node()?;
    let guest = context.guest();
    // Five minutes, by default: what is waited for here is that it ends.
    let quick = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\nevictionPressureTransitionPeriod: 10s\n";
    guest.say(&format!("mkdir -p /etc/keelson/agent.conf.d && printf '{quick}' > /etc/keelson/agent.conf.d/10-quick.conf && systemctl restart agent"))?;
    well(context)?;
    let (before, agent) = (starts(context)?, restarts(context)?);
    context.kubectl.apply(&format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: hog}}, spec: {{restartPolicy: Never, terminationGracePeriodSeconds: 0, containers: [{{name: c, image: {BUSYBOX}, \
         command: [sh, -c, \"dd if=/dev/zero of=/fill/all bs=1M; sleep 1d\"], volumeMounts: [{{name: fill, mountPath: /fill}}]}}], \
         volumes: [{{name: fill, emptyDir: {{}}}}]}}}}"
    ))?;
    context
        .until("the hog's eviction", || {
            let reason = context.pod("hog", "{.status.reason}")?;
            ensure!(reason == "Evicted", "{reason:?}; {}", guest.say("df -m / | tail -n 1")?);
            Ok(())
        })
        .with_context(|| context.journal())?;
    context.until("the end of the pressure", || {
        let path = "jsonpath={.status.conditions[?(@.type==\"DiskPressure\")].status}";
        let pressure = context.kubectl.run(&["get", "node", "v1", "-o", path])?;
        ensure!(pressure == "False", "{pressure}");
        Ok(())
    })?;
    context.kubectl.say("delete pod hog")?;
    well(context)?;
    let after = (starts(context)?, restarts(context)?);
    ensure!(after == (before.clone(), agent.clone()), "before {before} {agent}\nafter {after:?}");
    guest.say("rm -r /etc/keelson/agent.conf.d && systemctl restart agent")?;
    well(context)
}

/// The master gives the node up after a minute. The hour is the machine's clock's; what it does to the master is that watches cannot go on where they were.
fn cut_off(context: &Context) -> Result<()> {
    let main = |context: &Context| {
        context.pod(LONG, "{range .status.containerStatuses[?(@.name==\"main\")]}{.containerID} {.restartCount}{end}")
    };
    let side = |context: &Context| {
        context.pod(LONG, "{range .status.containerStatuses[?(@.name==\"side\")]}{.restartCount}{end}")
    };
    context.node()?;
    context.kubectl.apply(&sleeper("away"))?;
    context.wait_pod("away")?;
    let (before, restarted) = (main(context)?, side(context)?);
    context.machine().cable(false)?;
    context.wait_node("Unknown")?;
    context.kubectl.say("delete pod away --wait=false")?;
    // Nobody asks the master before a container is restarted.
    context.guest().say("pkill -KILL -f '[s]leep 1000000'")?;
    context.until("a container restarted without the master", || context.guest().say("pgrep -f '[s]leep 1000000'"))?;
    let pods = context.guest().say("agent pods")?;
    ensure!(pods.contains("away"), "nobody has told the node that it may go\n{pods}");
    set_clock(context, 3600)?;
    context.cluster().process("master")?.kill()?;
    context.cluster().run_master()?;
    context.machine().cable(true)?;
    context.until("what happened meanwhile", || {
        let now = side(context)?;
        ensure!(now != restarted, "still {now} restarts");
        let pods = context.guest().say("agent pods; ctr -n k8s.io containers ls")?;
        ensure!(!pods.contains("away"), "it is still there:\n{pods}");
        Ok(())
    })?;
    set_clock(context, 0)?;
    well(context)?;
    let after = main(context)?;
    ensure!(before == after, "before {before}, after {after}");
    Ok(())
}

fn set_clock(context: &Context, ahead: i64) -> Result<()> {
    let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())?;
    context.guest().say(&format!("date -s @{}", now + ahead)).map(drop)
}

const DAY: i64 = 86_400;

fn clock(context: &Context) -> Result<()> {
    context.node()?;
    let guest = context.guest();
    let before = starts(context)?;
    set_clock(context, 2 * 3600)?;
    context.kubectl.apply(&sleeper("future"))?;
    context.wait_pod("future")?;
    context.kubectl.say("delete pod future")?;
    let doctor = guest.run("agent doctor", Duration::from_secs(120))?;
    ensure!(doctor.code == 1 && doctor.stdout.contains("FAULT   clock: "), "{doctor:?}");

    // Before the API server's certificate began; a new agent cannot connect, and keeps what runs.
    set_clock(context, -30 * DAY)?;
    guest.say("systemctl restart agent")?;
    context.until("the agent", || {
        let pods = guest.say("agent pods")?;
        ensure!(pods.contains(LONG), "{pods}");
        Ok(())
    })?;
    set_clock(context, 0)?;
    well(context)?;
    let after = starts(context)?;
    ensure!(before == after, "before {before}\nafter {after}");
    Ok(())
}

/// Certificates are good for a year. Eleven months later one is renewed as soon as its machine is back; after the year it takes a token.
fn months_offline(context: &Context) -> Result<()> {
    context.node()?;
    let guest = context.guest();
    let before = starts(context)?;
    let certificates = || guest.say("cd /etc/keelson/pki && sha256sum client.pem serving.pem");
    let old = certificates()?;
    guest.say("systemctl stop agent")?;
    set_clock(context, 335 * DAY)?;
    guest.say("systemctl start agent")?;
    context
        .until("other certificates", || {
            let now = certificates()?;
            ensure!(now.lines().zip(old.lines()).all(|(now, old)| now != old), "still {now}");
            Ok(())
        })
        .with_context(|| context.journal())?;
    set_clock(context, 370 * DAY)?;
    let status = guest.run("agent status", Duration::from_secs(120))?;
    let said = format!("{}{}", status.stdout, status.stderr);
    for expected in
        ["FAULT   client certificate: expired", "master token create --print-join-command", "pods go on running"]
    {
        ensure!(status.code != 0 && said.contains(expected), "{expected} is not in\n{said}");
    }
    set_clock(context, 0)?;
    well(context)?;
    let after = starts(context)?;
    ensure!(before == after, "before {before}\nafter {after}");
    Ok(())
}

/// As after a certificate has expired: there is none that is good, the agent runs, listens, and the Node may still be Ready.
fn repair(context: &Context) -> Result<()> {
    const FILE: &str = "/root/again.join";
    context.node()?;
    let guest = context.guest();
    let before = starts(context)?;
    let settings = || guest.say("sha256sum /etc/keelson/agent.yaml");
    // A setting of which the command that repairs says nothing, with a person's remark.
    guest.say("cd /etc/keelson && cp agent.yaml /root && sed -i 's/^maxPods:.*/maxPods: 42 # mine/' agent.yaml && grep -q mine agent.yaml")?;
    let written = settings()?;
    context.invite(FILE)?;
    guest.say("rm /etc/keelson/pki/client.pem && systemctl is-active agent")?;
    let said = guest.say(&format!("agent join --join-file {FILE}"))?;
    ensure!(said.contains("node v1 is Ready") && said.contains("asking for a certificate"), "{said}");
    ensure!(settings()? == written, "other settings than before: {}", settings()?);
    guest.say("mv /root/agent.yaml /etc/keelson/ && systemctl restart agent")?;
    well(context)?;
    let after = starts(context)?;
    ensure!(before == after, "before {before}\nafter {after}");
    Ok(())
}
