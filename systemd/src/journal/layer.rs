//! From events of `tracing` to entries of the journal.

use std::fmt::{self, Write as _};
use std::io::Write as _;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

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

/// Fields in the order in which they were said; kept with each span.
#[derive(Debug, Default)]
struct Fields(Vec<(String, String)>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.push((field.name().to_owned(), format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.push((field.name().to_owned(), value.to_owned()));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.0.push((field.name().to_owned(), value.to_string()));
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
        let mut around = Vec::new();
        for span in context.event_scope(event).into_iter().flatten() {
            around.extend(span.extensions().get::<Fields>().map(|fields| fields.0.clone()).into_iter().flatten());
        }
        let metadata = event.metadata();
        let entry = entry(&self.identifier, *metadata.level(), metadata.target(), said.0, around);
        let fields: Vec<(&str, &str)> = entry.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        if let Err(error) = self.journal.send(&fields) {
            // systemd takes it for an entry without fields. There is nobody to tell if that fails, too.
            let message = fields.first().map_or("", |(_, message)| message);
            let _ = writeln!(std::io::stderr(), "{message} (not journalled: {error})");
        }
    }
}

/// Names and values of one entry, `MESSAGE` first. An event's own field stands before that of a span, and an inner span's before an outer's.
fn entry(
    identifier: &str,
    level: Level,
    target: &str,
    said: Vec<(String, String)>,
    around: Vec<(String, String)>,
) -> Vec<(String, String)> {
    let (mut message, mut fields) = (String::new(), Vec::new());
    let mut is_said = false;
    for (name, value) in said {
        // The text itself comes first; a field may have the same name.
        if name == "message" && !is_said {
            message.insert_str(0, &value);
            is_said = true;
            continue;
        }
        // A String cannot fail to be written to.
        let _ = write!(message, " {name}={value}");
        fields.push((if name == "message" { "detail".to_owned() } else { name }, value));
    }
    let level = match level {
        Level::ERROR => "3",
        Level::WARN => "4",
        Level::INFO => "6",
        _ => "7",
    };
    let mut entry: Vec<(String, String)> = vec![
        ("MESSAGE".into(), message.trim_start().to_owned()),
        ("PRIORITY".into(), level.into()),
        ("SYSLOG_IDENTIFIER".into(), identifier.to_owned()),
        ("TARGET".into(), target.to_owned()),
    ];
    for (name, value) in fields.into_iter().chain(around) {
        let name = journal_name(&name);
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
        let field = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let entry = entry(
            "agent",
            Level::INFO,
            "t",
            vec![field("pod", "near"), field("message", "m")],
            vec![field("pod", "far")],
        );
        assert_eq!(entry[0].1, "m pod=near");
        let pods: Vec<_> = entry.iter().filter(|(name, _)| name == "POD").collect();
        assert_eq!(pods, [&field("POD", "near")]);
    }
}
