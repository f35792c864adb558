//! CEL as Kubernetes has it: values of expressions over objects (KEP-3488, KEP-3962), and what can be said of an expression before
//! it runs: whether its types fit (cel-go's checker, as `apiserver/pkg/cel` sets it up). Pure.

// `serde_json::Value` answers Null for a key that is missing; clippy cannot tell it from a slice.
#![allow(clippy::indexing_slicing)]

mod authorizer;
mod budget;
mod check;
mod composed;
mod environment;
mod evaluate;
mod library;
mod limits;
mod macros;
mod objects;
mod programs;
mod shapes;
mod types;

pub use authorizer::{Asked, Authorizer, Decision};
pub use budget::{CONDITIONS, WHOLE};
pub use check::{Scope, check};
pub use environment::{Declared, admission, device};
pub use evaluate::{CelError, Variables};
pub use limits::with_room;
pub use objects::{RESERVED, unescaped};
pub use programs::Programs;
pub use shapes::Shape;
pub use types::{Schemas, Ty};

use kube_cel::cel::parser::{ParseErrors, Parser};
use kube_cel::cel::{IdedExpr, ParseError};
use limits::within_limits;

/// Reads an expression, to be asked what it costs.
///
/// # Errors
/// What is wrong with it, as cel-go words it.
pub fn expression(source: &str) -> Result<IdedExpr, String> {
    let read = with_room(|| parse(source)).map_err(|error| format!("Syntax error: {error}"))?;
    Ok(with_room(|| macros::with_bindings(read)))
}

/// Whether an expression asks for a name.
pub fn mentions(expression: &IdedExpr, name: &str) -> bool {
    expression.references().has_variable(name)
}

/// Reads an expression, optional fields included (`object.?spec`), and writes its macros out.
fn parse(source: &str) -> Result<IdedExpr, ParseErrors> {
    within_limits(source).map_err(|msg| {
        let error = ParseError { source: None, pos: (1, 1), msg, expr_id: 0, source_info: None };
        ParseErrors { errors: vec![error] }
    })?;
    Parser::new().enable_optional_syntax(true).parse(source).map(macros::expanded)
}
