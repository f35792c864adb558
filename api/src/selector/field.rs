//! The text form of field selectors: `metadata.name=a,status.phase!=Running`.

use super::SelectorError;

/// One condition on a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldRequirement {
    /// The field's path.
    pub field: String,
    /// Whether the values must be equal (or else must differ).
    pub equal: bool,
    /// The value to compare with.
    pub value: String,
}

/// All requirements must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {
    /// In the order of the text.
    pub requirements: Vec<FieldRequirement>,
}

impl FieldSelector {
    /// Reads the text, as in `?fieldSelector=`.
    ///
    /// # Errors
    /// Upstream's text about the first thing that is wrong.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let mut requirements = Vec::new();
        for term in terms(text).into_iter().filter(|term| !term.is_empty()) {
            let Some((field, equal, value)) = split(term) else {
                return Err(SelectorError::Syntax(format!("invalid selector: '{text}'; can't understand '{term}'")));
            };
            requirements.push(FieldRequirement { field: field.to_owned(), equal, value: unescape(value)? });
        }
        Ok(Self { requirements })
    }

    /// Whether an object matches; `value` tells the value of a field, an unknown one is empty.
    pub fn matches<'a>(&'a self, value: impl Fn(&'a str) -> Option<&'a str>) -> bool {
        self.requirements
            .iter()
            .all(|requirement| (value(&requirement.field).unwrap_or("") == requirement.value) == requirement.equal)
    }
}

/// Splits at commas that no backslash precedes.
fn terms(text: &str) -> Vec<&str> {
    let (mut terms, mut start, mut escaped) = (Vec::new(), 0, false);
    for (index, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b',' => {
                terms.extend(text.get(start..index));
                start = index + 1;
            }
            _ => {}
        }
    }
    terms.extend(text.get(start..));
    terms
}

/// Splits at the first operator.
fn split(term: &str) -> Option<(&str, bool, &str)> {
    (0..term.len()).find_map(|index| {
        let (field, rest) = term.split_at_checked(index)?;
        let operators = [("!=", false), ("==", true), ("=", true)];
        operators.iter().find_map(|(text, equal)| Some((field, *equal, rest.strip_prefix(text)?)))
    })
}

fn unescape(value: &str) -> Result<String, SelectorError> {
    let mut plain = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(c @ ('\\' | ',' | '=')) => plain.push(c),
                other => {
                    let sequence: String = ['\\'].into_iter().chain(other).collect();
                    let text = format!("invalid field selector: invalid escape sequence: {sequence}");
                    return Err(SelectorError::Syntax(text));
                }
            },
            ',' | '=' => {
                let text = format!("invalid field selector: unescaped character in value: {}", u32::from(c));
                return Err(SelectorError::Syntax(text));
            }
            c => plain.push(c),
        }
    }
    Ok(plain)
}
