//! Fields that lists and watches select by.

use serde_json::Value;

use crate::errors::UnsupportedField;
use crate::kind::{FieldLabel, Kind};

const NAME: &str = "metadata.name";
const NAMESPACE: &str = "metadata.namespace";

pub(crate) fn of(kind: &Kind, object: &Value) -> Vec<(&'static str, String)> {
    let mut fields = vec![(NAME, read(object, "/metadata/name", ""))];
    if kind.namespaced {
        fields.push((NAMESPACE, read(object, "/metadata/namespace", "")));
    }
    fields.extend(kind.fields.iter().map(|field| (field.label, value(object, field))));
    fields
}

pub(crate) fn check(kind: &Kind, label: &str) -> Result<(), UnsupportedField> {
    let known =
        label == NAME || (kind.namespaced && label == NAMESPACE) || kind.fields.iter().any(|f| f.label == label);
    if known { Ok(()) } else { Err(UnsupportedField(label.to_string())) }
}

fn value(object: &Value, field: &FieldLabel) -> String {
    let value = read(object, field.pointer, field.absent);
    match field.otherwise {
        Some(pointer) if value.is_empty() => read(object, pointer, field.absent),
        _ => value,
    }
}

fn read(object: &Value, pointer: &str, absent: &str) -> String {
    match object.pointer(pointer) {
        None | Some(Value::Null) => absent.to_string(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::Registry;

    #[test]
    fn the_source_of_an_event_is_who_reports_it_where_none_is_said() {
        let events = Registry::builtin().by_kind("v1", "Event").unwrap();
        let source =
            |event| events.selectable_fields(&event).into_iter().find(|(name, _)| *name == "source").unwrap().1;
        assert_eq!(source(json!({ "source": { "component": "a" }, "reportingComponent": "b" })), "a");
        assert_eq!(source(json!({ "source": {}, "reportingComponent": "b" })), "b");
    }
}
