//! What all controllers are started with: clients by identity, settings, the caches that they share.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use ipnet::IpNet;
use kube::Client;
use machinery::{Outcome, Recorder, Retry, WorkQueue, run_workers};
use tokio::sync::watch;
use tokio::task::JoinSet;

pub(crate) use crate::caches::Caches;

/// Makes the client of one controller. The argument is the controller's name as upstream's ServiceAccounts have it
/// (`deployment-controller`, `generic-garbage-collector`, …); `shared-informers` is who watches for all of them.
pub type ClientFor = Arc<dyn Fn(&str) -> Client + Send + Sync>;

/// Asks the server that the APIService of this name leads to, as the API server would, and says why it does not answer.
pub type CheckApiService = Arc<dyn Fn(String) -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// Signs the token that a Secret is to hold, and says why it cannot.
pub type SignSecretToken = Arc<dyn Fn(&SecretToken<'_>) -> Result<String, String> + Send + Sync>;

/// A token that is kept in a Secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SecretToken<'a> {
    /// Of Secret and ServiceAccount.
    pub namespace: &'a str,
    /// The ServiceAccount that it is of.
    pub account: &'a str,
    /// Its uid.
    pub account_uid: &'a str,
    /// The Secret.
    pub secret: &'a str,
}

/// What the controllers are told.
#[derive(Clone)]
pub struct Config {
    /// Clients by identity.
    pub client_for: ClientFor,
    /// Whether aggregated API servers can be asked.
    pub check_api_service: CheckApiService,
    /// Tokens of ServiceAccounts for Secrets.
    pub sign_secret_token: SignSecretToken,
    /// Pod addresses; each node gets a /24 (IPv4) or /64 (IPv6) out of it. None: nodes get no podCIDR.
    pub cluster_cidr: Option<IpNet>,
    /// Service addresses; never given to a node.
    pub service_cidr: Option<IpNet>,
    /// How long a node may be silent before it counts as lost.
    pub node_monitor_grace: Duration,
    /// Who signs, and who is trusted; both change while the cluster's CA is replaced.
    pub authorities: watch::Receiver<Authorities>,
    /// What no node may be certified as.
    pub api_server: ApiServerNames,
    /// How long a signed certificate is valid unless the request wants less.
    pub signing_duration: Duration,
}

/// The cluster's certificate authorities of a moment.
#[derive(Clone, PartialEq, Eq)]
pub struct Authorities {
    /// Signs client and serving certificates of the cluster.
    pub signing: SigningCa,
    /// What pods verify the API server with: published as ConfigMap kube-root-ca.crt in each namespace.
    pub root_ca_pem: String,
}

/// What the API server is called by.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ApiServerNames {
    /// The DNS names of its serving certificate.
    pub dns_names: Vec<String>,
    /// The addresses of its serving certificate.
    pub addresses: Vec<IpAddr>,
    /// The domain of the cluster's Services.
    pub domain: String,
    /// Of the machine that it runs on, by which a node that runs there, too, is known.
    pub boot_id: String,
}

/// The certificate authority that signs CertificateSigningRequests.
#[derive(Clone, PartialEq, Eq)]
pub struct SigningCa {
    /// Its certificate, PEM.
    pub certificate_pem: String,
    /// Its private key, PKCS#8 PEM.
    pub key_pem: String,
}

/// Everything that starting a controller needs.
pub(crate) struct Context {
    pub(crate) config: Config,
    pub(crate) caches: Caches,
    pub(crate) tasks: JoinSet<()>,
}

impl Context {
    pub(crate) fn client(&self, controller: &str) -> Client {
        (self.config.client_for)(controller)
    }

    /// A recorder whose events name `component`, written with the controller's identity.
    pub(crate) fn recorder(&mut self, controller: &str, component: &'static str) -> Recorder {
        let (recorder, writing) = Recorder::new(self.client(controller), component);
        self.tasks.spawn(writing);
        recorder
    }

    /// Runs loops that reconcile the keys of a queue, once the caches are filled.
    pub(crate) fn spawn_workers<C, F, R>(
        &mut self,
        name: &'static str,
        queue: Arc<WorkQueue>,
        workers: usize,
        controller: C,
        reconcile: F,
    ) where
        C: Send + Sync + 'static,
        F: Fn(Arc<C>, String) -> R + Send + Sync + 'static,
        R: Future<Output = Result<Outcome, Retry<kube::Error>>> + Send + 'static,
    {
        let controller = Arc::new(controller);
        self.spawn_synced(run_workers(name, queue, workers, move |key| reconcile(controller.clone(), key)));
    }

    /// Runs a controller once the caches are filled.
    pub(crate) fn spawn_synced(&mut self, work: impl Future<Output = ()> + Send + 'static) {
        let caches = self.caches.clone();
        self.tasks.spawn(async move {
            caches.synced().await;
            work.await;
        });
    }
}
