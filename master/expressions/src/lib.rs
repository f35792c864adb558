//! CEL as Kubernetes has it: values of expressions over objects (KEP-3488, KEP-3962), and what can be said of an expression before
//! it runs: whether its types fit (cel-go's checker, as `apiserver/pkg/cel` sets it up). Pure.

// `serde_json::Value` answers Null for a key that is missing; clippy cannot tell it from a slice.
#![allow(clippy::indexing_slicing)]

mod authorizer;
mod budget;
mod check;
mod environment;
mod evaluate;
mod limits;
mod objects;
mod programs;
mod types;

pub use authorizer::{Asked, Authorizer, Decision};
pub use budget::{CONDITIONS, WHOLE};
pub use check::{Scope, check};
pub use environment::{Declared, admission};
pub use evaluate::{CelError, Variables};
pub use limits::with_room;
pub use objects::unescaped;
pub use programs::Programs;
pub use types::{Schemas, Ty};

use kube_cel::cel::IdedExpr;
use kube_cel::cel::parser::{ParseErrors, Parser};
use kube_cel::cel::{ParseError, Program};
use limits::within_limits;

/// Reads an expression whose types nobody checks: rules of definitions, selectors of devices.
///
/// # Errors
/// What is wrong with it, as cel-go words it.
pub fn program(source: &str) -> Result<Program, String> {
    within_limits(source)?;
    with_room(|| Program::compile(source)).map_err(|error| format!("Syntax error: {error}"))
}

/// Reads an expression, optional fields included (`object.?spec`).
fn parse(source: &str) -> Result<IdedExpr, ParseErrors> {
    within_limits(source).map_err(|msg| {
        let error = ParseError { source: None, pos: (1, 1), msg, expr_id: 0, source_info: None };
        ParseErrors { errors: vec![error] }
    })?;
    Parser::new().enable_optional_syntax(true).parse(source)
}
