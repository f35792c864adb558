//! `resource.k8s.io/v1` DeviceClass.

use serde_json::Value;

use super::rules::{MOST_CONFIGURATIONS, configuration, each, selectors};
use crate::errors::{Errors, Path};
use crate::kind::{Hooks, Kind, Names};
use crate::pod::resources::is_extended;
use crate::value::Fields;

pub static KIND: Kind = Kind {
    definition: "io.k8s.api.resource.v1.DeviceClass",
    generation: true,
    returns_deleted_object: true,
    hooks: Hooks { validate, revalidate: true, ..Hooks::PLAIN },
    ..Kind::cluster("resource.k8s.io", "v1", NAMES)
};

const NAMES: Names =
    Names { kind: "DeviceClass", list: "DeviceClassList", plural: "deviceclasses", singular: "deviceclass" };

fn validate(object: &Value, errors: &mut Errors) {
    let (spec, path) = (object.at("spec"), Path::root("spec"));
    selectors(spec, &path, errors);
    each(spec, "config", MOST_CONFIGURATIONS, &path, errors, configuration);
    let is_resource = |name: &&str| name.contains('/') && is_extended(name);
    if let Some(name) = spec.at("extendedResourceName").as_str().filter(|name| !is_resource(name)) {
        errors.invalid(&path.child("extendedResourceName"), name, "must be a valid extended resource name");
    }
}
