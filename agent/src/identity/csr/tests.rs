//! First certificates, from a small API server in memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use http::Method;
use serde_json::{Value, json};

use super::*;
use crate::client::testing::answered;
use crate::identity::tests::TestCa;

/// Requests by name.
#[derive(Clone, Default)]
struct Requests(Arc<Mutex<BTreeMap<String, Value>>>);

impl Requests {
    fn client(&self) -> kube::Client {
        let requests = self.clone();
        answered(move |asked| {
            let query = asked.uri.query().unwrap_or_default();
            if query.contains("watch=") {
                return None;
            }
            let (code, answer) =
                if asked.method == Method::POST { requests.create(asked.body) } else { requests.list(query) };
            Some((code, answer.to_string()))
        })
    }

    fn create(&self, object: Value) -> (u16, Value) {
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        let mut requests = self.0.lock().unwrap();
        if requests.contains_key(&name) {
            let exists = json!({"kind": "Status", "code": 409, "reason": "AlreadyExists", "message": "exists"});
            return (409, exists);
        }
        requests.insert(name, object.clone());
        (201, object)
    }

    fn list(&self, query: &str) -> (u16, Value) {
        let requests = self.0.lock().unwrap();
        let named = requests.iter().filter(|(name, _)| query.contains(&reflector::encode(name)));
        let items: Vec<&Value> = named.map(|(_, object)| object).collect();
        (200, json!({"metadata": {"resourceVersion": "1"}, "items": items}))
    }

    /// All that there are, as an administrator and a signer do it.
    fn approve(&self, ca: &TestCa) {
        let base64 = base64::engine::general_purpose::STANDARD;
        for object in self.0.lock().unwrap().values_mut() {
            let request = base64.decode(object["spec"]["request"].as_str().unwrap()).unwrap();
            let certificate = ca.sign(std::str::from_utf8(&request).unwrap());
            object["status"] = json!({"certificate": base64.encode(certificate)});
        }
    }

    fn deny(&self) {
        for object in self.0.lock().unwrap().values_mut() {
            object["status"] = json!({"conditions": [{"type": "Denied", "status": "True", "message": "no"}]});
        }
    }

    fn names(&self) -> Vec<String> {
        self.0.lock().unwrap().keys().cloned().collect()
    }
}

async fn ask(requests: &Requests, key: &Path, ca: &TestCa) -> Result<Identity, Error> {
    obtain_first(&requests.client(), "n1", key, std::slice::from_ref(&ca.der), Duration::from_secs(60)).await
}

#[tokio::test(start_paused = true)]
async fn what_is_approved_later_is_found_by_who_asks_again() {
    use std::os::unix::fs::PermissionsExt;
    let (dir, requests, ca) = (tempfile::tempdir().unwrap(), Requests::default(), TestCa::new("ca"));
    let key = dir.path().join("client.key.tmp");
    let pending = ask(&requests, &key, &ca).await.unwrap_err().to_string();
    let names = requests.names();
    assert!(pending.contains(&format!("kubectl certificate approve {}", names[0])), "{pending}");
    assert!(names[0].starts_with("node-csr-"), "{names:?}");
    assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    requests.approve(&ca);
    assert_eq!(ask(&requests, &key, &ca).await.unwrap().common_name, "system:node:n1");
    assert_eq!(requests.names(), names, "one request");
}

#[tokio::test(start_paused = true)]
async fn a_certificate_of_another_ca_and_a_denied_request_are_asked_for_anew() {
    let (dir, requests, ca) = (tempfile::tempdir().unwrap(), Requests::default(), TestCa::new("ca"));
    let key = dir.path().join("client.key.tmp");
    assert!(matches!(ask(&requests, &key, &ca).await, Err(Error::Pending { .. })));
    requests.approve(&TestCa::new("ca"));
    assert!(matches!(ask(&requests, &key, &ca).await, Err(Error::Pending { .. })));
    assert_eq!(requests.names().len(), 2);
    requests.deny();
    assert!(matches!(ask(&requests, &key, &ca).await, Err(Error::Denied { .. })));
    assert!(matches!(ask(&requests, &key, &ca).await, Err(Error::Pending { .. })));
    assert_eq!(requests.names().len(), 3);
}

#[test]
fn a_request_is_named_by_key_and_node() {
    let (key, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let name = |key, node| digested_name(key, node, &Purpose::Client);
    assert_eq!(name(&key, "n1"), name(&key, "n1"));
    assert_ne!(name(&key, "n1"), name(&key, "n2"));
    assert_ne!(name(&key, "n1"), name(&other, "n1"));
    // 32 bytes in 43 letters.
    assert_eq!(name(&key, "n1").len(), "node-csr-".len() + 43);
}
