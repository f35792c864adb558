use proptest::prelude::*;
use serde_json::json;

use super::check;
use crate::environment::{Declared, admission};
use crate::types::{Schemas, Ty};

fn deployment() -> Ty {
    let spec = json!({ "type": "object", "properties": {
        "replicas": { "type": "integer", "format": "int32" },
        "paused": { "type": "boolean" },
        "names": { "type": "array", "items": { "type": "string" } },
        "a-b": { "type": "string" },
        "port": { "format": "int-or-string", "type": "string" },
    } });
    let document = json!({ "components": { "schemas": {
        "Deployment": {
            "type": "object",
            "properties": {
                "metadata": { "allOf": [{ "$ref": "#/components/schemas/Meta" }] },
                "spec": { "$ref": "#/components/schemas/Spec" },
            },
            "x-kubernetes-group-version-kind": [{ "group": "apps", "kind": "Deployment", "version": "v1" }],
        },
        "Meta": { "type": "object", "properties": {
            "name": { "type": "string" },
            "generateName": { "type": "string" },
            "labels": { "type": "object", "additionalProperties": { "type": "string" } },
        } },
        "Spec": spec,
    } } });
    Schemas(&document).kind("apps", "v1", "Deployment").unwrap()
}

fn checked(expression: &str) -> Result<Ty, String> {
    let declared = Declared { object: Some(deployment()), params: None, patches: true };
    check(expression, &admission(declared))
}

#[test]
fn what_fits_is_told_no_warning() {
    for (expression, wanted) in [
        ("object.spec.replicas > 1", "bool"),
        ("object.spec.replicas + 1", "int"),
        ("object.spec.replicas > 1.5", "bool"),
        ("object.spec.port == 80 || object.spec.port == 'http'", "bool"),
        ("object.metadata.labels.exists(k, k.startsWith('a') && object.metadata.labels[k] == 'x')", "bool"),
        ("object.spec.names.map(n, n.size())", "list(int)"),
        ("object.spec.names.filter(n, n != '')", "list(string)"),
        ("object.spec.a__dash__b.matches('^x')", "bool"),
        ("object.metadata.labels[?'a'].orValue('none') + '!'", "string"),
        ("object.?spec.?replicas.orValue(1)", "int"),
        ("object.spec.?names.optMap(n, n.size())", "optional_type(int)"),
        ("object.spec.?names.optFlatMap(n, n.first()).orValue('')", "string"),
        ("object.spec.names.sortBy(n, n.size())", "list(string)"),
        ("object.spec.names.all(i, n, i + 1 > 0 && n != '')", "bool"),
        ("object.spec.names.transformList(i, n, n.size() + i)", "list(int)"),
        ("object.metadata.labels.transformMap(k, v, v.size())", "map(string, int)"),
        ("object.metadata.labels.transformMapEntry(k, v, k != v, {v: k})", "map(string, string)"),
        ("has(object.metadata.labels) && 'x' in object.metadata.labels", "bool"),
        ("authorizer.group('apps').resource('deployments').check('create').allowed()", "bool"),
        ("authorizer.requestResource.check('delete').allowed() && request.userInfo.groups.size() > 0", "bool"),
        ("quantity('1Gi').isGreaterThan(quantity('1Mi')) && namespaceObject.metadata.name != 'kube-system'", "bool"),
        ("oldObject == null || oldObject.spec.replicas == object.spec.replicas", "bool"),
        ("Object{ spec: Object.spec{ replicas: 3 } }", "Object"),
        ("[JSONPatch{ op: 'add', path: '/x', value: 1 }] + [JSONPatch{ op: 'remove', path: '/x' }]", "list(JSONPatch)"),
        ("object.apiVersion + object.kind", "string"),
        ("'%s has %d'.format([object.metadata.name, object.spec.replicas])", "string"),
        ("[[1], [2, 3]].flatten()", "list(int)"),
        ("request.userInfo.extra[?'authentication.kubernetes.io/node-name'][0].orValue('')", "string"),
        ("(request.operation == 'DELETE' ? oldObject : object).?metadata.name.orValue('')", "string"),
        ("request.userInfo.extra[?'a'][?0]", "optional_type(string)"),
    ] {
        assert_eq!(checked(expression).map(|ty| ty.to_string()), Ok(wanted.to_owned()), "{expression}");
    }
}

#[test]
fn what_does_not_fit_is_told_as_upstream_does() {
    let wanted = "ERROR: <input>:1:22: found no matching overload for '_>_' applied to '(int, string)'\n \
                  | object.spec.replicas > '1'\n | .....................^";
    assert_eq!(checked("object.spec.replicas > '1'"), Err(wanted.into()));
    let text = "'wants replicas > 1, got ' + object.spec.replicas";
    let wanted = format!(
        "ERROR: <input>:1:28: found no matching overload for '_+_' applied to '(string, int)'\n | {text}\n | {}^",
        ".".repeat(27)
    );
    assert_eq!(checked(text), Err(wanted));
    let wanted = "ERROR: <input>:2:13: undefined field 'maxRetries'\n |  object.spec.maxRetries < 10\n | ............^";
    assert_eq!(checked("true &&\n object.spec.maxRetries < 10"), Err(wanted.into()));
    for (expression, wanted) in [
        ("foo == 1", "undeclared reference to 'foo' (in container '')"),
        ("object.spec.names.frobnicate()", "undeclared reference to 'frobnicate' (in container '')"),
        (
            "object.spec.replicas.startsWith('1')",
            "found no matching overload for 'startsWith' applied to 'int.(string)'",
        ),
        ("object.spec.replicas.x", "type 'int' does not support field selection"),
        ("object.spec.paused ? 1 : 'x'", "found no matching overload for '_?_:_' applied to '(bool, int, string)'"),
        ("[1, 'x']", "expected type 'int' but found 'string'"),
        ("object.spec.replicas.all(x, true)", "expression of type 'int' cannot be range of a comprehension"),
        ("request.none", "undefined field 'none'"),
        ("Pod{}", "undeclared reference to 'Pod' (in container '')"),
        ("JSONPatch{ op: 1 }", "expected type of field 'op' is 'string' but provided type is 'int'"),
        ("params.x", "undeclared reference to 'params' (in container '')"),
        ("object.", "Syntax error: "),
    ] {
        let found = checked(expression).unwrap_err();
        assert!(found.contains(wanted), "{expression}: {found}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    /// Whatever is made of pieces is judged: nothing panics, and what is wrong stands in its line.
    #[test]
    fn anything_is_judged(pieces in proptest::collection::vec(
        proptest::sample::select(vec![
            "object", ".spec", ".replicas", " + ", "1", "'a'", "(", ")", "[", "]", ".all(x, ", "x", " > ", "{", "}", ": ", "\n",
            "has(", "é", "?", "Object{", "size(",
        ]), 0..12))
    {
        let source = pieces.concat();
        if let Err(text) = checked(&source) {
            prop_assert!(text.starts_with("ERROR: <input>:"), "{}", text);
        }
    }
}
