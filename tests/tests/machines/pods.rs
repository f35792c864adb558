//! Pods under systemd and cgroup v2.

use anyhow::{Context as _, Result, ensure};
use keelson_tests::harness::images::{BUSYBOX, HELLO};

use super::Test;
use super::context::Context;

pub const TESTS: &[Test] = &[
    ("a_pod_runs_in_the_cgroups_that_its_limits_say", limits),
    ("logs_and_exec", sessions),
    ("a_neighbour_answers_through_its_service_also_after_all_rules_were_flushed", neighbours),
    ("a_container_above_its_memory_is_oom_killed", oom),
];

/// The pod that lives through restarts, reboots and power cuts.
pub const LONG: &str = "long";

pub fn limits(context: &Context) -> Result<()> {
    let limits = "{cpu: 250m, memory: 48Mi}";
    context.kubectl.apply(&format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: {LONG}}}, spec: {{terminationGracePeriodSeconds: 1, containers: [\
         {{name: main, image: {HELLO}, resources: {{limits: {limits}, requests: {limits}}}, \
           readinessProbe: {{httpGet: {{path: /, port: 8080}}, periodSeconds: 2}}, \
           volumeMounts: [{{name: kept, mountPath: /kept}}]}}, \
         {{name: side, image: {BUSYBOX}, command: [sh, -c, \"trap exit TERM; echo begun; sleep 1000000 & wait\"], \
           resources: {{limits: {limits}, requests: {limits}}}, volumeMounts: [{{name: kept, mountPath: /kept}}]}}], \
         volumes: [{{name: kept, emptyDir: {{}}}}]}}}}"
    ))?;
    context.wait_pod(LONG)?;
    let folder = pod_cgroup(context, LONG)?;
    let values =
        context.guest().say(&format!("cd {folder} && head cpu.max cpu.weight memory.max pids.max memory.oom.group"))?;
    for expected in ["50000 100000", "100663296"] {
        ensure!(values.lines().any(|l| l == expected), "{folder}: {expected} is not in\n{values}");
    }
    // A container's own: half of it each, and all of its processes are killed together.
    let containers = context.guest().say(&format!(
        "cd {folder} && for c in $(find . -mindepth 1 -type d); do echo $(cat $c/cpu.max $c/memory.max $c/memory.swap.max $c/memory.oom.group); done"
    ))?;
    let expected = "25000 100000 50331648 0 1";
    ensure!(
        containers.lines().filter(|l| *l == expected).count() == 2,
        "{folder}: not two of {expected:?} in\n{containers}"
    );
    let controllers = context.guest().say(&format!("cat {folder}/cgroup.controllers"))?;
    ensure!(["cpu", "memory", "pids"].iter().all(|c| controllers.contains(c)), "{controllers}");
    Ok(())
}

/// Changes the configuration: memory is protected and throttled (KEP-2570), and the agent's own slice has what is reserved for Kubernetes.
pub const RESERVE: &str = "mkdir -p /etc/keelson/agent.conf.d && cat > /etc/keelson/agent.conf.d/30-memory.conf <<'EOF'
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
featureGates: {MemoryQoS: true}
memoryReservationPolicy: TieredReservation
enforceNodeAllocatable: [pods, kube-reserved]
kubeReserved: {memory: 256Mi, cpu: 100m}
kubeReservedCgroup: /keelson.slice
EOF
systemctl restart agent";
/// Takes it back, also of the slice, which does not forget by itself.
pub const UNRESERVE: &str = "rm -r /etc/keelson/agent.conf.d && rm -rf /run/systemd/system.control/keelson.slice.d && systemctl daemon-reload && \
     (cd /sys/fs/cgroup/keelson.slice && echo max > memory.max && echo 0 > memory.min && echo 100 > cpu.weight) && systemctl restart agent";

/// What [`RESERVE`] makes of cgroups.
pub fn reserved(context: &Context) -> Result<()> {
    let guest = context.guest();
    let said = guest.say("cd /sys/fs/cgroup/keelson.slice && cat memory.max memory.min")?;
    ensure!(said.split_whitespace().eq(["268435456", "268435456"]), "what is reserved for Kubernetes: {said}");
    context.kubectl.apply(&format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: throttled}}, spec: {{terminationGracePeriodSeconds: 0, containers: [\
         {{name: main, image: {BUSYBOX}, command: [sleep, 1d], resources: {{requests: {{memory: 16Mi}}, limits: {{memory: 32Mi}}}}}}]}}}}"
    ))?;
    context.wait_pod("throttled")?;
    let folder = pod_cgroup(context, "throttled")?;
    // From 16 MiB on nine tenths of the 16 up to the limit, in whole pages. The sandbox has no such limit.
    let said = guest.say(&format!("cd {folder} && cat */memory.high | grep -v max"))?;
    ensure!(said == "31875072\n", "a container is throttled from {said}");
    let said = guest.say(&format!("cd {folder} && cat memory.low ../memory.low ../../memory.min"))?;
    let values: Vec<u64> = said.split_whitespace().filter_map(|value| value.parse().ok()).collect();
    // Above all pods it is what Guaranteed ones ask for as well.
    let is_kept = matches!(values.as_slice(), [16_777_216, 16_777_216, all] if *all >= (16 + 96) << 20);
    ensure!(is_kept, "memory that is protected: {said}");
    let said = guest.say(&format!("cd {folder} && cat hugetlb.*.max 2>/dev/null | sort -u"))?;
    ensure!(said == "0\n" || said.is_empty(), "huge pages that nobody asked for: {said}");
    let said = context.kubectl.say("get --raw /api/v1/nodes/v1/proxy/metrics")?;
    ensure!(said.contains("\nkubelet_memory_qos_node_memory_low_bytes 16777216\n"), "no such gauge");
    context.kubectl.say("delete pod throttled --wait --timeout=120s").map(drop)
}

/// The folder of a pod's cgroup, found by its UID however the driver spells it.
pub fn pod_cgroup(context: &Context, name: &str) -> Result<String> {
    let uid = context.pod(name, "{.metadata.uid}")?;
    let pattern = uid.replace('-', "?");
    let found = context.guest().say(&format!("find /sys/fs/cgroup -type d -name '*pod{pattern}*'"))?;
    found.lines().next().map(str::to_owned).with_context(|| format!("no cgroup of pod {uid}"))
}

fn sessions(context: &Context) -> Result<()> {
    let said = context.kubectl.say(&format!("logs {LONG} -c side"))?;
    ensure!(said == "begun\n", "{said:?}");
    let said = context.kubectl.say(&format!("exec {LONG} -c side -- cat /sys/fs/cgroup/memory.max"))?;
    ensure!(said == "50331648\n", "{said:?}");
    let said = context.kubectl.say("get --raw /api/v1/nodes/v1/proxy/stats/summary")?;
    ensure!(said.contains("\"workingSetBytes\""), "{said}");
    Ok(())
}

/// What the pod answers does not leave the bridge: translated it is by `br_netfilter` alone, which Debian's kernel has as a module. Then an
/// administrator loads other rules, in the way of Debian's nftables.conf.
fn neighbours(context: &Context) -> Result<()> {
    context.kubectl.say(&format!("label pod {LONG} app={LONG}"))?;
    context.kubectl.apply(&format!(
        "{{apiVersion: v1, kind: List, items: [\
         {{apiVersion: v1, kind: Service, metadata: {{name: {LONG}}}, spec: {{selector: {{app: {LONG}}}, ports: [{{port: 80, targetPort: 8080}}]}}}}, \
         {{apiVersion: v1, kind: Pod, metadata: {{name: asks}}, spec: {{terminationGracePeriodSeconds: 0, containers: [\
           {{name: main, image: {HELLO}, ports: [{{containerPort: 8080, hostPort: 8099}}]}}]}}}}]}}"
    ))?;
    context.wait_pod("asks")?;
    let host_port = || context.guest().say("bash -c ': </dev/tcp/127.0.0.1/8099'").map(drop);
    context.until("a host port to lead to its pod", host_port)?;
    let address = context.kubectl.say(&format!("get service {LONG} -o jsonpath={{.spec.clusterIP}}"))?;
    let answers = || context.kubectl.say(&format!("exec asks -- /hello get http://{address}/")).map(drop);
    context.until("a neighbour to answer through its Service", answers)?;
    context.guest().say("nft flush ruleset && ! nft list tables | grep -q 'inet keelson$'")?;
    context.until("its Service to be there again", answers)?;
    context.until("its host port to be there again", host_port)?;
    context.kubectl.say(&format!("delete service/{LONG} pod/asks --timeout=120s")).map(drop)
}

fn oom(context: &Context) -> Result<()> {
    context.kubectl.apply(&format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: greedy}}, spec: {{restartPolicy: Never, containers: [\
         {{name: main, image: {BUSYBOX}, command: [sh, -c, \"tail /dev/zero\"], resources: {{limits: {{memory: 16Mi}}}}}}]}}}}"
    ))?;
    context
        .until("the greedy container to be OOMKilled", || {
            let said = context.pod("greedy", "{.status.containerStatuses[0].state.terminated.reason} {.status.containerStatuses[0].state.terminated.exitCode}")?;
            ensure!(said == "OOMKilled 137", "{said:?}");
            Ok(())
        })
        .with_context(|| context.kubectl.say("describe pod greedy").unwrap_or_default())?;
    context.kubectl.say("delete pod greedy --wait --timeout=120s").map(drop)
}
