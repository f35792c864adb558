use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::is_to_be_counted;
use super::plan::{counted, lowers, status};

fn quota(hard: Value, status: Value) -> Value {
    json!({ "spec": { "hard": hard }, "status": status })
}

#[test]
fn a_status_counts_what_there_is_and_settles() {
    let mut quota = quota(json!({ "pods": "5", "requests.cpu": "2", "count/foos.example.com": "3" }), json!({}));
    let places: Vec<_> = counted(&quota).into_keys().collect();
    let place = |group: &str, resource: &str| (group.to_owned(), resource.to_owned());
    assert_eq!(places, [place("", "pods"), place("example.com", "foos")]);
    let pod = |phase: &str| {
        let containers = json!([{ "name": "c", "resources": { "requests": { "cpu": "500m" } } }]);
        json!({ "spec": { "containers": containers }, "status": { "phase": phase } })
    };
    let objects = BTreeMap::from([
        (place("", "pods"), vec![pod("Running"), pod("Pending"), pod("Succeeded")]),
        (place("example.com", "foos"), vec![json!({})]),
    ]);
    let new = status(&quota, &objects).unwrap();
    assert_eq!(new["used"], json!({ "pods": "2", "requests.cpu": "1", "count/foos.example.com": "1" }));
    quota["status"] = new;
    assert_eq!(status(&quota, &objects), None);
    quota["status"]["used"]["requests.cpu"] = "1000m".into();
    assert_eq!(status(&quota, &objects), None, "the same amount written otherwise");
}

#[test]
fn what_admission_charges_is_not_counted_at_once() {
    let object = |hard: &str, status_hard: &str, used: &str| {
        let status = json!({ "hard": { "pods": status_hard }, "used": { "pods": used } });
        serde_json::from_value(quota(json!({ "pods": hard }), status)).unwrap()
    };
    let (before, charged) = (object("3", "3", "1"), object("3", "3", "2"));
    assert!(!is_to_be_counted(Some(&before), &charged));
    assert!(is_to_be_counted(None, &charged));
    assert!(is_to_be_counted(Some(&before), &object("4", "3", "1")), "other bounds");
    assert!(is_to_be_counted(Some(&before), &object("3", "9", "1")), "a status that somebody wrote");
}

#[test]
fn what_was_taken_off_is_seen() {
    let quota = quota(json!({}), json!({ "used": { "pods": "2", "requests.cpu": "1" } }));
    let lowered = |pods: &str, cpu: &str| lowers(&json!({ "used": { "pods": pods, "requests.cpu": cpu } }), &quota);
    assert!(lowered("3", "900m"));
    assert!(!lowered("2", "1000m"));
    assert!(!lowered("3", "2"));
}
