//! ServiceAccounts: each namespace has one called `default`.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::PostParams;
use machinery::{Change, Outcome, Retry, WorkQueue};

use crate::context::Context;

const NAME: &str = "service-account-controller";
const DEFAULT: &str = "default";
const WORKERS: usize = 2;

pub(crate) fn start(context: &mut Context) {
    let queue = WorkQueue::new();
    let caches = context.caches.clone();
    let to = queue.clone();
    caches.namespaces.on_change(move |change| to.add(change.object().metadata.name.as_deref().unwrap_or_default()));
    let to = queue.clone();
    caches.service_accounts.on_change(move |change| {
        if let Change::Deleted(account) = change
            && account.metadata.name.as_deref() == Some(DEFAULT)
        {
            to.add(account.metadata.namespace.as_deref().unwrap_or_default());
        }
    });
    let client = context.client(NAME);
    context.spawn_workers(NAME, queue, WORKERS, (caches, client), |it, namespace| async move {
        let (caches, client) = &*it;
        let wanted = caches.namespaces.get(&namespace).is_some_and(|namespace| is_active(&namespace));
        if !wanted || caches.service_accounts.get(&format!("{namespace}/{DEFAULT}")).is_some() {
            return Ok(Outcome::Done);
        }
        let account = ServiceAccount {
            metadata: ObjectMeta {
                name: Some(DEFAULT.into()),
                namespace: Some(namespace.clone()),
                ..ObjectMeta::default()
            },
            ..ServiceAccount::default()
        };
        let result = Api::<ServiceAccount>::namespaced(client.clone(), &namespace)
            .create(&PostParams::default(), &account)
            .await;
        create_once(result)
    });
}

/// Whether new content may be made in the namespace.
pub(crate) fn is_active(namespace: &Arc<Namespace>) -> bool {
    namespace.metadata.deletion_timestamp.is_none()
        && namespace.status.as_ref().and_then(|status| status.phase.as_deref()) != Some("Terminating")
}

/// That it exists already, or that its namespace is going, is as good.
pub(crate) fn create_once<T>(result: Result<T, kube::Error>) -> Result<Outcome, Retry<kube::Error>> {
    match result {
        Ok(_) => Ok(Outcome::Done),
        Err(error)
            if machinery::is_already_exists(&error)
                || machinery::is_namespace_terminating(&error)
                || machinery::is_not_found(&error) =>
        {
            Ok(Outcome::Done)
        }
        Err(error) => Err(error.into()),
    }
}
