use jiff::Timestamp;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::{APIService, ServiceReference};
use serde_json::{Value, json};

use super::plan::{Registration, Verdict, judged, registration, unreachable};

fn read<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn definition(served: bool) -> CustomResourceDefinition {
    read(json!({ "metadata": { "name": "as.g.io" }, "spec": {
        "group": "g.io", "scope": "Cluster", "names": { "plural": "as", "kind": "A" },
        "versions": [{ "name": "v1", "served": served, "storage": true }],
    }}))
}

#[test]
fn a_served_version_of_a_definition_has_an_api_service() {
    let (served, not_served) = ([definition(true)], [definition(false)]);
    let Registration::Create(new) = registration("v1.g.io", None, served.iter()) else { panic!("not made") };
    let spec = new.spec.clone().unwrap();
    assert_eq!((spec.group_priority_minimum, spec.version_priority), (1000, 100));
    assert_eq!(registration("v1.g.io", Some(&new), served.iter()), Registration::Keep);
    assert_eq!(registration("v1.g.io", Some(&new), not_served.iter()), Registration::Delete);
    assert_eq!(registration("v2.g.io", None, served.iter()), Registration::Keep);
    let mut changed = (*new).clone();
    changed.spec.as_mut().unwrap().version_priority = 1;
    assert_eq!(registration("v1.g.io", Some(&changed), served.iter()), Registration::Replace(new));
    changed.metadata.labels = None;
    assert_eq!(registration("v1.g.io", Some(&changed), served.iter()), Registration::Keep);
    assert_eq!(registration("v1.g.io", Some(&changed), not_served.iter()), Registration::Keep);
}

#[test]
fn what_is_missing_before_a_server_is_named() {
    let reference: ServiceReference = read(json!({ "namespace": "ns", "name": "s", "port": 443 }));
    let service = |port: u16, kind: &str| -> Service {
        read(json!({ "spec": { "type": kind, "ports": [{ "name": "https", "port": port }] } }))
    };
    let slice = |ready: bool| -> EndpointSlice {
        read(
            json!({ "addressType": "IPv4", "endpoints": [{ "addresses": ["10.0.0.1"], "conditions": { "ready": ready } }],
            "ports": [{ "name": "https", "port": 6443 }] }),
        )
    };
    let said = |service: Option<&Service>, slices: &[EndpointSlice]| {
        unreachable(&reference, service, slices.iter()).map(|verdict| (verdict.reason, verdict.message))
    };
    let missing = ("ServiceNotFound", "service/s in \"ns\" is not present".to_owned());
    assert_eq!(said(None, &[]), Some(missing));
    let other = ("ServicePortError", "service/s in \"ns\" is not listening on port 443".to_owned());
    assert_eq!(said(Some(&service(80, "ClusterIP")), &[slice(true)]), Some(other));
    let none = ("EndpointsNotFound", "cannot find endpointslices for service/s in \"ns\"".to_owned());
    assert_eq!(said(Some(&service(443, "ClusterIP")), &[]), Some(none));
    let unready = "endpointslices for service/s in \"ns\" have no addresses with port name \"https\"".to_owned();
    assert_eq!(said(Some(&service(443, "ClusterIP")), &[slice(false)]), Some(("MissingEndpoints", unready)));
    assert_eq!(said(Some(&service(443, "ClusterIP")), &[slice(false), slice(true)]), None);
    assert_eq!(said(Some(&service(80, "ExternalName")), &[]), None);
}

#[test]
fn a_condition_keeps_its_time_while_its_status_stays() {
    let (early, late): (Timestamp, Timestamp) =
        ("2026-01-01T00:00:00Z".parse().unwrap(), "2026-01-01T00:01:00Z".parse().unwrap());
    let failed = |why: &str| Verdict::of_check(Err(why.to_owned()));
    let first = judged(&APIService::default(), failed("a"), early).unwrap();
    assert_eq!(judged(&first, failed("a"), late), None);
    let time = |service: &APIService| {
        let conditions = service.status.clone().unwrap().conditions.unwrap();
        (conditions.len(), conditions[0].status.clone(), conditions[0].last_transition_time.clone().unwrap().0)
    };
    let second = judged(&first, failed("b"), late).unwrap();
    assert_eq!(time(&second), (1, "False".to_owned(), early));
    let third = judged(&second, Verdict::of_check(Ok(())), late).unwrap();
    assert_eq!(time(&third), (1, "True".to_owned(), late));
}
