use serde_json::{Value, json};

use super::policy::{Level, Policy, Rule, Version};
use super::*;
use crate::testing::{Cluster, admin, on};

const LATEST: Rule = Rule { level: Level::Restricted, version: Version::Latest };

fn rule(level: Level, minor: u32) -> Rule {
    Rule { level, version: Version::Minor(minor) }
}

fn pod(spec: Value) -> Value {
    json!({ "metadata": { "name": "p" }, "spec": spec })
}

fn shown(pod: &Value, rule: Rule) -> Vec<String> {
    checks::violations(pod, rule).iter().map(ToString::to_string).collect()
}

#[test]
fn what_a_careful_pod_says_is_enough() {
    let context = json!({
        "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"], "add": ["NET_BIND_SERVICE"] },
        "runAsNonRoot": true, "runAsUser": 1000, "seccompProfile": { "type": "RuntimeDefault" },
    });
    let careful = pod(json!({
        "containers": [{ "name": "c", "securityContext": context }], "volumes": [{ "name": "v", "emptyDir": {} }],
    }));
    assert_eq!(shown(&careful, LATEST), [""; 0]);
    let plain = pod(json!({ "containers": [{ "name": "a" }, { "name": "b" }] }));
    assert_eq!(shown(&plain, Rule { level: Level::Baseline, ..LATEST }), [""; 0]);
    let wanted = [
        "allowPrivilegeEscalation != false (containers \"a\", \"b\" must set securityContext.allowPrivilegeEscalation=false)",
        "unrestricted capabilities (containers \"a\", \"b\" must set securityContext.capabilities.drop=[\"ALL\"])",
        "runAsNonRoot != true (pod or containers \"a\", \"b\" must set securityContext.runAsNonRoot=true)",
        "seccompProfile (pod or containers \"a\", \"b\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \
         \"Localhost\")",
    ];
    assert_eq!(shown(&plain, LATEST), wanted);
    let windows = pod(json!({ "os": { "name": "windows" }, "containers": [{ "name": "a" }] }));
    assert_eq!(shown(&windows, LATEST).len(), 1);
    assert_eq!(shown(&windows, rule(Level::Restricted, 24)).len(), 4);
}

#[test]
fn each_control_has_its_words() {
    let cases = [
        (
            json!({ "hostNetwork": true, "hostIPC": true }),
            json!({}),
            "host namespaces (hostNetwork=true, hostIPC=true)",
        ),
        (
            json!({ "volumes": [{ "name": "v", "hostPath": { "path": "/" } }] }),
            json!({}),
            "hostPath volumes (volume \"v\")",
        ),
        (
            json!({}),
            json!({ "ports": [{ "hostPort": 80 }, { "hostPort": 443 }] }),
            "hostPort (container \"c\" uses hostPorts 443, 80)",
        ),
        (
            json!({}),
            json!({ "livenessProbe": { "httpGet": { "host": "h" } }, "lifecycle": { "preStop": { "tcpSocket": { "host": "g" } } } }),
            "probe or lifecycle host (container \"c\" uses probe or lifecycle hosts \"g\", \"h\")",
        ),
        (
            json!({}),
            json!({ "securityContext": { "privileged": true } }),
            "privileged (container \"c\" must not set securityContext.privileged=true)",
        ),
        (
            json!({}),
            json!({ "securityContext": { "procMount": "Unmasked" } }),
            "procMount (container \"c\" must not set securityContext.procMount to \"Unmasked\")",
        ),
        (
            json!({}),
            json!({ "securityContext": { "capabilities": { "add": ["NET_RAW", "CHOWN", "BPF"] } } }),
            "non-default capabilities (container \"c\" must not include \"BPF\", \"NET_RAW\" in securityContext.capabilities.add)",
        ),
    ];
    baseline(&cases);
}

#[test]
fn each_control_of_the_pod_has_its_words() {
    let cases = [
        (
            json!({ "securityContext": { "appArmorProfile": { "type": "Unconfined" } } }),
            json!({ "securityContext": { "appArmorProfile": { "type": "Localhost" } } }),
            "forbidden AppArmor profile (pod must not set AppArmor profile type to \"Unconfined\")",
        ),
        (
            json!({ "securityContext": { "seLinuxOptions": { "type": "x", "role": "r" } } }),
            json!({ "securityContext": { "seLinuxOptions": { "user": "u" } } }),
            "seLinuxOptions (pod and container \"c\" set forbidden securityContext.seLinuxOptions: type \"x\"; user may not be \
             set; role may not be set)",
        ),
        (
            json!({ "securityContext": { "seccompProfile": { "type": "Unconfined" } } }),
            json!({}),
            "seccompProfile (pod must not set securityContext.seccompProfile.type to \"Unconfined\")",
        ),
        (
            json!({ "securityContext": { "sysctls": [{ "name": "net.ipv4.tcp_rmem" }, { "name": "kernel.msgmax" }] } }),
            json!({}),
            "forbidden sysctls (kernel.msgmax)",
        ),
        (
            json!({ "securityContext": { "windowsOptions": { "hostProcess": true } } }),
            json!({}),
            "hostProcess (pod must not set securityContext.windowsOptions.hostProcess=true)",
        ),
    ];
    baseline(&cases);
}

/// Specs with the fields of their one container, and the one thing that is said of them.
fn baseline(cases: &[(Value, Value, &str)]) {
    for (spec, container, wanted) in cases {
        let (mut spec, mut container) = (spec.clone(), container.clone());
        container["name"] = json!("c");
        spec["containers"] = json!([container]);
        assert_eq!(shown(&pod(spec), Rule { level: Level::Baseline, ..LATEST }), [*wanted]);
    }
}

#[test]
fn the_restricted_level_has_more() {
    let context = json!({
        "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"], "add": ["CHOWN"] }, "runAsNonRoot": false,
        "runAsUser": 0, "seccompProfile": { "type": "Localhost" },
    });
    let spec = json!({
        "containers": [{ "name": "c", "securityContext": context }],
        "volumes": [{ "name": "v", "hostPath": { "path": "/" } }, { "name": "w", "nfs": {} }],
    });
    let wanted = [
        "unrestricted capabilities (container \"c\" must not include \"CHOWN\" in securityContext.capabilities.add)",
        "restricted volume types (volumes \"v\", \"w\" use restricted volume types \"hostPath\", \"nfs\")",
        "runAsNonRoot != true (container \"c\" must not set securityContext.runAsNonRoot=false)",
        "runAsUser=0 (container \"c\" must not set runAsUser=0)",
    ];
    assert_eq!(shown(&pod(spec.clone()), LATEST), wanted);
    let mut own_users = spec;
    own_users["hostUsers"] = json!(false);
    assert_eq!(shown(&pod(own_users.clone()), LATEST), wanted[..2]);
    assert_eq!(shown(&pod(own_users), rule(Level::Restricted, 34)), wanted);
}

#[test]
fn releases_differ() {
    let sysctl = pod(json!({ "containers": [], "securityContext": { "sysctls": [{ "name": "net.ipv4.tcp_wmem" }] } }));
    assert_eq!(shown(&sysctl, rule(Level::Baseline, 31)).len(), 1);
    assert_eq!(shown(&sysctl, rule(Level::Baseline, 32)).len(), 0);
    let mut annotated = pod(json!({ "containers": [{ "name": "c" }] }));
    annotated["metadata"]["annotations"] = json!({ "container.seccomp.security.alpha.kubernetes.io/c": "unconfined" });
    let wanted =
        ["seccompProfile (forbidden annotation container.seccomp.security.alpha.kubernetes.io/c=\"unconfined\")"];
    assert_eq!(shown(&annotated, rule(Level::Baseline, 18)), wanted);
    assert_eq!(shown(&annotated, rule(Level::Baseline, 19)), [""; 0]);
}

#[test]
fn labels_say_what_is_asked() {
    let of = |labels: Value| Policy::of(&json!({ "metadata": { "labels": labels } }));
    let shown = |labels: Value| {
        let policy = of(labels).0;
        format!("{} {}", policy.enforce, policy.warn)
    };
    let key = |name: &str| format!("pod-security.kubernetes.io/{name}");
    assert_eq!(shown(json!({})), "privileged:latest privileged:latest");
    assert_eq!(
        shown(json!({ key("enforce"): "baseline", key("enforce-version"): "v1.30" })),
        "baseline:v1.30 baseline:v1.30"
    );
    assert_eq!(
        shown(json!({ key("enforce"): "restricted", key("warn"): "privileged" })),
        "restricted:latest privileged:latest"
    );
    assert_eq!(shown(json!({ key("enforce"): "strict", key("warn"): "all" })), "restricted:latest privileged:latest");
    let errors = of(json!({ key("enforce"): "strict", key("audit-version"): "1.2", key("warn-version"): "v1.02" })).1;
    let errors: Vec<String> = errors.into_iter().map(|(field, message)| format!("{field}: {message}")).collect();
    let wanted = [
        "metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: \"strict\": must be one of privileged, baseline, restricted",
        "metadata.labels[pod-security.kubernetes.io/audit-version]: Invalid value: \"1.2\": must be \"latest\" or \"v1.x\"",
        "metadata.labels[pod-security.kubernetes.io/warn-version]: Invalid value: \"v1.02\": must be \"latest\" or \"v1.x\"",
    ];
    assert_eq!(errors, wanted);
}

fn namespace(level: &str) -> Value {
    json!({ "metadata": { "name": "safe", "labels": { "pod-security.kubernetes.io/enforce": level } },
            "status": { "phase": "Active" } })
}

#[test]
fn pods_are_refused_and_their_makers_told() {
    let cluster = Cluster::with("namespaces", "", "safe", namespace("baseline"));
    let (user, host) = (admin(), pod(json!({ "hostPID": true, "containers": [{ "name": "c", "image": "i" }] })));
    let request = on(&user, Operation::Create, "pods", "safe", "p");
    let validate =
        |request: &Request<'_>, object: &Value| PodSecurity.validate(cluster.context(), request, Some(object));
    let refused = validate(&request, &host).unwrap_err();
    let words = "violates PodSecurity \"baseline:latest\": host namespaces (hostPID=true)";
    assert_eq!((refused.code, refused.message), (403, format!("pods \"p\" is forbidden: {words}")));
    // What runs already may be changed, but not to another image.
    let update = Request { operation: Operation::Update, old: Some(&host), ..request };
    assert!(validate(&update, &host).is_ok());
    let mut other = host.clone();
    other["spec"]["containers"][0]["image"] = json!("j");
    assert!(validate(&update, &other).is_err());
    assert!(validate(&Request { subresource: "status", ..update }, &other).is_ok());
    let deployment = json!({ "metadata": { "name": "d" }, "spec": { "template": host } });
    let request = Request { group: "apps", ..on(&user, Operation::Create, "deployments", "safe", "d") };
    assert!(validate(&request, &deployment).is_ok());
    let told = PodSecurity.warnings(cluster.context(), &request, &deployment);
    assert_eq!(told, [words.replacen("violates", "would violate", 1)]);
}

#[test]
fn namespaces_are_told_of_the_pods_that_they_have() {
    let cluster = Cluster::new();
    let (user, old, new) = (admin(), json!({ "metadata": { "name": "default" } }), namespace("restricted"));
    let request = Request { old: Some(&old), ..on(&user, Operation::Update, "namespaces", "", "default") };
    let told = PodSecurity.warnings(cluster.context(), &request, &new);
    // The pods of the test's cluster have no containers: nothing can be said against them.
    assert_eq!(told, [""; 0]);
    let bad = pod(json!({ "hostIPC": true, "containers": [] }));
    let cluster = Cluster::with("pods", "default", "zed", bad);
    let told = PodSecurity.warnings(cluster.context(), &request, &new);
    let first = "existing pods in namespace \"safe\" violate the new PodSecurity enforce level \"restricted:latest\"";
    assert_eq!(told, [first, "zed: host namespaces"]);
    let wrong = PodSecurity.validate(cluster.context(), &request, Some(&namespace("strict"))).unwrap_err();
    assert_eq!(wrong.code, 422);
    assert!(
        wrong
            .message
            .starts_with("Namespace \"default\" is invalid: metadata.labels[pod-security.kubernetes.io/enforce]")
    );
}
