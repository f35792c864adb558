//! What a client is told of an object that is valid, in `Warning` headers: upstream's `WarningsOnCreate` and
//! `WarningsOnUpdate`.

use std::fmt::Display;

use crate::errors::Path;

/// How many texts are kept: with so many, headers are full, and lists whose items are all wrong would else make texts
/// without end.
const MOST: usize = 256;

/// How many items of a list are compared with each other: a hostile list would keep the server busy for minutes.
pub(crate) const COMPARED: usize = 1_000;

/// The texts so far; nothing is allocated until there is one.
#[derive(Debug, Default)]
pub struct Warnings(Vec<String>);

impl Warnings {
    pub fn into_vec(self) -> Vec<String> {
        self.0
    }

    pub(crate) fn is_full(&self) -> bool {
        self.0.len() >= MOST
    }

    pub(crate) fn say(&mut self, text: impl Into<String>) {
        if !self.is_full() {
            self.0.push(text.into());
        }
    }

    /// `spec.field: text`
    pub(crate) fn of(&mut self, path: &Path, text: impl Display) {
        if !self.is_full() {
            self.0.push(format!("{path}: {text}"));
        }
    }
}
