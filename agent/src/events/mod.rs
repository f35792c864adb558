//! Events (core/v1), recorded as client-go records them: filtered, aggregated and counted before they are sent.
//!
//! [`Recorder::event`] never waits. The queue is bounded: while the API server is away the oldest news is kept and later
//! news is dropped with a count, as an event is worth less than the memory it would pile up in.

mod correlate;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;
use tokio::sync::mpsc;

pub use correlate::{Correlator, Observation, Outcome};

use crate::client::api_code;
use crate::client::backoff::Backoff;
use crate::client::watch::describe;
use crate::rate::TokenBucket;

const QUEUE: usize = 256;
/// client-go gives an event up after this many tries.
const TRIES: u32 = 12;

/// `type` of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Information.
    Normal,
    /// Something that may need attention.
    Warning,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// Takes events from anywhere in the agent. Cheap to clone; the worker ends with the last clone.
#[derive(Clone)]
pub struct Recorder {
    queue: mpsc::Sender<Observation>,
    dropped: Arc<AtomicU64>,
}

impl Recorder {
    /// Starts the worker. `host` is the node's name; `qps` and `burst` are `eventRecordQPS` and `eventBurst`.
    #[must_use]
    pub fn start(client: kube::Client, host: &str, qps: i32, burst: i32) -> Self {
        let (queue, observations) = mpsc::channel(QUEUE);
        let sender = Sender { client, host: host.to_owned(), limit: TokenBucket::per_second(qps, burst) };
        tokio::spawn(sender.run(observations));
        Self { queue, dropped: Arc::default() }
    }

    /// A recorder that keeps nothing but hands every event to the returned receiver, for tests of its users.
    #[must_use]
    pub fn channel() -> (Self, mpsc::Receiver<Observation>) {
        let (queue, observations) = mpsc::channel(QUEUE);
        (Self { queue, dropped: Arc::default() }, observations)
    }

    /// Records an event about `object`.
    pub fn event(&self, object: &ObjectReference, kind: Kind, reason: &str, message: &str) {
        self.record(Observation {
            object: object.clone(),
            kind,
            reason: reason.to_owned(),
            message: message.to_owned(),
            annotations: BTreeMap::new(),
        });
    }

    /// Records an event that was put together elsewhere.
    pub fn record(&self, observation: Observation) {
        if self.queue.try_send(observation).is_err() {
            let dropped = self.dropped.fetch_add(1, Ordering::Relaxed) + 1;
            tracing::debug!(dropped, "event queue is full");
        }
    }
}

/// A reference to a Node, as kubelet makes it: the name stands for the uid, which is not known before registration.
#[must_use]
pub fn node_reference(name: &str) -> ObjectReference {
    ObjectReference {
        kind: Some("Node".into()),
        name: Some(name.to_owned()),
        uid: Some(name.to_owned()),
        ..ObjectReference::default()
    }
}

struct Sender {
    client: kube::Client,
    host: String,
    limit: TokenBucket,
}

impl Sender {
    async fn run(mut self, mut observations: mpsc::Receiver<Observation>) {
        let mut correlator = Correlator::default();
        while let Some(observation) = observations.recv().await {
            let now = jiff::Timestamp::now();
            if let Some(outcome) = correlator.observe(observation, now) {
                self.deliver(outcome, &mut correlator, now).await;
            }
        }
    }

    async fn deliver(&mut self, outcome: Outcome, correlator: &mut Correlator, now: jiff::Timestamp) {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(10));
        let mut outcome = outcome;
        for _ in 0..TRIES {
            self.limit.take().await;
            match self.send(&outcome, now).await {
                Ok(()) => return,
                // The event that was counted has expired on the server, or was deleted: make it anew.
                Err(error) if api_code(&error) == Some(404) && outcome.is_repeat() => outcome = outcome.anew(),
                Err(error) if api_code(&error).is_some_and(|code| code < 500 && code != 429) => {
                    tracing::debug!(error = %describe(&error), reason = %outcome.observation.reason, "event refused");
                    correlator.forget(&outcome);
                    return;
                }
                Err(error) => {
                    tracing::debug!(error = %describe(&error), "event not sent, will retry");
                    backoff.wait().await;
                }
            }
        }
        correlator.forget(&outcome);
    }

    async fn send(&self, outcome: &Outcome, now: jiff::Timestamp) -> Result<(), kube::Error> {
        let api: Api<Event> = Api::namespaced(self.client.clone(), outcome.namespace());
        if outcome.is_repeat() {
            let patch = json!({"count": outcome.count, "lastTimestamp": Time(now), "message": outcome.message});
            api.patch(&outcome.name, &PatchParams::default(), &Patch::Strategic(patch)).await?;
        } else {
            api.create(&PostParams::default(), &self.event(outcome, now)).await?;
        }
        Ok(())
    }

    fn event(&self, outcome: &Outcome, now: jiff::Timestamp) -> Event {
        let observation = &outcome.observation;
        Event {
            metadata: ObjectMeta {
                name: Some(outcome.name.clone()),
                namespace: Some(outcome.namespace().to_owned()),
                annotations: Some(observation.annotations.clone()).filter(|annotations| !annotations.is_empty()),
                ..ObjectMeta::default()
            },
            involved_object: observation.object.clone(),
            reason: Some(observation.reason.clone()),
            message: Some(outcome.message.clone()),
            type_: Some(observation.kind.as_str().to_owned()),
            count: Some(outcome.count),
            first_timestamp: Some(Time(outcome.first)),
            last_timestamp: Some(Time(now)),
            source: Some(EventSource { component: Some("kubelet".into()), host: Some(self.host.clone()) }),
            reporting_component: Some("kubelet".into()),
            reporting_instance: Some(self.host.clone()),
            ..Event::default()
        }
    }
}

#[cfg(test)]
mod tests;
