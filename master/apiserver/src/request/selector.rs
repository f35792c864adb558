//! Label and field selectors in their query form (`apimachinery/pkg/labels`, `pkg/fields`).

use std::sync::Arc;

use schema::Kind;
use store::{Entry, Filter};

use crate::problem::{Problem, Result};

/// What `labelSelector` and `fieldSelector` ask for; every requirement must hold.
#[derive(Debug, Default, Clone)]
pub(crate) struct Selector {
    labels: Vec<LabelRequirement>,
    fields: Vec<FieldRequirement>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct LabelRequirement {
    key: String,
    test: Test,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Test {
    Exists,
    Absent,
    In(Vec<String>),
    /// Absent counts as not in.
    NotIn(Vec<String>),
    Greater(i64),
    Less(i64),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct FieldRequirement {
    field: String,
    equal: bool,
    value: String,
}

impl Selector {
    /// 400 for a selector that cannot be read, or a field that the kind does not select by.
    pub(crate) fn parse(kind: &Kind, labels: &str, fields: &str) -> Result<Self> {
        let labels =
            parse_labels(labels).map_err(|why| Problem::bad_request(format!("unable to parse requirement: {why}")))?;
        let fields = parse_fields(fields).map_err(Problem::bad_request)?;
        for requirement in &fields {
            kind.check_field_label(&requirement.field).map_err(|error| Problem::bad_request(error.to_string()))?;
        }
        Ok(Selector { labels, fields })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// As the store's filter; `None` lets everything pass. `fields_of` reads the fields of kinds that are stored as
    /// another kind, whose entries carry that one's.
    pub(crate) fn filter(self, fields_of: Option<FieldsOf>) -> Option<Filter> {
        if self.is_empty() {
            return None;
        }
        Some(Arc::new(move |entry: &Entry| self.matches(entry, fields_of.as_ref())))
    }

    fn matches(&self, entry: &Entry, fields_of: Option<&FieldsOf>) -> bool {
        if !self.labels.iter().all(|r| r.test.holds(entry.facets.label(&r.key))) {
            return false;
        }
        if self.fields.is_empty() {
            return true;
        }
        let own = fields_of.map(|fields_of| fields_of(entry));
        self.fields.iter().all(|r| {
            let value = match (r.field.as_str(), &own) {
                ("metadata.name", _) => entry.key.name(),
                ("metadata.namespace", _) => entry.key.namespace(),
                (field, Some(own)) => own.iter().find(|(f, _)| *f == field).map_or("", |(_, v)| v.as_str()),
                (field, None) => entry.facets.field(field).unwrap_or_default(),
            };
            (value == r.value) == r.equal
        })
    }
}

pub(crate) type FieldsOf = Arc<dyn Fn(&Entry) -> Vec<(&'static str, String)> + Send + Sync>;

impl Test {
    fn holds(&self, value: Option<&str>) -> bool {
        let number = || value.and_then(|v| v.parse::<i64>().ok());
        match self {
            Test::Exists => value.is_some(),
            Test::Absent => value.is_none(),
            Test::In(values) => value.is_some_and(|v| values.iter().any(|w| w == v)),
            Test::NotIn(values) => value.is_none_or(|v| values.iter().all(|w| w != v)),
            Test::Greater(bound) => number().is_some_and(|n| n > *bound),
            Test::Less(bound) => number().is_some_and(|n| n < *bound),
        }
    }
}

/// Splits at commas that are not inside parentheses.
fn clauses(text: &str) -> Vec<&str> {
    let (mut depth, mut start, mut found) = (0_usize, 0, Vec::new());
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                found.extend(text.get(start..at));
                start = at + 1;
            }
            _ => {}
        }
    }
    found.extend(text.get(start..));
    found
}

fn parse_labels(text: &str) -> Result<Vec<LabelRequirement>, String> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    clauses(text).into_iter().map(|clause| parse_label(clause.trim())).collect()
}

fn parse_label(clause: &str) -> Result<LabelRequirement, String> {
    if clause.is_empty() {
        return Err("found ',', expected: identifier after ','".into());
    }
    if let Some(key) = clause.strip_prefix('!') {
        return requirement(key, Test::Absent);
    }
    if let Some((key, set, inside)) = set_based(clause)? {
        return requirement(key, if inside { Test::In(set) } else { Test::NotIn(set) });
    }
    for (operator, equal) in [("!=", false), ("==", true), ("=", true)] {
        if let Some((key, value)) = clause.split_once(operator) {
            let value = label_value(value)?;
            return requirement(key, if equal { Test::In(vec![value]) } else { Test::NotIn(vec![value]) });
        }
    }
    for (operator, make) in [('>', Test::Greater as fn(i64) -> Test), ('<', Test::Less)] {
        if let Some((key, value)) = clause.split_once(operator) {
            let bound = value.trim().parse().map_err(|_| {
                format!(
                    "values[0][{}]: Invalid value: {:?}: for 'Gt', 'Lt' operators, the value must be an integer",
                    key.trim(),
                    value.trim()
                )
            })?;
            return requirement(key, make(bound));
        }
    }
    requirement(clause, Test::Exists)
}

/// `key in (a,b)` and `key notin (a,b)`.
fn set_based(clause: &str) -> Result<Option<(&str, Vec<String>, bool)>, String> {
    let Some((head, tail)) = clause.split_once('(') else { return Ok(None) };
    let Some(list) = tail.trim_end().strip_suffix(')') else {
        return Err("found '', expected: ',' or ')'".into());
    };
    let mut words = head.split_whitespace();
    let inside = match (words.next(), words.next(), words.next()) {
        (Some(_), Some("in"), None) => true,
        (Some(_), Some("notin"), None) => false,
        (_, other, _) => {
            return Err(format!("found '{}', expected: in, notin, =, ==, !=, gt, lt", other.unwrap_or("(")));
        }
    };
    let values = list.split(',').map(label_value).collect::<Result<Vec<String>, String>>()?;
    Ok(Some((head.split_whitespace().next().unwrap_or_default(), values, inside)))
}

fn requirement(key: &str, test: Test) -> Result<LabelRequirement, String> {
    let key = key.trim();
    let name = key.rsplit_once('/').map_or(key, |(_, name)| name);
    let valid = is_name(name) && name.len() <= 63 && key.matches('/').count() <= 1;
    if !valid {
        return Err(format!(
            "key: Invalid value: {key:?}: name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
        ));
    }
    Ok(LabelRequirement { key: key.to_owned(), test })
}

fn label_value(value: &str) -> Result<String, String> {
    let value = value.trim();
    if value.is_empty() || (is_name(value) && value.len() <= 63) {
        return Ok(value.to_owned());
    }
    Err(format!(
        "values[0]: Invalid value: {value:?}: a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
    ))
}

fn is_name(text: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    edge(text.chars().next()) && edge(text.chars().next_back()) && text.chars().all(inner)
}

fn parse_fields(text: &str) -> Result<Vec<FieldRequirement>, String> {
    let clauses = field_clauses(text).into_iter().filter(|clause| !clause.is_empty());
    clauses.map(|clause| parse_field(&clause, text)).collect()
}

/// Splits at commas that no backslash precedes.
fn field_clauses(text: &str) -> Vec<String> {
    let (mut found, mut current, mut escaped) = (Vec::new(), String::new(), false);
    for c in text.chars() {
        match c {
            ',' if !escaped => found.push(std::mem::take(&mut current)),
            _ => current.push(c),
        }
        escaped = c == '\\' && !escaped;
    }
    found.push(current);
    found
}

fn parse_field(clause: &str, whole: &str) -> Result<FieldRequirement, String> {
    let found = [("!=", false), ("==", true), ("=", true)]
        .into_iter()
        .find_map(|(operator, equal)| clause.split_once(operator).map(|(field, value)| (field, value, equal)));
    let (field, value, equal) =
        found.ok_or_else(|| format!("invalid selector: '{whole}'; can't understand '{clause}'"))?;
    Ok(FieldRequirement { field: field.trim().to_owned(), equal, value: unescape(value) })
}

fn unescape(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => out.extend(chars.next()),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{Test, parse_fields, parse_labels};

    fn matches(selector: &str, labels: &[(&str, &str)]) -> bool {
        parse_labels(selector)
            .unwrap()
            .iter()
            .all(|r| r.test.holds(labels.iter().find(|(key, _)| *key == r.key).map(|(_, value)| *value)))
    }

    #[test]
    fn label_requirements() {
        let labels = [("app", "web"), ("tier", ""), ("size", "5")];
        for yes in [
            "",
            "app",
            "app=web",
            "app==web",
            "app!=db",
            "app in (db, web)",
            "app notin (db)",
            "!x",
            "x!=y",
            "tier=",
            "size>4",
            "size<6",
            "app=web,size",
            "x notin (a,b),app in (web)",
        ] {
            assert!(matches(yes, &labels), "{yes}");
        }
        for no in ["x", "app=db", "app!=web", "app in (db)", "!app", "size>5", "tier=x", "app=web,x"] {
            assert!(!matches(no, &labels), "{no}");
        }
    }

    #[test]
    fn bad_label_selectors_are_refused() {
        for bad in ["a=b,", ",", "a in b", "a in (b", "a b (c)", "-a", "a=-", "a>b", "a/b/c=d"] {
            assert!(parse_labels(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn field_requirements() {
        let parsed = parse_fields("metadata.name=a\\,b,status.phase!=Running").unwrap();
        assert_eq!((parsed[0].value.as_str(), parsed[0].equal), ("a,b", true));
        assert_eq!((parsed[1].value.as_str(), parsed[1].equal), ("Running", false));
        assert!(parse_fields("metadata.name").is_err());
        assert!(matches!(parse_labels("a").unwrap()[0].test, Test::Exists));
    }
}
