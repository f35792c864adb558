use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::json;

use super::plan::{Taken, status};
use super::{Controller, Patience, Written};
use crate::context::Caches;
use crate::fake_api::FakeApi;

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

const ALL: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

fn controller(api: &FakeApi, cached: &[&CustomResourceDefinition]) -> Controller {
    let caches = Caches::default();
    cached.iter().for_each(|one| caches.definitions.apply((*one).clone()));
    let (written, patience) = (Written::default(), Patience::default());
    Controller { client: api.client(), definitions: caches.definitions, written, patience }
}

fn accepted(api: &FakeApi, name: &str) -> Vec<(String, String)> {
    let written = api.body(&format!("PUT {ALL}/{name}.example.com/status"));
    let conditions = written["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    conditions.iter().map(|one| (text(&one["type"]), text(&one["status"]))).collect()
}

fn words(names: &str, established: &str) -> Vec<(String, String)> {
    vec![("NamesAccepted".into(), names.into()), ("Established".into(), established.into())]
}

#[tokio::test]
async fn definitions_are_listed_only_where_names_collide() {
    let (first, second) = (settled(definition("foos", "Foo"), &Taken::default()), definition("bars", "Bar"));
    let path = format!("{ALL}/bars.example.com");
    // There is no list to be had.
    let api = FakeApi::with("1", [(&path, json!(second))]);
    let working = controller(&api, &[&first, &second]);
    working.reconcile("foos.example.com").await.unwrap();
    assert!(api.taken().is_empty(), "{:?}", api.taken());
    working.reconcile("bars.example.com").await.unwrap();
    assert_eq!(accepted(&api, "bars"), words("True", "True"));
}

#[tokio::test]
async fn names_that_were_just_given_away_are_taken() {
    let (first, twin) = (definition("foos", "Foo"), definition("bazes", "Foo"));
    let paths = ["foos", "bazes"].map(|plural| format!("{ALL}/{plural}.example.com"));
    let given = settled(first.clone(), &Taken::default());
    for (live, wanted) in
        [(vec![given, twin.clone()], words("False", "False")), (vec![twin.clone()], words("True", "True"))]
    {
        let list = json!({ "metadata": {}, "items": live });
        let api = FakeApi::with("1", [(&paths[0], json!(first)), (&paths[1], json!(twin)), (ALL, list)]);
        // The cache does not show what was written.
        let working = controller(&api, &[&first, &twin]);
        working.reconcile("foos.example.com").await.unwrap();
        assert_eq!(accepted(&api, "foos"), words("True", "True"));
        working.reconcile("bazes.example.com").await.unwrap();
        assert_eq!(accepted(&api, "bazes"), wanted);
    }
}
