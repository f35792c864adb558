//! Query strings, and the options that kubelet's endpoints read from them.

use std::time::Duration;

use super::logline::Stream;
use super::logs::LogOptions;

/// Decoded `key=value` pairs in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub(super) fn parse(text: &str) -> Self {
        let pairs = text.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(key), decode(value))
        });
        Self(pairs.collect())
    }

    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.0.iter().any(|(k, _)| k == key)
    }

    pub(super) fn all(&self, key: &str) -> Vec<String> {
        self.0.iter().filter(|(k, _)| k == key).map(|(_, value)| value.clone()).collect()
    }

    /// Go's conversion of query values to booleans: anything but these is true (`queryparams`).
    pub(super) fn flag(&self, key: &str) -> bool {
        self.0.iter().any(|(k, value)| k == key && !matches!(value.to_ascii_lowercase().as_str(), "false" | "0"))
    }
}

/// Decodes a part of a path, in which `+` is no space.
pub(super) fn decode_path(text: &str) -> String {
    decode(&text.replace('+', "%2B"))
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        match first {
            b'+' => bytes.push(b' '),
            b'%' => match tail.get(..2).and_then(hex) {
                Some(byte) => {
                    bytes.push(byte);
                    rest = tail.get(2..).unwrap_or_default();
                }
                None => bytes.push(b'%'),
            },
            other => bytes.push(*other),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn hex(digits: &[u8]) -> Option<u8> {
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

/// `PodLogOptions` of `/containerLogs`. The second value is `previous`.
///
/// # Errors
/// A value that is none, in upstream's words.
pub(super) fn log_options(query: &Query, now: jiff::Timestamp) -> Result<(LogOptions, bool), String> {
    let number = |key: &str, least: i64| match query.get(key) {
        None | Some("all") => Ok(None),
        Some(text) => match text.parse::<i64>() {
            Ok(value) if value >= least => Ok(u64::try_from(value).ok()),
            Ok(value) if least == 1 => Err(format!("{key}: Invalid value: {value}: must be greater than 0")),
            Ok(value) => Err(format!("{key}: Invalid value: {value}: must be greater than or equal to 0")),
            Err(_) => Err(format!("{key}: Invalid value: {text:?}: must be an integer")),
        },
    };
    let since_seconds = number("sinceSeconds", 1)?.map(|seconds| now - Duration::from_secs(seconds));
    let since_time = match query.get("sinceTime") {
        None => None,
        Some(text) => {
            let time = text.parse::<jiff::Timestamp>();
            Some(time.map_err(|_| format!("sinceTime: Invalid value: {text:?}: must be an RFC 3339 time"))?)
        }
    };
    if since_seconds.is_some() && since_time.is_some() {
        return Err("sinceTime: Forbidden: at most one of `sinceTime` or `sinceSeconds` may be specified".into());
    }
    let stream = match query.get("stream") {
        None | Some("All") => None,
        Some("Stdout") => Some(Stream::Stdout),
        Some("Stderr") => Some(Stream::Stderr),
        Some(other) => {
            return Err(format!(
                "stream: Unsupported value: {other:?}: supported values: \"All\", \"Stderr\", \"Stdout\""
            ));
        }
    };
    let options = LogOptions {
        follow: query.flag("follow"),
        tail_lines: number("tailLines", 0)?,
        since: since_seconds.or(since_time),
        timestamps: query.flag("timestamps"),
        limit_bytes: number("limitBytes", 1)?,
        stream,
    };
    Ok((options, query.flag("previous")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_decoded() {
        let query = Query::parse("command=sh&command=-c&command=echo%20%C3%A4+b&tty=1&input=false&x=%zz");
        assert_eq!(query.all("command"), ["sh", "-c", "echo ä b"]);
        assert!(query.flag("tty") && !query.flag("input") && !query.flag("output"));
        assert_eq!(query.get("x"), Some("%zz"));
    }

    #[test]
    fn log_options_are_read_and_refused_in_upstreams_words() {
        let now = jiff::Timestamp::from_second(1000).unwrap();
        let parse = |text: &str| log_options(&Query::parse(text), now);
        let (options, previous) =
            parse("follow=true&tailLines=5&sinceSeconds=10&timestamps=true&previous=true").unwrap();
        assert!(options.follow && options.timestamps && previous);
        assert_eq!(options.tail_lines, Some(5));
        assert_eq!(options.since, jiff::Timestamp::from_second(990).ok());
        assert_eq!(parse("limitBytes=0").unwrap_err(), "limitBytes: Invalid value: 0: must be greater than 0");
        for bad in
            ["tailLines=x", "tailLines=-1", "sinceTime=yesterday", "sinceSeconds=1&sinceTime=2026-01-01T00:00:00Z"]
        {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
