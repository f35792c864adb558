//! Which kinds the API server has.

use kube::Client;
use kube::core::ApiResource;
use kube::discovery::{Discovery, Scope, verbs};

/// A kind whose objects can be listed and deleted.
#[derive(Debug, Clone)]
pub(crate) struct KnownKind {
    pub(crate) resource: ApiResource,
    pub(crate) namespaced: bool,
    pub(crate) watchable: bool,
}

/// Asks for all kinds that can be listed and deleted, each in its preferred version.
pub(crate) async fn kinds(client: &Client) -> Result<Vec<KnownKind>, kube::Error> {
    let discovery = Discovery::new(client.clone()).run().await?;
    let mut kinds = Vec::new();
    for group in discovery.groups_alphabetical() {
        for (resource, capabilities) in group.recommended_resources() {
            if capabilities.supports_operation(verbs::LIST) && capabilities.supports_operation(verbs::DELETE) {
                kinds.push(KnownKind {
                    namespaced: capabilities.scope == Scope::Namespaced,
                    watchable: capabilities.supports_operation(verbs::WATCH),
                    resource,
                });
            }
        }
    }
    Ok(kinds)
}
