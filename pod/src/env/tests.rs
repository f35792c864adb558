use super::*;
use serde_json::json;

fn run(container: serde_json::Value, lookup: &Lookup<'_>) -> Result<BTreeMap<String, String>, String> {
    let container: Container = serde_json::from_value(container).unwrap();
    let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "ns"}})).unwrap();
    let services: Vec<Service> = serde_json::from_value(json!([
        {"metadata": {"name": "kubernetes", "namespace": "default"}, "spec": {"clusterIP": "10.96.0.1", "ports": [{"name": "https", "port": 443}]}},
        {"metadata": {"name": "my-db", "namespace": "ns"}, "spec": {"clusterIP": "10.96.0.9", "ports": [{"port": 53, "protocol": "UDP"}]}},
        {"metadata": {"name": "headless", "namespace": "ns"}, "spec": {"clusterIP": "None", "ports": [{"port": 1}]}},
        {"metadata": {"name": "other", "namespace": "else"}, "spec": {"clusterIP": "10.96.0.8", "ports": [{"port": 1}]}}
    ]))
    .unwrap();
    let facts = FieldFacts::default();
    environment(&Inputs { pod: &pod, container: &container, facts: &facts, services: &services, lookup })
        .map_err(|error| error.to_string())
}

fn objects(source: Source<'_>) -> Result<Option<BTreeMap<String, Vec<u8>>>, String> {
    Ok(match source {
        Source::ConfigMap("cm") => {
            Some(BTreeMap::from([("a".to_owned(), b"1".to_vec()), ("b".to_owned(), b"2".to_vec())]))
        }
        Source::Secret("s") => Some(BTreeMap::from([("k".to_owned(), b"hidden".to_vec())])),
        _ => None,
    })
}

#[test]
fn variables() {
    let env = run(
        json!({"name": "c", "envFrom": [{"prefix": "P_", "configMapRef": {"name": "cm"}}, {"secretRef": {"name": "no", "optional": true}}],
            "env": [{"name": "X", "value": "$(P_a)-$(NONE)-$$(P_a)"}, {"name": "P_b", "value": "over"},
                {"name": "HOST", "value": "$(MY_DB_SERVICE_HOST)"},
                {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                {"name": "K", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
                {"name": "GONE", "valueFrom": {"secretKeyRef": {"name": "s", "key": "x", "optional": true}}}]}),
        &objects,
    )
    .unwrap();
    for (name, value) in [
        ("P_a", "1"),
        ("P_b", "over"),
        ("X", "1-$(NONE)-$(P_a)"),
        ("HOST", "10.96.0.9"),
        ("NAME", "p"),
        ("K", "hidden"),
        ("KUBERNETES_SERVICE_HOST", "10.96.0.1"),
        ("KUBERNETES_SERVICE_PORT_HTTPS", "443"),
        ("MY_DB_PORT_53_UDP", "udp://10.96.0.9:53"),
        ("MY_DB_PORT_53_UDP_ADDR", "10.96.0.9"),
    ] {
        assert_eq!(env.get(name).map(String::as_str), Some(value), "{name}");
    }
    assert!(
        !env.contains_key("GONE") && !env.keys().any(|name| name.starts_with("OTHER") || name.starts_with("HEADLESS"))
    );
}

#[test]
fn errors() {
    let from = |source| run(json!({"name": "c", "env": [{"name": "X", "valueFrom": source}]}), &objects).unwrap_err();
    assert_eq!(from(json!({"configMapKeyRef": {"name": "no", "key": "a"}})), "configmap \"no\" not found");
    assert_eq!(from(json!({"secretKeyRef": {"name": "no", "key": "a"}})), "secret \"no\" not found");
    assert_eq!(from(json!({"configMapKeyRef": {"name": "cm", "key": "z"}})), "couldn't find key z in ConfigMap ns/cm");
    assert_eq!(from(json!({"secretKeyRef": {"name": "s", "key": "z"}})), "couldn't find key z in Secret ns/s");
}

#[test]
fn expansion() {
    let value = |name: &str| (name == "A").then(|| "x".to_owned());
    for (text, expected) in [
        ("$(A)", "x"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$x"),
        ("$(B)", "$(B)"),
        ("$A", "$A"),
        ("$(A", "$(A"),
        ("a$", "a$"),
        ("$()", "$()"),
    ] {
        assert_eq!(expand(text, value), expected, "{text}");
    }
}
