//! Writes Events, counting repetitions instead of repeating them.

use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource};
use serde_json::json;
use tokio::sync::mpsc;

/// How many events may wait to be written; further ones are dropped, as events are best effort.
const WAITING: usize = 1000;
/// How many different events are remembered for counting.
const REMEMBERED: usize = 2048;
/// The API server refuses longer messages.
const LONGEST_MESSAGE: usize = 1024;

/// Event.type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventType {
    /// Only information.
    Normal,
    /// Something may need attention.
    Warning,
}

impl EventType {
    fn word(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

#[derive(Debug)]
struct Note {
    about: ObjectReference,
    kind: EventType,
    reason: &'static str,
    message: String,
    action: Option<&'static str>,
}

/// Hands events to a background task. Cloning is cheap.
#[derive(Clone)]
pub struct Recorder {
    sender: mpsc::Sender<Note>,
}

impl Recorder {
    /// A recorder for this component, and the task that writes its events; it ends when all recorders are dropped.
    #[allow(clippy::double_must_use)] // the task is of use only with its recorder
    #[must_use]
    pub fn new(client: Client, component: &'static str) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (sender, receiver) = mpsc::channel(WAITING);
        (Self { sender }, write_events(client, component, receiver))
    }

    /// Says what happened to an object. Never blocks.
    pub fn event(&self, about: ObjectReference, kind: EventType, reason: &'static str, message: impl Into<String>) {
        self.send(Note { about, kind, reason, message: message.into(), action: None });
    }

    /// As [`Recorder::event`], with the `action` field that events of the scheduler carry.
    pub fn event_with_action(
        &self,
        about: ObjectReference,
        kind: EventType,
        (reason, action): (&'static str, &'static str),
        message: impl Into<String>,
    ) {
        self.send(Note { about, kind, reason, message: message.into(), action: Some(action) });
    }

    fn send(&self, note: Note) {
        if let Err(mpsc::error::TrySendError::Full(note)) = self.sender.try_send(note) {
            tracing::debug!(reason = note.reason, "too many events are waiting, dropped one");
        }
    }
}

/// The reference by which an event names its object.
#[must_use]
pub fn reference<K: Resource<DynamicType = ()>>(object: &K) -> ObjectReference {
    let meta = object.meta();
    ObjectReference {
        api_version: Some(K::api_version(&()).into_owned()),
        kind: Some(K::kind(&()).into_owned()),
        namespace: meta.namespace.clone(),
        name: meta.name.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        field_path: None,
    }
}

struct Written {
    namespace: String,
    name: String,
    count: i32,
}

async fn write_events(client: Client, component: &'static str, mut notes: mpsc::Receiver<Note>) {
    let mut written: HashMap<String, Written> = HashMap::new();
    while let Some(note) = notes.recv().await {
        let same = format!(
            "{}\0{}\0{}\0{}",
            note.about.uid.as_deref().unwrap_or_default(),
            note.about.name.as_deref().unwrap_or_default(),
            note.reason,
            note.message
        );
        if let Some(earlier) = written.get_mut(&same)
            && count_again(&client, earlier).await
        {
            continue;
        }
        let event = event_from(note, component);
        let namespace = event.metadata.namespace.clone().unwrap_or_default();
        let name = event.metadata.name.clone().unwrap_or_default();
        match Api::<Event>::namespaced(client.clone(), &namespace).create(&PostParams::default(), &event).await {
            Ok(_) => {
                if written.len() >= REMEMBERED {
                    written.clear();
                }
                written.insert(same, Written { namespace, name, count: 1 });
            }
            Err(error) => tracing::debug!(%error, "event was not written"),
        }
    }
}

async fn count_again(client: &Client, earlier: &mut Written) -> bool {
    let api = Api::<Event>::namespaced(client.clone(), &earlier.namespace);
    let patch = json!({"count": earlier.count + 1, "lastTimestamp": Time(jiff::Timestamp::now())});
    let done = api.patch(&earlier.name, &PatchParams::default(), &Patch::Merge(patch)).await.is_ok();
    if done {
        earlier.count += 1;
    }
    done
}

fn event_from(note: Note, component: &str) -> Event {
    let now = Time(jiff::Timestamp::now());
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_nanos());
    let name = format!("{}.{nanos:x}", note.about.name.as_deref().unwrap_or_default());
    let namespace = note.about.namespace.clone().unwrap_or_else(|| "default".into());
    Event {
        metadata: ObjectMeta { name: Some(name), namespace: Some(namespace), ..ObjectMeta::default() },
        involved_object: note.about,
        type_: Some(note.kind.word().into()),
        reason: Some(note.reason.into()),
        message: Some(shorten(note.message)),
        action: note.action.map(Into::into),
        count: Some(1),
        first_timestamp: Some(now.clone()),
        last_timestamp: Some(now),
        source: Some(EventSource { component: Some(component.into()), host: None }),
        reporting_component: Some(component.into()),
        ..Event::default()
    }
}

fn shorten(mut message: String) -> String {
    if message.len() > LONGEST_MESSAGE {
        let mut end = LONGEST_MESSAGE;
        while !message.is_char_boundary(end) {
            end -= 1;
        }
        message.truncate(end);
    }
    message
}
