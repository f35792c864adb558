//! `v1` ConfigMap.

use jiff::Timestamp;
use serde_json::Value;

use crate::kind::{Column, Hooks, Kind, Names};
use crate::table;
use crate::value::Fields;

pub static KIND: Kind =
    Kind { definition: "io.k8s.api.core.v1.ConfigMap", short_names: &["cm"], ..Kind::namespaced("", "v1", NAMES) };

const NAMES: Names = Names { kind: "ConfigMap", list: "ConfigMapList", plural: "configmaps", singular: "configmap" };

const COLUMNS: &[Column] =
    &[Column::NAME, Column { kind: "string", ..Column::integer("Data", "Number of keys") }, Column::AGE];

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let keys = object.entries("data").count() + object.entries("binaryData").count();
    vec![table::name(object), keys.into(), table::age(object, now)]
}
