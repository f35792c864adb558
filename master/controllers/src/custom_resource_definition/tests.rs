use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::json;

use super::plan::{Taken, status};

fn definition(plural: &str, kind: &str) -> CustomResourceDefinition {
    serde_json::from_value(json!({
        "metadata": { "name": format!("{plural}.example.com") },
        "spec": {
            "group": "example.com", "scope": "Namespaced", "versions": [],
            "names": { "plural": plural, "singular": kind.to_lowercase(), "kind": kind, "listKind": format!("{kind}List") },
        },
    }))
    .unwrap()
}

fn conditions(definition: &CustomResourceDefinition) -> Vec<(String, String, String)> {
    let conditions = definition.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    conditions.into_iter().map(|c| (c.type_, c.status, c.reason.unwrap_or_default())).collect()
}

fn settled(mut definition: CustomResourceDefinition, taken: &Taken) -> CustomResourceDefinition {
    let now = "2026-01-01T00:00:00Z".parse().unwrap();
    definition.status = Some(status(&definition, taken, now).unwrap());
    assert_eq!(status(&definition, taken, "2026-01-02T00:00:00Z".parse().unwrap()), None, "it settles");
    definition
}

#[test]
fn free_names_are_accepted_and_the_kind_is_established() {
    let first = settled(definition("foos", "Foo"), &Taken::default());
    let text = |a: &str, b: &str, c: &str| (a.to_owned(), b.to_owned(), c.to_owned());
    let wanted = [text("NamesAccepted", "True", "NoConflicts"), text("Established", "True", "InitialNamesAccepted")];
    assert_eq!(conditions(&first), wanted);
    let second = settled(definition("bars", "Foo"), &Taken::by([&first].into_iter()));
    let wanted = [text("NamesAccepted", "False", "ListKindConflict"), text("Established", "False", "NotAccepted")];
    assert_eq!(conditions(&second), wanted);
    let names = second.status.and_then(|status| status.accepted_names).unwrap();
    assert_eq!((names.plural.as_str(), names.kind.as_str()), ("bars", ""));
}
