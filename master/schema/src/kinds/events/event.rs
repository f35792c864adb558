//! `events.k8s.io/v1` Event.

use crate::kind::{Kind, Names, Storage};

pub static KIND: Kind = Kind {
    definition: "io.k8s.api.events.v1.Event",
    short_names: &["ev"],
    create_on_update: true,
    storage: Storage { group: "", version: "v1", plural: "events" },
    ..Kind::namespaced("events.k8s.io", "v1", NAMES)
};

const NAMES: Names = Names { kind: "Event", list: "EventList", plural: "events", singular: "event" };
