//! Query parameters (`meta/v1` ListOptions, CreateOptions, UpdateOptions, PatchOptions, DeleteOptions).

use schema::{FieldError, FieldValidation};
use serde_json::{Value, json};

use crate::problem::{Problem, Result};

/// `resourceVersionMatch`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum VersionMatch {
    Exact,
    NotOlderThan,
}

/// How long the name of a field manager may be (`FieldManagerMaxLength`).
pub(crate) const LONGEST_MANAGER: usize = 128;

/// The parameters of one request; the first of several with one name counts.
#[derive(Debug, Default, Clone)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub(crate) fn parse(query: Option<&str>) -> Self {
        Query(form_urlencoded::parse(query.unwrap_or_default().as_bytes()).into_owned().collect())
    }

    /// Empty when it is not there.
    pub(crate) fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(n, _)| n == name).map_or("", |(_, value)| value)
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(n, _)| n == name)
    }

    /// As Go's `conversion.Convert_Slice_string_To_bool`: present and neither `false` nor `0`.
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.has(name) && !matches!(self.get(name).to_ascii_lowercase().as_str(), "false" | "0")
    }

    pub(crate) fn integer(&self, name: &str) -> Result<Option<i64>> {
        match self.get(name) {
            "" => Ok(None),
            text => text
                .parse()
                .map(Some)
                .map_err(|_| Problem::bad_request(format!("strconv.ParseInt: parsing {text:?}: invalid syntax"))),
        }
    }

    /// Whether nothing is to be stored; `options` is the kind of options that upstream's refusal names.
    pub(crate) fn dry_run(&self, options: &str) -> Result<bool> {
        for (_, value) in self.0.iter().filter(|(name, _)| name == "dryRun") {
            if value != "All" {
                return Err(unsupported(options, "dryRun", value, "\"All\""));
            }
        }
        Ok(self.get("dryRun") == "All")
    }

    pub(crate) fn field_validation(&self, options: &str) -> Result<FieldValidation> {
        match self.get("fieldValidation") {
            "" | "Warn" => Ok(FieldValidation::Warn),
            "Ignore" => Ok(FieldValidation::Ignore),
            "Strict" => Ok(FieldValidation::Strict),
            other => Err(unsupported(options, "fieldValidation", other, "\"Ignore\", \"Strict\", \"Warn\"")),
        }
    }

    /// The options of a write (`CreateOptions`, `UpdateOptions`), as far as the client has said any.
    pub(crate) fn options(&self, kind: &str) -> Value {
        let mut options = json!({ "kind": kind, "apiVersion": "meta.k8s.io/v1" });
        let dry_run: Vec<&str> = self.pairs().filter(|(name, _)| *name == "dryRun").map(|(_, value)| value).collect();
        if !dry_run.is_empty() {
            options["dryRun"] = dry_run.into();
        }
        for field in ["fieldManager", "fieldValidation"] {
            if !self.get(field).is_empty() {
                options[field] = self.get(field).into();
            }
        }
        options
    }

    /// `fieldManager`; empty when it is not there (`ValidateFieldManager`).
    pub(crate) fn field_manager(&self, options: &str) -> Result<&str> {
        let name = self.get("fieldManager");
        let invalid = |reason: &'static str, message: String| {
            let error = FieldError { reason, field: "fieldManager".into(), message };
            Err(Problem::invalid_field("meta.k8s.io", options, "", error))
        };
        if name.len() > LONGEST_MANAGER {
            let message = format!("Too long: may not be more than {LONGEST_MANAGER} bytes");
            return invalid("FieldValueTooLong", message);
        }
        match name.char_indices().find(|(_, c)| c.is_control()) {
            Some((at, c)) => {
                let why = format!("invalid character U+{:04X} (at position {at})", u32::from(c));
                invalid("FieldValueInvalid", format!("Invalid value: {name:?}: {why}"))
            }
            None => Ok(name),
        }
    }

    /// `force` of an apply.
    pub(crate) fn force(&self, is_apply: bool) -> Result<bool> {
        if self.has("force") && !is_apply {
            let message = "Forbidden: may not be specified for non-apply patch".into();
            let error = FieldError { reason: "FieldValueForbidden", field: "force".into(), message };
            return Err(Problem::invalid_field("meta.k8s.io", "PatchOptions", "", error));
        }
        Ok(self.flag("force"))
    }

    /// `resourceVersion`: `None` when unset.
    pub(crate) fn resource_version(&self) -> Result<Option<u64>> {
        match self.get("resourceVersion") {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| {
                let message = format!("Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: invalid syntax");
                let error = FieldError { reason: "FieldValueInvalid", field: "resourceVersion".into(), message };
                Problem::bad_request(format!("invalid resource version: {error}"))
            }),
        }
    }

    /// `resourceVersionMatch` with the rules of `metainternalversion/validation.ValidateListOptions`.
    pub(crate) fn version_match(&self) -> Result<Option<VersionMatch>> {
        let version = self.get("resourceVersion");
        let found = match self.get("resourceVersionMatch") {
            "" => return Ok(None),
            "Exact" => VersionMatch::Exact,
            "NotOlderThan" => VersionMatch::NotOlderThan,
            other => {
                let supported = "\"Exact\", \"NotOlderThan\"";
                return Err(unsupported("ListOptions", "resourceVersionMatch", other, supported));
            }
        };
        if version.is_empty() && !self.flag("sendInitialEvents") {
            return Err(forbidden("resourceVersionMatch is forbidden unless resourceVersion is provided"));
        }
        if !self.get("continue").is_empty() {
            return Err(forbidden("resourceVersionMatch is forbidden when continue is provided"));
        }
        if found == VersionMatch::Exact && version == "0" {
            return Err(forbidden("resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\""));
        }
        Ok(Some(found))
    }

    /// The parameters that the client sent, for a request that is passed on.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

fn unsupported(options: &str, field: &str, value: &str, supported: &str) -> Problem {
    let message = format!("Unsupported value: {value:?}: supported values: {supported}");
    let error = FieldError { reason: "FieldValueNotSupported", field: field.into(), message };
    Problem::invalid_field("meta.k8s.io", options, "", error)
}

fn forbidden(why: &str) -> Problem {
    let field = "resourceVersionMatch".into();
    let error = FieldError { reason: "FieldValueForbidden", field, message: format!("Forbidden: {why}") };
    Problem::invalid_field("meta.k8s.io", "ListOptions", "", error)
}
