//! `apiextensions.k8s.io/v1` CustomResourceDefinition: what becomes of it is in `crate::custom`.

use serde_json::{Value, json};

use crate::custom::{self, definition};
use crate::errors::{Errors, Path};
use crate::kind::{Hooks, Kind, Names, Part, Subresource};
use crate::table;
use crate::value::{Fields, object_in, set_if_unset};
use crate::warnings::Warnings;

pub static KIND: Kind = Kind {
    definition: "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinition",
    short_names: &["crd", "crds"],
    categories: &["api-extensions"],
    subresources: &[Subresource::status("apiextensions.k8s.io", "v1", "CustomResourceDefinition")],
    generation: true,
    unconditional_update: false,
    columns: table::NAME_AND_CREATED,
    hooks: Hooks {
        default,
        prepare_create: store_version,
        prepare_update,
        validate,
        validate_update,
        row: table::name_and_created,
        warnings,
        ..Hooks::PLAIN
    },
    ..Kind::cluster("apiextensions.k8s.io", "v1", NAMES)
};

const NAMES: Names = Names {
    kind: "CustomResourceDefinition",
    list: "CustomResourceDefinitionList",
    plural: "customresourcedefinitions",
    singular: "customresourcedefinition",
};

fn default(object: &mut Value) {
    let Value::Object(object) = object else { return };
    let spec = object_in(object, "spec");
    let names = object_in(spec, "names");
    let kind = names.text("kind").to_owned();
    if !kind.is_empty() {
        set_if_unset(names, "singular", kind.to_lowercase());
        set_if_unset(names, "listKind", format!("{kind}List"));
    }
    let conversion = object_in(spec, "conversion");
    set_if_unset(conversion, "strategy", "None");
    if let Some(Value::Object(service)) =
        conversion.get_mut("webhook").and_then(|w| w.pointer_mut("/clientConfig/service"))
    {
        set_if_unset(service, "port", 443);
    }
}

/// Objects are stored in the storage version from now on.
fn store_version(object: &mut Value) {
    let stored = object.at("spec").list("versions").iter().find(|version| version.flag("storage"));
    let Some(name) = stored.map(|version| version.at("name").clone()) else { return };
    let Value::Object(object) = object else { return };
    let status = object_in(object, "status");
    match status.get_mut("storedVersions").and_then(Value::as_array_mut) {
        Some(list) if list.contains(&name) => {}
        Some(list) => list.push(name),
        None => {
            status.insert("storedVersions".into(), json!([name]));
        }
    }
}

fn prepare_update(part: Part, object: &mut Value, _: &Value) {
    if part == Part::Main {
        store_version(object);
    }
}

fn validate(object: &Value, errors: &mut Errors) {
    let (spec, name) = (object.at("spec"), object.at("metadata").text("name"));
    let wanted = format!("{}.{}", spec.at("names").text("plural"), spec.text("group"));
    if name != wanted {
        let metadata = Path::root("metadata");
        errors.invalid(&metadata.child("name"), name, "must be spec.names.plural+\".\"+spec.group");
    }
    whole(object, errors);
}

fn whole(object: &Value, errors: &mut Errors) {
    definition::spec(object.at("spec"), &Path::root("spec"), errors);
    accepted_names(object, errors);
    definition::stored_versions(object, errors);
    approval(object, errors);
}

fn accepted_names(object: &Value, errors: &mut Errors) {
    let status = Path::root("status");
    definition::names(object.at("status").at("acceptedNames"), &status.child("acceptedNames"), errors);
}

/// Groups of the community need its approval (KEP-1111).
fn approval(object: &Value, errors: &mut Errors) {
    const ANNOTATION: &str = "api-approved.kubernetes.io";
    let group = object.at("spec").text("group");
    let is_protected =
        ["k8s.io", "kubernetes.io"].iter().any(|own| group == *own || group.ends_with(&format!(".{own}")));
    if !is_protected {
        return;
    }
    let metadata = Path::root("metadata");
    let annotations = metadata.child("annotations");
    let place = annotations.key(ANNOTATION);
    match object.at("metadata").at("annotations").text(ANNOTATION) {
        "" => errors.required(
            &place,
            "protected groups must have approval annotation \"api-approved.kubernetes.io\", see https://github.com/kubernetes/enhancements/pull/1111",
        ),
        text if text.starts_with("unapproved") || text.starts_with("https://") => {}
        text => errors.invalid(
            &place,
            text,
            "protected groups must have approval annotation \"api-approved.kubernetes.io\" with either a URL or a reason starting with \"unapproved\", see https://github.com/kubernetes/enhancements/pull/1111",
        ),
    }
}

fn validate_update(part: Part, object: &Value, old: &Value, errors: &mut Errors) {
    if part == Part::Status {
        return accepted_names(object, errors);
    }
    whole(object, errors);
    definition::immutable(object.at("spec"), old.at("spec"), custom::is_true(old, "Established"), errors);
}

fn warnings(part: Part, object: &Value, old: Option<&Value>, warnings: &mut Warnings) {
    if part == Part::Main {
        custom::warnings::formats(object, old, warnings);
    }
}
