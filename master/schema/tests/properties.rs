//! What holds for every kind and any object.
// Helpers of tests: clippy.toml excepts only the test functions themselves.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use proptest::prelude::*;
use schema::{FieldValidation, Kind, Manager, Part, Registry};
use serde_json::{Map, Value};

/// Field names of real objects, so that arbitrary objects reach deep code, and values of every type.
const FIELDS: &[&str] = &[
    "metadata",
    "name",
    "namespace",
    "labels",
    "annotations",
    "ownerReferences",
    "finalizers",
    "spec",
    "status",
    "containers",
    "initContainers",
    "ephemeralContainers",
    "image",
    "env",
    "envFrom",
    "valueFrom",
    "fieldRef",
    "fieldPath",
    "ports",
    "containerPort",
    "hostPort",
    "volumes",
    "volumeMounts",
    "mountPath",
    "emptyDir",
    "hostPath",
    "projected",
    "sources",
    "securityContext",
    "resources",
    "limits",
    "requests",
    "cpu",
    "template",
    "selector",
    "matchLabels",
    "matchExpressions",
    "strategy",
    "rollingUpdate",
    "maxSurge",
    "type",
    "clusterIP",
    "clusterIPs",
    "port",
    "nodePort",
    "tolerations",
    "key",
    "operator",
    "affinity",
    "nodeAffinity",
    "conditions",
    "containerStatuses",
    "state",
    "terminated",
    "subsets",
    "addresses",
    "rules",
    "verbs",
    "roleRef",
    "subjects",
    "data",
    "stringData",
    "livenessProbe",
    "httpGet",
    "endpoints",
    "$patch",
    "$retainKeys",
    "$setElementOrder/containers",
    "$deleteFromPrimitiveList/finalizers",
    "creationTimestamp",
];

fn leaf() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-2_i64..70_000).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        proptest::sample::select(vec![
            "",
            "a",
            "A b",
            "1Gi",
            "-5",
            "1e99",
            "None",
            "Always",
            "50%",
            "replace",
            "..",
            "é",
            "RollingUpdate"
        ])
        .prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ]
}

fn json() -> impl Strategy<Value = Value> {
    leaf().prop_recursive(7, 96, 5, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::vec((proptest::sample::select(FIELDS), inner), 0..6).prop_map(|pairs| pairs
                .into_iter()
                .map(|(k, v)| (k.to_string(), v))
                .collect::<Map<_, _>>()
                .into()),
        ]
    })
}

fn kinds() -> impl Strategy<Value = &'static Kind> {
    proptest::sample::select(Registry::builtin().kinds().collect::<Vec<_>>())
}

/// An object of the golden cases with some of its values replaced by arbitrary ones: it reaches deeper than chance does.
fn mutated() -> impl Strategy<Value = (&'static Kind, Value)> {
    let mut cases: Vec<Value> = serde_json::from_str(include_str!("golden/validation.json")).unwrap();
    let told: Vec<Value> = serde_json::from_str(include_str!("golden/warnings.json")).unwrap();
    cases.extend(told);
    let changes = proptest::collection::vec((any::<prop::sample::Index>(), json()), 0..4);
    (proptest::sample::select(cases), changes).prop_map(|(case, changes)| {
        let (api_version, kind) = case["kind"].as_str().unwrap().split_once(' ').unwrap();
        let mut object = case["object"].clone();
        for (place, value) in changes {
            let mut pointers = Vec::new();
            places(&object, String::new(), &mut pointers);
            let pointer: &String = place.get(&pointers);
            *object.pointer_mut(pointer).unwrap() = value;
        }
        (Registry::builtin().by_kind(api_version, kind).unwrap(), object)
    })
}

/// JSON pointers of everything in a value.
fn places(value: &Value, at: String, out: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            map.iter().for_each(|(k, v)| places(v, format!("{at}/{}", k.replace('~', "~0").replace('/', "~1")), out))
        }
        Value::Array(list) => list.iter().enumerate().for_each(|(i, v)| places(v, format!("{at}/{i}"), out)),
        _ => {}
    }
    out.push(at);
}

fn objects() -> impl Strategy<Value = (&'static Kind, Value)> {
    prop_oneof![3 => mutated(), 1 => (kinds(), json())]
}

/// Takes from arbitrary JSON what fits the types of a kind, level by level.
fn fitting(kind: &Kind, value: Value) -> Option<Value> {
    kind.decode_value(value, FieldValidation::Ignore).ok().map(|d| d.value)
}

fn manager(name: &str) -> Manager {
    Manager { name: name.into(), subresource: String::new(), now: jiff::Timestamp::UNIX_EPOCH }
}

/// A configuration: an object of the golden cases as it is decoded, without its status.
fn configurations() -> impl Strategy<Value = (&'static Kind, Value)> {
    mutated().prop_filter_map("no object of its kind", |(kind, object)| {
        let mut object = fitting(kind, object)?;
        object.as_object_mut()?.remove("status");
        object["metadata"].as_object_mut()?.remove("managedFields");
        kind.apply(None, &object, &manager("a"), false).ok()?;
        Some((kind, object))
    })
}

/// A part of a configuration: some of its fields taken out.
fn without(mut object: Value, places_of: &[prop::sample::Index]) -> Value {
    for place in places_of {
        let mut pointers = Vec::new();
        places(&object, String::new(), &mut pointers);
        let pointer: &String = place.get(&pointers);
        // What nobody owns stays.
        let kept = ["", "/metadata", "/kind", "/apiVersion"];
        let servers = ["name", "namespace", "uid", "generation", "creationTimestamp", "resourceVersion", "selfLink"];
        let unowned = pointer.strip_prefix("/metadata/").is_some_and(|field| servers.contains(&field));
        if kept.contains(&pointer.as_str()) || unowned {
            continue;
        }
        let (parent, name) = pointer.rsplit_once('/').unwrap();
        let name = name.replace("~1", "/").replace("~0", "~");
        match object.pointer_mut(parent).unwrap() {
            Value::Object(map) => drop(map.remove(&name)),
            Value::Array(list) => drop(list.remove(name.parse().unwrap())),
            _ => {}
        }
    }
    object
}

/// Without owners, and with what is empty left out.
fn substance(mut object: Value) -> Value {
    if let Some(meta) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        meta.remove("managedFields");
    }
    fn full(value: Value) -> Option<Value> {
        match value {
            Value::Object(map) => {
                let map: Map<_, _> = map.into_iter().filter_map(|(k, v)| Some((k, full(v)?))).collect();
                (!map.is_empty()).then_some(map.into())
            }
            Value::Array(list) => {
                let list: Vec<_> = list.into_iter().filter_map(full).collect();
                (!list.is_empty()).then_some(list.into())
            }
            Value::Null => None,
            other => Some(other),
        }
    }
    full(object).unwrap_or_default()
}

/// Every path of a `fieldsV1`.
fn paths(fields: &Value, at: &str, out: &mut Vec<String>) {
    let map = fields.as_object().unwrap();
    if map.is_empty() || map.contains_key(".") {
        out.push(at.to_string());
    }
    map.iter().filter(|(k, _)| *k != ".").for_each(|(k, v)| paths(v, &format!("{at} {k}"), out));
}

/// To the last digit, at any size: what is stored is what was sent.
#[test]
fn numbers_are_read_as_they_were_written() {
    for number in [-1.0446573977774654e-114, 0.1, 1e300, 5e-324, f64::MAX] {
        let text = serde_json::to_string(&number).unwrap();
        assert_eq!(serde_json::from_str::<f64>(&text).unwrap().to_bits(), number.to_bits(), "{text}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(600) })]

    /// No function panics, whatever it is given, decoded or not.
    #[test]
    fn nothing_panics((kind, object) in objects(), (_, old) in objects()) {
        let _ = kind.decode(object.to_string().as_bytes(), FieldValidation::Strict);
        let now = jiff::Timestamp::UNIX_EPOCH;
        for part in [Part::Main, Part::Status, Part::Other("ephemeralcontainers"), Part::Other("resize"), Part::Other("approval")] {
            let mut new = object.clone();
            kind.default(&mut new);
            kind.prepare_update(part, &mut new, &old);
            let _ = kind.validate_update(part, &new, &old);
            let _ = kind.warnings(part, &new, Some(&old));
        }
        let mut new = object.clone();
        let _ = kind.warnings_unprepared(&new);
        kind.prepare_create(&mut new);
        let _ = kind.validate_create(&new);
        let _ = kind.warnings(Part::Main, &new, None);
        prop_assert_eq!(kind.table_row(&object, now).len(), kind.columns().len());
        let _ = kind.selectable_fields(&object);
        let _ = kind.strategic_merge(&object, &old);
        let _ = kind.from_storage(kind.to_storage(object.clone()));
        let _ = schema::scale::apply(kind, &object, &schema::scale::of(kind, &object));
    }

    /// What was decoded once decodes to itself, without complaint.
    #[test]
    fn decoding_is_idempotent((kind, object) in objects()) {
        if let Some(once) = fitting(kind, object) {
            let again = kind.decode_value(once.clone(), FieldValidation::Strict).unwrap();
            prop_assert_eq!(&again.value, &once);
            let text = serde_json::to_vec(&once).unwrap();
            prop_assert_eq!(kind.decode(&text, FieldValidation::Strict).unwrap().value, once);
        }
    }

    /// Defaults are complete after one pass, and are values that decode.
    #[test]
    fn defaulting_is_idempotent((kind, object) in objects()) {
        if let Some(mut once) = fitting(kind, object) {
            kind.default(&mut once);
            let mut twice = once.clone();
            kind.default(&mut twice);
            prop_assert_eq!(&twice, &once);
            prop_assert!(kind.decode_value(once, FieldValidation::Strict).is_ok());
        }
    }

    /// A patch that says nothing changes nothing; an object as a patch of nothing is itself.
    #[test]
    fn empty_patches((kind, object) in objects()) {
        if let Some(object) = fitting(kind, object) {
            prop_assert_eq!(&kind.strategic_merge(&object, &Value::Object(Map::new())).unwrap(), &object);
        }
    }

    /// Applying the same configuration again changes nothing.
    #[test]
    fn applying_is_idempotent((kind, config) in configurations()) {
        let once = kind.apply(None, &config, &manager("a"), false).unwrap();
        prop_assert_eq!(substance(once.clone()), substance(config.clone()));
        // An object that nobody owns anything of is one that was never applied.
        prop_assume!(once["metadata"].get("managedFields").is_some());
        let twice = kind.apply(Some(&once), &config, &manager("a"), false).unwrap();
        prop_assert_eq!(twice, once);
    }

    /// What an applier no longer mentions is gone, if nobody else owns it; and stays, if somebody does.
    #[test]
    fn what_is_no_longer_applied_is_gone(
        (kind, config) in configurations(),
        taken in proptest::collection::vec(any::<prop::sample::Index>(), 1..4),
    ) {
        let rest = without(config.clone(), &taken);
        if let Ok(alone) = kind.apply(None, &rest, &manager("a"), false) {
            let whole = kind.apply(None, &config, &manager("a"), false).unwrap();
            let left = kind.apply(Some(&whole), &rest, &manager("a"), false).unwrap();
            prop_assert_eq!(substance(left), substance(alone));
            let shared = kind.apply(Some(&whole), &config, &manager("b"), false).unwrap();
            let kept = kind.apply(Some(&shared), &rest, &manager("a"), true).unwrap();
            let merged = kind.apply(Some(&whole), &rest, &manager("c"), true).unwrap();
            prop_assert_eq!(substance(kept), substance(merged));
        }
    }

    /// A field has at most one owner among those who update.
    #[test]
    fn updaters_share_nothing((kind, first) in configurations(), (_, second) in configurations(), (_, third) in configurations()) {
        let mut object = first;
        kind.track(None, &mut object, &manager("a"));
        for (name, next) in [("b", second), ("c", third)] {
            let mut new = next;
            new["metadata"]["managedFields"] = object["metadata"]["managedFields"].clone();
            kind.track(Some(&object), &mut new, &manager(name));
            object = new;
        }
        let mut all = Vec::new();
        for entry in object["metadata"]["managedFields"].as_array().into_iter().flatten() {
            paths(&entry["fieldsV1"], "", &mut all);
        }
        let count = all.len();
        all.sort();
        all.dedup();
        prop_assert_eq!(all.len(), count);
    }
}
