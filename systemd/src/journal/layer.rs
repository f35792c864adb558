//! From events of `tracing` to entries of the journal.

use std::fmt::{self, Write as _};
use std::io::Write as _;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::{LookupSpan, SpanRef};

use super::Journal;

/// Sends each event with its fields and those of its spans. The message has the event's own fields too: it is what people read.
#[derive(Debug)]
pub struct JournalLayer {
    journal: Journal,
    identifier: String,
}

impl JournalLayer {
    /// Under the name by which `journalctl -t` finds the entries.
    pub fn new(journal: Journal, identifier: impl Into<String>) -> Self {
        Self { journal, identifier: identifier.into() }
    }
}

/// A field as it was said, and the name that the journal has for it.
#[derive(Debug)]
struct Said {
    name: &'static str,
    journal: String,
    value: String,
}

impl Said {
    fn new(name: &'static str, value: String) -> Self {
        Self { name, journal: journal_name(name), value }
    }
}

/// Fields in the order in which they were said; kept with each span.
#[derive(Debug, Default)]
struct Fields(Vec<Said>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.push(Said::new(field.name(), format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.push(Said::new(field.name(), value.to_owned()));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.0.push(Said::new(field.name(), value.to_string()));
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for JournalLayer {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        span.extensions_mut().insert(fields);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(fields) = span.extensions_mut().get_mut::<Fields>() {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut said = Fields::default();
        event.record(&mut said);
        let spans: Vec<_> = context.event_scope(event).into_iter().flatten().collect();
        let kept: Vec<_> = spans.iter().map(SpanRef::extensions).collect();
        let around = kept.iter().filter_map(|kept| kept.get::<Fields>()).flat_map(|fields| &fields.0);
        let (metadata, message) = (event.metadata(), message(&said));
        let head = [
            ("MESSAGE", message.as_str()),
            ("PRIORITY", priority(*metadata.level())),
            ("SYSLOG_IDENTIFIER", &self.identifier),
            ("TARGET", metadata.target()),
        ];
        if let Err(error) = self.journal.send(&entry(head, &said, around)) {
            // systemd takes it for an entry without fields. There is nobody to tell if that fails, too.
            let _ = writeln!(std::io::stderr(), "{message} (not journalled: {error})");
        }
    }
}

/// Where among an event's fields its text is: a field may have the same name, and stands after it.
fn text(said: &Fields) -> Option<usize> {
    said.0.iter().position(|field| field.name == "message")
}

/// What people read: the text, then the event's own fields.
fn message(said: &Fields) -> String {
    let text = text(said);
    let mut message = text.and_then(|index| said.0.get(index)).map(|field| field.value.clone()).unwrap_or_default();
    for (_, Said { name, value, .. }) in said.0.iter().enumerate().filter(|(index, _)| Some(*index) != text) {
        // A String cannot fail to be written to.
        let _ = write!(message, " {name}={value}");
    }
    message.trim_start().to_owned()
}

fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "3",
        Level::WARN => "4",
        Level::INFO => "6",
        _ => "7",
    }
}

/// Names and values of one entry. An event's own field stands before that of a span, and an inner span's before an outer's.
fn entry<'a>(
    head: [(&'a str, &'a str); 4],
    said: &'a Fields,
    around: impl Iterator<Item = &'a Said>,
) -> Vec<(&'a str, &'a str)> {
    let text = text(said);
    let own = said.0.iter().enumerate().filter(|(index, _)| Some(*index) != text).map(|(_, field)| field);
    let own = own.map(|field| (if field.name == "message" { "DETAIL" } else { &field.journal }, field.value.as_str()));
    let mut entry = Vec::from(head);
    for (name, value) in own.chain(around.map(|field| (field.journal.as_str(), field.value.as_str()))) {
        if !name.is_empty() && !entry.iter().any(|(there, _)| *there == name) {
            entry.push((name, value));
        }
    }
    entry
}

/// `A-Z`, `0-9` and `_`, with a letter first: what journald takes. `r#type` is `TYPE`.
fn journal_name(name: &str) -> String {
    let name = name.trim_start_matches("r#").to_ascii_uppercase();
    let plain = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).take(64).collect::<String>();
    plain.trim_start_matches(|c: char| !c.is_ascii_uppercase()).to_owned()
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[test]
    fn events_have_their_fields_and_those_of_their_spans() {
        let path = std::env::temp_dir().join(format!("keelson-journal-{}", std::process::id()));
        let journald = UnixDatagram::bind(&path).unwrap();
        let layer = JournalLayer::new(Journal::at(&path).unwrap(), "agent");
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            let span = tracing::info_span!("pod", pod = "default/web", uid = tracing::field::Empty);
            span.record("uid", "u-1");
            let _within = span.enter();
            tracing::warn!(container = %"app", message = %"no space", "step failed");
        });
        let mut buffer = [0; 4096];
        let length = journald.recv(&mut buffer).unwrap();
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        std::fs::remove_file(&path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "MESSAGE=step failed container=app message=no space");
        for line in
            ["PRIORITY=4", "SYSLOG_IDENTIFIER=agent", "CONTAINER=app", "DETAIL=no space", "POD=default/web", "UID=u-1"]
        {
            assert!(lines.contains(&line), "{line} is not in {lines:?}");
        }
    }

    #[test]
    fn names_are_what_journald_takes_and_the_nearest_counts() {
        assert_eq!(["pod.name", "_x", "r#type", "1a", ""].map(journal_name), ["POD_NAME", "X", "TYPE", "A", ""]);
        let fields = |list: &[(&'static str, &str)]| {
            Fields(list.iter().map(|(name, value)| Said::new(name, (*value).to_owned())).collect())
        };
        let (said, around) = (fields(&[("pod", "near"), ("message", "m")]), fields(&[("pod", "far"), ("TARGET", "x")]));
        let message = message(&said);
        assert_eq!(message, "m pod=near");
        let head = [("MESSAGE", message.as_str()), ("PRIORITY", "6"), ("SYSLOG_IDENTIFIER", "agent"), ("TARGET", "t")];
        let entry = entry(head, &said, around.0.iter());
        assert_eq!(entry[4..], [("POD", "near")]);
    }
}
