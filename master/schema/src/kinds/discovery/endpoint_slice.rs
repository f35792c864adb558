//! `discovery.k8s.io/v1` EndpointSlice.

use jiff::Timestamp;
use serde_json::Value;

use crate::kind::{Column, Hooks, Kind, Names};
use crate::table;
use crate::value::{Fields, objects_in, set_if_unset};

pub static KIND: Kind = Kind {
    definition: "io.k8s.api.discovery.v1.EndpointSlice",
    generation: true,
    columns: COLUMNS,
    hooks: Hooks { default, row, ..Hooks::PLAIN },
    ..Kind::namespaced("discovery.k8s.io", "v1", NAMES)
};

const NAMES: Names =
    Names { kind: "EndpointSlice", list: "EndpointSliceList", plural: "endpointslices", singular: "endpointslice" };

const COLUMNS: &[Column] = &[
    Column::NAME,
    Column::text("AddressType", "Kind of addresses"),
    Column::text("Ports", "Ports of the endpoints"),
    Column::text("Endpoints", "Addresses of the endpoints"),
    Column::AGE,
];

fn default(object: &mut Value) {
    let Value::Object(object) = object else { return };
    for port in objects_in(object, "ports") {
        port.entry("name").or_insert_with(|| "".into());
        set_if_unset(port, "protocol", "TCP");
    }
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let ports: Vec<String> = object
        .list("ports")
        .iter()
        .map(|p| match p.int("port") {
            Some(number) => number.to_string(),
            None => p.at("name").as_str().unwrap_or("*").to_string(),
        })
        .collect();
    let addresses = object.list("endpoints").iter().flat_map(|e| e.list("addresses"));
    let addresses: Vec<String> = addresses.filter_map(Value::as_str).map(str::to_string).collect();
    vec![
        table::name(object),
        object.text("addressType").into(),
        table::with_more(&ports),
        table::with_more(&addresses),
        table::age(object, now),
    ]
}
