//! `v1` Endpoints.

use jiff::Timestamp;
use serde_json::Value;

use crate::kind::{Column, Hooks, Kind, Names};
use crate::table;
use crate::value::Fields;

pub static KIND: Kind = Kind {
    definition: "io.k8s.api.core.v1.Endpoints",
    short_names: &["ep"],
    create_on_update: true,
    columns: COLUMNS,
    hooks: Hooks { row, ..Hooks::PLAIN },
    ..Kind::namespaced("", "v1", NAMES)
};

const NAMES: Names = Names { kind: "Endpoints", list: "EndpointsList", plural: "endpoints", singular: "endpoints" };

const COLUMNS: &[Column] =
    &[Column::NAME, Column::text("Endpoints", "Addresses and ports behind the service"), Column::AGE];

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let mut shown = Vec::new();
    for subset in object.list("subsets") {
        let addresses = || subset.list("addresses").iter().map(|a| a.text("ip"));
        if subset.list("ports").is_empty() {
            shown.extend(addresses().map(str::to_string));
        }
        for port in subset.list("ports") {
            let port = port.int("port").unwrap_or(0);
            shown.extend(
                addresses().map(|ip| if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }),
            );
        }
    }
    vec![table::name(object), table::with_more(&shown), table::age(object, now)]
}
