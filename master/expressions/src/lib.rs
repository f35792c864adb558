//! CEL as Kubernetes has it: values of expressions over objects (KEP-3488, KEP-3962), and what can be said of an expression before
//! it runs: whether its types fit (cel-go's checker, as `apiserver/pkg/cel` sets it up). Pure.

// `serde_json::Value` answers Null for a key that is missing; clippy cannot tell it from a slice.
#![allow(clippy::indexing_slicing)]

mod authorizer;
mod check;
mod environment;
mod evaluate;
mod objects;
mod types;

pub use authorizer::{Asked, Authorizer, Decision};
pub use check::{Scope, check};
pub use environment::{Declared, admission};
pub use evaluate::{CelError, Variables};
pub use objects::unescaped;
pub use types::{Schemas, Ty};

use kube_cel::cel::IdedExpr;
use kube_cel::cel::parser::{ParseErrors, Parser};

/// Reads an expression, optional fields included (`object.?spec`).
fn parse(source: &str) -> Result<IdedExpr, ParseErrors> {
    Parser::new().enable_optional_syntax(true).parse(source)
}
