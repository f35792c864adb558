//! Expressions that were read.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use kube_cel::cel::IdedExpr;

use crate::evaluate::CelError;
use crate::{objects, parse};

type Program = Result<IdedExpr, CelError>;

/// What the expressions of one object are: each is read when its value is asked for first, and never again.
#[derive(Default)]
pub struct Programs(Mutex<HashMap<Box<str>, Arc<Program>>>);

impl Programs {
    /// How many were read.
    pub fn count(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    pub(crate) fn of(&self, source: &str) -> Arc<Program> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(program) = known.get(source) {
            return Arc::clone(program);
        }
        let program = Arc::new(read(source));
        known.insert(source.into(), Arc::clone(&program));
        program
    }
}

fn read(source: &str) -> Program {
    let expression = parse(source).map_err(|error| CelError::Compile(error.to_string()))?;
    objects::lower(expression).map_err(CelError::Compile)
}
