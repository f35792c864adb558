//! Merge patches out of two versions of the same thing.

use serde::Serialize;
use serde_json::{Map, Value, json};

/// What a merge patch must say so that `old` becomes `new`: fields that are gone are null.
#[must_use]
pub fn difference<T: Serialize>(old: &T, new: &T) -> Value {
    between(&json!(old), json!(new))
}

fn between(old: &Value, new: Value) -> Value {
    let (Value::Object(before), Value::Object(after)) = (old, &new) else { return new };
    let mut patch: Map<String, Value> = Map::new();
    for name in before.keys().filter(|name| !after.contains_key(*name)) {
        patch.insert(name.clone(), Value::Null);
    }
    for (name, value) in after {
        match before.get(name) {
            Some(same) if same == value => {}
            Some(other) => {
                patch.insert(name.clone(), between(other, value.clone()));
            }
            None => {
                patch.insert(name.clone(), value.clone());
            }
        }
    }
    Value::Object(patch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_gone_is_null_at_every_depth() {
        let old = json!({ "a": 1, "b": { "c": [1], "d": 2 }, "e": 3 });
        let new = json!({ "b": { "c": [1, 2] }, "e": 3, "f": 4 });
        assert_eq!(difference(&old, &new), json!({ "a": null, "b": { "c": [1, 2], "d": null }, "f": 4 }));
    }
}
