//! The JSONPath of printer columns and of the scale subresource: `.spec.a`, `.a['b.c']`, `.a[0]`, `.a[*].b`,
//! `.conditions[?(@.type=="Ready")].status` (`k8s.io/client-go/util/jsonpath`, without its control structures).

use serde_json::Value;

/// One step of a path.
#[derive(Debug, Clone, PartialEq)]
enum Step {
    Field(String),
    Index(i64),
    All,
    /// Items whose field has a value, or with `false` has another.
    Where(Vec<String>, bool, Value),
}

/// A path that was read.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct JsonPath(Vec<Step>);

/// A path that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0} is no JSON path")]
pub(crate) struct BadPath(String);

impl JsonPath {
    /// Leads to nothing.
    pub fn nowhere() -> JsonPath {
        JsonPath(vec![Step::Where(Vec::new(), false, Value::Null)])
    }

    pub fn parse(text: &str) -> Result<JsonPath, BadPath> {
        let bad = || BadPath(text.to_owned());
        let mut rest = text.trim().trim_start_matches('{').trim_end_matches('}').trim_start_matches('$');
        let mut steps = Vec::new();
        while !rest.is_empty() {
            if let Some(tail) = rest.strip_prefix('[') {
                let end = closing(tail).ok_or_else(bad)?;
                let (inner, tail) = tail.split_at(end);
                steps.push(bracketed(inner.trim()).ok_or_else(bad)?);
                rest = tail.get(1..).unwrap_or_default();
                continue;
            }
            let tail = rest.strip_prefix('.').ok_or_else(bad)?;
            let (name, tail) = name(tail);
            match name.as_str() {
                // `.` alone is the object itself, and `.[` a bracket.
                "" if steps.is_empty() || tail.starts_with('[') => {}
                "" => return Err(bad()),
                "*" => steps.push(Step::All),
                _ => steps.push(Step::Field(name)),
            }
            rest = tail;
        }
        Ok(JsonPath(steps))
    }

    /// Everything that the path leads to.
    pub fn find<'a>(&self, object: &'a Value) -> Vec<&'a Value> {
        self.0.iter().fold(vec![object], |found, step| found.into_iter().flat_map(|at| step.of(at)).collect())
    }
}

impl Step {
    fn of<'a>(&self, at: &'a Value) -> Vec<&'a Value> {
        match self {
            Step::Field(name) => at.get(name).into_iter().collect(),
            Step::Index(index) => {
                let list = at.as_array().map(Vec::as_slice).unwrap_or_default();
                let place = if *index < 0 { list.len() as i64 + index } else { *index };
                usize::try_from(place).ok().and_then(|place| list.get(place)).into_iter().collect()
            }
            Step::All => match at {
                Value::Array(list) => list.iter().collect(),
                Value::Object(map) => map.values().collect(),
                _ => Vec::new(),
            },
            Step::Where(path, equal, wanted) => {
                let matches = |item: &&Value| super::at(item, path).is_some_and(|found| (found == wanted) == *equal);
                at.as_array().into_iter().flatten().filter(matches).collect()
            }
        }
    }
}

/// A name up to the next `.` or `[`; a backslash takes what follows as it is.
fn name(text: &str) -> (String, &str) {
    let mut name = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => name.extend(chars.next().map(|(_, c)| c)),
            '.' | '[' => return (name, text.get(at..).unwrap_or_default()),
            c => name.push(c),
        }
    }
    (name, "")
}

/// Where the bracket ends that was opened before `text`.
fn closing(text: &str) -> Option<usize> {
    let (mut depth, mut quote) = (0_usize, None);
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '\'' | '"') => quote = Some(c),
            (None, '[') => depth += 1,
            (None, ']') if depth == 0 => return Some(at),
            (None, ']') => depth -= 1,
            _ => {}
        }
    }
    None
}

fn bracketed(inner: &str) -> Option<Step> {
    if inner == "*" {
        return Some(Step::All);
    }
    if let Some(condition) = inner.strip_prefix("?(").and_then(|rest| rest.strip_suffix(')')) {
        let (operator, equal) = if condition.contains("!=") { ("!=", false) } else { ("==", true) };
        let (path, wanted) = condition.split_once(operator)?;
        let path = path.trim().strip_prefix("@.")?.split('.').map(str::to_owned).collect();
        let wanted = wanted.trim();
        let wanted = unquoted(wanted).map_or_else(|| serde_json::from_str(wanted).ok(), |text| Some(text.into()))?;
        return Some(Step::Where(path, equal, wanted));
    }
    unquoted(inner).map(|name| Step::Field(name.to_owned())).or_else(|| inner.parse().ok().map(Step::Index))
}

fn unquoted(text: &str) -> Option<&str> {
    ['\'', '"'].iter().find_map(|quote| text.strip_prefix(*quote)?.strip_suffix(*quote))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::JsonPath;

    #[test]
    fn paths_lead_where_they_say() {
        let object = json!({
            "spec": { "list": [1, 2], "a.b": "dots" },
            "status": { "conditions": [{ "type": "X", "status": "no" }, { "type": "Ready", "status": "yes" }] },
        });
        let find = |path: &str| -> Vec<serde_json::Value> {
            JsonPath::parse(path).unwrap().find(&object).into_iter().cloned().collect()
        };
        assert_eq!(find(".spec.list[1]"), [json!(2)]);
        assert_eq!(find(".spec.list[*]"), [json!(1), json!(2)]);
        assert_eq!(find(".spec.list[-1]"), [json!(2)]);
        assert_eq!(find(r".spec.a\.b"), [json!("dots")]);
        assert_eq!(find(".spec['a.b']"), [json!("dots")]);
        assert_eq!(find(".status.conditions[?(@.type==\"Ready\")].status"), [json!("yes")]);
        assert_eq!(find(".status.conditions[?(@.type!='Ready')].status"), [json!("no")]);
        assert!(find(".spec.none.deeper").is_empty());
        for bad in ["spec", ".a..b", ".a[", ".a[?(x)]"] {
            assert!(JsonPath::parse(bad).is_err(), "{bad}");
        }
    }
}
