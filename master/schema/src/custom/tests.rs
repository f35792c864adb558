use serde_json::{Value, json};

use super::Catalog;
use crate::kind::{FieldValidation, Kind, Part};
use crate::managed_fields::Manager;

fn definition(schema: Value) -> Value {
    json!({
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "versions": [
                { "name": "v1", "served": true, "storage": true, "schema": { "openAPIV3Schema": schema },
                  "subresources": { "status": {}, "scale": { "specReplicasPath": ".spec.size",
                      "statusReplicasPath": ".status.size", "labelSelectorPath": ".status.selector" } },
                  "selectableFields": [{ "jsonPath": ".spec.color" }],
                  "additionalPrinterColumns": [
                      { "name": "Size", "type": "integer", "jsonPath": ".spec.size" },
                      { "name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].status" } ] },
                { "name": "v1beta1", "served": true, "storage": false, "deprecated": true,
                  "schema": { "openAPIV3Schema": { "type": "object", "x-kubernetes-preserve-unknown-fields": true } } },
                { "name": "v0", "served": false, "storage": false },
            ],
        },
        "status": {
            "acceptedNames": { "plural": "foos", "singular": "foo", "kind": "Foo", "listKind": "FooList" },
            "conditions": [{ "type": "Established", "status": "True" }],
        },
    })
}

fn schema() -> Value {
    json!({
        "type": "object",
        "required": ["spec"],
        "properties": {
            "spec": {
                "type": "object",
                "properties": {
                    "size": { "type": "integer", "minimum": 1, "maximum": 5, "default": 2 },
                    "color": { "type": "string", "enum": ["red", "blue"] },
                    "name": { "type": "string", "maxLength": 3, "pattern": "^[a-z]*$" },
                    "port": { "x-kubernetes-int-or-string": true },
                    "free": { "type": "object", "x-kubernetes-preserve-unknown-fields": true },
                    "maybe": { "type": "string", "nullable": true },
                    "set": { "type": "array", "x-kubernetes-list-type": "set", "items": { "type": "string" } },
                    "ports": {
                        "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                        "items": { "type": "object", "required": ["name"], "properties": {
                            "name": { "type": "string" }, "port": { "type": "integer" } } },
                    },
                    "template": { "type": "object", "x-kubernetes-embedded-resource": true,
                        "x-kubernetes-preserve-unknown-fields": true },
                },
                "x-kubernetes-validations": [
                    { "rule": "!has(self.color) || self.size < 5", "message": "colored ones are small" },
                    { "rule": "self.size >= oldSelf.size", "message": "it may only grow" },
                ],
            },
            "status": { "type": "object", "properties": { "size": { "type": "integer" } } },
        },
    })
}

fn kind() -> &'static Kind {
    Catalog::default().kinds(&definition(schema()))[0]
}

fn object(spec: Value) -> Value {
    json!({ "apiVersion": "example.com/v1", "kind": "Foo",
        "metadata": { "name": "f", "namespace": "default", "uid": "u", "resourceVersion": "1" }, "spec": spec })
}

fn taken(spec: Value) -> Value {
    let mut object = kind().decode_value(object(spec), FieldValidation::Warn).unwrap().value;
    kind().default(&mut object);
    object
}

fn errors(spec: Value) -> Vec<String> {
    kind().validate_create(&taken(spec)).iter().map(ToString::to_string).collect()
}

#[test]
fn a_definition_serves_its_versions_and_the_same_one_the_same_kinds() {
    let mut catalog = Catalog::default();
    let kinds = catalog.kinds(&definition(schema()));
    let names: Vec<String> = kinds.iter().map(|kind| format!("{kind:?}")).collect();
    assert_eq!(names, ["example.com/v1 Foo", "example.com/v1beta1 Foo"]);
    assert!(kinds.iter().zip(catalog.kinds(&definition(schema()))).all(|(a, b)| std::ptr::eq(*a, b)));
    assert_eq!(kinds[0].definition, "com.example.v1.Foo");
    let deprecation = kinds[1].custom.unwrap().deprecation.as_deref();
    assert_eq!(deprecation, Some("example.com/v1beta1 Foo is deprecated"));
    let mut young = definition(schema());
    young["status"]["conditions"] = json!([]);
    assert!(catalog.kinds(&young).is_empty());
}

#[test]
fn what_is_not_declared_is_dropped_and_defaults_come() {
    let given = json!({ "color": null, "maybe": null, "unknown": 1, "free": { "any": 1 }, "port": "http",
        "template": { "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "p", "nonsense": 1 }, "more": true } });
    let decoded = kind().decode_value(object(given.clone()), FieldValidation::Warn).unwrap();
    let told = ["unknown field \"spec.template.metadata.nonsense\"", "unknown field \"spec.unknown\""];
    assert_eq!(decoded.warnings, told);
    let strict = kind().decode_value(object(given.clone()), FieldValidation::Strict).unwrap_err().to_string();
    assert_eq!(strict, format!("strict decoding error: {}", told.join(", ")));
    let wanted = json!({ "size": 2, "maybe": null, "free": { "any": 1 }, "port": "http",
        "template": { "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "p" }, "more": true } });
    assert_eq!(taken(given)["spec"], wanted);
}

#[test]
fn errors_are_worded_as_upstream() {
    assert_eq!(errors(json!({ "color": "red" })), Vec::<String>::new());
    let found = errors(json!({ "size": "x", "color": "green", "name": "Long", "port": true, "set": ["a", "b", "a"],
        "ports": [{ "port": 1 }, { "name": "a" }, { "name": "a" }], "template": {} }));
    let wanted = [
        "spec.color: Unsupported value: \"green\": supported values: \"red\", \"blue\"",
        "spec.name: Too long: may not be more than 3 bytes",
        "spec.name: Invalid value: \"Long\": spec.name in body should match '^[a-z]*$'",
        "spec.port: Invalid value: \"boolean\": spec.port in body must be of type integer,string: \"boolean\"",
        "spec.ports[0].name: Required value",
        "spec.size: Invalid value: \"string\": spec.size in body must be of type integer: \"string\"",
        ".spec.size: Invalid value: 0: .spec.size accessor error: \"x\" is of the wrong type, expected int64",
        "spec.template.apiVersion: Required value",
        "spec.template.kind: Required value",
        "spec.ports[2]: Duplicate value: {\"name\":\"a\"}",
        "spec.set[2]: Duplicate value: \"a\"",
    ];
    assert_eq!(found, wanted);
    assert_eq!(
        errors(json!({ "size": 9 })),
        ["spec.size: Invalid value: 9: spec.size in body should be less than or equal to 5"]
    );
    assert_eq!(errors(json!({ "size": 5, "color": "red" })), ["spec: Invalid value: colored ones are small"]);
}

#[test]
fn updates_are_judged_by_what_they_change() {
    let old = taken(json!({ "size": 3 }));
    let update = |part: Part, object: Value| -> Vec<String> {
        kind().validate_update(part, &object, &old).iter().map(ToString::to_string).collect()
    };
    assert_eq!(update(Part::Main, taken(json!({ "size": 2 }))), ["spec: Invalid value: it may only grow"]);
    assert_eq!(update(Part::Main, taken(json!({ "size": 4 }))), Vec::<String>::new());
    let mut bad = old.clone();
    bad["status"] = json!({ "size": "x" });
    let wanted = "status.size: Invalid value: \"string\": status.size in body must be of type integer: \"string\"";
    assert_eq!(update(Part::Status, bad)[0], wanted);
}

#[test]
fn a_status_update_takes_the_status_only() {
    let old = taken(json!({ "size": 3 }));
    let mut new = old.clone();
    new["status"] = json!({ "size": 1 });
    new["spec"]["size"] = 4.into();
    new["metadata"]["labels"] = json!({ "a": "b" });
    kind().prepare_update(Part::Status, &mut new, &old);
    assert_eq!(
        (&new["status"], &new["spec"], &new["metadata"]),
        (&json!({ "size": 1 }), &old["spec"], &old["metadata"])
    );
}

#[test]
fn rows_fields_and_scale_follow_the_definition() {
    let mut object = taken(json!({ "color": "red", "size": 3 }));
    object["status"] = json!({ "size": 1, "selector": "a=b", "conditions": [{ "type": "Ready", "status": "True" }] });
    let now = jiff::Timestamp::UNIX_EPOCH;
    assert_eq!(kind().table_row(&object, now), [json!("f"), json!(3), json!("True")]);
    assert!(kind().selectable_fields(&object).contains(&("spec.color", "red".to_owned())));
    let mut scale = crate::scale::of(kind(), &object);
    assert_eq!(
        (&scale["spec"], &scale["status"]),
        (&json!({ "replicas": 3 }), &json!({ "replicas": 1, "selector": "a=b" }))
    );
    scale["spec"]["replicas"] = 4.into();
    assert_eq!(crate::scale::apply(kind(), &object, &scale)["spec"]["size"], 4);
}

#[test]
fn lists_are_merged_by_their_keys() {
    let by = |name: &str| Manager { name: name.into(), subresource: String::new(), now: jiff::Timestamp::UNIX_EPOCH };
    let config = |ports: Value, set: Value| {
        json!({ "apiVersion": "example.com/v1", "kind": "Foo", "metadata": { "name": "f", "namespace": "default" },
            "spec": { "ports": ports, "set": set } })
    };
    let first = config(json!([{ "name": "a", "port": 1 }]), json!(["x"]));
    let one = kind().apply(None, &first, &by("one"), false).unwrap();
    let second = config(json!([{ "name": "b", "port": 2 }]), json!(["y"]));
    let both = kind().apply(Some(&one), &second, &by("two"), false).unwrap();
    assert_eq!(both["spec"]["ports"].as_array().unwrap().len(), 2);
    assert_eq!(both["spec"]["set"], json!(["x", "y"]));
    let clash = config(json!([{ "name": "a", "port": 9 }]), json!([]));
    assert!(
        kind()
            .apply(Some(&both), &clash, &by("two"), false)
            .unwrap_err()
            .to_string()
            .contains(".spec.ports[name=\"a\"].port")
    );
    let wrong =
        json!({ "apiVersion": "example.com/v1", "kind": "Foo", "metadata": { "name": "f" }, "spec": { "none": 1 } });
    let refused = kind().apply(None, &wrong, &by("one"), false).unwrap_err().to_string();
    assert!(refused.ends_with(".spec.none: field not declared in schema"), "{refused}");
}

#[test]
fn a_version_shows_what_another_stored() {
    let kinds = Catalog::default().kinds(&definition(schema()));
    let mut beta = object(json!({ "size": 3 }));
    beta["apiVersion"] = "example.com/v1beta1".into();
    let stored = kinds[1].to_storage(beta);
    assert_eq!(stored["apiVersion"], "example.com/v1");
    assert_eq!(kinds[1].from_storage(stored.clone())["apiVersion"], "example.com/v1beta1");
    assert_eq!(kinds[0].from_storage(stored)["spec"]["size"], 3);
}

fn problems(schema: Value) -> Vec<String> {
    let mut errors = crate::errors::Errors::default();
    super::rule_problems(&schema, &crate::errors::Path::root("s"), &mut errors);
    errors.into_vec().iter().map(ToString::to_string).collect()
}

#[test]
fn rules_are_judged_with_their_definition() {
    let with = |rule: &str| {
        json!({ "type": "object", "properties": { "x": { "type": "integer" } },
        "x-kubernetes-validations": [{ "rule": rule }] })
    };
    assert!(problems(with("self.x > 1")).is_empty());
    assert_eq!(problems(with(" ")), ["s.x-kubernetes-validations[0].rule: Required value: rule is not specified"]);
    let wanted = "s.x-kubernetes-validations[0].rule: Invalid value: {\"Rule\":\"self.z == 1\",\"Message\":\"\",\
                  \"MessageExpression\":\"\",\"Reason\":null,\"FieldPath\":\"\",\"OptionalOldSelf\":null}: compilation failed: \
                  ERROR: <input>:1:5: undefined field 'z'\n | self.z == 1\n | ....^";
    assert_eq!(problems(with("self.z == 1")), [wanted]);
    assert!(problems(with("self = 42"))[0].contains("Syntax error"));
    let made = problems(with("Foo{ a: 1 }.a == 1"));
    assert!(made[0].contains("compilation failed: ERROR: <input>:1:4: undeclared reference to 'Foo'"), "{made:?}");
    assert!(problems(with("Object{ x: self.x }.x == 1"))[0].contains("undeclared reference to 'Object'"));
    assert!(problems(with("self.x + 1"))[0].ends_with("cel expression must evaluate to a bool"));
    assert!(problems(with("self.metadata.name == self.kind")).is_empty());
    let mut message = with("self.x > 1");
    message["x-kubernetes-validations"][0]["messageExpression"] = "self.x".into();
    assert!(problems(message)[0].ends_with("messageExpression must evaluate to a string"));
    let texts = json!({ "type": "array", "items": { "type": "array", "items": { "type": "string" },
        "x-kubernetes-validations": [{ "rule": "self.all(s, s == 'string constant')" }] } });
    let wanted = "s.items.x-kubernetes-validations[0].rule: Forbidden: estimated rule cost exceeds budget by factor of more than 100x";
    assert!(problems(texts)[0].starts_with(wanted));
}

#[test]
fn old_values_are_known_where_they_can_be_told_apart() {
    let item = json!({ "type": "object", "properties": { "x": { "type": "integer" } },
        "x-kubernetes-validations": [{ "rule": "self.x >= oldSelf.x" }] });
    let list = |kind: &str| {
        json!({ "type": "object", "properties": { "l": { "type": "array", "maxItems": 3,
        "x-kubernetes-list-type": kind, "items": item } } })
    };
    assert!(problems(list("map")).is_empty());
    let wanted = "s.properties[l].items.x-kubernetes-validations[0].rule: Invalid value: \"self.x >= oldSelf.x\": oldSelf \
                  cannot be used on the uncorrelatable portion of the schema within s.properties[l]";
    assert_eq!(problems(list("atomic")), [wanted]);
    let optional = |rule: &str| {
        json!({ "type": "object", "properties": { "x": { "type": "integer" } },
        "x-kubernetes-validations": [{ "rule": rule, "optionalOldSelf": true }] })
    };
    assert!(problems(optional("oldSelf.hasValue() || self.x == 1")).is_empty());
    assert!(problems(optional("self.x == 1"))[0].ends_with("may not be set if oldSelf is not used in rule"));
}

#[test]
fn what_would_run_too_long_does_not_begin() {
    let rules = json!({ "type": "object", "properties": { "l": { "type": "array", "maxItems": 725,
        "items": { "type": "integer" } } }, "x-kubernetes-validations": [{ "rule": "self.l.all(x, self.l.all(y, y == x))" }] });
    let compiled = super::rules::compile(&rules).unwrap();
    let check = |count: usize| {
        let mut errors = crate::errors::Errors::default();
        super::rules::check(&compiled, &json!({ "l": vec![20; count] }), None, &mut errors);
        errors.into_vec().iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert!(check(50).is_empty());
    assert!(check(725)[0].contains("call cost exceeds limit for rule: self.l.all"));
}

/// What the rules of a schema say of an object.
fn judged(schema: &Value, object: &Value, old: Option<&Value>) -> Vec<String> {
    assert_eq!(problems(schema.clone()), Vec::<String>::new());
    let mut errors = crate::errors::Errors::default();
    super::rules::check(&super::rules::compile(schema).unwrap(), object, old, &mut errors);
    errors.into_vec().iter().map(ToString::to_string).collect()
}

/// A schema of an object whose field `f` has a schema and a rule.
fn field(mut schema: Value, rule: Value) -> Value {
    schema["x-kubernetes-validations"] = json!([rule]);
    json!({ "type": "object", "properties": { "f": schema } })
}

#[test]
fn rules_know_all_of_the_language_that_upstream_has_on() {
    let map = json!({ "type": "object", "additionalProperties": { "type": "integer" }, "maxProperties": 9 });
    let list = json!({ "type": "array", "items": { "type": "integer" }, "maxItems": 9 });
    let holds = |schema: &Value, value: Value, rule: &str| {
        judged(&field(schema.clone(), json!({ "rule": rule })), &json!({ "f": value }), None)
    };
    for rule in [
        "self[?'a'].orValue(0) == 1 && !self[?'b'].hasValue()",
        "self.?a.optMap(x, x + 1).orValue(0) == 2",
        "self.?a.optFlatMap(x, optional.of(x * 5)).value() == 5",
        "!self.?b.optMap(x, x + 1).hasValue()",
        "[self.?a, self.?b].unwrapOpt() == [1]",
        "optional.ofNonZeroValue(self['a']).hasValue()",
        "self.all(k, v, k == 'a' && v == 1) && self.exists(k, v, v == 1) && self.existsOne(k, v, v == 1)",
        "self.transformMap(k, v, v + 1) == {'a': 2} && self.transformMap(k, v, v > 1, v) == {}",
        "self.transformMapEntry(k, v, {string(v): k}) == {'1': 'a'}",
        "self.transformList(k, v, k) == ['a']",
    ] {
        assert_eq!(holds(&map, json!({ "a": 1 }), rule), Vec::<String>::new(), "{rule}");
    }
    for rule in [
        "self.sortBy(x, -x) == [3, 2, 1] && self.sort() == [1, 2, 3]",
        "self.transformList(i, x, i * 10 + x) == [3, 11, 22]",
        "self.transformList(i, x, i > 0, x).all(i, x, i + 1 == x || x == 2)",
        "self.exists_one(i, x, i == x)  == false || true",
        "dyn(self).size() == 3 && type(self) == list && self.first().value() == 3",
    ] {
        assert_eq!(holds(&list, json!([3, 1, 2]), rule), Vec::<String>::new(), "{rule}");
    }
    // A macro is no function.
    let wrong = problems(field(list, json!({ "rule": "self.sortBy(x + 1, x) == []" })));
    assert!(wrong[0].contains("undeclared reference to 'sortBy'"), "{wrong:?}");
}

#[test]
fn values_are_of_the_types_that_schemas_say() {
    let text = |format: &str| json!({ "type": "string", "format": format, "maxLength": 50 });
    let table = [
        (text("date-time"), json!("2026-01-02T03:04:05Z"), "self.getFullYear() == 2026"),
        (text("date"), json!("2026-01-02"), "self < timestamp('2026-01-03T00:00:00Z')"),
        (text("duration"), json!("1h"), "self > duration('59m')"),
        (text("byte"), json!("YWJj"), "self.size() == 3"),
        (json!({ "type": "number" }), json!(3), "self / 2.0 == 1.5"),
        (json!({ "x-kubernetes-int-or-string": true }), json!("50%"), "type(self) == string"),
        (
            json!({ "type": "object", "properties": { "a-b": { "type": "integer" }, "in": { "type": "integer" } } }),
            json!({ "a-b": 1, "in": 2 }),
            "self.a__dash__b == 1 && self.__in__ == 2 && has(self.a__dash__b)",
        ),
    ];
    for (schema, value, rule) in table {
        let found = judged(&field(schema, json!({ "rule": rule })), &json!({ "f": value }), None);
        assert_eq!(found, Vec::<String>::new(), "{rule}");
    }
}

#[test]
fn old_items_are_found_by_their_keys_and_what_did_not_change_stays() {
    let item = json!({ "type": "object", "properties": { "name": { "type": "string", "maxLength": 9 }, "x": { "type": "integer" } },
        "x-kubernetes-validations": [{ "rule": "self.x >= oldSelf.x", "message": "no less" }, { "rule": "self.x < 9" }] });
    let schema = json!({ "type": "object", "properties": { "l": { "type": "array", "maxItems": 3,
        "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"], "items": item } } });
    let of = |items: Value| json!({ "l": items });
    let old = of(json!([{ "name": "a", "x": 5 }, { "name": "b", "x": 10 }]));
    let moved = of(json!([{ "name": "b", "x": 10 }, { "name": "a", "x": 4 }, { "name": "c", "x": 1 }]));
    assert_eq!(judged(&schema, &moved, Some(&old)), ["l[1]: Invalid value: no less"]);
    assert_eq!(judged(&schema, &old, Some(&old)), Vec::<String>::new());
    assert_eq!(judged(&schema, &old, None), ["l[1]: Invalid value: failed rule: self.x < 9"]);
    let optional = json!({ "rule": "self > 1 || oldSelf.optMap(o, o > 1).orValue(false)", "optionalOldSelf": true,
        "messageExpression": "'was ' + oldSelf.optMap(o, string(o)).orValue('nothing')" });
    let schema = field(json!({ "type": "integer" }), optional);
    let at = |value: i64| json!({ "f": value });
    assert_eq!(judged(&schema, &at(1), None), ["f: Invalid value: 1: was nothing"]);
    assert_eq!(judged(&schema, &at(1), Some(&at(2))), Vec::<String>::new());
    assert_eq!(judged(&schema, &at(0), Some(&at(1))), ["f: Invalid value: 0: was 1"]);
}

#[test]
fn a_rule_without_a_value_says_why() {
    let map = json!({ "type": "object", "additionalProperties": { "type": "integer" }, "maxProperties": 9 });
    let failed = judged(&field(map, json!({ "rule": "self['b'] > 1" })), &json!({ "f": { "a": 1 } }), None);
    assert_eq!(failed, ["f: Invalid value: \"object\": no such key: b evaluating rule: self['b'] > 1"]);
    let any = json!({ "x-kubernetes-int-or-string": true });
    let failed = judged(&field(any, json!({ "rule": "self + 1 > 1" })), &json!({ "f": "x" }), None);
    assert!(failed[0].contains("'no such overload': call arguments did not match"), "{failed:?}");
    let path =
        json!({ "rule": "false", "fieldPath": ".x['y.z']", "reason": "FieldValueRequired", "message": "needed" });
    let schema = field(json!({ "type": "object", "properties": {} }), path);
    let mut errors = crate::errors::Errors::default();
    super::rules::check(&super::rules::compile(&schema).unwrap(), &json!({ "f": {} }), None, &mut errors);
    assert_eq!(errors.into_vec()[0].to_string(), "f.x[y.z]: Required value: needed");
}
