//! What `kubectl get` prints.

use jiff::Timestamp;
use serde_json::Value;

use crate::kind::{Column, Priority};
use crate::value::Fields;

impl Column {
    /// The column that names the object.
    pub const NAME: Column = Column {
        name: "Name",
        kind: "string",
        format: "name",
        description: "Name of the object, unique within its namespace and kind",
        priority: Priority::Normal,
    };

    pub const AGE: Column = Column::text("Age", "Time since the object was created");

    pub const fn text(name: &'static str, description: &'static str) -> Column {
        Column { name, kind: "string", format: "", description, priority: Priority::Normal }
    }

    pub const fn wide(name: &'static str, description: &'static str) -> Column {
        Column { name, kind: "string", format: "", description, priority: Priority::Wide }
    }

    pub const fn integer(name: &'static str, description: &'static str) -> Column {
        Column { name, kind: "integer", format: "", description, priority: Priority::Normal }
    }
}

pub(crate) const NAME_AND_AGE: &[Column] = &[Column::NAME, Column::AGE];

pub(crate) fn name_and_age(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), age(object, now)]
}

pub(crate) fn name(object: &Value) -> Value {
    object.pointer("/metadata/name").cloned().unwrap_or_else(|| Value::from(""))
}

/// The age of an object, `<unknown>` without a creation time.
pub(crate) fn age(object: &Value, now: Timestamp) -> Value {
    since(object.pointer("/metadata/creationTimestamp"), now).into()
}

/// How long ago a time of an object was, as kubectl shows it.
pub(crate) fn since(time: Option<&Value>, now: Timestamp) -> String {
    match time.and_then(Value::as_str).and_then(|t| t.parse::<Timestamp>().ok()) {
        Some(then) => human_duration(now.as_second().saturating_sub(then.as_second())),
        None => "<unknown>".to_string(),
    }
}

/// Upstream's `duration.HumanDuration`: two units at most, coarser as the time grows.
pub fn human_duration(seconds: i64) -> String {
    if seconds < -1 {
        return "<invalid>".into();
    }
    if seconds < 0 {
        return "0s".into();
    }
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    let pair = |whole: i64, unit: char, rest: i64, small: char| {
        if rest == 0 { format!("{whole}{unit}") } else { format!("{whole}{unit}{rest}{small}") }
    };
    match seconds {
        0..120 => format!("{seconds}s"),
        120..600 => pair(minutes, 'm', seconds % 60, 's'),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => pair(hours, 'h', minutes % 60, 'm'),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => pair(days, 'd', hours % 24, 'h'),
        691_200..63_072_000 => format!("{days}d"),
        63_072_000..252_288_000 => pair(days / 365, 'y', days % 365, 'd'),
        _ => format!("{}y", days / 365),
    }
}

/// A time as it is stored, for kinds that upstream shows with its default columns.
pub(crate) const NAME_AND_CREATED: &[Column] =
    &[Column::NAME, Column { kind: "date", ..Column::text("Created At", "When the object was created") }];

pub(crate) fn name_and_created(object: &Value, _now: Timestamp) -> Vec<Value> {
    vec![name(object), object.at("metadata").at("creationTimestamp").clone()]
}

/// A text, or `<none>`.
pub(crate) fn or_none(text: &str) -> Value {
    or(text, "<none>")
}

/// A text, or what stands for its absence.
pub(crate) fn or(text: &str, otherwise: &str) -> Value {
    if text.is_empty() { otherwise.into() } else { text.into() }
}

/// A list of texts, joined; `<none>` where there is none.
pub(crate) fn joined<'a>(texts: impl Iterator<Item = &'a str>) -> Value {
    or_none(&texts.collect::<Vec<_>>().join(","))
}

/// `a=b,c=d`, or `<none>`.
pub(crate) fn labels(labels: &Value) -> Value {
    let pairs: Vec<String> = labels
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    or_none(&pairs.join(","))
}

/// A LabelSelector as kubectl writes it.
pub(crate) fn selector(selector: &Value) -> Value {
    let plain = selector.entries("matchLabels").map(|(key, value)| {
        let text = format!("{key}={}", value.as_str().unwrap_or_default());
        (key.as_str(), text)
    });
    let set = selector.list("matchExpressions").iter().map(|requirement| {
        let key = requirement.text("key");
        let mut values: Vec<&str> = requirement.list("values").iter().filter_map(Value::as_str).collect();
        values.sort_unstable();
        let values = values.join(",");
        let text = match requirement.text("operator") {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "DoesNotExist" => format!("!{key}"),
            _ => key.to_string(),
        };
        (key, text)
    });
    let mut parts: Vec<(&str, String)> = plain.chain(set).collect();
    parts.sort_by(|a, b| a.0.cmp(b.0));
    joined(parts.iter().map(|(_, text)| text.as_str()))
}

/// Names and images of a template's containers.
pub(crate) fn containers(template: &Value) -> [Value; 2] {
    let list = template.at("spec").list("containers");
    let join = |field| list.iter().map(|c| c.text(field)).collect::<Vec<_>>().join(",").into();
    [join("name"), join("image")]
}

/// `a,b,c + 2 more...`: three at most.
pub(crate) fn with_more(items: &[String]) -> Value {
    match items.get(..3) {
        Some(first) if items.len() > 3 => format!("{} + {} more...", first.join(","), items.len() - 3).into(),
        _ => joined(items.iter().map(String::as_str)),
    }
}

/// An integer field, 0 where absent.
pub(crate) fn count(object: &Value, field: &str) -> Value {
    object.int(field).unwrap_or(0).into()
}

/// The condition of a type.
pub(crate) fn condition<'a>(status: &'a Value, kind: &str) -> Option<&'a Value> {
    status.list("conditions").iter().find(|c| c.text("type") == kind)
}
