use super::*;
use crate::node::facts::Facts;

fn pod(cpu: &str, port: Option<i32>) -> Arc<Pod> {
    Arc::new(
        serde_json::from_value(serde_json::json!({"spec": {"containers": [{
            "name": "c", "resources": {"requests": {"cpu": cpu}},
            "ports": [{"containerPort": 80, "hostPort": port}]
        }]}}))
        .unwrap(),
    )
}

fn config() -> PodsConfig {
    let facts = Facts { cpus: 2, memory: 1 << 30, ..Facts::default() };
    PodsConfig {
        node_name: "n1".into(),
        allocatable: [("cpu".to_owned(), "2".parse().unwrap()), ("pods".to_owned(), "2".parse().unwrap())].into(),
        allowed_unsafe_sysctls: vec!["net.core.*".into()],
        ..PodsConfig::new(&crate::config::tests::minimal(), ResourceList::new(), &facts)
    }
}

fn node() -> OwnNode {
    OwnNode {
        labels: [("disk".to_owned(), "ssd".to_owned())].into(),
        taints: serde_json::from_value(serde_json::json!([{"key": "k", "effect": "NoSchedule"}])).unwrap(),
        ..OwnNode::default()
    }
}

const ABLE: Abilities = Abilities { app_armor: true, strict_groups: true };

fn asked(pod: &Pod, others: &[Arc<Pod>], node: &OwnNode, abilities: &Abilities) -> Answer {
    let others: Vec<_> =
        others.iter().enumerate().map(|(i, other)| (PodUid::new(i.to_string()), Arc::clone(other))).collect();
    decide(pod, &others, &HashSet::new(), node, abilities, &config())
}

fn words(answer: Answer) -> (String, String) {
    match answer {
        Answer::Decided(Admission::Rejected { reason, message }) => (reason, message),
        Answer::Decided(Admission::Admitted) => ("Admitted".to_owned(), String::new()),
        other => (format!("{other:?}"), String::new()),
    }
}

fn answer(pod: &Pod, others: &[Arc<Pod>], node: &OwnNode) -> (String, String) {
    words(asked(pod, others, node, &ABLE))
}

#[test]
fn what_fits_is_admitted() {
    assert_eq!(answer(&pod("1", Some(80)), &[pod("1", Some(81))], &node()).0, "Admitted");
}

#[test]
fn refusals_are_worded_as_the_kubelet_does() {
    let (reason, message) = answer(&pod("1500m", None), &[pod("1", None)], &node());
    assert_eq!(reason, "OutOfcpu");
    assert_eq!(message, "Node didn't have enough resource: cpu, requested: 1500, used: 1000, capacity: 2000");
    assert_eq!(answer(&pod("1m", None), &[pod("0", None), pod("0", None)], &node()).0, "OutOfpods");
    let (reason, message) = answer(&pod("1m", Some(80)), &[pod("1m", Some(80))], &node());
    assert_eq!(reason, "NodePorts");
    assert_eq!(message, "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports");
}

fn with(spec: serde_json::Value) -> Pod {
    serde_json::from_value(serde_json::json!({"spec": spec})).unwrap()
}

#[test]
fn labels_and_taints_of_the_node_count() {
    let selecting = |value: &str| with(serde_json::json!({"containers": [], "nodeSelector": {"disk": value}}));
    assert_eq!(answer(&selecting("ssd"), &[], &node()).0, "Admitted");
    let (reason, message) = answer(&selecting("hdd"), &[], &node());
    assert_eq!(reason, "NodeAffinity");
    assert_eq!(message, "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector");
    let affine = with(serde_json::json!({"containers": [], "affinity": {"nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchFields": [
            {"key": "metadata.name", "operator": "In", "values": ["n2"]}]}]}}}}));
    assert_eq!(answer(&affine, &[], &node()).0, "NodeAffinity");

    let mut tainted = node();
    tainted
        .taints
        .extend(serde_json::from_value::<Vec<_>>(serde_json::json!([{"key": "k", "effect": "NoExecute"}])).unwrap());
    let (reason, message) = answer(&with(serde_json::json!({"containers": []})), &[], &tainted);
    assert_eq!(reason, "TaintToleration");
    assert_eq!(message, "Predicate TaintToleration failed: node(s) had taints that the pod didn't tolerate");
    let tolerant = with(serde_json::json!({"containers": [], "tolerations": [{"operator": "Exists"}]}));
    assert_eq!(answer(&tolerant, &[], &tainted).0, "Admitted");
}

#[test]
fn unsafe_sysctls_need_the_administrators_word() {
    let asking = |name: &str| {
        let sysctls = serde_json::json!([{"name": name, "value": "1"}]);
        with(serde_json::json!({"containers": [], "securityContext": {"sysctls": sysctls}}))
    };
    assert_eq!(answer(&asking("net.core.somaxconn"), &[], &node()).0, "Admitted");
    let (reason, message) = answer(&asking("kernel.msgmax"), &[], &node());
    assert_eq!(reason, "SysctlForbidden");
    assert_eq!(message, "forbidden sysctl: \"kernel.msgmax\" not allowlisted");
}

#[test]
fn what_no_linux_node_can_do_is_refused() {
    let able = |spec: serde_json::Value, abilities: &Abilities| words(asked(&with(spec), &[], &node(), abilities));
    let windows = serde_json::json!({"containers": [], "os": {"name": "windows"}});
    let (reason, message) = able(windows, &ABLE);
    assert_eq!(reason, "PodOSNotSupported");
    assert_eq!(message, "Failed to admit pod as the OS field doesn't match node OS");
    let mut labelled = with(serde_json::json!({"containers": []}));
    labelled.metadata.labels = Some([("kubernetes.io/os".to_owned(), "windows".to_owned())].into());
    assert_eq!(answer(&labelled, &[], &node()).0, "PodOSSelectorNodeLabelDoesNotMatch");

    let strict = serde_json::json!({"containers": [], "securityContext": {"supplementalGroupsPolicy": "Strict"}});
    assert_eq!(able(strict.clone(), &ABLE).0, "Admitted");
    let unable = Abilities::default();
    let (reason, message) = able(strict, &unable);
    assert_eq!(reason, "SupplementalGroupsPolicyNotSupported");
    assert_eq!(message, "SupplementalGroupsPolicy=Strict is not supported in this node");

    let confined = |kind: &str| serde_json::json!({"containers": [{"name": "c", "securityContext": {"appArmorProfile": {"type": kind}}}]});
    assert_eq!(able(confined("RuntimeDefault"), &ABLE).0, "Admitted");
    assert_eq!(able(confined("Unconfined"), &unable).0, "Admitted");
    let (reason, message) = able(confined("RuntimeDefault"), &unable);
    assert_eq!(
        (reason.as_str(), message.as_str()),
        ("AppArmor", "Cannot enforce AppArmor: AppArmor is not enabled on the host")
    );
}

#[test]
fn extended_resources_that_the_node_does_not_know_are_not_its_own() {
    let asking =
        |name: &str| with(serde_json::json!({"containers": [{"name": "c", "resources": {"requests": {name: "1"}}}]}));
    assert_eq!(answer(&asking("example.com/token"), &[], &node()).0, "Admitted");
    let advertised = OwnNode { extended: [("example.com/token".to_owned(), "0".parse().unwrap())].into(), ..node() };
    assert_eq!(answer(&asking("example.com/token"), &[], &advertised).0, "OutOfexample.com/token");
    assert_eq!(answer(&asking("memory"), &[], &node()).0, "OutOfmemory");
    assert_eq!(answer(&asking("hugepages-2Mi"), &[], &node()).0, "OutOfhugepages-2Mi");
}

#[test]
fn critical_pods_take_the_place_of_others_where_that_is_all_they_lack() {
    let mut critical = Pod::clone(&pod("1500m", Some(80)));
    critical.spec.as_mut().unwrap().priority = Some(2_000_000_000);
    let preempted = |others: &[Arc<Pod>]| asked(&critical, others, &node(), &ABLE);
    assert_eq!(
        preempted(&[pod("1", None), pod("100m", None)]),
        Answer::Preempt(Room { victims: vec![PodUid::new("0")], resource: "pods".to_owned() })
    );
    assert_eq!(words(preempted(&[pod("1", Some(80))])).0, "NodePorts");
    let other = Arc::new(critical.clone());
    let mut second = critical.clone();
    second.spec.as_mut().unwrap().containers[0].ports = None;
    let (reason, message) = answer(&second, &[other], &node());
    assert_eq!(reason, "UnexpectedAdmissionError");
    assert!(
        message.ends_with("no set of running pods found to reclaim resources: [(res: cpu, q: 1000), ]"),
        "{message}"
    );
}
