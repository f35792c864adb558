//! Expressions in CEL over objects (KEP-3488, KEP-3716), with Kubernetes' functions.

use std::collections::HashMap;
use std::sync::Arc;

use kube_cel::KubeCelExt as _;
use kube_cel::cel::objects::{Key, Map};
use kube_cel::cel::{Context, Program, Value as Cel};
use serde_json::Value;

/// Why an expression has no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CelError {
    #[error("compilation failed: {0}")]
    Compile(String),
    #[error("expression '{expression}' resulted in error: {reason}")]
    Evaluate { expression: String, reason: String },
    #[error("expression '{expression}' resulted in a value that is no {wanted}")]
    Type { expression: String, wanted: &'static str },
}

/// The names that expressions know.
#[derive(Default)]
pub struct Variables(Vec<(String, Cel)>);

impl Variables {
    pub fn set(&mut self, name: &str, value: &Value) {
        self.0.push((name.to_owned(), of_json(value)));
    }

    fn evaluate(&self, expression: &str) -> Result<Cel, CelError> {
        let program = Program::compile(expression).map_err(|error| CelError::Compile(error.to_string()))?;
        let mut context = Context::default().with_all();
        for (name, value) in &self.0 {
            context.add_variable_from_value(name, value.clone());
        }
        program
            .execute(&context)
            .map_err(|error| CelError::Evaluate { expression: expression.to_owned(), reason: error.to_string() })
    }

    /// The value of a condition.
    pub fn holds(&self, expression: &str) -> Result<bool, CelError> {
        match self.evaluate(expression)? {
            Cel::Bool(holds) => Ok(holds),
            _ => Err(CelError::Type { expression: expression.to_owned(), wanted: "bool" }),
        }
    }

    /// The value of an expression that makes a text; `None` for null.
    pub fn text(&self, expression: &str) -> Result<Option<String>, CelError> {
        match self.evaluate(expression)? {
            Cel::String(text) => Ok(Some(text.to_string())),
            Cel::Null => Ok(None),
            _ => Err(CelError::Type { expression: expression.to_owned(), wanted: "string" }),
        }
    }

    /// Names the values of other expressions, each of which knows the ones before it: `variables.NAME`.
    pub fn compose<'a>(&mut self, named: impl Iterator<Item = (&'a str, &'a str)>) {
        let mut known: HashMap<Key, Cel> = HashMap::new();
        for (name, expression) in named {
            let at = self.0.iter().position(|(name, _)| name == "variables");
            let map = Cel::Map(Map { map: Arc::new(known.clone()) });
            match at.and_then(|at| self.0.get_mut(at)) {
                Some(slot) => slot.1 = map,
                None => self.0.push(("variables".to_owned(), map)),
            }
            // One that has no value fails those who ask for it.
            if let Ok(value) = self.evaluate(expression) {
                known.insert(Key::String(Arc::new(name.to_owned())), value);
            }
        }
        self.0.retain(|(name, _)| name != "variables");
        self.0.push(("variables".to_owned(), Cel::Map(Map { map: Arc::new(known) })));
    }
}

fn of_json(value: &Value) -> Cel {
    match value {
        Value::Null => Cel::Null,
        Value::Bool(flag) => Cel::Bool(*flag),
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(number), _) => Cel::Int(number),
            (None, Some(number)) => Cel::UInt(number),
            (None, None) => Cel::Float(number.as_f64().unwrap_or_default()),
        },
        Value::String(text) => Cel::String(Arc::new(text.clone())),
        Value::Array(list) => Cel::List(Arc::new(list.iter().map(of_json).collect())),
        Value::Object(map) => {
            let entries = map.iter().map(|(name, value)| (Key::String(Arc::new(name.clone())), of_json(value)));
            Cel::Map(Map { map: Arc::new(entries.collect()) })
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{CelError, Variables};

    #[test]
    fn expressions_see_objects_and_each_other() {
        let mut variables = Variables::default();
        variables.set("object", &json!({ "spec": { "replicas": 3, "name": "web" } }));
        assert_eq!(variables.holds("object.spec.replicas <= 5 && has(object.spec.name)"), Ok(true));
        variables.compose([("twice", "object.spec.replicas * 2"), ("more", "variables.twice + 1")].into_iter());
        assert_eq!(variables.holds("variables.more == 7"), Ok(true));
        assert_eq!(variables.text("'too many: ' + string(variables.twice)"), Ok(Some("too many: 6".into())));
        assert!(matches!(variables.holds("object.spec."), Err(CelError::Compile(_))));
        assert!(matches!(variables.holds("object.none.deeper"), Err(CelError::Evaluate { .. })));
        assert!(matches!(variables.holds("object.spec.name"), Err(CelError::Type { .. })));
    }
}
