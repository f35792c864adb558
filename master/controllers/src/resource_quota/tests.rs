use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::plan::{counted, status};

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
