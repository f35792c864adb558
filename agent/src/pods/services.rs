//! Services as environment variables see them. Trimmed as they are decoded.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::client::watch::{Change, Collection, follow_map};

/// How long a container that starts waits until the Services were read for the first time.
const FIRST: Duration = Duration::from_secs(5);

type Known = BTreeMap<(Option<String>, Option<String>), Service>;

/// The Services of the cluster, by namespace and name.
#[derive(Debug, Clone)]
pub struct Services {
    known: Arc<RwLock<Known>>,
    read: watch::Receiver<bool>,
}

impl Services {
    /// Waits until they were read once, but not for ever. Whether they were.
    pub async fn ready(&self) -> bool {
        let mut read = self.read.clone();
        matches!(tokio::time::timeout(FIRST, read.wait_for(|read| *read)).await, Ok(Ok(_)))
    }

    /// Those of a namespace, and `default/kubernetes`, which every pod is told of.
    #[must_use]
    pub fn of(&self, namespace: &str) -> Vec<Service> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        let wanted = |(of, name): &(Option<String>, Option<String>)| {
            of.as_deref() == Some(namespace)
                || (of.as_deref() == Some("default") && name.as_deref() == Some("kubernetes"))
        };
        known.iter().filter(|(key, _)| wanted(key)).map(|(_, service)| service.clone()).collect()
    }

    fn absorb(&self, change: Change<Service>) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let key = |service: &Service| (service.metadata.namespace.clone(), service.metadata.name.clone());
        match change {
            Change::Replaced(all) => *known = all.into_iter().map(|service| (key(&service), service)).collect(),
            Change::Applied(service) => drop(known.insert(key(&service), service)),
            Change::Deleted(service) => drop(known.remove(&key(&service))),
        }
    }
}

/// Follows Services until the task is ended.
#[must_use]
pub fn follow(client: kube::Client) -> (Services, JoinHandle<()>) {
    let (was_read, read) = watch::channel(false);
    let services = Services { known: Arc::default(), read };
    let sink = services.clone();
    // Headless Services have no variables.
    let collection = Collection {
        path: "/api/v1/services".to_owned(),
        query: "labelSelector=%21service.kubernetes.io%2Fheadless".to_owned(),
    };
    let mut changes = follow_map(client, collection, trim);
    let task = tokio::spawn(async move {
        while let Some(change) = changes.recv().await {
            sink.absorb(change);
            // The first change is a whole list.
            was_read.send_if_modified(|read| !std::mem::replace(read, true));
        }
    });
    (services, task)
}

/// Only name, address and ports are told.
fn trim(service: Service) -> Service {
    let spec = service.spec.unwrap_or_default();
    Service {
        metadata: ObjectMeta {
            name: service.metadata.name,
            namespace: service.metadata.namespace,
            ..ObjectMeta::default()
        },
        spec: Some(ServiceSpec { cluster_ip: spec.cluster_ip, ports: spec.ports, ..ServiceSpec::default() }),
        status: None,
    }
}
