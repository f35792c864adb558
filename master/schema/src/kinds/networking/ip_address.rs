//! `networking.k8s.io/v1` IPAddress.

use jiff::Timestamp;
use serde_json::Value;

use crate::errors::{Errors, Path};
use crate::kind::{Column, Hooks, Kind, NameRule, Names, Part};
use crate::names::{dns_subdomain, path_segment};
use crate::value::Fields;
use crate::{meta, table};

pub static KIND: Kind = Kind {
    definition: "io.k8s.api.networking.v1.IPAddress",
    names: NameRule::IpAddress,
    columns: &[Column::NAME, Column::text("ParentRef", "What the address belongs to")],
    hooks: Hooks { row, validate, revalidate: true, validate_update, ..Hooks::PLAIN },
    ..Kind::cluster("networking.k8s.io", "v1", NAMES)
};

const NAMES: Names = Names { kind: "IPAddress", list: "IPAddressList", plural: "ipaddresses", singular: "ipaddress" };

fn row(object: &Value, _: Timestamp) -> Vec<Value> {
    let parent = object.at("spec").at("parentRef");
    let group = match parent.text("group") {
        "" => String::new(),
        group => format!(".{group}"),
    };
    let kind = format!("{}{group}", parent.text("resource")).to_lowercase();
    let shown = match parent.text("namespace") {
        _ if parent.is_null() => "<none>".to_owned(),
        "" => format!("{kind}/{}", parent.text("name")),
        namespace => format!("{kind}/{namespace}/{}", parent.text("name")),
    };
    vec![table::name(object), shown.into()]
}

fn validate(object: &Value, errors: &mut Errors) {
    let spec = Path::root("spec");
    let (parent, path) = (object.at("spec").at("parentRef"), spec.child("parentRef"));
    if parent.is_null() {
        return errors.required(&path, "");
    }
    // Services are of the core group, whose name is empty.
    let group = parent.text("group");
    if !group.is_empty() {
        dns_subdomain(group).iter().for_each(|text| errors.invalid(&path.child("group"), group, text));
    }
    for (field, is_required) in [("resource", true), ("name", true), ("namespace", false)] {
        let (at, value) = (path.child(field), parent.text(field));
        if value.is_empty() && is_required {
            errors.required(&at, "");
        }
        path_segment(value, false).iter().for_each(|text| errors.invalid(&at, value, text));
    }
}

fn validate_update(_part: Part, object: &Value, old: &Value, errors: &mut Errors) {
    let parent = |object: &Value| object.at("spec").at("parentRef").clone();
    meta::immutable(&parent(object), &parent(old), &Path::root("spec").child("parentRef"), errors);
}
