//! What is compared, section by section. Only data: a new row is a line here.

/// How a run's figures become the one value that is compared.
#[derive(Debug, Clone, PartialEq)]
pub enum Take {
    /// The middle of a figure's values.
    Median(String),
    /// Nearly the worst of them.
    P99(String),
    /// How many times the middle of the second the middle of the first is, e.g. of what the bare runtime needs.
    Times(String, String),
}

/// What values are in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Milliseconds,
    Mebibytes,
    /// Of one core.
    Percent,
    PerSecond,
    Times,
}

/// Which of two values is the better one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Better {
    Less,
    More,
}

/// One line of the comparison.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Goals name it.
    pub id: String,
    /// With counts in braces: see `Sizes::say`.
    pub what: String,
    pub take: Take,
    pub unit: Unit,
    pub better: Better,
}

fn row(id: impl Into<String>, what: impl Into<String>, unit: Unit, take: Take) -> Row {
    let better = if unit == Unit::PerSecond { Better::More } else { Better::Less };
    Row { id: id.into(), what: what.into(), take, unit, better }
}

fn ms(id: impl Into<String>, what: &str, figure: &str) -> Row {
    row(id, what, Unit::Milliseconds, Take::Median(figure.into()))
}

fn times(id: impl Into<String>, what: &str, figure: &str, of: &str) -> Row {
    row(id, what, Unit::Times, Take::Times(figure.into(), of.into()))
}

fn rate(id: impl Into<String>, what: &str, figure: &str) -> Row {
    row(id, what, Unit::PerSecond, Take::Median(figure.into()))
}

fn mib(id: impl Into<String>, what: &str, figure: &str) -> Row {
    row(id, what, Unit::Mebibytes, Take::Median(figure.into()))
}

fn cpu(id: impl Into<String>, what: &str, figure: &str) -> Row {
    row(id, what, Unit::Percent, Take::Median(figure.into()))
}

/// *The floor* is the same pod made by bare CRI calls, on each side over its own CNI plugins.
#[must_use]
pub fn node() -> Vec<Row> {
    let mut rows = vec![
        ms("floor.sandbox", "floor: RunPodSandbox", "floor.sandbox_ms"),
        ms("floor.up", "floor: sandbox, create, start", "floor.up_ms"),
        ms("floor.down", "floor: stop, remove", "floor.down_ms"),
        ms("ready", "create → Ready", "plain.ready_ms"),
        row("ready.p99", "create → Ready, p99", Unit::Milliseconds, Take::P99("plain.ready_ms".into())),
        times("ready.floor", "create → Ready ÷ floor", "plain.ready_ms", "floor.up_ms"),
        ms("probed", "create → Ready, http readiness probe", "probed.ready_ms"),
        ms(
            "probed.after",
            "Ready after a server that is slow to start answers, http probe",
            "late.ready_after_answer_ms",
        ),
        ms("three", "create → Ready, 3 containers", "three.ready_ms"),
        times("three.floor", "create → Ready, 3 containers ÷ their floor", "three.ready_ms", "floor3.up_ms"),
        ms("configmap", "create → Ready, configMap volume", "configmap.ready_ms"),
        ms("gone", "delete → gone", "plain.gone_ms"),
        row("gone.p99", "delete → gone, p99", Unit::Milliseconds, Take::P99("plain.gone_ms".into())),
        times("gone.floor", "delete → gone ÷ floor", "plain.gone_ms", "floor.down_ms"),
        ms("gone.probed", "delete → gone, http readiness probe", "probed.gone_ms"),
        ms("gone.three", "delete → gone, 3 containers", "three.gone_ms"),
        ms("floor.burst.up", "floor: {burst} pods, 8 callers", "floor_burst.all_up_ms"),
        ms("burst", "{burst} pods at once until all are Ready", "burst.all_ready_ms"),
        times("burst.floor", "{burst} pods at once ÷ floor", "burst.all_ready_ms", "floor_burst.all_up_ms"),
        ms("floor.burst.down", "floor: {burst} pods removed, 8 callers", "floor_burst.all_down_ms"),
        ms("burst.gone", "{burst} pods deleted until all are gone", "burst.all_gone_ms"),
        times("burst.gone.floor", "{burst} pods deleted ÷ floor", "burst.all_gone_ms", "floor_burst.all_down_ms"),
    ];
    for (part, when) in
        [("empty", "without pods"), ("full", "{burst} idle pods"), ("probing", "{burst} pods with 1 s probes")]
    {
        rows.extend(node_cost(part, when));
    }
    rows
}

/// What the node's own programs and its containerd take.
fn node_cost(part: &str, when: &str) -> [Row; 4] {
    let id = |of: &str| format!("{part}.{of}");
    [
        mib(id("pss"), &format!("PSS, {when}"), &id("node_pss_mib")),
        cpu(id("cpu"), &format!("CPU, {when}"), &id("node_cpu_percent")),
        mib(id("runtime.pss"), &format!("PSS of containerd, {when}"), &id("runtime_pss_mib")),
        cpu(id("runtime.cpu"), &format!("CPU of containerd, {when}"), &id("runtime_cpu_percent")),
    ]
}

const VERBS: [&str; 4] = ["create", "get", "update", "delete"];

#[must_use]
pub fn control() -> Vec<Row> {
    let mut rows = Vec::new();
    for (encoding, spoken) in [("json", "JSON"), ("protobuf", "protobuf")] {
        for (clients, said) in [("one", "1 client"), ("many", "{clients} clients")] {
            for verb in VERBS {
                let what = format!("{verb}s by {said}, {spoken}");
                let id = format!("{verb}.{encoding}.{clients}");
                rows.push(rate(id, &what, &format!("{encoding}_{clients}.{verb}_per_s")));
            }
        }
    }
    rows.extend([
        ms("list.json", "list of {listed}, JSON", "list_json.list_ms"),
        ms("list.protobuf", "list of {listed}, protobuf", "list_protobuf.list_ms"),
        ms("fan.few", "a create seen by {few watchers} watchers", "fan_few.all_saw_ms"),
        ms("fan.many", "a create seen by {many watchers} watchers", "fan_many.all_saw_ms"),
        rate("schedule", "{scheduled} pods scheduled on {hollow nodes} nodes", "schedule.bound_per_s"),
        mib("idle.pss", "PSS, idle", "idle.control_pss_mib"),
        cpu("idle.cpu", "CPU, idle", "idle.control_cpu_percent"),
        mib("filled.pss", "PSS, {listed} objects", "filled.control_pss_mib"),
    ]);
    rows
}

#[must_use]
pub fn proxy() -> Vec<Row> {
    vec![
        ms("change.few", "one change, beside {few services} Services × 5 endpoints", "few.change_ms"),
        ms("change.many", "one change, beside {many services} Services × 5 endpoints", "many.change_ms"),
        ms("sync.few", "full sync after a start, {few services} Services", "few.sync_ms"),
        ms("sync.many", "full sync after a start, {many services} Services", "many.sync_ms"),
        mib("few.pss", "PSS (kube-proxy, the whole agent), {few services} Services", "few.proxy_pss_mib"),
        mib("many.pss", "PSS (kube-proxy, the whole agent), {many services} Services", "many.proxy_pss_mib"),
    ]
}

#[must_use]
pub fn cni() -> Vec<Row> {
    vec![
        ms("nothing", "a program that does nothing", "nothing.ms"),
        ms("loopback.add", "loopback ADD", "loopback.add_ms"),
        ms("loopback.del", "loopback DEL", "loopback.del_ms"),
        ms("host-local.add", "host-local ADD", "host-local.add_ms"),
        ms("host-local.del", "host-local DEL", "host-local.del_ms"),
        ms("bridge.add", "bridge + host-local ADD", "bridge.add_ms"),
        ms("bridge.del", "bridge + host-local DEL", "bridge.del_ms"),
        ms("bridge.gone", "the same, until the link is gone", "bridge.gone_ms"),
        ms("masquerade.add", "bridge + host-local with ipMasq ADD", "masquerade.add_ms"),
        ms("masquerade.del", "bridge + host-local with ipMasq DEL", "masquerade.del_ms"),
        ms("portmap.add", "portmap ADD, one port", "portmap.add_ms"),
        ms("portmap.del", "portmap DEL, one port", "portmap.del_ms"),
        ms("chain.add", "a pod without ports, as its node configures it: ADD", "chain.add_ms"),
        ms("chain.del", "a pod without ports, as its node configures it: DEL", "chain.del_ms"),
    ]
}

#[must_use]
pub fn flat() -> Vec<Row> {
    vec![
        mib("flat.before", "PSS before the first pod", "before.node_pss_mib"),
        mib("flat.after", "PSS after {flat} pods are gone", "after.node_pss_mib"),
        mib("flat.growth", "growth over the last four fifths of them", "growth.node_pss_mib"),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::Section;

    #[test]
    fn rows_that_goals_name_are_there_once() {
        for section in Section::ALL {
            let rows = section.rows();
            for goal in section.goals() {
                let named = rows.iter().filter(|row| row.id == goal.row).count();
                assert_eq!(named, 1, "{section}: {}", goal.row);
            }
        }
    }
}
