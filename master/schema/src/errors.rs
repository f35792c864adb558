//! The errors that a client sees, worded as upstream's `field.Error` and decoders word them.

use std::fmt;

use serde_json::Value;

/// One invalid field, printed as upstream prints `field.Error`.
#[derive(Debug, Clone, PartialEq)]
pub struct FieldError {
    /// Kubernetes' cause type: `FieldValueInvalid`, `FieldValueRequired`, `FieldValueDuplicate`,
    /// `FieldValueNotSupported`, `FieldValueForbidden`, `FieldValueTooLong`, `FieldValueTooMany`, …
    pub reason: &'static str,
    /// e.g. `spec.containers[0].name`
    pub field: String,
    /// e.g. `Invalid value: "A": a lowercase RFC 1123 label must consist of …`
    pub message: String,
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

/// Why a body is no object of its kind. The API server answers 400 with
/// `KIND in version "VERSION" cannot be handled as a KIND: ` before the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not JSON at all.
    #[error("{0}")]
    Syntax(String),
    /// A value of the wrong JSON type: `json: cannot unmarshal string into Go struct field …`, or a quantity, time or
    /// base64 text that cannot be read.
    #[error("{0}")]
    Type(String),
    /// Unknown or duplicate fields under `fieldValidation=Strict`.
    #[error("strict decoding error: {}", .0.join(", "))]
    Strict(Vec<String>),
}

/// Why a strategic merge patch cannot be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// The patch contradicts itself or the schema; 400.
    #[error("{0}")]
    Invalid(String),
}

/// A field selector names a field that its kind does not select by; 400.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("field label not supported: {0}")]
pub struct UnsupportedField(pub String);

/// What validation has found so far.
#[derive(Debug, Default)]
pub struct Errors(Vec<FieldError>);

impl Errors {
    pub fn into_vec(self) -> Vec<FieldError> {
        self.0
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    fn push(&mut self, reason: &'static str, path: &Path, head: String, detail: &str) {
        let message = if detail.is_empty() { head } else { format!("{head}: {detail}") };
        self.0.push(FieldError { reason, field: path.to_string(), message });
    }

    pub fn required(&mut self, path: &Path, detail: &str) {
        self.push("FieldValueRequired", path, "Required value".into(), detail);
    }

    pub fn invalid(&mut self, path: &Path, value: impl Into<Value>, detail: &str) {
        self.push("FieldValueInvalid", path, format!("Invalid value: {}", shown(&value.into())), detail);
    }

    /// Invalid, where upstream prints the value in its own way.
    pub fn invalid_shown(&mut self, path: &Path, shown: &str, detail: &str) {
        self.push("FieldValueInvalid", path, format!("Invalid value: {shown}"), detail);
    }

    /// What upstream cannot do itself.
    pub fn internal(&mut self, path: &Path, detail: &str) {
        self.push("InternalError", path, "Internal error".into(), detail);
    }

    /// Invalid, because of its type.
    pub fn type_invalid(&mut self, path: &Path, value: impl Into<Value>, detail: &str) {
        self.push("FieldValueTypeInvalid", path, format!("Invalid value: {}", shown(&value.into())), detail);
    }

    /// Adds what was found elsewhere.
    pub fn extend(&mut self, other: Errors) {
        self.0.extend(other.0);
    }

    /// Invalid, where the value itself says nothing (`field.OmitValueType`).
    pub fn wrong(&mut self, path: &Path, detail: &str) {
        self.push("FieldValueInvalid", path, "Invalid value".into(), detail);
    }

    pub fn forbidden(&mut self, path: &Path, detail: &str) {
        self.push("FieldValueForbidden", path, "Forbidden".into(), detail);
    }

    pub fn duplicate(&mut self, path: &Path, value: impl Into<Value>) {
        self.push("FieldValueDuplicate", path, format!("Duplicate value: {}", shown(&value.into())), "");
    }

    pub fn duplicate_because(&mut self, path: &Path, value: impl Into<Value>, detail: &str) {
        self.push("FieldValueDuplicate", path, format!("Duplicate value: {}", shown(&value.into())), detail);
    }

    pub fn not_found(&mut self, path: &Path, value: impl Into<Value>) {
        self.push("FieldValueNotFound", path, format!("Not found: {}", shown(&value.into())), "");
    }

    /// `supported` is listed as given: upstream sorts most of its sets.
    pub fn not_supported(&mut self, path: &Path, value: impl Into<Value>, supported: &[&str]) {
        let quoted: Vec<String> = supported.iter().map(|s| quote(s)).collect();
        let detail = if quoted.is_empty() { String::new() } else { format!("supported values: {}", quoted.join(", ")) };
        self.push("FieldValueNotSupported", path, format!("Unsupported value: {}", shown(&value.into())), &detail);
    }

    pub fn too_long(&mut self, path: &Path, bytes: usize) {
        self.push("FieldValueTooLong", path, "Too long".into(), &format!("may not be more than {bytes} bytes"));
    }

    pub fn too_many(&mut self, path: &Path, actual: usize, most: usize) {
        let items = if most == 1 { "item" } else { "items" };
        let detail = format!("must have at most {most} {items}");
        self.push("FieldValueTooMany", path, format!("Too many: {actual}"), &detail);
    }
}

/// As Go prints a bad value: strings quoted, numbers plain, everything else as JSON.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => quote(text),
        other => other.to_string(),
    }
}

/// Go's `%q`.
pub(crate) fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            c if c.is_ascii_control() => out.push_str(&format!("\\x{:02x}", c as u32)),
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Where in an object a check is: a list on the stack, written out only when something is wrong.
#[derive(Debug, Clone, Copy)]
pub struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    step: Step<'a>,
}

#[derive(Debug, Clone, Copy)]
enum Step<'a> {
    Field(&'a str),
    Index(usize),
    Key(&'a str),
}

impl<'a> Path<'a> {
    pub const fn root(name: &'a str) -> Self {
        Path { parent: None, step: Step::Field(name) }
    }

    pub const fn child(&'a self, name: &'a str) -> Path<'a> {
        Path { parent: Some(self), step: Step::Field(name) }
    }

    pub const fn index(&'a self, index: usize) -> Path<'a> {
        Path { parent: Some(self), step: Step::Index(index) }
    }

    /// The fields of the path without indices and keys, joined with dots: how Go's decoder names a field.
    pub(crate) fn fields(&self) -> String {
        let mut names = Vec::new();
        let mut at = Some(self);
        while let Some(path) = at {
            if let Step::Field(name) = path.step {
                names.push(name);
            }
            at = path.parent;
        }
        names.reverse();
        names.join(".")
    }

    pub const fn key(&'a self, key: &'a str) -> Path<'a> {
        Path { parent: Some(self), step: Step::Key(key) }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
        }
        match self.step {
            Step::Field(name) if self.parent.is_none() => f.write_str(name),
            Step::Field(name) => write!(f, ".{name}"),
            Step::Index(index) => write!(f, "[{index}]"),
            Step::Key(key) => write!(f, "[{key}]"),
        }
    }
}
