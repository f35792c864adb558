//! HorizontalPodAutoscalers scale what they are about by what metrics say (`pkg/controller/podautoscaler`, KEP-853, KEP-2702).
//!
//! Everything that is asked of others is asked first (`measure.rs`), then it is decided (`plan.rs`: how many replicas the metrics ask for,
//! `replicas.rs`, within bounds and rates, `normalize.rs`), then it is written.

mod measure;
mod normalize;
mod plan;
mod replicas;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use api::selector::Selector;
use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DynamicObject, ListParams, PostParams};
use kube::core::ApiResource;
use kube::{Api, Client, ResourceExt};
use machinery::{Change, EventType, Outcome, Recorder, Retry, WorkQueue, key_of, reference};

use crate::context::{Caches, Context};
use crate::discovery::{self, Resources};
use crate::pod_control::answer;
use measure::{measure, no_match};
use normalize::Memory;
use plan::{Decision, Known, Measured, Unselected, decide};

const NAME: &str = "horizontal-pod-autoscaler";
const WORKERS: usize = 5;
/// `--horizontal-pod-autoscaler-sync-period`
const PERIOD: Duration = Duration::from_secs(15);
/// How often the target is scaled anew when others write it meanwhile.
const ATTEMPTS: usize = 5;

struct Controller {
    client: Client,
    caches: Caches,
    recorder: Recorder,
    resources: Resources,
    kept: Mutex<Kept>,
}

/// What is remembered from one look to the next.
#[derive(Default)]
struct Kept {
    /// By the keys of autoscalers.
    memories: HashMap<String, Memory>,
    /// Which pods they scale.
    selectors: BTreeMap<String, Selector>,
}

pub(crate) fn start(context: &mut Context) {
    let queue = WorkQueue::new();
    let caches = context.caches.clone();
    let wake = queue.clone();
    caches.autoscalers.on_change(move |change| {
        // What this controller writes itself is no reason to look again.
        let is_news = match change {
            Change::Updated(old, new) => old.spec != new.spec,
            Change::Added(_) | Change::Deleted(_) => true,
        };
        if is_news {
            wake.add(key_of(&change.object().metadata));
        }
    });
    let recorder = context.recorder(NAME, NAME);
    let client = context.client(NAME);
    let resources = Resources::new(client.clone());
    let controller = Controller { client, caches, recorder, resources, kept: Mutex::default() };
    context.spawn_workers(NAME, queue, WORKERS, controller, |it, key| async move { it.reconcile(&key).await });
}

/// What an autoscaler is about.
struct Target {
    api: Api<DynamicObject>,
    scale: Scale,
}

impl Controller {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn reconcile(&self, key: &str) -> Result<Outcome, Retry<kube::Error>> {
        let Some(autoscaler) = self.caches.autoscalers.get(key) else {
            let mut kept = self.kept();
            kept.memories.remove(key);
            kept.selectors.remove(key);
            return Ok(Outcome::Done);
        };
        let now = Timestamp::now();
        match self.target(&autoscaler).await {
            Ok(target) => self.scale(key, &autoscaler, target).await,
            Err(why) => {
                self.warn(&autoscaler, "FailedGetScale", why.clone());
                let status = autoscaler.status.clone().unwrap_or_default();
                let mut decision = Decision { desired: 0, rescale: None, events: Vec::new(), status };
                let text = format!("the HPA controller was unable to get the target's current scale: {why}");
                decision.set("AbleToScale", ("False", "FailedGetScale", &text), now);
                self.write(&autoscaler, decision).await;
            }
        }
        Ok(Outcome::After(PERIOD))
    }

    fn warn(&self, autoscaler: &HorizontalPodAutoscaler, reason: &'static str, text: String) {
        self.recorder.event(reference(autoscaler), EventType::Warning, reason, text);
    }

    async fn target(&self, autoscaler: &HorizontalPodAutoscaler) -> Result<Target, String> {
        let target = &autoscaler.spec.scale_target_ref;
        let version = target.api_version.as_deref().unwrap_or_default();
        let resource = self.resource(version, &target.kind).await?;
        let namespace = autoscaler.metadata.namespace.as_deref().unwrap_or_default();
        let api = Api::namespaced_with(self.client.clone(), namespace, &resource);
        match api.get_scale(&target.name).await {
            Ok(scale) => Ok(Target { api, scale }),
            Err(error) => {
                self.resources.forget(&resource.group, &target.kind);
                Err(answer(&error))
            }
        }
    }

    /// The resource of a kind, in whatever version it is served.
    async fn resource(&self, api_version: &str, kind: &str) -> Result<ApiResource, String> {
        let group = discovery::group_of(api_version);
        let found = self.resources.find(group, kind).await.map_err(|error| answer(&error))?;
        found.ok_or_else(|| no_match(kind, group))
    }

    async fn scale(&self, key: &str, autoscaler: &HorizontalPodAutoscaler, target: Target) {
        let replicas = counts(&target.scale);
        let selector = target.scale.status.as_ref().and_then(|status| status.selector.clone()).unwrap_or_default();
        let bounds = autoscaler.spec.min_replicas.unwrap_or(1)..=autoscaler.spec.max_replicas;
        let is_measured = bounds.contains(&replicas.0) && replicas.0 != 0;
        let (pods, measured) = match is_measured {
            true => self.measured(key, autoscaler, &selector).await,
            false => (Vec::new(), Ok(Vec::new())),
        };
        let now = Timestamp::now();
        let mut memory = self.kept().memories.remove(key).unwrap_or_default();
        let known = Known { autoscaler, replicas, pods: &pods, measured, now };
        let mut decision = decide(&known, &mut memory);
        for (reason, text) in std::mem::take(&mut decision.events) {
            self.warn(autoscaler, reason, text);
        }
        if let Some(why) = decision.rescale.take() {
            self.rescale(autoscaler, target, (&mut decision, &why), &mut memory).await;
        }
        self.kept().memories.insert(key.to_owned(), memory);
        self.write(autoscaler, decision).await;
    }

    async fn rescale(
        &self,
        autoscaler: &HorizontalPodAutoscaler,
        target: Target,
        (decision, why): (&mut Decision, &str),
        memory: &mut Memory,
    ) {
        let desired = decision.desired;
        let (current, _) = counts(&target.scale);
        match scaled(target, desired).await {
            Ok(()) => {
                let now = Timestamp::now();
                decision.scaled(Ok(()), now);
                memory.scaled(current, desired, now);
                let text = format!("New size: {desired}; reason: {why}");
                self.recorder.event(reference(autoscaler), EventType::Normal, "SuccessfulRescale", text);
            }
            Err(error) => {
                self.warn(autoscaler, "FailedRescale", format!("New size: {desired}; reason: {why}; error: {error}"));
                decision.scaled(Err(&error), Timestamp::now());
                let before = autoscaler.status.as_ref().map_or(0, |status| status.desired_replicas);
                decision.status.desired_replicas = before;
            }
        }
    }

    /// The pods, and what is measured of them.
    async fn measured(
        &self,
        key: &str,
        autoscaler: &HorizontalPodAutoscaler,
        selector: &str,
    ) -> (Vec<Pod>, Result<Vec<Result<Measured, String>>, Unselected>) {
        let namespace = autoscaler.metadata.namespace.as_deref().unwrap_or_default();
        if let Err(unselected) = self.selected(key, namespace, selector) {
            return (Vec::new(), Err(unselected));
        }
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let pods = api.list(&ListParams::default().labels(selector)).await.map(|list| list.items);
        let pods = match pods {
            Ok(pods) => pods,
            Err(error) => {
                tracing::warn!(autoscaler = key, %error, "the pods of an autoscaler cannot be listed");
                Vec::new()
            }
        };
        let mut all = Vec::new();
        for metric in autoscaler.spec.metrics.iter().flatten() {
            let about = metric.object.as_ref().map(|object| &object.described_object);
            let plural = match about {
                Some(about) => self.resource(about.api_version.as_deref().unwrap_or_default(), &about.kind).await.ok(),
                None => None,
            };
            let plural = plural.as_ref().map(|resource| resource.plural.as_str());
            all.push(measure(&self.client, namespace, selector, metric, plural).await);
        }
        (pods, Ok(all))
    }

    /// Whether pods are selected, and by this autoscaler alone (`validateAndParseSelector`).
    fn selected(&self, key: &str, namespace: &str, selector: &str) -> Result<(), Unselected> {
        if selector.is_empty() {
            let texts = ("selector is required", "the HPA target's scale is missing a selector");
            return Err(Unselected {
                reasons: ("SelectorRequired", "InvalidSelector"),
                texts: (texts.0.to_owned(), texts.1.to_owned()),
            });
        }
        let unselected =
            |reason: &'static str, text: String| Unselected { reasons: (reason, reason), texts: (text.clone(), text) };
        let parsed = Selector::parse(selector).map_err(|error| {
            let text = format!("couldn't convert selector into a corresponding internal selector object: {error}");
            unselected("InvalidSelector", text)
        })?;
        let mut kept = self.kept();
        kept.selectors.retain(|other, _| self.caches.autoscalers.get(other).is_some());
        kept.selectors.insert(key.to_owned(), parsed.clone());
        let labels = |pod: &Pod| pod.metadata.labels.clone().unwrap_or_default();
        let pods = self.caches.pods.in_namespace(namespace);
        let own: Vec<_> = pods.iter().map(|pod| labels(pod)).filter(|labels| parsed.matches(labels)).collect();
        let also = kept.selectors.iter().filter(|(other, selector)| {
            machinery::split_key(other).0 == namespace && own.iter().any(|labels| selector.matches(labels))
        });
        let named: Vec<String> = also
            .map(|(other, _)| {
                let (namespace, name) = machinery::split_key(other);
                format!("{{{name} {namespace}}}")
            })
            .collect();
        if named.len() > 1 {
            let all = named.join(" ");
            let text = format!("pods by selector {selector} are controlled by multiple HPAs: [{all}]");
            return Err(unselected("AmbiguousSelector", text));
        }
        Ok(())
    }

    async fn write(&self, autoscaler: &HorizontalPodAutoscaler, decision: Decision) {
        if autoscaler.status.as_ref() == Some(&decision.status) {
            return;
        }
        let namespace = autoscaler.metadata.namespace.as_deref().unwrap_or_default();
        let api: Api<HorizontalPodAutoscaler> = Api::namespaced(self.client.clone(), namespace);
        let changed = HorizontalPodAutoscaler { status: Some(decision.status), ..autoscaler.clone() };
        match api.replace_status(&autoscaler.name_any(), &PostParams::default(), &changed).await {
            // It is looked at again soon.
            Err(error) if !machinery::is_not_found(&error) && !machinery::is_conflict(&error) => {
                self.warn(autoscaler, "FailedUpdateStatus", answer(&error));
            }
            _ => {}
        }
    }
}

/// `spec.replicas` and `status.replicas`
fn counts(scale: &Scale) -> (i32, i32) {
    let wanted = scale.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(0);
    (wanted, scale.status.as_ref().map_or(0, |status| status.replicas))
}

/// Scales a target, whatever others write to it meanwhile.
async fn scaled(target: Target, replicas: i32) -> Result<(), String> {
    let Target { api, mut scale } = target;
    let name = scale.metadata.name.clone().unwrap_or_default();
    for left in (0..ATTEMPTS).rev() {
        scale.spec.get_or_insert_default().replicas = Some(replicas);
        match api.replace_scale(&name, &PostParams::default(), &scale).await {
            Ok(_) => return Ok(()),
            Err(error) if machinery::is_conflict(&error) && left > 0 => {
                scale = api.get_scale(&name).await.map_err(|error| answer(&error))?;
            }
            Err(error) => return Err(answer(&error)),
        }
    }
    Ok(())
}
