//! `apps/v1` DaemonSet.

use jiff::Timestamp;
use serde_json::Value;

use crate::kind::{Column, Hooks, Kind, Names, Subresource};
use crate::table::{self, count};
use crate::value::{Fields, object_in, set_if_unset};

pub static KIND: Kind = Kind {
    definition: "io.k8s.api.apps.v1.DaemonSet",
    short_names: &["ds"],
    categories: &["all"],
    subresources: &[Subresource {
        name: "status",
        group: "apps",
        version: "v1",
        kind: "DaemonSet",
        verbs: &["get", "patch", "update"],
    }],
    generation: true,
    columns: COLUMNS,
    hooks: Hooks { default, row, ..Hooks::PLAIN },
    ..Kind::namespaced("apps", "v1", NAMES)
};

const NAMES: Names = Names { kind: "DaemonSet", list: "DaemonSetList", plural: "daemonsets", singular: "daemonset" };

const COLUMNS: &[Column] = &[
    Column::NAME,
    Column::integer("Desired", "Nodes that should run the pod"),
    Column::integer("Current", "Nodes that run the pod and should"),
    Column::integer("Ready", "Nodes whose pod is ready"),
    Column::integer("Up-to-date", "Nodes whose pod is of the latest template"),
    Column::integer("Available", "Nodes whose pod has been ready for minReadySeconds"),
    Column::text("Node Selector", "Labels of the nodes that run the pod"),
    Column::AGE,
    Column::wide("Containers", "Names of the template's containers"),
    Column::wide("Images", "Images of the template's containers"),
    Column::wide("Selector", "Label selector of the pods"),
];

fn default(object: &mut Value) {
    let Value::Object(object) = object else { return };
    let spec = object_in(object, "spec");
    set_if_unset(spec, "revisionHistoryLimit", 10);
    let strategy = object_in(spec, "updateStrategy");
    set_if_unset(strategy, "type", "RollingUpdate");
    if strategy.text("type") == "RollingUpdate" {
        let rolling = object_in(strategy, "rollingUpdate");
        set_if_unset(rolling, "maxUnavailable", 1);
        set_if_unset(rolling, "maxSurge", 0);
    }
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let (template, status) = (object.at("spec").at("template"), object.at("status"));
    let [names, images] = table::containers(template);
    vec![
        table::name(object),
        count(status, "desiredNumberScheduled"),
        count(status, "currentNumberScheduled"),
        count(status, "numberReady"),
        count(status, "updatedNumberScheduled"),
        count(status, "numberAvailable"),
        table::labels(template.at("spec").at("nodeSelector")),
        table::age(object, now),
        names,
        images,
        table::selector(object.at("spec").at("selector")),
    ]
}
