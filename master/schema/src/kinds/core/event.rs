//! `v1` Event.

use crate::kind::{Kind, Names};

pub static KIND: Kind = Kind {
    definition: "io.k8s.api.core.v1.Event",
    short_names: &["ev"],
    create_on_update: true,
    ..Kind::namespaced("", "v1", NAMES)
};

const NAMES: Names = Names { kind: "Event", list: "EventList", plural: "events", singular: "event" };
