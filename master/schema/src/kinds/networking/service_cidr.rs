//! `networking.k8s.io/v1` ServiceCIDR.

use jiff::Timestamp;
use serde_json::Value;

use crate::addresses::strict_cidr;
use crate::errors::{Errors, Path};
use crate::kind::{Column, Hooks, Kind, Names, Part, Subresource};
use crate::value::Fields;
use crate::{meta, table};

pub static KIND: Kind = Kind {
    definition: "io.k8s.api.networking.v1.ServiceCIDR",
    subresources: &[Subresource::status("networking.k8s.io", "v1", NAMES.kind)],
    columns: &[Column::NAME, Column::text("CIDRs", "The networks, one of each family"), Column::AGE],
    hooks: Hooks { row, validate, validate_update, ..Hooks::PLAIN },
    ..Kind::cluster("networking.k8s.io", "v1", NAMES)
};

const NAMES: Names =
    Names { kind: "ServiceCIDR", list: "ServiceCIDRList", plural: "servicecidrs", singular: "servicecidr" };

fn cidrs(object: &Value) -> impl Iterator<Item = &str> {
    object.at("spec").list("cidrs").iter().filter_map(Value::as_str)
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let shown = cidrs(object).collect::<Vec<_>>().join(",");
    vec![table::name(object), shown.into(), table::age(object, now)]
}

fn validate(object: &Value, errors: &mut Errors) {
    let spec = Path::root("spec");
    let path = spec.child("cidrs");
    match cidrs(object).count() {
        0 => return errors.required(&path, "at least one CIDR required"),
        1 | 2 => {}
        _ => return errors.invalid(&path, object.at("spec").clone(), "may only hold up to 2 values"),
    }
    for (index, cidr) in cidrs(object).enumerate() {
        if let Some(text) = strict_cidr(cidr) {
            errors.invalid(&path.index(index), cidr, &text);
        }
    }
    let mut families = cidrs(object).map(|cidr| cidr.parse().ok().map(|net: ipnet::IpNet| net.addr().is_ipv6()));
    if let (Some(Some(first)), Some(Some(second))) = (families.next(), families.next())
        && first == second
    {
        let detail = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
        errors.invalid(&path, object.at("spec").at("cidrs").clone(), detail);
    }
}

/// Networks stay; one of the other family may join the first.
fn validate_update(part: Part, object: &Value, old: &Value, errors: &mut Errors) {
    if part != Part::Main {
        return;
    }
    let spec = Path::root("spec");
    let path = spec.child("cidrs");
    let (count, before) = (cidrs(object).count(), cidrs(old).count());
    let joins = (before, count) == (1, 2);
    if count != before && !joins {
        return errors.invalid(&path, object.at("spec").at("cidrs").clone(), meta::IMMUTABLE);
    }
    for (index, (cidr, _)) in cidrs(object).zip(cidrs(old)).enumerate().filter(|(_, (new, old))| new != old) {
        errors.invalid(&path.index(index), cidr, meta::IMMUTABLE);
    }
    if joins {
        validate(object, errors);
    }
}
