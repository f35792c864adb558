//! The FlowSchemas and PriorityLevelConfigurations that every cluster has from the start
//! (`apiserver/pkg/apis/flowcontrol/bootstrap`).

use serde_json::{Value, json};

const GROUP: &str = "flowcontrol.apiserver.k8s.io/v1";

/// (name, nominal shares, lendable percent, queues and hand size)
type Level = (&'static str, u32, u32, Option<(u32, u32)>);

const LEVELS: [Level; 7] = [
    ("catch-all", 5, 0, None),
    ("system", 30, 33, Some((64, 6))),
    ("node-high", 40, 25, Some((64, 6))),
    ("leader-election", 10, 0, Some((16, 4))),
    ("workload-high", 40, 50, Some((128, 6))),
    ("workload-low", 100, 90, Some((128, 6))),
    ("global-default", 20, 50, Some((128, 6))),
];

/// (name, priority level, precedence, what tells flows apart, subjects)
type Schema = (&'static str, &'static str, u32, &'static str, &'static [Subject]);

#[derive(Clone, Copy)]
enum Subject {
    Group(&'static str),
    User(&'static str),
    /// All ServiceAccounts of kube-system.
    SystemAccounts,
}

const EVERYBODY: &[Subject] = &[Subject::Group("system:unauthenticated"), Subject::Group("system:authenticated")];
const CONTROLLERS: Subject = Subject::User("system:kube-controller-manager");
const SCHEDULER: Subject = Subject::User("system:kube-scheduler");
const NODES: &[Subject] = &[Subject::Group("system:nodes")];

const SCHEMAS: [Schema; 11] = [
    ("exempt", "exempt", 1, "", &[Subject::Group("system:masters")]),
    ("probes", "exempt", 2, "", EVERYBODY),
    ("system-leader-election", "leader-election", 100, "ByUser", &[CONTROLLERS, SCHEDULER, Subject::SystemAccounts]),
    ("system-node-high", "node-high", 400, "ByUser", NODES),
    ("system-nodes", "system", 500, "ByUser", NODES),
    ("kube-controller-manager", "workload-high", 800, "ByNamespace", &[CONTROLLERS]),
    ("kube-scheduler", "workload-high", 800, "ByNamespace", &[SCHEDULER]),
    ("kube-system-service-accounts", "workload-high", 900, "ByNamespace", &[Subject::SystemAccounts]),
    ("service-accounts", "workload-low", 9_000, "ByUser", &[Subject::Group("system:serviceaccounts")]),
    ("global-default", "global-default", 9_900, "ByUser", EVERYBODY),
    ("catch-all", "catch-all", 10_000, "ByUser", EVERYBODY),
];

/// (path of the collection, object) of each.
pub(crate) fn objects() -> Vec<(String, Value)> {
    let path = |plural: &str| format!("/apis/{GROUP}/{plural}");
    let exempt = json!({ "type": "Exempt", "exempt": { "nominalConcurrencyShares": 0, "lendablePercent": 0 } });
    let levels = std::iter::once(("exempt", exempt)).chain(LEVELS.iter().map(|level| (level.0, limited(level))));
    let levels = levels
        .map(|(name, spec)| (path("prioritylevelconfigurations"), object("PriorityLevelConfiguration", name, spec)));
    let schemas = SCHEMAS.iter().map(|one| (path("flowschemas"), object("FlowSchema", one.0, schema(one))));
    levels.chain(schemas).collect()
}

fn object(kind: &str, name: &str, spec: Value) -> Value {
    let annotations = json!({ "apf.kubernetes.io/autoupdate-spec": "true" });
    json!({ "apiVersion": GROUP, "kind": kind, "metadata": { "name": name, "annotations": annotations }, "spec": spec })
}

fn limited((_, shares, lendable, queues): &Level) -> Value {
    let response = match queues {
        None => json!({ "type": "Reject" }),
        Some((queues, hand)) => {
            json!({ "type": "Queue", "queuing": { "queues": queues, "handSize": hand, "queueLengthLimit": 50 } })
        }
    };
    json!({
        "type": "Limited",
        "limited": { "nominalConcurrencyShares": shares, "lendablePercent": lendable, "limitResponse": response },
    })
}

fn schema((name, level, precedence, method, subjects): &Schema) -> Value {
    let subject = |subject: &Subject| match subject {
        Subject::Group(name) => json!({ "kind": "Group", "group": { "name": name } }),
        Subject::User(name) => json!({ "kind": "User", "user": { "name": name } }),
        Subject::SystemAccounts => {
            json!({ "kind": "ServiceAccount", "serviceAccount": { "name": "*", "namespace": "kube-system" } })
        }
    };
    let mut rule = rules(name);
    rule["subjects"] = subjects.iter().map(subject).collect::<Vec<_>>().into();
    let mut spec = json!({
        "priorityLevelConfiguration": { "name": level }, "matchingPrecedence": precedence, "rules": [rule],
    });
    if !method.is_empty() {
        spec["distinguisherMethod"] = json!({ "type": method });
    }
    spec
}

/// What a schema is about: everything, but for a few.
fn rules(name: &str) -> Value {
    let on = |verbs: &[&str], group: &str, resources: &[&str], cluster: bool| {
        let mut rule = json!({ "verbs": verbs, "apiGroups": [group], "resources": resources, "namespaces": ["*"] });
        if cluster {
            rule["clusterScope"] = true.into();
        }
        rule
    };
    match name {
        "probes" => {
            json!({ "nonResourceRules": [{ "verbs": ["get"], "nonResourceURLs": ["/healthz", "/readyz", "/livez"] }] })
        }
        "system-leader-election" => {
            json!({ "resourceRules": [on(&["get", "create", "update"], "coordination.k8s.io", &["leases"], false)] })
        }
        "system-node-high" => json!({ "resourceRules": [
            on(&["*"], "", &["nodes", "nodes/status"], true),
            on(&["*"], "coordination.k8s.io", &["leases"], false),
        ] }),
        _ => json!({
            "resourceRules": [on(&["*"], "*", &["*"], true)],
            "nonResourceRules": [{ "verbs": ["*"], "nonResourceURLs": ["*"] }],
        }),
    }
}
