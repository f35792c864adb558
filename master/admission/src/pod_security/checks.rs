//! The Pod Security Standards, a function for each control (<https://kubernetes.io/docs/concepts/security/pod-security-standards/>).

use std::collections::BTreeSet;
use std::fmt;

use api::pod::SAFE_SYSCTLS;
use serde_json::Value;

use super::policy::{Level, Rule, Version};
use crate::{items, pods};

/// What a pod does that it may not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    pub reason: String,
    detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.reason, self.detail)
    }
}

type Check = fn(&Value) -> Option<Violation>;

/// A control: its level, and what it is from a minor release on. In upstream's order of names within a level.
struct Control {
    level: Level,
    since: &'static [(u32, Check)],
    /// The control of the lower level that it stands for.
    replaces: Option<usize>,
}

const fn control(level: Level, since: &'static [(u32, Check)]) -> Control {
    Control { level, since, replaces: None }
}

const CAPABILITIES: usize = 1;
const HOST_PATHS: usize = 3;
const PROC_MOUNT: usize = 7;
const SECCOMP: usize = 9;

const CONTROLS: [Control; 19] = [
    control(Level::Baseline, &[(0, app_armor)]),
    control(Level::Baseline, &[(0, default_capabilities)]),
    control(Level::Baseline, &[(0, host_namespaces)]),
    control(Level::Baseline, &[(0, host_paths)]),
    control(Level::Baseline, &[(0, host_ports)]),
    control(Level::Baseline, &[(34, probed_hosts)]),
    control(Level::Baseline, &[(0, privileged)]),
    control(Level::Baseline, &[(0, proc_mount), (35, |pod| unless_own_users(pod, proc_mount))]),
    control(Level::Baseline, &[(0, |pod| se_linux(pod, &SE_LINUX)), (31, |pod| se_linux(pod, &SE_LINUX_31))]),
    control(Level::Baseline, &[(0, seccomp_annotations), (19, seccomp)]),
    control(
        Level::Baseline,
        &[(0, |p| sysctls(p, 5)), (27, |p| sysctls(p, 6)), (29, |p| sysctls(p, 10)), (32, |p| sysctls(p, 12))],
    ),
    control(Level::Baseline, &[(0, windows_host_process)]),
    control(Level::Restricted, &[(8, privilege_escalation), (25, |pod| unless_windows(pod, privilege_escalation))]),
    Control {
        level: Level::Restricted,
        since: &[(22, dropped_capabilities), (25, |pod| unless_windows(pod, dropped_capabilities))],
        replaces: Some(CAPABILITIES),
    },
    Control { level: Level::Restricted, since: &[(35, proc_mount)], replaces: Some(PROC_MOUNT) },
    Control { level: Level::Restricted, since: &[(0, volume_types)], replaces: Some(HOST_PATHS) },
    control(Level::Restricted, &[(0, run_as_non_root), (35, |pod| unless_own_users(pod, run_as_non_root))]),
    control(Level::Restricted, &[(23, run_as_user), (35, |pod| unless_own_users(pod, run_as_user))]),
    Control {
        level: Level::Restricted,
        since: &[(19, seccomp_everywhere), (25, |pod| unless_windows(pod, seccomp_everywhere))],
        replaces: Some(SECCOMP),
    },
];

/// Everything that a pod, or a template of pods, does against a rule.
pub fn violations(pod: &Value, rule: Rule) -> Vec<Violation> {
    let applies = |control: &Control| (control.level <= rule.level).then(|| check(control, rule.version)).flatten();
    let replaced: BTreeSet<usize> =
        CONTROLS.iter().filter(|control| applies(control).is_some()).filter_map(|control| control.replaces).collect();
    let kept = CONTROLS.iter().enumerate().filter(|(at, _)| !replaced.contains(at));
    kept.filter_map(|(_, control)| applies(control)?(pod)).collect()
}

fn check(control: &Control, version: Version) -> Option<Check> {
    let known = control.since.iter().rfind(|(minor, _)| Version::Minor(*minor) <= version);
    known.map(|(_, check)| *check)
}

fn unless_windows(pod: &Value, check: Check) -> Option<Violation> {
    if pod["spec"]["os"]["name"] == "windows" { None } else { check(pod) }
}

/// A pod whose users are not the node's may be root (KEP-127).
fn unless_own_users(pod: &Value, check: Check) -> Option<Violation> {
    if pod["spec"]["hostUsers"] == false { None } else { check(pod) }
}

fn violation(reason: &str, detail: String) -> Option<Violation> {
    Some(Violation { reason: reason.to_owned(), detail })
}

/// A violation of some containers; none where there are none.
fn of_containers(reason: &str, names: &[&str], detail: impl FnOnce(&str) -> String) -> Option<Violation> {
    if names.is_empty() { None } else { violation(reason, detail(&containers(names))) }
}

fn quoted<T: AsRef<str>>(words: impl IntoIterator<Item = T>) -> String {
    words.into_iter().map(|word| format!("\"{}\"", word.as_ref())).collect::<Vec<_>>().join(", ")
}

fn plural<'a>(count: usize, one: &'a str, many: &'a str) -> &'a str {
    if count == 1 { one } else { many }
}

/// Names of the containers that do something.
fn who(pod: &Value, does: impl Fn(&Value) -> bool) -> Vec<&str> {
    pods::containers(pod).filter(|container| does(container)).map(name).collect()
}

fn name(container: &Value) -> &str {
    container["name"].as_str().unwrap_or_default()
}

/// `container "a"`, `containers "a", "b"`.
fn containers(names: &[&str]) -> String {
    format!("{} {}", plural(names.len(), "container", "containers"), quoted(names))
}

/// `pod`, `containers "a", "b"`, `pod and container "a"`; `None` for nobody.
fn setters(is_pod: bool, names: &[&str]) -> Option<String> {
    match (is_pod, names.is_empty()) {
        (false, true) => None,
        (true, true) => Some("pod".to_owned()),
        (false, false) => Some(containers(names)),
        (true, false) => Some(format!("pod and {}", containers(names))),
    }
}

/// The value at a place of the pod's and of the containers' `securityContext`, for each that has one.
fn each_set<'a>(pod: &'a Value, pointer: &str) -> (Option<&'a Value>, Vec<(&'a str, &'a Value)>) {
    let at = |context: &'a Value| context.pointer(pointer).filter(|value| !value.is_null());
    let own = at(&pod["spec"]["securityContext"]);
    let of_containers = pods::containers(pod).filter_map(|c| Some((name(c), at(&c["securityContext"])?))).collect();
    (own, of_containers)
}

fn app_armor(pod: &Value) -> Option<Violation> {
    let is_bad = |kind: &Value| !matches!(kind.as_str(), Some("RuntimeDefault" | "Localhost"));
    let (own, each) = each_set(pod, "/appArmorProfile/type");
    let own = own.filter(|kind| is_bad(kind));
    let bad: Vec<_> = each.into_iter().filter(|(_, kind)| is_bad(kind)).collect();
    let kinds: BTreeSet<&str> = bad.iter().map(|(_, kind)| *kind).chain(own).filter_map(Value::as_str).collect();
    let names: Vec<&str> = bad.iter().map(|(name, _)| *name).collect();
    let is_allowed = |value: &str| value.is_empty() || value == "runtime/default" || value.starts_with("localhost/");
    let annotations: BTreeSet<String> = annotations(pod, "container.apparmor.security.beta.kubernetes.io/")
        .filter(|(_, value)| !is_allowed(value))
        .map(|(key, value)| format!("{key}={value:?}"))
        .collect();
    let mut who: Vec<String> = setters(own.is_some(), &names).into_iter().collect();
    if !annotations.is_empty() {
        who.push(plural(annotations.len(), "annotation", "annotations").to_owned());
    }
    if who.is_empty() {
        return None;
    }
    let values: Vec<String> = kinds.iter().map(ToString::to_string).chain(annotations).collect();
    let reason = plural(values.len(), "forbidden AppArmor profile", "forbidden AppArmor profiles");
    violation(reason, format!("{} must not set AppArmor profile type to {}", who.join(" and "), quoted(values)))
}

fn annotations<'a>(pod: &'a Value, prefix: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
    let all = pod["metadata"]["annotations"].as_object().into_iter().flatten();
    all.filter(move |(key, _)| key.starts_with(prefix))
        .map(|(key, value)| (key.as_str(), value.as_str().unwrap_or_default()))
}

/// Those that a container has anyway, but for `NET_RAW`.
const DEFAULT_CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

fn default_capabilities(pod: &Value) -> Option<Violation> {
    let (names, bad) = added(pod, &DEFAULT_CAPABILITIES);
    of_containers("non-default capabilities", &names, |who| not_included(who, &bad))
}

fn not_included(who: &str, bad: &BTreeSet<&str>) -> String {
    format!("{who} must not include {} in securityContext.capabilities.add", quoted(bad))
}

/// Who adds capabilities beyond those that are allowed, and which.
fn added<'a>(pod: &'a Value, allowed: &[&str]) -> (Vec<&'a str>, BTreeSet<&'a str>) {
    let mut bad = BTreeSet::new();
    let mut names = Vec::new();
    for container in pods::containers(pod) {
        let all = items(container, "/securityContext/capabilities/add").filter_map(Value::as_str);
        let more: Vec<&str> = all.filter(|capability| !allowed.contains(capability)).collect();
        if !more.is_empty() {
            names.push(name(container));
        }
        bad.extend(more);
    }
    (names, bad)
}

fn dropped_capabilities(pod: &Value) -> Option<Violation> {
    let drops_all = |container: &Value| items(container, "/securityContext/capabilities/drop").any(|c| c == "ALL");
    let missing = who(pod, |container| !drops_all(container));
    let (names, bad) = added(pod, &["NET_BIND_SERVICE"]);
    let mut details = Vec::new();
    if !missing.is_empty() {
        details.push(format!("{} must set securityContext.capabilities.drop=[\"ALL\"]", containers(&missing)));
    }
    if !names.is_empty() {
        details.push(not_included(&containers(&names), &bad));
    }
    if details.is_empty() { None } else { violation("unrestricted capabilities", details.join("; ")) }
}

fn host_namespaces(pod: &Value) -> Option<Violation> {
    let set = ["hostNetwork", "hostPID", "hostIPC"].into_iter().filter(|field| pod["spec"][field] == true);
    let set: Vec<String> = set.map(|field| format!("{field}=true")).collect();
    if set.is_empty() { None } else { violation("host namespaces", set.join(", ")) }
}

fn host_paths(pod: &Value) -> Option<Violation> {
    let bad = items(pod, "/spec/volumes").filter(|volume| pods::is_set(volume, "/hostPath"));
    let bad: Vec<&str> = bad.map(name).collect();
    let detail = || format!("{} {}", plural(bad.len(), "volume", "volumes"), quoted(&bad));
    if bad.is_empty() { None } else { violation("hostPath volumes", detail()) }
}

fn host_ports(pod: &Value) -> Option<Violation> {
    let of = |container: &Value| -> Vec<i64> {
        let ports = items(container, "/ports").filter_map(|port| port["hostPort"].as_i64());
        ports.filter(|port| *port != 0).collect()
    };
    let names = who(pod, |container| !of(container).is_empty());
    let ports: BTreeSet<String> = pods::containers(pod).flat_map(of).map(|port| port.to_string()).collect();
    if names.is_empty() {
        return None;
    }
    let (uses, word) = (plural(names.len(), "uses", "use"), plural(ports.len(), "hostPort", "hostPorts"));
    let ports: Vec<String> = ports.into_iter().collect();
    violation("hostPort", format!("{} {uses} {word} {}", containers(&names), ports.join(", ")))
}

fn probed_hosts(pod: &Value) -> Option<Violation> {
    const HANDLERS: [&str; 5] =
        ["/livenessProbe", "/readinessProbe", "/startupProbe", "/lifecycle/postStart", "/lifecycle/preStop"];
    let of = |container: &'_ Value| -> Vec<String> {
        let handlers = HANDLERS.iter().filter_map(|pointer| container.pointer(pointer));
        let hosts = handlers.flat_map(|handler| [&handler["httpGet"]["host"], &handler["tcpSocket"]["host"]]);
        hosts.filter_map(Value::as_str).filter(|host| !host.is_empty()).map(str::to_owned).collect()
    };
    let names: BTreeSet<&str> = who(pod, |container| !of(container).is_empty()).into_iter().collect();
    let names: Vec<&str> = names.into_iter().collect();
    let hosts: BTreeSet<String> = pods::containers(pod).flat_map(of).collect();
    if names.is_empty() {
        return None;
    }
    let uses = plural(names.len(), "uses", "use");
    let word = plural(hosts.len(), "probe or lifecycle host", "probe or lifecycle hosts");
    violation("probe or lifecycle host", format!("{} {uses} {word} {}", containers(&names), quoted(hosts)))
}

fn privileged(pod: &Value) -> Option<Violation> {
    let names = who(pod, |container| container["securityContext"]["privileged"] == true);
    of_containers("privileged", &names, |who| format!("{who} must not set securityContext.privileged=true"))
}

fn proc_mount(pod: &Value) -> Option<Violation> {
    let (_, each) = each_set(pod, "/procMount");
    let bad: Vec<_> = each.into_iter().filter(|(_, kind)| *kind != "Default").collect();
    let names: Vec<&str> = bad.iter().map(|(name, _)| *name).collect();
    let kinds: BTreeSet<&str> = bad.iter().filter_map(|(_, kind)| kind.as_str()).collect();
    of_containers("procMount", &names, |who| {
        format!("{who} must not set securityContext.procMount to {}", quoted(&kinds))
    })
}

const SE_LINUX: [&str; 4] = ["", "container_t", "container_init_t", "container_kvm_t"];
const SE_LINUX_31: [&str; 5] = ["", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"];

fn se_linux(pod: &Value, allowed: &[&str]) -> Option<Violation> {
    let text = |options: &'_ Value, field: &str| options[field].as_str().unwrap_or_default().to_owned();
    let is_bad = |options: &Value| {
        !allowed.contains(&text(options, "type").as_str())
            || ["user", "role"].iter().any(|field| !text(options, field).is_empty())
    };
    let (own, each) = each_set(pod, "/seLinuxOptions");
    let own = own.filter(|options| is_bad(options));
    let bad: Vec<_> = each.into_iter().filter(|(_, options)| is_bad(options)).collect();
    let names: Vec<&str> = bad.iter().map(|(name, _)| *name).collect();
    let who = setters(own.is_some(), &names)?;
    let all: Vec<&Value> = bad.iter().map(|(_, options)| *options).chain(own).collect();
    let types: BTreeSet<String> =
        all.iter().map(|options| text(options, "type")).filter(|kind| !allowed.contains(&kind.as_str())).collect();
    let mut data = Vec::new();
    if !types.is_empty() {
        data.push(format!("{} {}", plural(types.len(), "type", "types"), quoted(&types)));
    }
    for field in ["user", "role"] {
        if all.iter().any(|options| !text(options, field).is_empty()) {
            data.push(format!("{field} may not be set"));
        }
    }
    violation("seLinuxOptions", format!("{who} set forbidden securityContext.seLinuxOptions: {}", data.join("; ")))
}

fn seccomp_annotations(pod: &Value) -> Option<Violation> {
    const POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
    const CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
    let is_known = |key: &str| {
        let container = key.strip_prefix(CONTAINER);
        key == POD || container.is_some_and(|wanted| pods::containers(pod).any(|c| name(c) == wanted))
    };
    let is_allowed =
        |value: &str| matches!(value, "runtime/default" | "docker/default") || value.starts_with("localhost/");
    let bad: BTreeSet<String> = annotations(pod, "")
        .filter(|(key, value)| is_known(key) && !is_allowed(value))
        .map(|(key, value)| format!("{key}={value:?}"))
        .collect();
    let bad: Vec<String> = bad.into_iter().collect();
    let detail = || format!("forbidden {} {}", plural(bad.len(), "annotation", "annotations"), bad.join(", "));
    if bad.is_empty() { None } else { violation("seccompProfile", detail()) }
}

fn is_seccomp(kind: &Value) -> bool {
    matches!(kind.as_str(), Some("RuntimeDefault" | "Localhost"))
}

fn seccomp(pod: &Value) -> Option<Violation> {
    let (own, each) = each_set(pod, "/seccompProfile/type");
    let own = own.filter(|kind| !is_seccomp(kind));
    let bad: Vec<_> = each.into_iter().filter(|(_, kind)| !is_seccomp(kind)).collect();
    let names: Vec<&str> = bad.iter().map(|(name, _)| *name).collect();
    let who = setters(own.is_some(), &names)?;
    let kinds: BTreeSet<&str> = bad.iter().map(|(_, kind)| *kind).chain(own).filter_map(Value::as_str).collect();
    violation("seccompProfile", format!("{who} must not set securityContext.seccompProfile.type to {}", quoted(kinds)))
}

fn seccomp_everywhere(pod: &Value) -> Option<Violation> {
    if let Some(bad) = seccomp(pod) {
        return Some(bad);
    }
    if pods::is_set(pod, "/spec/securityContext/seccompProfile") {
        return None;
    }
    let silent = who(pod, |container| !pods::is_set(container, "/securityContext/seccompProfile"));
    of_containers("seccompProfile", &silent, |who| {
        format!("pod or {who} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"")
    })
}

/// The first so many are allowed.
fn sysctls(pod: &Value, allowed: usize) -> Option<Violation> {
    let is_allowed = |name: &str| SAFE_SYSCTLS.iter().take(allowed).any(|known| *known == name);
    let bad: Vec<&str> =
        items(pod, "/spec/securityContext/sysctls").map(name).filter(|name| !is_allowed(name)).collect();
    if bad.is_empty() { None } else { violation("forbidden sysctls", bad.join(", ")) }
}

fn windows_host_process(pod: &Value) -> Option<Violation> {
    let (own, each) = each_set(pod, "/windowsOptions/hostProcess");
    let names: Vec<&str> = each.into_iter().filter(|(_, set)| **set == true).map(|(name, _)| name).collect();
    let who = setters(own.is_some_and(|set| *set == true), &names)?;
    violation("hostProcess", format!("{who} must not set securityContext.windowsOptions.hostProcess=true"))
}

fn privilege_escalation(pod: &Value) -> Option<Violation> {
    let names = who(pod, |container| container["securityContext"]["allowPrivilegeEscalation"] != false);
    of_containers("allowPrivilegeEscalation != false", &names, |who| {
        format!("{who} must set securityContext.allowPrivilegeEscalation=false")
    })
}

fn volume_types(pod: &Value) -> Option<Violation> {
    const ALLOWED: [&str; 9] = [
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "image",
        "persistentVolumeClaim",
        "projected",
        "secret",
    ];
    let source = |volume: &Value| {
        let fields = volume.as_object().into_iter().flatten();
        let set = fields.filter(|(field, value)| *field != "name" && !value.is_null());
        set.map(|(field, _)| field.clone()).next().unwrap_or_else(|| "unknown".to_owned())
    };
    let bad: Vec<&Value> =
        items(pod, "/spec/volumes").filter(|volume| !ALLOWED.contains(&source(volume).as_str())).collect();
    if bad.is_empty() {
        return None;
    }
    let types: BTreeSet<String> = bad.iter().map(|volume| source(volume)).collect();
    let (volumes, uses) = (plural(bad.len(), "volume", "volumes"), plural(bad.len(), "uses", "use"));
    let word = plural(types.len(), "restricted volume type", "restricted volume types");
    let names = quoted(bad.iter().map(|volume| name(volume)));
    violation("restricted volume types", format!("{volumes} {names} {uses} {word} {}", quoted(types)))
}

fn run_as_non_root(pod: &Value) -> Option<Violation> {
    const REASON: &str = "runAsNonRoot != true";
    let (own, each) = each_set(pod, "/runAsNonRoot");
    let bad: Vec<&str> = each.into_iter().filter(|(_, set)| **set == false).map(|(name, _)| name).collect();
    if let Some(who) = setters(own.is_some_and(|set| *set == false), &bad) {
        return violation(REASON, format!("{who} must not set securityContext.runAsNonRoot=false"));
    }
    if own.is_some() {
        return None;
    }
    let silent = who(pod, |container| !pods::is_set(container, "/securityContext/runAsNonRoot"));
    of_containers(REASON, &silent, |who| format!("pod or {who} must set securityContext.runAsNonRoot=true"))
}

fn run_as_user(pod: &Value) -> Option<Violation> {
    let (own, each) = each_set(pod, "/runAsUser");
    let is_root = |user: &Value| user.as_i64() == Some(0);
    let names: Vec<&str> = each.into_iter().filter(|(_, user)| is_root(user)).map(|(name, _)| name).collect();
    let who = setters(own.is_some_and(is_root), &names)?;
    violation("runAsUser=0", format!("{who} must not set runAsUser=0"))
}
