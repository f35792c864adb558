//! Root CA publisher: each namespace has the certificate that its pods verify the API server with.

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use machinery::{Outcome, Retry, WorkQueue};
use serde_json::json;

use crate::context::Context;
use crate::service_account::{create_once, is_active};

/// The name of the ConfigMap.
const CONFIG_MAP: &str = "kube-root-ca.crt";
/// The ConfigMaps of this name, as a field selector.
pub(crate) const ONLY_MAPS: &str = "metadata.name=kube-root-ca.crt";
const NAME: &str = "root-ca-cert-publisher";
const KEY: &str = "ca.crt";
const DESCRIPTION: &str = "kubernetes.io/description";
const TEXT: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the \
                    internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of \
                    Kubernetes clusters.";
const WORKERS: usize = 2;

pub(crate) fn start(context: &mut Context) {
    let queue = WorkQueue::new();
    let caches = context.caches.clone();
    let to = queue.clone();
    caches.namespaces.on_change(move |change| to.add(change.object().metadata.name.as_deref().unwrap_or_default()));
    let to = queue.clone();
    caches.root_ca_maps.on_change(move |change| {
        to.add(change.object().metadata.namespace.as_deref().unwrap_or_default());
    });
    let client = context.client(NAME);
    let authorities = context.config.authorities.clone();
    let (mut changed, namespaces, to) = (authorities.clone(), caches.namespaces.clone(), queue.clone());
    context.spawn_synced(async move {
        while changed.changed().await.is_ok() {
            namespaces.all().iter().for_each(|one| to.add(one.metadata.name.as_deref().unwrap_or_default()));
        }
    });
    context.spawn_workers(NAME, queue, WORKERS, (caches, client, authorities), |it, namespace| async move {
        let (caches, client, authorities) = &*it;
        let pem = &authorities.borrow().root_ca_pem.clone();
        if !caches.namespaces.get(&namespace).is_some_and(|namespace| is_active(&namespace)) {
            return Ok(Outcome::Done);
        }
        let api = Api::<ConfigMap>::namespaced(client.clone(), &namespace);
        match caches.root_ca_maps.get(&format!("{namespace}/{CONFIG_MAP}")) {
            None => create_once(api.create(&PostParams::default(), &config_map(&namespace, pem.clone())).await),
            Some(map) if is_right(&map, pem) => Ok(Outcome::Done),
            Some(_) => {
                let patch = json!({"metadata": {"annotations": {DESCRIPTION: TEXT}}, "data": {KEY: pem}});
                let done = api.patch(CONFIG_MAP, &PatchParams::default(), &Patch::Merge(patch)).await;
                done.map(|_| Outcome::Done).map_err(Retry::from)
            }
        }
    });
}

fn is_right(map: &ConfigMap, pem: &str) -> bool {
    let annotations = map.metadata.annotations.as_ref();
    map.data.as_ref().and_then(|data| data.get(KEY)).is_some_and(|known| known == pem)
        && annotations.is_some_and(|all| all.contains_key(DESCRIPTION))
}

fn config_map(namespace: &str, pem: String) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(CONFIG_MAP.into()),
            namespace: Some(namespace.to_owned()),
            annotations: Some([(DESCRIPTION.to_owned(), TEXT.to_owned())].into()),
            ..ObjectMeta::default()
        },
        data: Some([(KEY.to_owned(), pem)].into()),
        ..ConfigMap::default()
    }
}
