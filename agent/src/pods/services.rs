//! Services as environment variables see them. Trimmed as they are decoded.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::checkpoint::{read_versioned, write_versioned};
use crate::client::backoff::until;
use crate::client::watch::{Change, Collection, follow_map};

/// How long a container that starts waits until the Services were read for the first time.
const FIRST: Duration = Duration::from_secs(5);
/// How often they are written down at most, for an agent that is started while the API server is away.
const WRITE: Duration = Duration::from_secs(60);

type Known = BTreeMap<(Option<String>, Option<String>), Service>;

/// The Services of the cluster, by namespace and name.
#[derive(Debug, Clone)]
pub struct Services {
    known: Arc<RwLock<Known>>,
    read: watch::Receiver<bool>,
    /// Those of an earlier agent are known.
    recalled: bool,
}

/// The file that they are written to.
#[derive(Default, Serialize, Deserialize)]
struct Written {
    services: Vec<Service>,
}

impl Services {
    /// Waits until they were read once, but not for ever. Whether they were; else those that an earlier agent knew count.
    pub async fn ready(&self) -> bool {
        let mut read = self.read.clone();
        matches!(tokio::time::timeout(FIRST, read.wait_for(|read| *read)).await, Ok(Ok(_))) || self.recalled
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

    async fn write_down(&self, path: PathBuf) {
        let services = self.known.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        let written = tokio::task::spawn_blocking(move || write_versioned(&path, Written { services })).await;
        if let Ok(Err(error)) = written {
            tracing::warn!(%error, "Services not written down");
        }
    }

    fn absorb(&self, change: Change<Service>) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        match change {
            Change::Replaced(all) => *known = all.into_iter().map(|service| (key(&service), service)).collect(),
            Change::Applied(service) => drop(known.insert(key(&service), service)),
            Change::Deleted(service) => drop(known.remove(&key(&service))),
        }
    }
}

fn key(service: &Service) -> (Option<String>, Option<String>) {
    (service.metadata.namespace.clone(), service.metadata.name.clone())
}

/// Follows Services until the task is ended. `folder` is the agent's own.
#[must_use]
pub fn follow(client: kube::Client, folder: &Path) -> (Services, JoinHandle<()>) {
    let (was_read, read) = watch::channel(false);
    let path = folder.join("services.json");
    let recalled = read_versioned::<Written>(&path);
    let is_recalled = recalled.is_some();
    let known: Known = recalled.unwrap_or_default().services.into_iter().map(|s| (key(&s), s)).collect();
    let services = Services { known: Arc::new(RwLock::new(known)), read, recalled: is_recalled };
    let sink = services.clone();
    // Headless Services have no variables.
    let collection = Collection::all("/api/v1/services").labels("!service.kubernetes.io/headless");
    let mut changes = follow_map(client, collection, trim);
    let task = tokio::spawn(async move {
        let mut due: Option<Instant> = None;
        loop {
            // Cancel-safe: a channel loses nothing; a sleep is begun anew for the same instant.
            tokio::select! {
                change = changes.recv() => {
                    let Some(change) = change else { return };
                    sink.absorb(change);
                    // The first change is a whole list, and is written at once.
                    let first = was_read.send_if_modified(|read| !std::mem::replace(read, true));
                    due = due.or_else(|| Some(if first { Instant::now() } else { Instant::now() + WRITE }));
                }
                () = until(due) => {
                    due = None;
                    sink.write_down(path.clone()).await;
                }
            }
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
