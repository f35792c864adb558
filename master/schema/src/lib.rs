//! What the API server knows about each kind, as data plus small pure functions: types, defaults, validation,
//! strategies, merge keys, table columns, OpenAPI. No I/O, no HTTP, no store.
//!
//! An object is one [`serde_json::Value`] from the moment it is decoded until it is encoded.

use serde_json::Value;

/// How a request asked for unknown and duplicate fields to be treated (`fieldValidation=`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FieldValidation {
    Ignore,
    #[default]
    Warn,
    Strict,
}

/// What part of an object a write may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The main resource: `status` is kept from the stored object where the kind has a status subresource.
    Main,
    /// `…/status`: only `status` (and labels/annotations as upstream) comes from the request.
    Status,
    /// Pod `…/ephemeralcontainers`, `…/resize`, `…/binding`; namespace `…/finalize`; CSR `…/approval`; by name.
    Other(&'static str),
}

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

/// A value decoded from a request body, with the warnings that the client must see.
#[derive(Debug)]
pub struct Decoded {
    pub value: Value,
    pub warnings: Vec<String>,
}
