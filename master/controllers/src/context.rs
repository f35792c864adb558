//! What all controllers share: one cache for each kind, clients by identity, settings.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use ipnet::IpNet;
use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicy;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{
    ConfigMap, Endpoints, Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, ReplicationController,
    ResourceQuota, Secret, Service, ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::ClusterRole;
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::runtime::watcher;
use kube::{Api, Client};
use machinery::{Informer, Kind, Outcome, Recorder, Retry, WorkQueue, run_workers, trim_metadata};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::trim;

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

/// One trimmed copy of each kind that any controller asks about.
#[derive(Clone)]
#[allow(missing_docs, reason = "each field is the cache of the kind that it is named after")]
pub struct Caches {
    pub pods: Arc<Informer<Pod>>,
    pub nodes: Arc<Informer<Node>>,
    pub leases: Arc<Informer<Lease>>,
    pub namespaces: Arc<Informer<Namespace>>,
    pub replica_sets: Arc<Informer<ReplicaSet>>,
    pub replication_controllers: Arc<Informer<ReplicationController>>,
    pub deployments: Arc<Informer<Deployment>>,
    pub daemon_sets: Arc<Informer<DaemonSet>>,
    pub stateful_sets: Arc<Informer<StatefulSet>>,
    pub claims: Arc<Informer<PersistentVolumeClaim>>,
    pub volumes: Arc<Informer<PersistentVolume>>,
    pub storage_classes: Arc<Informer<StorageClass>>,
    pub jobs: Arc<Informer<Job>>,
    pub cron_jobs: Arc<Informer<CronJob>>,
    pub disruption_budgets: Arc<Informer<PodDisruptionBudget>>,
    pub revisions: Arc<Informer<ControllerRevision>>,
    pub services: Arc<Informer<Service>>,
    pub endpoints: Arc<Informer<Endpoints>>,
    pub endpoint_slices: Arc<Informer<EndpointSlice>>,
    pub service_accounts: Arc<Informer<ServiceAccount>>,
    /// Only the ConfigMaps called kube-root-ca.crt.
    pub root_ca_maps: Arc<Informer<ConfigMap>>,
    /// Only kube-public/cluster-info.
    pub cluster_info: Arc<Informer<ConfigMap>>,
    /// Only Secrets of type bootstrap.kubernetes.io/token.
    pub bootstrap_tokens: Arc<Informer<Secret>>,
    /// Only Secrets of type kubernetes.io/service-account-token.
    pub account_tokens: Arc<Informer<Secret>>,
    pub certificate_requests: Arc<Informer<CertificateSigningRequest>>,
    pub cluster_roles: Arc<Informer<ClusterRole>>,
    pub definitions: Arc<Informer<CustomResourceDefinition>>,
    pub quotas: Arc<Informer<ResourceQuota>>,
    pub api_services: Arc<Informer<APIService>>,
    pub validating_policies: Arc<Informer<ValidatingAdmissionPolicy>>,
    pub autoscalers: Arc<Informer<HorizontalPodAutoscaler>>,
    pub service_cidrs: Arc<Informer<ServiceCIDR>>,
}

impl Default for Caches {
    fn default() -> Self {
        Self {
            pods: Informer::new(trim::pod, trim::pod_groups),
            nodes: Informer::plain(trim::node),
            leases: Informer::plain(|lease| trim_metadata(&mut lease.metadata)),
            namespaces: Informer::plain(|namespace| trim_metadata(&mut namespace.metadata)),
            replica_sets: Informer::new(|set| trim_metadata(&mut set.metadata), trim::owner_groups),
            replication_controllers: Informer::new(|set| trim_metadata(&mut set.metadata), trim::owner_groups),
            deployments: Informer::plain(|deployment| trim_metadata(&mut deployment.metadata)),
            daemon_sets: Informer::plain(|set| trim_metadata(&mut set.metadata)),
            stateful_sets: Informer::plain(|set| trim_metadata(&mut set.metadata)),
            // Written back as a whole: only what the server keeps by itself is left out.
            claims: Informer::plain(|claim| claim.metadata.managed_fields = None),
            volumes: Informer::plain(|volume| volume.metadata.managed_fields = None),
            storage_classes: Informer::plain(|class| trim_metadata(&mut class.metadata)),
            jobs: Informer::new(|job| trim_metadata(&mut job.metadata), trim::owner_groups),
            cron_jobs: Informer::plain(|cron| trim_metadata(&mut cron.metadata)),
            disruption_budgets: Informer::plain(|budget| trim_metadata(&mut budget.metadata)),
            revisions: Informer::new(|revision| trim_metadata(&mut revision.metadata), trim::owner_groups),
            services: Informer::plain(|service| trim_metadata(&mut service.metadata)),
            endpoints: Informer::plain(|endpoints| trim_metadata(&mut endpoints.metadata)),
            endpoint_slices: Informer::new(|slice| trim_metadata(&mut slice.metadata), trim::slice_groups),
            service_accounts: Informer::plain(trim::service_account),
            root_ca_maps: Informer::plain(|map| trim_metadata(&mut map.metadata)),
            cluster_info: Informer::plain(|map| trim_metadata(&mut map.metadata)),
            bootstrap_tokens: Informer::plain(trim::bootstrap_token),
            account_tokens: Informer::plain(trim::account_token),
            certificate_requests: Informer::plain(|request| trim_metadata(&mut request.metadata)),
            cluster_roles: Informer::plain(|role| trim_metadata(&mut role.metadata)),
            definitions: Informer::plain(trim::definition),
            quotas: Informer::plain(|quota| trim_metadata(&mut quota.metadata)),
            // Written back as a whole.
            api_services: Informer::new(|service| service.metadata.managed_fields = None, crate::api_service::groups),
            validating_policies: Informer::plain(|policy| trim_metadata(&mut policy.metadata)),
            autoscalers: Informer::plain(|autoscaler| autoscaler.metadata.managed_fields = None),
            service_cidrs: Informer::plain(|range| trim_metadata(&mut range.metadata)),
        }
    }
}

impl Caches {
    /// Waits until every cache holds its first list.
    pub async fn synced(&self) {
        futures::join!(
            self.pods.synced(),
            self.nodes.synced(),
            self.leases.synced(),
            self.namespaces.synced(),
            self.replica_sets.synced(),
            self.replication_controllers.synced(),
            self.deployments.synced(),
            self.daemon_sets.synced(),
            self.stateful_sets.synced(),
            self.claims.synced(),
            self.volumes.synced(),
            self.storage_classes.synced(),
            self.jobs.synced(),
            self.cron_jobs.synced(),
            self.disruption_budgets.synced(),
            self.revisions.synced(),
            self.services.synced(),
            self.endpoints.synced(),
            self.endpoint_slices.synced(),
            self.service_accounts.synced(),
            self.root_ca_maps.synced(),
            self.cluster_info.synced(),
            self.bootstrap_tokens.synced(),
            self.account_tokens.synced(),
            self.certificate_requests.synced(),
            self.cluster_roles.synced(),
            self.definitions.synced(),
            self.quotas.synced(),
            self.api_services.synced(),
            self.validating_policies.synced(),
            self.autoscalers.synced(),
            self.service_cidrs.synced(),
        );
    }

    /// Starts the watches.
    pub(crate) fn watch(&self, client: &Client, tasks: &mut JoinSet<()>) {
        let all = watcher::Config::default;
        start(tasks, client, &self.pods, all());
        start(tasks, client, &self.nodes, all());
        let leases = Api::<Lease>::namespaced(client.clone(), "kube-node-lease");
        tasks.spawn(self.leases.clone().run(leases, all()));
        start(tasks, client, &self.namespaces, all());
        start(tasks, client, &self.replica_sets, all());
        start(tasks, client, &self.replication_controllers, all());
        start(tasks, client, &self.deployments, all());
        start(tasks, client, &self.daemon_sets, all());
        start(tasks, client, &self.stateful_sets, all());
        start(tasks, client, &self.claims, all());
        start(tasks, client, &self.volumes, all());
        start(tasks, client, &self.storage_classes, all());
        start(tasks, client, &self.jobs, all());
        start(tasks, client, &self.cron_jobs, all());
        start(tasks, client, &self.disruption_budgets, all());
        start(tasks, client, &self.revisions, all());
        start(tasks, client, &self.services, all());
        start(tasks, client, &self.endpoints, all());
        start(tasks, client, &self.endpoint_slices, all());
        start(tasks, client, &self.service_accounts, all());
        let root_ca = format!("metadata.name={}", crate::root_ca::CONFIG_MAP);
        start(tasks, client, &self.root_ca_maps, all().fields(&root_ca));
        let public = Api::<ConfigMap>::namespaced(client.clone(), crate::bootstrap_signer::NAMESPACE);
        let info = format!("metadata.name={}", crate::bootstrap_signer::CLUSTER_INFO);
        tasks.spawn(self.cluster_info.clone().run(public, all().fields(&info)));
        let tokens = Api::<Secret>::namespaced(client.clone(), "kube-system");
        tasks.spawn(self.bootstrap_tokens.clone().run(tokens, all().fields(crate::token_cleaner::ONLY_TOKENS)));
        start(tasks, client, &self.account_tokens, all().fields(crate::secret_token::ONLY_TOKENS));
        start(tasks, client, &self.certificate_requests, all());
        start(tasks, client, &self.cluster_roles, all());
        start(tasks, client, &self.definitions, all());
        start(tasks, client, &self.quotas, all());
        start(tasks, client, &self.api_services, all());
        start(tasks, client, &self.validating_policies, all());
        start(tasks, client, &self.autoscalers, all());
        start(tasks, client, &self.service_cidrs, all());
    }
}

fn start<K: Kind>(tasks: &mut JoinSet<()>, client: &Client, informer: &Arc<Informer<K>>, config: watcher::Config) {
    tasks.spawn(informer.clone().run(Api::all(client.clone()), config));
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
