//! APIServices: those of definitions are made and deleted, and of each is said whether its server can be asked.

mod plan;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::{APIService, ServiceReference};
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::{Api, Client};
use machinery::{Outcome, Retry, WorkQueue};

use crate::context::{Caches, CheckApiService, Context};
use crate::endpoint_slice::SERVICE_NAME;
use plan::{Registration, Verdict};

/// The API server's own identity: in upstream these controllers are part of it.
const NAME: &str = "apiregistration";
const WORKERS: usize = 5;
/// How often a server that answers is asked again.
const RECHECK: Duration = Duration::from_secs(30);
/// How soon one is asked again that did not.
const RETRY: Duration = Duration::from_secs(2);

struct Controller {
    client: Client,
    caches: Caches,
    check: CheckApiService,
}

pub(crate) fn start(context: &mut Context) {
    let queue = WorkQueue::new();
    let caches = context.caches.clone();
    let to = queue.clone();
    caches.api_services.on_change(move |change| {
        to.add(change.object().metadata.name.as_deref().unwrap_or_default());
    });
    let (to, all) = (queue.clone(), caches.api_services.clone());
    caches.definitions.on_change(move |change| {
        let spec = &change.object().spec;
        spec.versions.iter().for_each(|version| to.add(format!("{}.{}", version.name, spec.group)));
        // A version may be gone.
        for service in all.indexed(&group(&spec.group)) {
            to.add(service.metadata.name.as_deref().unwrap_or_default());
        }
    });
    let wake = |queue: &Arc<WorkQueue>, caches: &Caches, namespace: Option<&str>, name: Option<&str>| {
        for service in caches.api_services.indexed(&behind(namespace, name)) {
            queue.add(service.metadata.name.as_deref().unwrap_or_default());
        }
    };
    let (to, all) = (queue.clone(), caches.clone());
    caches.services.on_change(move |change| {
        let meta = &change.object().metadata;
        wake(&to, &all, meta.namespace.as_deref(), meta.name.as_deref());
    });
    let (to, all) = (queue.clone(), caches.clone());
    caches.endpoint_slices.on_change(move |change| {
        let meta = &change.object().metadata;
        let service = meta.labels.as_ref().and_then(|labels| labels.get(SERVICE_NAME));
        wake(&to, &all, meta.namespace.as_deref(), service.map(String::as_str));
    });
    let check = context.config.check_api_service.clone();
    let controller = Controller { client: context.client(NAME), caches, check };
    context.spawn_workers(NAME, queue, WORKERS, controller, |it, key| async move { it.reconcile(&key).await });
}

fn group(group: &str) -> String {
    format!("group/{group}")
}

fn behind(namespace: Option<&str>, name: Option<&str>) -> String {
    format!("service/{}/{}", namespace.unwrap_or_default(), name.unwrap_or_default())
}

/// By what APIServices can be found: `group/GROUP`, `service/NAMESPACE/NAME`.
pub(crate) fn groups(service: &APIService) -> Vec<String> {
    let Some(spec) = &service.spec else { return Vec::new() };
    let own = group(spec.group.as_deref().unwrap_or_default());
    let service = spec.service.iter().map(|one| behind(one.namespace.as_deref(), one.name.as_deref()));
    std::iter::once(own).chain(service).collect()
}

impl Controller {
    fn api(&self) -> Api<APIService> {
        Api::all(self.client.clone())
    }

    async fn reconcile(&self, name: &str) -> Result<Outcome, Retry<kube::Error>> {
        let found = self.caches.api_services.get(name);
        let definitions = self.caches.definitions.all();
        match plan::registration(name, found.as_deref(), definitions.iter().map(Arc::as_ref)) {
            Registration::Keep => match found {
                Some(service) => self.judge(name, &service).await,
                None => Ok(Outcome::Done),
            },
            // What comes of it wakes this controller.
            Registration::Create(new) => written(self.api().create(&PostParams::default(), &new).await),
            Registration::Replace(new) => written(self.api().replace(name, &PostParams::default(), &new).await),
            Registration::Delete => {
                let uid = found.and_then(|service| service.metadata.uid.clone());
                let preconditions = Some(Preconditions { uid, resource_version: None });
                written(self.api().delete(name, &DeleteParams { preconditions, ..DeleteParams::default() }).await)
            }
        }
    }

    async fn judge(&self, name: &str, service: &APIService) -> Result<Outcome, Retry<kube::Error>> {
        let reference = service.spec.as_ref().and_then(|spec| spec.service.as_ref());
        let (verdict, next) = match reference {
            None => (Verdict::local(), Outcome::Done),
            Some(reference) => match self.unreachable(reference) {
                Some(verdict) => (verdict, Outcome::Done),
                None => {
                    let answered = (self.check)(name.to_owned()).await;
                    let pause = if answered.is_ok() { RECHECK } else { RETRY };
                    (Verdict::of_check(answered), Outcome::After(pause))
                }
            },
        };
        if let Some(judged) = plan::judged(service, verdict, Timestamp::now()) {
            written(self.api().replace_status(name, &PostParams::default(), &judged).await)?;
        }
        Ok(next)
    }

    fn unreachable(&self, reference: &ServiceReference) -> Option<Verdict> {
        let key = format!(
            "{}/{}",
            reference.namespace.as_deref().unwrap_or_default(),
            reference.name.as_deref().unwrap_or_default()
        );
        let slices = self.caches.endpoint_slices.indexed(&key);
        plan::unreachable(reference, self.caches.services.get(&key).as_deref(), slices.iter().map(Arc::as_ref))
    }
}

/// That it was made or is gone already is as good.
fn written<T>(result: Result<T, kube::Error>) -> Result<Outcome, Retry<kube::Error>> {
    match result {
        Err(error) if !(machinery::is_already_exists(&error) || machinery::is_not_found(&error)) => Err(error.into()),
        _ => Ok(Outcome::Done),
    }
}
