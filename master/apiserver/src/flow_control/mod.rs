//! Priority and fairness (KEP-1040; `apiserver/pkg/util/flowcontrol`): FlowSchemas say which priority level a request belongs
//! to, and who may send how many requests at once is said by the level. A level is sure of its seats but for those that it
//! lends, and takes more while nobody else needs them; requests beyond wait in queues, one after the other of each flow.
//!
//! A request takes one seat, and a list as many as it is large (`width.rs`).
//!
//! Simpler than upstream: what watchers cost a write is not counted, and levels borrow at once instead of every ten seconds.

mod defaults;
mod flow_schema;
mod seats;
mod status;
mod width;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use auth::{Attributes, Observer};
use http::header::{HeaderName, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use serde_json::Value;
use tokio::sync::Notify;

use crate::body::{self, Body};
use flow_schema::FlowSchema;
use seats::{Plan, Seat, Seats, Taken};

pub(crate) use defaults::objects;
pub(crate) use status::follow;
pub(crate) use width::of_list;

const GROUP: &str = "flowcontrol.apiserver.k8s.io";
const SCHEMAS: &str = "flowschemas";
const LEVELS: &str = "prioritylevelconfigurations";
const INTERESTS: [(&str, &str); 2] = [(GROUP, SCHEMAS), (GROUP, LEVELS)];
/// Requests at once (upstream: 400 reading and 200 writing).
const AT_ONCE: usize = 600;
/// How long a request may wait for a seat: a quarter of its time.
const PATIENCE: Duration = Duration::from_secs(15);
const SCHEMA_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-flowschema-uid");
const LEVEL_UID: HeaderName = HeaderName::from_static("x-kubernetes-pf-prioritylevel-uid");

/// Where a request belongs.
pub(crate) struct Class {
    schema: Arc<FlowSchema>,
    /// The UID of its level.
    level: HeaderValue,
    flow: u64,
}

impl Class {
    /// Tells the client.
    pub(crate) fn mark(&self, response: &mut Response<Body>) {
        response.headers_mut().insert(SCHEMA_UID, self.schema.uid.clone());
        response.headers_mut().insert(LEVEL_UID, self.level.clone());
    }
}

/// All FlowSchemas and priority levels, and who is being answered.
pub(crate) struct FlowControl {
    objects: Mutex<Objects>,
    current: RwLock<Arc<[Known]>>,
    seats: Arc<Seats>,
    /// Told when a FlowSchema may lead elsewhere than before.
    changed: Notify,
}

/// As they are committed, by name.
#[derive(Default)]
struct Objects {
    schemas: BTreeMap<String, Arc<FlowSchema>>,
    levels: BTreeMap<String, Level>,
}

struct Level {
    uid: HeaderValue,
    spec: Value,
}

/// A FlowSchema whose level there is, and the UID of that.
type Known = (Arc<FlowSchema>, HeaderValue);

impl FlowControl {
    pub(crate) fn new() -> Self {
        FlowControl {
            objects: Mutex::default(),
            current: RwLock::new(Arc::from([])),
            seats: Arc::new(Seats::new(AT_ONCE)),
            changed: Notify::new(),
        }
    }

    /// Where a request belongs; nowhere before there is anything.
    pub(crate) fn classify(&self, attributes: &Attributes<'_>) -> Option<Class> {
        let current = Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner));
        let (schema, level) = current.iter().find(|(schema, _)| schema.matches(attributes))?;
        Some(Class { schema: Arc::clone(schema), level: level.clone(), flow: schema.flow(attributes) })
    }

    /// Waits for the turn of a request that takes `width` seats; they must be kept until it is answered. `None`: too many
    /// requests.
    pub(crate) async fn seat(&self, class: &Class, width: usize) -> Option<Seat> {
        match self.seats.take(&class.schema.level, class.flow, width) {
            Taken::Now(seat) => Some(seat),
            Taken::Never => None,
            Taken::Later(turn) => tokio::time::timeout(PATIENCE, turn).await.ok()?.ok(),
        }
    }

    /// Whether the level that a FlowSchema names is there.
    fn has_level(&self, name: &str) -> bool {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner).levels.contains_key(name)
    }
}

impl Observer for FlowControl {
    fn interests(&self) -> &[(&'static str, &'static str)] {
        &INTERESTS
    }

    fn observe(&self, _: &str, resource: &str, _: &str, name: &str, object: Option<&Value>) {
        let mut objects = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
        objects.set(resource, name, object);
        self.seats
            .configure(Plan::of(AT_ONCE, objects.levels.iter().map(|(name, level)| (name.as_str(), &level.spec))));
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = objects.in_order();
        drop(objects);
        self.changed.notify_one();
    }
}

impl Objects {
    fn set(&mut self, resource: &str, name: &str, object: Option<&Value>) {
        match (resource, object) {
            (SCHEMAS, Some(object)) => {
                self.schemas.insert(name.to_owned(), Arc::new(FlowSchema::of(object)));
            }
            (SCHEMAS, None) => {
                self.schemas.remove(name);
            }
            (_, Some(object)) => {
                let level = Level { uid: uid(object), spec: object["spec"].clone() };
                self.levels.insert(name.to_owned(), level);
            }
            (_, None) => {
                self.levels.remove(name);
            }
        }
    }

    /// What counts, by precedence, then by name.
    fn in_order(&self) -> Arc<[Known]> {
        let known = |schema: &Arc<FlowSchema>| {
            self.levels.get(&*schema.level).map(|level| (Arc::clone(schema), level.uid.clone()))
        };
        let mut all: Vec<Known> = self.schemas.values().filter_map(known).collect();
        // They came by name.
        all.sort_by_key(|(schema, _)| schema.precedence);
        all.into()
    }
}

fn uid(object: &Value) -> HeaderValue {
    let uid = object["metadata"]["uid"].as_str().unwrap_or_default();
    HeaderValue::from_str(uid).unwrap_or(HeaderValue::from_static(""))
}

/// The answer to one request too many (`tooManyRequests`).
pub(crate) fn too_many() -> Response<Body> {
    let text = "Too many requests, please try again later.\n";
    let mut response = body::respond(StatusCode::TOO_MANY_REQUESTS, body::TEXT, text);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

#[cfg(test)]
mod tests;
