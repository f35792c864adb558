//! The node's lease: the heartbeat that the node lifecycle controller goes by.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use kube::Api;
use kube::api::PostParams;
use tokio::sync::watch;

use crate::client::api_code;
use crate::client::backoff::Backoff;
use crate::client::watch::describe;

const NAMESPACE: &str = "kube-node-lease";

/// Renews the lease four times in its duration, as kubelet does.
pub struct LeaseKeeper {
    api: Api<Lease>,
    name: String,
    seconds: i32,
    /// The Node's uid, once it is registered.
    node: watch::Receiver<Option<String>>,
    lease: Option<Lease>,
}

impl LeaseKeeper {
    /// A keeper of the lease of node `name`.
    #[must_use]
    pub fn new(client: &kube::Client, name: &str, seconds: i32, node: watch::Receiver<Option<String>>) -> Self {
        Self { api: Api::namespaced(client.clone(), NAMESPACE), name: name.to_owned(), seconds, node, lease: None }
    }

    /// Runs until the node's registration ends.
    pub async fn run(mut self) {
        let period = Duration::from_secs(u64::try_from(self.seconds).unwrap_or(40)) / 4;
        let mut backoff = Backoff::new(Duration::from_millis(200), period);
        if self.node.wait_for(Option::is_some).await.is_err() {
            return;
        }
        loop {
            let pause = match self.renew().await {
                Ok(()) => {
                    backoff.reset();
                    period
                }
                Err(error) => {
                    // What we know of the lease may be what is wrong.
                    self.lease = None;
                    tracing::debug!(error = %describe(&error), "lease not renewed, will retry");
                    backoff.pause()
                }
            };
            // Cancel-safe: nothing is lost when either is dropped.
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                ended = self.node.changed() => if ended.is_err() { return },
            }
        }
    }

    async fn renew(&mut self) -> Result<(), kube::Error> {
        let known = match self.lease.take() {
            Some(lease) => Some(lease),
            None => match self.api.get(&self.name).await {
                Ok(lease) => Some(lease),
                Err(error) if api_code(&error) == Some(404) => None,
                Err(error) => return Err(error),
            },
        };
        let renewed = match known {
            Some(mut lease) => {
                self.fill(&mut lease);
                self.api.replace(&self.name, &PostParams::default(), &lease).await?
            }
            None => {
                let mut lease = Lease {
                    metadata: ObjectMeta {
                        name: Some(self.name.clone()),
                        namespace: Some(NAMESPACE.into()),
                        ..ObjectMeta::default()
                    },
                    spec: None,
                };
                self.fill(&mut lease);
                self.api.create(&PostParams::default(), &lease).await?
            }
        };
        self.lease = Some(renewed);
        Ok(())
    }

    fn fill(&self, lease: &mut Lease) {
        lease.metadata.managed_fields = None;
        if lease.metadata.owner_references.as_ref().is_none_or(Vec::is_empty)
            && let Some(uid) = self.node.borrow().clone()
        {
            // So that the lease goes with its Node.
            lease.metadata.owner_references = Some(vec![OwnerReference {
                api_version: "v1".into(),
                kind: "Node".into(),
                name: self.name.clone(),
                uid,
                ..OwnerReference::default()
            }]);
        }
        let spec = lease.spec.get_or_insert_with(LeaseSpec::default);
        spec.holder_identity = Some(self.name.clone());
        spec.lease_duration_seconds = Some(self.seconds);
        spec.renew_time = Some(MicroTime(Timestamp::now()));
    }
}
