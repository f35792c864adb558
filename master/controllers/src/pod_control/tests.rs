use std::sync::{Arc, Mutex};

use http::Method;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::Pod;
use machinery::Recorder;
use serde_json::json;

use super::PodControl;
use crate::owner::Claims;
use crate::testing;

#[tokio::test]
async fn an_owner_that_the_cache_does_not_show_going_adopts_no_pods() {
    let meta = json!({ "name": "x", "namespace": "n", "uid": "u" });
    let cached: ReplicaSet = serde_json::from_value(json!({ "metadata": meta })).unwrap();
    let mut live = json!({ "apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": meta });
    live["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = asked.clone();
    let client =
        testing::client(&Arc::new(Mutex::new(live)), move |method, _| seen.lock().unwrap().push(method.clone()));
    let (recorder, _) = Recorder::new(client.clone(), "test");
    let control = PodControl { client, recorder, expectations: Arc::default() };
    let pod = |name: &str| Arc::new(serde_json::from_value::<Pod>(json!({ "metadata": { "name": name } })).unwrap());
    let claims = Claims { owned: vec![pod("own")], adopt: vec![pod("a"), pod("b")], release: Vec::new() };
    let owned = control.claim(&cached, claims).await.unwrap();
    assert_eq!(owned, [pod("own")]);
    assert_eq!(*asked.lock().unwrap(), [Method::GET], "it is asked once, and nothing is written");
}
