//! The controllers: what makes a cluster out of objects.
//!
//! Each controller is a pure decision (`plan.rs` where there is more than a line of it) and a small loop around it:
//! [`machinery::Informer`]s call its handlers, which put keys into its queue; its workers take them out, decide, and
//! write through a client of their own identity. All controllers share one trimmed cache for each kind ([`Caches`]).
//!
//! To add a controller: a module with `start(&mut Context)` that registers handlers and spawns its workers, and a line in
//! [`run`].

mod api_service;
mod bootstrap_signer;
mod caches;
mod certificates;
mod cluster_role_aggregation;
mod context;
mod cron_job;
mod custom_resource_definition;
mod daemon_set;
mod deployment;
mod discovery;
mod disruption;
mod endpoint_slice;
mod expectations;
#[cfg(test)]
mod fake_api;
mod garbage;
pub mod hash;
mod horizontal_pod_autoscaler;
mod job;
mod merge;
mod namespace;
mod node_ipam;
mod node_lifecycle;
pub mod owner;
mod patience;
mod persistent_volume;
mod pod_control;
mod pod_gc;
pub mod pods;
mod replica_set;
mod resource_quota;
mod revisions;
mod root_ca;
mod secret_token;
mod service_account;
mod stateful_set;
mod taint_eviction;
#[cfg(test)]
mod testing;
mod token_cleaner;
mod trim;
mod validating_admission_policy_status;
mod volume_protection;

use tokio::task::JoinSet;

pub use caches::Caches;
pub use context::{
    ApiServerNames, Authorities, CheckApiService, ClientFor, Config, SecretToken, SignSecretToken, SigningCa,
};

use context::Context;

/// Why the controllers cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The CA that signs requests cannot be used.
    #[error("certificate signing")]
    Signing(#[from] certificates::SigningError),
}

/// Runs all controllers for ever. Dropping the future ends them, writes under way included.
///
/// # Errors
/// When the signing CA cannot be read.
pub async fn run(config: Config) -> Result<(), Error> {
    let caches = Caches::default();
    let watcher = (config.client_for)("shared-informers");
    let mut context = Context { config, caches, tasks: JoinSet::new() };
    replica_set::start(&mut context);
    deployment::start(&mut context);
    daemon_set::start(&mut context);
    stateful_set::start(&mut context);
    job::start(&mut context);
    cron_job::start(&mut context);
    disruption::start(&mut context);
    persistent_volume::start(&mut context);
    volume_protection::start(&mut context);
    endpoint_slice::start(&mut context);
    endpoint_slice::start_endpoints(&mut context);
    endpoint_slice::start_mirroring(&mut context);
    node_lifecycle::start(&mut context);
    taint_eviction::start(&mut context);
    pod_gc::start(&mut context);
    node_ipam::start(&mut context);
    namespace::start(&mut context);
    garbage::start(&mut context);
    service_account::start(&mut context);
    root_ca::start(&mut context);
    secret_token::start(&mut context);
    certificates::start(&mut context)?;
    custom_resource_definition::start(&mut context);
    api_service::start(&mut context);
    resource_quota::start(&mut context);
    validating_admission_policy_status::start(&mut context);
    horizontal_pod_autoscaler::start(&mut context);
    token_cleaner::start(&mut context);
    bootstrap_signer::start(&mut context);
    cluster_role_aggregation::start(&mut context);
    // Handlers are all there now: the watches may begin.
    let Context { caches, mut tasks, .. } = context;
    caches.watch(&watcher, &mut tasks);
    while let Some(ended) = tasks.join_next().await {
        match ended {
            Ok(()) => tracing::debug!("a controller task ended"),
            Err(error) => tracing::error!(%error, "a controller task failed"),
        }
    }
    Ok(())
}
