//! Label selectors (objects and text) and field selectors (text).

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

mod field;
mod parse;
#[cfg(test)]
mod tests;

pub use field::{FieldRequirement, FieldSelector};

use crate::names;

/// Why a selector is not valid. The texts are upstream's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// The text does not follow the grammar.
    #[error("{0}")]
    Syntax(String),
    /// A requirement within the text is not valid.
    #[error("unable to parse requirement: {0}")]
    Requirement(String),
    /// A requirement of a selector object is not valid.
    #[error("{0}")]
    Invalid(String),
    /// An operator that label selector objects do not know.
    #[error("{0:?} is not a valid label selector operator")]
    Operator(String),
}

/// What a requirement asks of the value of a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operator {
    /// One of the values (also `=` and `==`).
    In,
    /// None of the values, or no such label (also `!=`).
    NotIn,
    /// Any value.
    Exists,
    /// No such label.
    DoesNotExist,
    /// An integer above the value.
    Gt,
    /// An integer below the value.
    Lt,
}

/// One condition on a set of labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// The label's key.
    pub key: String,
    /// The relation.
    pub operator: Operator,
    /// Its right side.
    pub values: Vec<String>,
}

impl Requirement {
    /// Checks key, number of values and values.
    ///
    /// # Errors
    /// The text of upstream's field error.
    pub fn new(key: String, operator: Operator, values: Vec<String>) -> Result<Self, String> {
        let errors = names::label_key_errors(&key);
        if !errors.is_empty() {
            return Err(format!("<nil>: Invalid value: {key:?}: {}", errors.join("; ")));
        }
        let list = || format!("{values:?}").replace("\", \"", "\",\"");
        match operator {
            Operator::In | Operator::NotIn if values.is_empty() => Err(format!(
                "values: Invalid value: {}: for 'in', 'notin' operators, values set can't be empty",
                list()
            )),
            Operator::Exists | Operator::DoesNotExist if !values.is_empty() => Err(format!(
                "values: Invalid value: {}: values set must be empty for exists and does not exist",
                list()
            )),
            Operator::Gt | Operator::Lt if values.len() != 1 => Err(format!(
                "values: Invalid value: {}: for 'Gt', 'Lt' operators, exactly one value is required",
                list()
            )),
            _ => Ok(()),
        }?;
        for (index, value) in values.iter().enumerate() {
            if matches!(operator, Operator::Gt | Operator::Lt) && value.parse::<i64>().is_err() {
                return Err(format!(
                    "values[{index}]: Invalid value: {value:?}: for 'Gt', 'Lt' operators, the value must be an integer"
                ));
            }
            let errors = names::label_value_errors(value);
            if !errors.is_empty() {
                return Err(format!("values[{index}]: Invalid value: {value:?}: {}", errors.join("; ")));
            }
        }
        Ok(Self { key, operator, values })
    }

    /// Whether the labels fulfil it.
    #[must_use]
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.matches_value(labels.get(&self.key).map(String::as_str))
    }

    /// Whether the value of the label (`None`: there is no such label) fulfils it.
    #[must_use]
    pub fn matches_value(&self, value: Option<&str>) -> bool {
        match (self.operator, value) {
            (Operator::Exists, value) => value.is_some(),
            (Operator::DoesNotExist, value) => value.is_none(),
            (Operator::In, Some(value)) => self.values.iter().any(|wanted| wanted == value),
            (Operator::NotIn, Some(value)) => self.values.iter().all(|unwanted| unwanted != value),
            (Operator::NotIn, None) => true,
            (Operator::Gt, Some(value)) => self.compares(value, |have, limit| have > limit),
            (Operator::Lt, Some(value)) => self.compares(value, |have, limit| have < limit),
            (Operator::In | Operator::Gt | Operator::Lt, None) => false,
        }
    }

    fn compares(&self, value: &str, holds: impl Fn(i64, i64) -> bool) -> bool {
        let limit = self.values.first().and_then(|limit| limit.parse().ok());
        matches!((value.parse(), limit), (Ok(have), Some(limit)) if holds(have, limit))
    }
}

/// All requirements must hold; none at all selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    /// Sorted by key when parsed from text.
    pub requirements: Vec<Requirement>,
}

impl Selector {
    /// Reads the text form, as in `?labelSelector=`.
    ///
    /// # Errors
    /// Upstream's text about the first thing that is wrong.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut requirements = parse::parse(text)?;
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(Self { requirements })
    }

    /// Reads a selector object. The empty object selects everything.
    ///
    /// # Errors
    /// When an operator, a key or a value is not valid.
    pub fn from_object(selector: &LabelSelector) -> Result<Self, SelectorError> {
        let mut requirements = Vec::new();
        for (key, value) in selector.match_labels.iter().flatten() {
            let requirement = Requirement::new(key.clone(), Operator::In, vec![value.clone()]);
            requirements.push(requirement.map_err(SelectorError::Invalid)?);
        }
        for expression in selector.match_expressions.iter().flatten() {
            requirements.push(from_expression(expression)?);
        }
        Ok(Self { requirements })
    }

    /// Whether it selects everything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Whether it selects these labels.
    #[must_use]
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.requirements.iter().all(|requirement| requirement.matches(labels))
    }
}

fn from_expression(expression: &LabelSelectorRequirement) -> Result<Requirement, SelectorError> {
    let operator = match expression.operator.as_str() {
        "In" => Operator::In,
        "NotIn" => Operator::NotIn,
        "Exists" => Operator::Exists,
        "DoesNotExist" => Operator::DoesNotExist,
        other => return Err(SelectorError::Operator(other.to_owned())),
    };
    let values = expression.values.clone().unwrap_or_default();
    Requirement::new(expression.key.clone(), operator, values).map_err(SelectorError::Invalid)
}

/// Whether a selector object selects these labels: the empty object selects everything, one that is not valid nothing.
#[must_use]
pub fn label_selector_matches(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    Selector::from_object(selector).is_ok_and(|selector| selector.matches(labels))
}

/// Whether a plain map (`spec.selector` of a Service, `nodeSelector`) selects these labels. The empty map selects all.
#[must_use]
pub fn map_matches(selector: &BTreeMap<String, String>, labels: &BTreeMap<String, String>) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}
