//! `apps/v1` Deployment.

use jiff::Timestamp;
use serde_json::Value;

use crate::kind::{Column, Hooks, Kind, Names, Subresource};
use crate::table::{self, count};
use crate::value::{Fields, object_in, set_if_unset};

pub static KIND: Kind = Kind {
    definition: "io.k8s.api.apps.v1.Deployment",
    short_names: &["deploy"],
    categories: &["all"],
    subresources: &[
        Subresource {
            name: "scale",
            group: "autoscaling",
            version: "v1",
            kind: "Scale",
            verbs: &["get", "patch", "update"],
        },
        Subresource {
            name: "status",
            group: "apps",
            version: "v1",
            kind: "Deployment",
            verbs: &["get", "patch", "update"],
        },
    ],
    generation: true,
    columns: COLUMNS,
    hooks: Hooks { default, row, ..Hooks::PLAIN },
    ..Kind::namespaced("apps", "v1", NAMES)
};

const NAMES: Names =
    Names { kind: "Deployment", list: "DeploymentList", plural: "deployments", singular: "deployment" };

const COLUMNS: &[Column] = &[
    Column::NAME,
    Column::text("Ready", "Ready replicas of those asked for"),
    Column { kind: "string", ..Column::integer("Up-to-date", "Replicas of the latest template") },
    Column { kind: "string", ..Column::integer("Available", "Replicas that have been ready for minReadySeconds") },
    Column::AGE,
    Column::wide("Containers", "Names of the template's containers"),
    Column::wide("Images", "Images of the template's containers"),
    Column::wide("Selector", "Label selector of the pods"),
];

fn default(object: &mut Value) {
    let Value::Object(object) = object else { return };
    let spec = object_in(object, "spec");
    set_if_unset(spec, "replicas", 1);
    set_if_unset(spec, "revisionHistoryLimit", 10);
    set_if_unset(spec, "progressDeadlineSeconds", 600);
    let strategy = object_in(spec, "strategy");
    set_if_unset(strategy, "type", "RollingUpdate");
    if strategy.text("type") == "RollingUpdate" {
        let rolling = object_in(strategy, "rollingUpdate");
        set_if_unset(rolling, "maxUnavailable", "25%");
        set_if_unset(rolling, "maxSurge", "25%");
    }
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (object.at("spec"), object.at("status"));
    let ready = status.int("readyReplicas").unwrap_or(0);
    let [names, images] = table::containers(spec.at("template"));
    vec![
        table::name(object),
        format!("{ready}/{}", spec.int("replicas").unwrap_or(0)).into(),
        count(status, "updatedReplicas"),
        count(status, "availableReplicas"),
        table::age(object, now),
        names,
        images,
        table::selector(spec.at("selector")),
    ]
}
