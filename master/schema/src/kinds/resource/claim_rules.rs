//! What a claim asks for, and what it was given.

use serde_json::Value;

use super::device_rules::toleration;
use super::rules::{
    MOST_CONFIGURATIONS, MOST_REQUESTS, binding_conditions, by_name, configuration, device_id, each,
    fully_qualified_name, pool_name, raw, selectors, unique, uuid,
};
use crate::errors::{Errors, Path};
use crate::kinds::storage::csi_node::driver_name;
use crate::meta;
use crate::names::{dns_label, dns_subdomain};
use crate::pod::scheduling::node_selector;
use crate::value::{Fields, Object, object_in, objects_in, set_if_unset};

const MOST_ALTERNATIVES: usize = 8;
const MOST_CONSTRAINTS: usize = 32;
const MOST_CONSUMERS: usize = 256;
const MOST_RESULTS: usize = 32;
const MOST_CONDITIONS: usize = 8;
const MOST_ADDRESSES: usize = 16;
const LONGEST_DATA: usize = 10 * 1024;
const LONGEST_INTERFACE: usize = 256;
const LONGEST_HARDWARE_ADDRESS: usize = 128;
const NO_REQUEST: &str =
    "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";

/// Fills in how many devices each request is for.
pub(super) fn default(spec: &mut Object) {
    for request in objects_in(object_in(spec, "devices"), "requests") {
        if let Some(Value::Object(exactly)) = request.get_mut("exactly") {
            count(exactly);
        }
        objects_in(request, "firstAvailable").for_each(count);
    }
}

fn count(request: &mut Object) {
    set_if_unset(request, "allocationMode", "ExactCount");
    if request.text("allocationMode") == "ExactCount" && request.int("count").unwrap_or(0) == 0 {
        request.insert("count".into(), 1.into());
    }
}

/// `spec` of a claim, or of a template's claims.
pub(super) fn spec(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let (claim, path) = (spec.at("devices"), path.child("devices"));
    each(claim, "requests", MOST_REQUESTS, &path, errors, request);
    unique(claim, "requests", &path, errors, by_name);
    each(claim, "constraints", MOST_CONSTRAINTS, &path, errors, |constraint, path, errors| {
        request_names(constraint, claim, path, errors);
        match (constraint.at("matchAttribute").as_str(), constraint.at("distinctAttribute").as_str()) {
            (Some(name), _) => fully_qualified_name(name, &path.child("matchAttribute"), errors),
            (None, Some(name)) => fully_qualified_name(name, &path.child("distinctAttribute"), errors),
            (None, None) => {
                let detail = r#"exactly one of "matchAttribute" or "distinctAttribute" is required, but multiple fields are set"#;
                errors.required(path, detail);
            }
        }
    });
    each(claim, "config", MOST_CONFIGURATIONS, &path, errors, |config, path, errors| {
        request_names(config, claim, path, errors);
        configuration(config, path, errors);
    });
}

fn request(request: &Value, path: &Path<'_>, errors: &mut Errors) {
    label(request.text("name"), &path.child("name"), errors);
    let exactly = request.at("exactly");
    match (!exactly.is_null(), !request.list("firstAvailable").is_empty()) {
        (false, false) => errors.required(path, "exactly one of `exactly` or `firstAvailable` is required"),
        (true, true) => {
            let detail = "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set";
            errors.invalid(path, Value::Null, detail);
        }
        (true, false) => devices(exactly, &path.child("exactly"), errors),
        (false, true) => {
            each(request, "firstAvailable", MOST_ALTERNATIVES, path, errors, |alternative, path, errors| {
                label(alternative.text("name"), &path.child("name"), errors);
                devices(alternative, path, errors);
            });
            unique(request, "firstAvailable", path, errors, by_name);
        }
    }
}

fn label(name: &str, path: &Path<'_>, errors: &mut Errors) {
    dns_label(name).iter().for_each(|text| errors.invalid(path, name, text));
}

/// Which devices, and how many.
fn devices(request: &Value, path: &Path<'_>, errors: &mut Errors) {
    let (class, place) = (request.text("deviceClassName"), path.child("deviceClassName"));
    if class.is_empty() {
        errors.required(&place, "");
    } else {
        dns_subdomain(class).iter().for_each(|text| errors.invalid(&place, class, text));
    }
    selectors(request, path, errors);
    let count = request.int("count").unwrap_or(0);
    match request.text("allocationMode") {
        "All" if count != 0 => {
            errors.invalid(&path.child("count"), count, "must not be specified when allocationMode is 'All'");
        }
        "ExactCount" if count <= 0 => errors.invalid(&path.child("count"), count, "must be greater than zero"),
        "All" | "ExactCount" => {}
        other => errors.not_supported(&path.child("allocationMode"), other, &["All", "ExactCount"]),
    }
    let place = path.child("tolerations");
    for (index, one) in request.list("tolerations").iter().enumerate() {
        toleration(one, &place.index(index), errors);
    }
}

/// `requests`: names of requests of the claim.
fn request_names(holder: &Value, claim: &Value, path: &Path<'_>, errors: &mut Errors) {
    each(holder, "requests", MOST_REQUESTS, path, errors, |name, path, errors| {
        request_name(name.as_str().unwrap_or_default(), claim, path, errors);
    });
    unique(holder, "requests", path, errors, Value::clone);
}

fn request_name(name: &str, claim: &Value, path: &Path<'_>, errors: &mut Errors) {
    let (first, second) = name.split_once('/').map_or((name, None), |(first, second)| (first, Some(second)));
    if second.is_some_and(|second| second.contains('/')) {
        return errors.invalid(path, name, NO_REQUEST);
    }
    label(first, path, errors);
    if let Some(second) = second {
        label(second, path, errors);
    }
    let named = |list: &'_ [Value], name: &str| list.iter().position(|one| one.text("name") == name);
    let request = named(claim.list("requests"), first).and_then(|at| claim.list("requests").get(at));
    let known = request
        .is_some_and(|request| second.is_none_or(|second| named(request.list("firstAvailable"), second).is_some()));
    if !known {
        errors.invalid(path, name, NO_REQUEST);
    }
}

/// A change of `status`.
pub(super) fn status(object: &Value, old: &Value, errors: &mut Errors) {
    let (status, before, path) = (object.at("status"), old.at("status"), Path::root("status"));
    each(status, "reservedFor", MOST_CONSUMERS, &path, errors, |consumer, path, errors| {
        for field in ["resource", "name", "uid"].into_iter().filter(|field| consumer.text(field).is_empty()) {
            errors.required(&path.child(field), "");
        }
    });
    unique(status, "reservedFor", &path, errors, |consumer| consumer.text("uid").into());
    let allocation = status.at("allocation");
    let allocated = allocation.at("devices").list("results");
    each(status, "devices", usize::MAX, &path, errors, |device, path, errors| {
        device_status(device, allocated, path, errors);
    });
    unique(status, "devices", &path, errors, |device| device_id(device).join("/").into());
    reservations(object, before, &path.child("reservedFor"), errors);
    if allocation.is_null() {
        return;
    }
    let path = path.child("allocation");
    if before.has("allocation") {
        return meta::immutable(allocation, before.at("allocation"), &path, errors);
    }
    results(allocation.at("devices"), object.at("spec").at("devices"), &path.child("devices"), errors);
    if allocation.has("nodeSelector") {
        node_selector(allocation.at("nodeSelector"), &path.child("nodeSelector"), errors);
    }
}

/// Nobody holds what was not given out, and no one new what is going.
fn reservations(object: &Value, before: &Value, path: &Path<'_>, errors: &mut Errors) {
    let status = object.at("status");
    let consumers = status.list("reservedFor");
    if consumers.is_empty() {
        return;
    }
    if !status.has("allocation") {
        return errors.forbidden(path, "may not be specified when `allocated` is not set");
    }
    let is_new = |consumer: &Value| !before.list("reservedFor").contains(consumer);
    if object.at("metadata").has("deletionTimestamp") && consumers.iter().any(is_new) {
        let detail = "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set";
        errors.forbidden(path, detail);
    }
}

fn results(devices: &Value, claim: &Value, path: &Path<'_>, errors: &mut Errors) {
    each(devices, "results", MOST_RESULTS, path, errors, |result, path, errors| {
        request_name(result.text("request"), claim, &path.child("request"), errors);
        device_names(result, path, errors);
        binding_conditions(result, path, errors);
    });
    each(devices, "config", 2 * MOST_CONFIGURATIONS, path, errors, |config, path, errors| {
        match config.text("source") {
            "" => errors.required(&path.child("source"), ""),
            "FromClaim" | "FromClass" => {}
            other => errors.not_supported(&path.child("source"), other, &["FromClaim", "FromClass"]),
        }
        request_names(config, claim, path, errors);
        configuration(config, path, errors);
    });
}

fn device_names(holder: &Value, path: &Path<'_>, errors: &mut Errors) {
    driver_name(holder.text("driver"), &path.child("driver"), errors);
    pool_name(holder.text("pool"), &path.child("pool"), errors);
    label(holder.text("device"), &path.child("device"), errors);
    if let Some(id) = holder.at("shareID").as_str() {
        uuid(id, &path.child("shareID"), errors);
    }
}

/// What a driver says of a device that the claim has.
fn device_status(device: &Value, allocated: &[Value], path: &Path<'_>, errors: &mut Errors) {
    device_names(device, path, errors);
    if !allocated.iter().any(|result| device_id(result) == device_id(device)) {
        let shown = device_id(device).join("/");
        errors.invalid(path, shown.trim_end_matches('/'), "must be an allocated device in the claim");
    }
    each(device, "conditions", MOST_CONDITIONS, path, errors, meta::condition);
    if device.has("data") {
        raw(device.at("data"), LONGEST_DATA, &path.child("data"), errors);
    }
    let (network, path) = (device.at("networkData"), path.child("networkData"));
    for (field, most) in [("interfaceName", LONGEST_INTERFACE), ("hardwareAddress", LONGEST_HARDWARE_ADDRESS)] {
        if network.text(field).len() > most {
            errors.too_long(&path.child(field), most);
        }
    }
    each(network, "ips", MOST_ADDRESSES, &path, errors, |address, path, errors| {
        let text = address.as_str().unwrap_or_default();
        if text.parse::<ipnet::IpNet>().is_err() {
            let detail = "must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or 2001:db8::1/64)";
            errors.invalid(path, text, detail);
        }
    });
    unique(network, "ips", &path, errors, Value::clone);
}
