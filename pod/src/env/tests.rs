use std::collections::BTreeMap;

use api::resources::ResourceList;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::*;

fn objects() -> Objects {
    let data = |pairs: &[(&str, &str)]| {
        Lookup::Found(pairs.iter().map(|(k, v)| ((*k).to_owned(), v.as_bytes().to_vec())).collect())
    };
    [
        ((Kind::ConfigMap, "cm".to_owned()), data(&[("a", "1"), ("b.c", "2"), ("x=y", "3")])),
        ((Kind::Secret, "s".to_owned()), data(&[("password", "p")])),
        ((Kind::Secret, "gone".to_owned()), Lookup::NotFound),
    ]
    .into()
}

fn made(container: Value, services: &[ServiceFacts]) -> Result<Env, String> {
    let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n"}})).unwrap();
    let allocatable = ResourceList::new();
    let facts = Facts { pod: &pod, host_ips: &[], pod_ips: &[], allocatable: &allocatable };
    let container = serde_json::from_value(container).unwrap();
    env(&container, &Inputs { facts, objects: &objects(), services }).map_err(|e| e.to_string())
}

fn pairs(env: &Env) -> BTreeMap<&str, &str> {
    env.variables.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect()
}

#[test]
fn later_ones_win_and_see_earlier_ones() {
    let env = made(
        json!({"name": "c", "envFrom": [{"configMapRef": {"name": "cm"}, "prefix": "P_"}, {"secretRef": {"name": "gone", "optional": true}}],
            "env": [
                {"name": "X", "value": "$(P_a)-$(Y)-$(WEB_SERVICE_HOST)"},
                {"name": "Y", "valueFrom": {"secretKeyRef": {"name": "s", "key": "password"}}},
                {"name": "P_a", "value": "mine"},
                {"name": "WHO", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                {"name": "NONE", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "zz", "optional": true}}},
            ]}),
        &[ServiceFacts {
            name: "web".into(),
            cluster_ip: "10.96.0.7".into(),
            ports: vec![ServicePort { name: "http".into(), protocol: "TCP".into(), port: 80 }],
        }],
    )
    .unwrap();
    let vars = pairs(&env);
    assert_eq!(vars["X"], "1-$(Y)-10.96.0.7");
    assert_eq!((vars["Y"], vars["P_a"], vars["P_b.c"], vars["WHO"]), ("p", "mine", "2", "p"));
    assert!(!vars.contains_key("NONE") && !vars.contains_key("P_x=y"));
    assert_eq!(
        env.warnings,
        ["Keys [x=y] from the EnvFrom configMap n/cm were skipped since they are considered invalid environment variable names."]
    );
    for (name, value) in [
        ("WEB_SERVICE_PORT", "80"),
        ("WEB_SERVICE_PORT_HTTP", "80"),
        ("WEB_PORT", "tcp://10.96.0.7:80"),
        ("WEB_PORT_80_TCP", "tcp://10.96.0.7:80"),
        ("WEB_PORT_80_TCP_PROTO", "tcp"),
        ("WEB_PORT_80_TCP_PORT", "80"),
        ("WEB_PORT_80_TCP_ADDR", "10.96.0.7"),
    ] {
        assert_eq!(vars[name], value, "{name}");
    }
}

#[test]
fn what_is_missing_is_named_as_upstream_names_it() {
    let of = |source: Value| made(json!({"name": "c", "env": [{"name": "A", "valueFrom": source}]}), &[]).unwrap_err();
    assert_eq!(of(json!({"configMapKeyRef": {"name": "cm", "key": "k"}})), "couldn't find key k in ConfigMap n/cm");
    assert_eq!(of(json!({"secretKeyRef": {"name": "gone", "key": "k"}})), "secret \"gone\" not found");
    assert_eq!(of(json!({"configMapKeyRef": {"name": "never", "key": "k"}})), "configmap \"never\" not found");
    let all = made(json!({"name": "c", "envFrom": [{"secretRef": {"name": "gone"}}]}), &[]).unwrap_err();
    assert_eq!(all, "secret \"gone\" not found");
}

#[test]
fn all_objects_that_are_named_are_found() {
    let container = serde_json::from_value(json!({"name": "c", "envFrom": [{"configMapRef": {"name": "a"}}],
        "env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "b", "key": "k"}}}, {"name": "Y", "value": "z"}]}))
    .unwrap();
    assert_eq!(references(&container), [(Kind::ConfigMap, "a".to_owned()), (Kind::Secret, "b".to_owned())].into());
}

#[test]
fn headless_services_have_no_variables() {
    let headless = ServiceFacts { name: "h".into(), cluster_ip: "None".into(), ports: vec![] };
    assert!(service_variables(&[headless]).is_empty());
}
