//! `apps/v1` ControllerRevision.

use crate::kind::{Kind, Names};

pub static KIND: Kind =
    Kind { definition: "io.k8s.api.apps.v1.ControllerRevision", ..Kind::namespaced("apps", "v1", NAMES) };

const NAMES: Names = Names {
    kind: "ControllerRevision",
    list: "ControllerRevisionList",
    plural: "controllerrevisions",
    singular: "controllerrevision",
};
