//! The operations of a JSON patch (RFC 6902). What they copy is bounded, and how deep they nest: a few lines would otherwise
//! double an object until there is no memory left.

use json_patch::{PatchError, PatchOperation};
use schema::{DEEPEST, is_deeper};
use serde_json::Value;

/// How many bytes the copies of one patch may make (`apiserver/pkg/server.Config.JSONPatchMaxCopyBytes`).
const MOST_COPIED: usize = 3 * 1024 * 1024;

/// Why a JSON patch is not applied.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OperationError {
    #[error(transparent)]
    Refused(#[from] PatchError),
    #[error(
        "Unable to complete the copy, the accumulated size increase of copy is {copied}, exceeding the limit {MOST_COPIED}"
    )]
    Copies { copied: usize },
    #[error("operation '/{0}' nests deeper than {DEEPEST} levels")]
    Depth(usize),
}

/// Applies the operations in their order; after an error the object is good for nothing.
pub(crate) fn operate(object: &mut Value, operations: &[PatchOperation]) -> Result<(), OperationError> {
    let mut copied = 0;
    for (index, operation) in operations.iter().enumerate() {
        let placed = match operation {
            PatchOperation::Add(add) => Some(&add.value),
            PatchOperation::Replace(replace) => Some(&replace.value),
            PatchOperation::Copy(copy) => copy.from.resolve(object).ok(),
            PatchOperation::Move(moved) => moved.from.resolve(object).ok(),
            PatchOperation::Remove(_) | PatchOperation::Test(_) => None,
        };
        let levels = DEEPEST.checked_sub(operation.path().count());
        if placed.is_some_and(|value| levels.is_none_or(|levels| is_deeper(value, levels))) {
            return Err(OperationError::Depth(index));
        }
        // A move copies nothing, but to look at what it moves takes as long.
        if let (Some(value), PatchOperation::Copy(_) | PatchOperation::Move(_)) = (placed, operation) {
            copied += size(value);
        }
        if copied > MOST_COPIED {
            return Err(OperationError::Copies { copied });
        }
        json_patch::patch_unsafe(object, std::slice::from_ref(operation)).map_err(|mut error| {
            error.operation = index;
            error
        })?;
    }
    Ok(())
}

/// About as many bytes as the value has in JSON.
fn size(value: &Value) -> usize {
    match value {
        Value::Array(list) => list.iter().map(|item| size(item) + 1).sum::<usize>() + 2,
        Value::Object(object) => object.iter().map(|(name, item)| name.len() + size(item) + 4).sum::<usize>() + 2,
        Value::String(text) => text.len() + 2,
        Value::Number(_) | Value::Bool(_) | Value::Null => 4,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{OperationError, operate};

    fn operated(object: &Value, operations: Value) -> Result<Value, OperationError> {
        let operations: Vec<json_patch::PatchOperation> = serde_json::from_value(operations).unwrap();
        let mut object = object.clone();
        operate(&mut object, &operations).map(|()| object)
    }

    #[test]
    fn operations_see_those_before_them_and_are_named_by_their_place() {
        let operations = json!([
            { "op": "add", "path": "/b", "value": { "c": 1 } },
            { "op": "copy", "from": "/b", "path": "/d" },
            { "op": "move", "from": "/b/c", "path": "/e" },
            { "op": "test", "path": "/d/c", "value": 1 },
            { "op": "remove", "path": "/a" },
        ]);
        assert_eq!(operated(&json!({ "a": 0 }), operations).unwrap(), json!({ "b": {}, "d": { "c": 1 }, "e": 1 }));
        let failing = json!([{ "op": "remove", "path": "/a" }, { "op": "remove", "path": "/a" }]);
        let error = operated(&json!({ "a": 0 }), failing).unwrap_err().to_string();
        assert!(error.starts_with("operation '/1' failed at path '/a'"), "{error}");
    }

    #[test]
    fn copies_do_not_double_without_end() {
        let operations: Vec<Value> =
            (0..64).map(|n| json!({ "op": "copy", "from": "/data", "path": format!("/data/k{n}") })).collect();
        let error = operated(&json!({ "data": { "a": "x".repeat(1_000) } }), operations.into()).unwrap_err();
        assert!(matches!(error, OperationError::Copies { copied } if copied < 10_000_000), "{error}");
    }

    #[test]
    fn nothing_nests_too_deep() {
        let chain = (0..90).fold(json!(1), |inner, _| json!({ "a": inner }));
        let path = "/a".repeat(90);
        let operations = json!([{ "op": "replace", "path": path, "value": chain }]);
        let error = operated(&chain, operations).unwrap_err();
        assert!(matches!(error, OperationError::Depth(0)));
        let copies: Vec<Value> =
            (0..50).map(|n| json!({ "op": "copy", "from": "/x", "path": format!("/x/{n}") })).collect();
        assert!(operated(&json!({ "x": {} }), copies.into()).is_err_and(|error| error.to_string().contains("copy")));
    }
}
