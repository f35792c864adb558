//! What is said of CustomResourceDefinitions and of custom resources that are valid.

use std::collections::BTreeSet;

use serde_json::Value;

use super::formats;
use crate::errors::{Path, quote};
use crate::kind::Part;
use crate::names::qualified_name;
use crate::value::Fields;
use crate::warnings::Warnings;

/// Formats that text may have and nothing is checked of.
const UNCHECKED: [&str; 4] = ["isbn", "isbn10", "isbn13", "password"];
/// Fields of a schema that hold a schema, or a list of them.
const INNER: [&str; 6] = ["items", "allOf", "anyOf", "oneOf", "not", "additionalProperties"];
/// Fields that hold schemas by name.
const NAMED: [&str; 4] = ["properties", "patternProperties", "definitions", "dependencies"];
const STANDARD_FINALIZERS: [&str; 3] = ["orphan", "foregroundDeletion", "kubernetes"];

/// Formats that mean nothing, which an earlier version of the definition had not.
pub(crate) fn formats(definition: &Value, old: Option<&Value>, warnings: &mut Warnings) {
    let found = unrecognized(definition);
    if found.is_empty() {
        return;
    }
    let before = old.map(unrecognized).unwrap_or_default();
    for format in found.difference(&before) {
        warnings.say(format!("unrecognized format {}", quote(format)));
    }
}

fn unrecognized(definition: &Value) -> BTreeSet<&str> {
    let mut found = BTreeSet::new();
    for version in definition.at("spec").list("versions") {
        search(version.at("schema").at("openAPIV3Schema"), &mut found);
    }
    found
}

fn search<'a>(schema: &'a Value, found: &mut BTreeSet<&'a str>) {
    let format = schema.text("format");
    if !format.is_empty() && !is_recognized(schema.text("type"), format) {
        found.insert(format);
    }
    for inner in INNER.into_iter().map(|field| schema.at(field)) {
        match inner {
            Value::Array(list) => list.iter().for_each(|inner| search(inner, found)),
            Value::Object(_) => search(inner, found),
            _ => {}
        }
    }
    for (_, inner) in NAMED.into_iter().flat_map(|field| schema.entries(field)) {
        search(inner, found);
    }
}

/// Upstream's `GetUnrecognizedFormats`.
fn is_recognized(kind: &str, format: &str) -> bool {
    match kind {
        "" | "string" => formats::is_known(format) || UNCHECKED.contains(&format.replace('-', "").as_str()),
        "integer" => matches!(format, "int32" | "int64"),
        "number" => matches!(format, "float" | "double"),
        _ => false,
    }
}

/// Finalizers that a custom resource did not have before, by names that others may take, too
/// (`customresource.generateWarningsFromObj`).
pub(super) fn finalizers(part: Part, object: &Value, old: Option<&Value>, warnings: &mut Warnings) {
    if part != Part::Main {
        return;
    }
    let before = old.map(|old| old.at("metadata").list("finalizers")).unwrap_or_default();
    let new = object.at("metadata").list("finalizers").iter().filter(|name| !before.contains(name));
    for name in new.filter_map(Value::as_str).collect::<BTreeSet<_>>() {
        let shown = quote(name);
        let path = Path::root("metadata.finalizers");
        for text in qualified_name(name) {
            warnings.of(&path, format_args!("{shown}: {text}"));
        }
        if name.contains('/') || STANDARD_FINALIZERS.contains(&name) {
            continue;
        }
        let how = if name.contains('.') { " including a path (/)" } else { "" };
        warnings.of(
            &path,
            format_args!(
                "{shown}: prefer a domain-qualified finalizer name{how} to avoid accidental conflicts with other finalizer writers"
            ),
        );
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::finalizers;
    use crate::kind::Part;
    use crate::warnings::Warnings;

    fn told(part: Part, new: &[&str], old: Option<&[&str]>) -> Vec<String> {
        let object = |names: &[&str]| json!({ "metadata": { "finalizers": names } });
        let old: Option<Value> = old.map(object);
        let mut warnings = Warnings::default();
        finalizers(part, &object(new), old.as_ref(), &mut warnings);
        warnings.into_vec()
    }

    #[test]
    fn finalizers_are_best_named_by_a_domain() {
        assert_eq!(told(Part::Main, &["example.com/x", "orphan", "foregroundDeletion"], None), [""; 0]);
        let others = "to avoid accidental conflicts with other finalizer writers";
        let plain = format!("metadata.finalizers: \"x\": prefer a domain-qualified finalizer name {others}");
        let domain = format!(
            "metadata.finalizers: \"x.y\": prefer a domain-qualified finalizer name including a path (/) {others}"
        );
        assert_eq!(told(Part::Main, &["x.y", "x"], None), [plain, domain.clone()]);
        assert_eq!(told(Part::Main, &["x", "x.y"], Some(&["x"])), [domain]);
        assert_eq!(told(Part::Status, &["x"], None), [""; 0]);
    }
}
