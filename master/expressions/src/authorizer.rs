//! `authorizer.group('apps').resource('deployments').check('create').allowed()`: expressions ask who may do what
//! (`apiserver/pkg/cel/library/authz.go`).

use std::fmt;
use std::sync::Arc;

use kube_cel::cel::extractors::This;
use kube_cel::cel::objects::Opaque;
use kube_cel::cel::{Context, ExecutionError, ResolveResult, Value};

/// Judges for expressions.
pub trait Authorizer: Send + Sync {
    fn check(&self, asked: &Asked) -> Decision;
}

/// What is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Asked {
    /// (namespace, name) of a ServiceAccount that is meant instead of who makes the request.
    pub service_account: Option<(String, String)>,
    pub verb: String,
    /// A path that names no resource.
    pub path: Option<String>,
    pub group: String,
    pub resource: String,
    pub subresource: String,
    pub namespace: String,
    pub name: String,
    pub field_selector: String,
    pub label_selector: String,
}

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decision {
    pub allowed: bool,
    pub reason: String,
}

#[derive(Clone)]
struct By(Arc<dyn Authorizer>);

impl fmt::Debug for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("By")
    }
}

/// There is one in an expression.
impl PartialEq for By {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}
impl Eq for By {}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Question {
    by: By,
    asked: Asked,
}

impl Opaque for Question {
    fn runtime_type_name(&self) -> &str {
        "kubernetes.authorization.Authorizer"
    }
}

impl Opaque for Decision {
    fn runtime_type_name(&self) -> &str {
        "kubernetes.authorization.Decision"
    }
}

/// The value of `authorizer`, or of what it is asked about from the start.
pub(crate) fn value(by: Arc<dyn Authorizer>, asked: Asked) -> Value {
    Value::Opaque(Arc::new(Question { by: By(by), asked }))
}

fn opaque<'a, T: 'static>(value: &'a Value, function: &str) -> Result<&'a T, ExecutionError> {
    let found = match value {
        Value::Opaque(opaque) => opaque.downcast_ref::<T>(),
        _ => None,
    };
    found.ok_or_else(|| ExecutionError::function_error(function, "no such overload"))
}

/// Which text of a question a function says.
type Field = fn(&mut Asked) -> &mut String;

/// A question with more said of it.
fn more(this: &Value, function: &str, say: impl FnOnce(&mut Asked)) -> ResolveResult {
    let mut question = opaque::<Question>(this, function)?.clone();
    say(&mut question.asked);
    Ok(Value::Opaque(Arc::new(question)))
}

pub(crate) fn register(context: &mut Context<'_>) {
    type Said = Arc<String>;
    let set: [(&str, Field); 7] = [
        ("group", |asked| &mut asked.group),
        ("resource", |asked| &mut asked.resource),
        ("subresource", |asked| &mut asked.subresource),
        ("namespace", |asked| &mut asked.namespace),
        ("name", |asked| &mut asked.name),
        ("fieldSelector", |asked| &mut asked.field_selector),
        ("labelSelector", |asked| &mut asked.label_selector),
    ];
    for (function, field) in set {
        context.add_function(function, move |This(this): This<Value>, said: Said| {
            more(&this, function, |asked| said.as_str().clone_into(field(asked)))
        });
    }
    context.add_function("path", |This(this): This<Value>, said: Said| {
        more(&this, "path", |asked| asked.path = Some(said.to_string()))
    });
    context.add_function("serviceAccount", |This(this): This<Value>, namespace: Said, name: Said| {
        more(&this, "serviceAccount", |asked| asked.service_account = Some((namespace.to_string(), name.to_string())))
    });
    context.add_function("check", |This(this): This<Value>, verb: Said| -> ResolveResult {
        let question = opaque::<Question>(&this, "check")?;
        let asked = Asked { verb: verb.to_string(), ..question.asked.clone() };
        Ok(Value::Opaque(Arc::new(question.by.0.check(&asked))))
    });
    context.add_function("allowed", |This(this): This<Value>| -> ResolveResult {
        Ok(Value::Bool(opaque::<Decision>(&this, "allowed")?.allowed))
    });
    context.add_function("reason", |This(this): This<Value>| -> ResolveResult {
        Ok(Value::String(Arc::new(opaque::<Decision>(&this, "reason")?.reason.clone())))
    });
    // Judging cannot fail here.
    context.add_function("errored", |This(this): This<Value>| -> ResolveResult {
        opaque::<Decision>(&this, "errored").map(|_| Value::Bool(false))
    });
    context.add_function("error", |This(this): This<Value>| -> ResolveResult {
        opaque::<Decision>(&this, "error").map(|_| Value::String(Arc::default()))
    });
}
