//! Values of expressions.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kube_cel::KubeCelExt as _;
use kube_cel::cel::common::ast::{CallExpr, Expr, LiteralValue};
use kube_cel::cel::objects::{Key, Map, OptionalValue};
use kube_cel::cel::{Context, ExecutionError, IdedExpr, Value as Cel};
use serde_json::Value;

use crate::authorizer::{self, Asked, Authorizer};
use crate::budget::{self, Budget, Exceeded};
use crate::composed::{Known, VARIABLES, Variable, Wanted};
use crate::shapes::Shape;
use crate::{Programs, library, objects, with_room};

/// Why an expression has no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CelError {
    #[error("compilation failed: {0}")]
    Compile(String),
    #[error("expression '{expression}' resulted in error: {reason}")]
    Evaluate { expression: String, reason: String },
    #[error("expression '{expression}' resulted in a value that is no {wanted}")]
    Type { expression: String, wanted: &'static str },
    #[error("validation failed due to running out of cost budget, no further validation rules will be run")]
    OutOfBudget,
    /// An object of another type stands where this one belongs.
    #[error("type mismatch: {0}")]
    Mismatch(String),
}

/// The names that expressions know.
pub struct Variables {
    /// The same for all expressions: what they are about is made once.
    context: Context<'static>,
    programs: Arc<Programs>,
    /// What is named by [`Variables::compose`], and the values that were asked for so far.
    named: Vec<Variable>,
    known: Mutex<Known>,
    budget: Budget,
}

impl Default for Variables {
    fn default() -> Self {
        Variables::with(Arc::default())
    }
}

impl Variables {
    /// For expressions that may have been read before.
    pub fn with(programs: Arc<Programs>) -> Self {
        let mut context = Context::default().with_all();
        library::register(&mut context);
        authorizer::register(&mut context);
        let budget = Budget::new(&mut context);
        Variables { context, programs, named: Vec::new(), known: Mutex::default(), budget }
    }

    pub fn set(&mut self, name: &str, value: &Value) {
        self.put(name, of_json(value));
    }

    /// Gives a name a value that a schema describes.
    pub fn bind(&mut self, name: &str, value: &Value, shape: &Shape) {
        let value = self.shaped(value, shape);
        self.put(name, value);
    }

    /// As [`Variables::bind`], for one that may not be there.
    pub fn bind_optional(&mut self, name: &str, value: Option<&Value>, shape: &Shape) {
        let value = value.map(|value| self.shaped(value, shape));
        self.put(name, Cel::Opaque(Arc::new(value.map_or_else(OptionalValue::none, OptionalValue::of))));
    }

    fn shaped(&self, value: &Value, shape: &Shape) -> Cel {
        let made = |function: &str, text: &str| {
            let text = Expr::Literal(LiteralValue::String(text.into()));
            let args = vec![IdedExpr { id: 0, expr: text }];
            let call = Expr::Call(CallExpr { func_name: function.to_owned(), target: None, args });
            Cel::resolve(&IdedExpr { id: 0, expr: call }, &self.context).ok()
        };
        shape.value(value, &made)
    }

    /// What all expressions from now on may cost.
    pub fn grant(&self, cost: u64) {
        self.budget.set(cost);
    }

    /// Lets expressions ask who may do what: `authorizer`, and `authorizer.requestResource` for what the request is about.
    pub fn authorize(&mut self, by: Arc<dyn Authorizer>, request: Asked) {
        self.put("authorizer", authorizer::value(Arc::clone(&by), Asked::default()));
        self.put(objects::REQUEST_RESOURCE, authorizer::value(by, request));
    }

    fn put(&mut self, name: &str, value: Cel) {
        self.context.add_variable_from_value(name, value);
    }

    fn evaluate(&self, source: &str) -> Result<Cel, CelError> {
        with_room(|| self.evaluate_here(source))
    }

    fn evaluate_here(&self, source: &str) -> Result<Cel, CelError> {
        let program = self.programs.of(source);
        let expression = program.as_ref().as_ref().map_err(Clone::clone)?;
        for index in self.due(expression) {
            self.make(index);
        }
        self.resolve((source, expression), self.named.len())
    }

    /// The variables that an expression needs, and those that they need, which stand before them.
    fn due(&self, expression: &IdedExpr) -> BTreeSet<usize> {
        let mut due = BTreeSet::new();
        if self.named.is_empty() {
            return due;
        }
        let mut left = vec![(Wanted::of(expression), self.named.len())];
        while let Some((wanted, before)) = left.pop() {
            for (index, variable) in self.named.iter().enumerate().take(before) {
                if wanted.has(&variable.name)
                    && due.insert(index)
                    && let Ok(expression) = self.programs.of(&variable.expression).as_ref()
                {
                    left.push((Wanted::of(expression), index));
                }
            }
        }
        due
    }

    /// Gives a variable its value, once; those that it needs have theirs.
    fn make(&self, index: usize) {
        let Some(Variable { expression: source, .. }) = self.named.get(index) else { return };
        if self.known().contains_key(&index) {
            return;
        }
        let made = match self.programs.of(source).as_ref() {
            Ok(expression) => self.resolve((source, expression), index),
            Err(error) => Err(error.clone()),
        };
        let made = made.map_err(|error| match error {
            CelError::Evaluate { reason, .. } => reason,
            other => other.to_string(),
        });
        self.known().insert(index, made);
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The value of an expression that knows the variables before a place.
    fn resolve(&self, (source, expression): (&str, &IdedExpr), before: usize) -> Result<Cel, CelError> {
        let mut scope = self.context.new_inner_scope();
        if !self.named.is_empty() {
            scope.add_variable_from_value(VARIABLES, self.values(&Wanted::of(expression), before));
        }
        self.budget.open();
        let value = Cel::resolve(expression, &scope);
        let failed = |reason: String| CelError::Evaluate { expression: source.to_owned(), reason };
        self.budget.close().map_err(|exceeded| match exceeded {
            Exceeded::Call => failed(budget::EXCEEDED.to_owned()),
            Exceeded::Whole => CelError::OutOfBudget,
        })?;
        value.map_err(|error| failed(self.reason(&error)))
    }

    /// Those that have none are not there, and fail who asks for them.
    fn values(&self, wanted: &Wanted, before: usize) -> Cel {
        let known = self.known();
        let named = self.named.iter().enumerate().take(before).filter(|(_, variable)| wanted.has(&variable.name));
        let values = named.filter_map(|(index, variable)| {
            let value = known.get(&index)?.as_ref().ok()?;
            Some((Key::String(Arc::new(variable.name.clone())), value.clone()))
        });
        Cel::Map(Map { map: Arc::new(values.collect()) })
    }

    /// Why a variable has no value.
    fn failure(&self, name: &str) -> Option<String> {
        let index = self.named.iter().position(|variable| variable.name == name)?;
        self.known().get(&index)?.as_ref().err().cloned()
    }

    /// As cel-go words it.
    fn reason(&self, error: &ExecutionError) -> String {
        match error {
            ExecutionError::NoSuchKey(key) => match self.failure(key.as_str()) {
                Some(why) => format!("composited variable {key:?} fails to evaluate: {why}"),
                None => format!("no such key: {key}"),
            },
            ExecutionError::NoSuchOverload
            | ExecutionError::UnsupportedBinaryOperator(..)
            | ExecutionError::UnsupportedUnaryOperator(..)
            | ExecutionError::ValuesNotComparable(..)
            | ExecutionError::UnsupportedTargetType { .. } => "no such overload".to_owned(),
            ExecutionError::UndeclaredReference(name) => format!("undeclared reference to '{name}' (in container '')"),
            ExecutionError::DivisionByZero(_) => "division by zero".to_owned(),
            ExecutionError::RemainderByZero(_) => "modulus by zero".to_owned(),
            ExecutionError::IndexOutOfBounds(index) => match index {
                Cel::Int(index) => format!("index out of bounds: {index}"),
                _ => "index out of bounds".to_owned(),
            },
            ExecutionError::FunctionError { message, .. } => message.clone(),
            other => other.to_string(),
        }
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

    /// The configuration that an expression makes: `Object{…}` (KEP-3962).
    pub fn configuration(&self, expression: &str) -> Result<Value, CelError> {
        let value = self.evaluate(expression)?;
        if objects::type_name(&value) != Some(objects::OBJECT) {
            return Err(CelError::Type { expression: expression.to_owned(), wanted: objects::OBJECT });
        }
        objects::configuration(&value).map_err(CelError::Mismatch)
    }

    /// The operations of a JSON patch that an expression makes: a list of `JSONPatch{…}`.
    pub fn json_patch(&self, expression: &str) -> Result<Value, CelError> {
        let wanted = || CelError::Type { expression: expression.to_owned(), wanted: "list(JSONPatch)" };
        let Cel::List(list) = self.evaluate(expression)? else { return Err(wanted()) };
        if list.iter().any(|one| objects::type_name(one) != Some(objects::JSON_PATCH)) {
            return Err(wanted());
        }
        let operations = list.iter().map(objects::operation);
        operations.collect::<Result<Vec<Value>, String>>().map(Value::Array).map_err(CelError::Mismatch)
    }

    /// Names the values of other expressions, each of which knows the ones before it: `variables.NAME`.
    pub fn compose<'a>(&mut self, named: impl Iterator<Item = (&'a str, &'a str)>) {
        let variable = |(name, expression): (&str, &str)| Variable { name: name.into(), expression: expression.into() };
        self.named = named.map(variable).collect();
        self.known = Mutex::default();
        self.put(VARIABLES, Cel::Map(Map { map: Arc::new(HashMap::new()) }));
    }
}

pub(crate) fn of_json(value: &Value) -> Cel {
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
    use std::sync::Arc;

    use serde_json::json;

    use super::{CelError, Variables};
    use crate::Programs;
    use crate::authorizer::{Asked, Authorizer, Decision};

    fn variables() -> Variables {
        let mut variables = Variables::default();
        let spec = json!({ "replicas": 3, "name": "web", "containers": [{ "name": "a" }, { "name": "b" }] });
        variables.set("object", &json!({ "metadata": { "name": "x" }, "spec": spec }));
        variables
    }

    #[test]
    fn expressions_see_objects_and_each_other() {
        let mut variables = variables();
        assert_eq!(variables.holds("object.spec.replicas <= 5 && has(object.spec.name)"), Ok(true));
        assert_eq!(variables.holds("object.?spec.?none.orValue('x') == 'x'"), Ok(true));
        variables.compose([("twice", "object.spec.replicas * 2"), ("more", "variables.twice + 1")].into_iter());
        assert_eq!(variables.holds("variables.more == 7"), Ok(true));
        assert_eq!(variables.text("'too many: ' + string(variables.twice)"), Ok(Some("too many: 6".into())));
        assert!(matches!(variables.holds("object.spec."), Err(CelError::Compile(_))));
        assert!(matches!(variables.holds("object.spec.name"), Err(CelError::Type { .. })));
        let reason = |expression: &str| variables.holds(expression).unwrap_err().to_string();
        assert_eq!(reason("object.none.x"), "expression 'object.none.x' resulted in error: no such key: none");
        let wanted = "expression 'object.spec.name.x' resulted in error: no such overload";
        assert_eq!(reason("object.spec.name.x"), wanted);
        assert_eq!(variables.holds("object.?spec.replicas.orValue(1) == 3"), Ok(true));
    }

    #[test]
    fn what_stands_behind_an_optional_is_optional() {
        let mut variables = Variables::default();
        let extra = json!({ "a/b": ["x", "y"], "none": [] });
        variables.set("request", &json!({ "userInfo": { "extra": extra } }));
        let text = |expression: &str| variables.text(expression).unwrap().unwrap();
        assert_eq!(text("request.userInfo.extra[?'a/b'][0].orValue('')"), "x");
        assert_eq!(text("request.userInfo.extra[?'c'][0].orValue('no')"), "no");
        assert_eq!(text("request.userInfo.extra[?'a/b'][?5].orValue('no')"), "no");
        assert_eq!(text("request.userInfo.extra[?'none'][?0].orValue('no')"), "no");
        assert_eq!(text("(1 == 1 ? request : null).?userInfo.extra['a/b'][1].orValue('')"), "y");
        assert_eq!(text("(1 == 1 ? request : null).?user.extra['a/b'][1].orValue('no')"), "no");
    }

    #[test]
    fn macros_are_written_out() {
        let mut variables = Variables::default();
        variables.set("o", &json!({ "list": [3, 1, 2], "map": { "a": 1, "b": 2 } }));
        for expression in [
            "o.?list.optMap(l, l.size()).orValue(0) == 3 && !o.?none.optMap(l, l.size()).hasValue()",
            "o.?map.optFlatMap(m, m.?a).value() == 1 && !o.?map.optFlatMap(m, m.?c).hasValue()",
            "o.list.sortBy(x, -x) == [3, 2, 1] && [].sortBy(x, x) == []",
            "o.list.all(i, x, i < 3 && x < 4) && o.list.exists(i, x, i == 1 && x == 1)",
            "o.list.existsOne(i, x, i == x - 3) && !o.list.exists_one(i, x, x > 0)",
            "o.list.transformList(i, x, i > 0, x + i) == [2, 4]",
            "o.map.transformMap(k, v, v > 1, k + string(v)) == {'b': 'b2'}",
            "o.map.transformMapEntry(k, v, {v: k}) == {1: 'a', 2: 'b'}",
            // Loops in loops, and names that hide others.
            "o.list.all(i, x, o.map.exists(k, v, v <= x && o.list[i] == x)) && o.list.map(o, o) == [3, 1, 2]",
            "type(o.list) == list && type(1) != type('1') && dyn(o.list).size() == 3 && bool('true')",
            "[optional.of(1), optional.none()].unwrapOpt() == [1] && optional.unwrap([optional.of(2)]) == [2]",
        ] {
            assert_eq!(variables.holds(expression), Ok(true), "{expression}");
        }
        let reason = |expression: &str| variables.holds(expression).unwrap_err().to_string();
        assert!(reason("o.map.transformMapEntry(k, v, {'x': k}) == {}").contains("key x already exists"));
        assert!(reason("o.list.sortBy(x, x == 1 ? 'a' : x) == []").contains("no such overload"));
        // Each turn of them pays, too.
        variables.grant(50);
        assert_eq!(variables.holds("o.list.all(i, x, o.list.all(j, y, i < 3 && j < 3))"), Err(CelError::OutOfBudget));
    }

    /// Lets who asks for `get` do it.
    struct Readers;

    impl Authorizer for Readers {
        fn check(&self, asked: &Asked) -> Decision {
            let who = asked.service_account.as_ref().map_or("me", |(_, name)| name);
            let reason = format!("{who} {} {}/{}", asked.verb, asked.group, asked.resource);
            Decision { allowed: asked.verb == "get" && asked.path.is_none(), reason }
        }
    }

    #[test]
    fn expressions_ask_who_may_do_what() {
        let mut variables = variables();
        let request = Asked { resource: "pods".into(), ..Asked::default() };
        variables.authorize(Arc::new(Readers), request);
        let holds = |expression: &str| variables.holds(expression);
        let deployments = "authorizer.group('apps').resource('deployments').namespace(object.metadata.name)";
        assert_eq!(holds(&format!("{deployments}.check('get').allowed()")), Ok(true));
        assert_eq!(holds(&format!("{deployments}.check('list').allowed()")), Ok(false));
        assert_eq!(holds("authorizer.path('/x').check('get').allowed()"), Ok(false));
        let reason =
            variables.text("authorizer.serviceAccount('ns', 'sa').group('').resource('pods').check('get').reason()");
        assert_eq!(reason, Ok(Some("sa get /pods".into())));
        let own = "authorizer.requestResource.check('get')";
        assert_eq!(
            holds(&format!("{own}.allowed() && !{own}.errored() && {own}.reason() == 'me get /pods'")),
            Ok(true)
        );
        assert!(holds("object.metadata.name.check('get').allowed()").is_err());
    }

    #[test]
    fn a_variable_without_a_value_fails_who_asks_for_it() {
        let mut variables = variables();
        variables.compose([("bad", "object.none"), ("good", "1")].into_iter());
        assert_eq!(variables.holds("variables.good == 1"), Ok(true));
        let wanted = "expression 'variables.bad == 1' resulted in error: composited variable \"bad\" fails to evaluate: \
                      no such key: none";
        assert_eq!(variables.holds("variables.bad == 1").unwrap_err().to_string(), wanted);
    }

    #[test]
    fn a_variable_that_nobody_asks_for_costs_nothing() {
        let mut variables = Variables::default();
        variables.set("object", &json!({ "list": vec![1; 1_000] }));
        let dear = "object.list.map(x, x).size()";
        variables
            .compose([("dear", dear), ("cheap", "1"), ("both", "variables.dear + variables['cheap']")].into_iter());
        variables.grant(100);
        assert_eq!(variables.holds("variables.cheap == 1"), Ok(true));
        assert_eq!(variables.holds("has(variables.cheap) && variables.?cheap.orValue(2) == 1"), Ok(true));
        variables.grant(crate::WHOLE);
        assert_eq!(variables.holds("[1].all(x, variables.both == 1001)"), Ok(true));
        // Once known, it costs no more.
        variables.grant(100);
        assert_eq!(variables.holds("variables.dear == 1000"), Ok(true));
        assert_eq!(
            variables.holds("['dear', 'both'].all(name, variables[name] > 1) && size(variables) == 3"),
            Ok(true)
        );
        // What comes later is not known to what comes before.
        variables.compose([("early", "variables.late"), ("late", "1")].into_iter());
        assert!(variables.holds("variables.late == 1 && variables.early == 1").is_err());
    }

    #[test]
    fn an_expression_is_read_once() {
        let programs = Arc::new(Programs::default());
        for count in [1, 2] {
            let mut variables = Variables::with(Arc::clone(&programs));
            variables.set("object", &json!({ "count": count }));
            assert_eq!(variables.holds("object.count > 0"), Ok(true));
            assert_eq!(variables.holds("object.count == 2"), Ok(count == 2));
            assert!(matches!(variables.holds("object."), Err(CelError::Compile(_))));
        }
        assert_eq!(programs.count(), 3);
    }

    #[test]
    fn loops_pay_for_their_turns() {
        let mut variables = Variables::default();
        variables.set("object", &json!({ "list": vec![1; 2_000] }));
        assert_eq!(variables.holds("object.list.map(x, x + 1).all(x, x == 2)"), Ok(true));
        let pairs = "object.list.all(x, object.list.all(y, x == y))";
        let wanted = format!("expression '{pairs}' resulted in error: operation cancelled: actual cost limit exceeded");
        assert_eq!(variables.holds(pairs).unwrap_err().to_string(), wanted);
        // Nor does it help that the error would not matter.
        assert!(variables.holds(&format!("{pairs} || true")).is_err());
        variables.grant(10_000);
        assert_eq!(variables.holds("object.list.all(x, x == 1)"), Err(CelError::OutOfBudget));
        assert_eq!(variables.holds("object.list.size() == 2000"), Ok(true));
        // A list that is made costs the more the longer it gets.
        variables.grant(100_000);
        assert_eq!(variables.holds("object.list.map(x, x).size() == 2000"), Err(CelError::OutOfBudget));
    }

    #[test]
    fn what_is_joined_pays_for_its_size() {
        let mut variables = Variables::default();
        variables.set("object", &json!({ "text": "x".repeat(1_000), "list": vec![1; 1_000] }));
        for sum in [
            "(object.text + 'y').endsWith('y') && [1] + [2] == [1, 2] && b'a' + b'b' == b'ab'",
            "1 + 1 == 2 && 1u + 1u == 2u && 1.5 + 1.5 == 3.0 && duration('1h') + duration('1h') == duration('2h')",
            "timestamp('2026-01-01T00:00:00Z') + duration('1h') == duration('1h') + timestamp('2026-01-01T00:00:00Z')",
        ] {
            assert_eq!(variables.holds(sum), Ok(true), "{sum}");
        }
        for (start, end) in [("object.text", "''"), ("bytes(object.text)", "b''"), ("object.list", "[]")] {
            let mut named = vec![("v0".to_owned(), start.to_owned())];
            named.extend((1..40).map(|n| (format!("v{n}"), format!("variables.v{0} + variables.v{0}", n - 1))));
            variables.compose(named.iter().map(|(name, expression)| (name.as_str(), expression.as_str())));
            let why = variables.holds(&format!("variables.v39 == {end}")).unwrap_err().to_string();
            assert!(why.contains("composited variable \"v39\" fails to evaluate"), "{why}");
            variables.grant(crate::WHOLE);
            assert_eq!(variables.holds(&format!("variables.v2 != {end}")), Ok(true), "{start}");
        }
        variables.grant(150);
        assert_eq!(variables.text("object.text + object.text"), Err(CelError::OutOfBudget));
    }

    #[test]
    fn objects_are_made() {
        let made = variables().configuration(
            "Object{ metadata: Object.metadata{ ?labels: optional.none(), annotations: { 'a': object.metadata.name } }, \
             spec: Object.spec{ replicas: object.spec.replicas + 1, \
             containers: object.spec.containers.map(c, Object.spec.containers{ name: c.name, __namespace__: 'n' }) } }",
        );
        let wanted = json!({
            "metadata": { "annotations": { "a": "x" } },
            "spec": { "replicas": 4, "containers": [{ "name": "a", "namespace": "n" }, { "name": "b", "namespace": "n" }] },
        });
        assert_eq!(made, Ok(wanted));
    }

    #[test]
    fn what_is_no_object_or_the_wrong_one_is_refused() {
        let refused = |expression: &str| variables().configuration(expression).unwrap_err().to_string();
        let wanted = "type mismatch: unexpected type name \"Object.wrong\", expected \"Object.spec\", which matches field name \
                      path from root Object type";
        assert_eq!(refused("Object{ spec: Object.wrong{} }"), wanted);
        assert_eq!(refused("1"), "expression '1' resulted in a value that is no Object");
        assert_eq!(refused("Object.spec{}"), "expression 'Object.spec{}' resulted in a value that is no Object");
        assert!(refused("Pod{}").starts_with("compilation failed: "));
    }

    #[test]
    fn patches_are_made() {
        let made = variables().json_patch(
            "[ JSONPatch{ op: 'test', path: '/spec/replicas', value: 3 }, \
             JSONPatch{ op: 'add', path: '/metadata/labels/' + jsonpatch.escapeKey('a/b'), value: object.spec.name }, \
             JSONPatch{ op: 'add', path: '/spec/x', value: Object.spec.x{ y: [1, 2] } } ]",
        );
        let wanted = json!([
            { "op": "test", "path": "/spec/replicas", "value": 3 },
            { "op": "add", "path": "/metadata/labels/a~1b", "value": "web" },
            { "op": "add", "path": "/spec/x", "value": { "y": [1, 2] } },
        ]);
        assert_eq!(made, Ok(wanted));
        assert!(variables().json_patch("[1]").is_err());
        assert_eq!(
            variables().json_patch("object.spec.replicas > 5 ? [JSONPatch{op: 'remove', path: '/x'}] : []"),
            Ok(json!([]))
        );
    }
}
