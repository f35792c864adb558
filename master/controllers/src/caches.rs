//! One cache for each kind, shared by all controllers.

use std::sync::Arc;

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
use kube::Client;
use machinery::{Informer, trim_metadata};
use reflector::Collection;
use tokio::task::JoinSet;

use crate::{bootstrap_signer, root_ca, secret_token, token_cleaner, trim};

/// Declares the caches, a row each: name, kind, what is kept of its objects and by what they are found, and which of them there
/// are, if not all.
macro_rules! caches {
    ($($(#[$doc:meta])* $field:ident: $kind:ty = $informer:expr $(, $part:expr)?;)*) => {
        /// One trimmed copy of each kind that any controller asks about.
        #[derive(Clone)]
        #[allow(missing_docs, reason = "each field is the cache of the kind that it is named after")]
        pub struct Caches {
            $($(#[$doc])* pub $field: Arc<Informer<$kind>>,)*
        }

        impl Default for Caches {
            fn default() -> Self {
                Self { $($field: $informer,)* }
            }
        }

        impl Caches {
            /// Waits until every cache holds its first list.
            pub async fn synced(&self) {
                futures::join!($(self.$field.synced(),)*);
            }

            /// Starts the watches.
            pub(crate) fn watch(&self, client: &Client, tasks: &mut JoinSet<()>) {
                $(
                    let part = caches!(@part $kind $(, $part)?);
                    tasks.spawn(self.$field.clone().run(client.clone(), part));
                )*
            }
        }
    };
    (@part $kind:ty) => {
        Collection::of::<$kind>(None)
    };
    (@part $kind:ty, $part:expr) => {
        $part
    };
}

caches! {
    pods: Pod = Informer::new(trim::pod, trim::pod_groups);
    nodes: Node = Informer::plain(trim::node);
    /// Only those of nodes.
    leases: Lease = Informer::plain(|lease| trim_metadata(&mut lease.metadata)),
        Collection::of::<Lease>(Some("kube-node-lease"));
    namespaces: Namespace = Informer::plain(|namespace| trim_metadata(&mut namespace.metadata));
    replica_sets: ReplicaSet = Informer::new(|set| trim_metadata(&mut set.metadata), trim::owner_groups);
    replication_controllers: ReplicationController =
        Informer::new(|set| trim_metadata(&mut set.metadata), trim::owner_groups);
    deployments: Deployment = Informer::plain(|deployment| trim_metadata(&mut deployment.metadata));
    daemon_sets: DaemonSet = Informer::plain(|set| trim_metadata(&mut set.metadata));
    stateful_sets: StatefulSet = Informer::plain(|set| trim_metadata(&mut set.metadata));
    // Written back as a whole: only what the server keeps by itself is left out.
    claims: PersistentVolumeClaim = Informer::plain(|claim| claim.metadata.managed_fields = None);
    volumes: PersistentVolume = Informer::plain(|volume| volume.metadata.managed_fields = None);
    storage_classes: StorageClass = Informer::plain(|class| trim_metadata(&mut class.metadata));
    jobs: Job = Informer::new(|job| trim_metadata(&mut job.metadata), trim::owner_groups);
    cron_jobs: CronJob = Informer::plain(|cron| trim_metadata(&mut cron.metadata));
    disruption_budgets: PodDisruptionBudget = Informer::plain(|budget| trim_metadata(&mut budget.metadata));
    revisions: ControllerRevision = Informer::new(|revision| trim_metadata(&mut revision.metadata), trim::owner_groups);
    services: Service = Informer::plain(|service| trim_metadata(&mut service.metadata));
    endpoints: Endpoints = Informer::plain(|endpoints| trim_metadata(&mut endpoints.metadata));
    endpoint_slices: EndpointSlice = Informer::new(|slice| trim_metadata(&mut slice.metadata), trim::slice_groups);
    service_accounts: ServiceAccount = Informer::plain(trim::service_account);
    /// Only the ConfigMaps called kube-root-ca.crt.
    root_ca_maps: ConfigMap = Informer::plain(|map| trim_metadata(&mut map.metadata)),
        Collection::of::<ConfigMap>(None).fields(root_ca::ONLY_MAPS);
    /// Only kube-public/cluster-info.
    cluster_info: ConfigMap = Informer::plain(|map| trim_metadata(&mut map.metadata)),
        Collection::of::<ConfigMap>(Some(bootstrap_signer::NAMESPACE)).fields(bootstrap_signer::ONLY_INFO);
    /// Only Secrets of type bootstrap.kubernetes.io/token.
    bootstrap_tokens: Secret = Informer::plain(trim::bootstrap_token),
        Collection::of::<Secret>(Some("kube-system")).fields(token_cleaner::ONLY_TOKENS);
    /// Only Secrets of type kubernetes.io/service-account-token.
    account_tokens: Secret = Informer::plain(trim::account_token),
        Collection::of::<Secret>(None).fields(secret_token::ONLY_TOKENS);
    certificate_requests: CertificateSigningRequest = Informer::plain(|request| trim_metadata(&mut request.metadata));
    cluster_roles: ClusterRole = Informer::plain(|role| trim_metadata(&mut role.metadata));
    definitions: CustomResourceDefinition = Informer::plain(trim::definition);
    quotas: ResourceQuota = Informer::plain(|quota| trim_metadata(&mut quota.metadata));
    // Written back as a whole.
    api_services: APIService = Informer::new(|service| service.metadata.managed_fields = None, crate::api_service::groups);
    validating_policies: ValidatingAdmissionPolicy = Informer::plain(|policy| trim_metadata(&mut policy.metadata));
    autoscalers: HorizontalPodAutoscaler = Informer::plain(|autoscaler| autoscaler.metadata.managed_fields = None);
    service_cidrs: ServiceCIDR = Informer::plain(|range| trim_metadata(&mut range.metadata));
}
