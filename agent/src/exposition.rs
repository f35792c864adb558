//! Prometheus' text format 0.0.4.

use std::fmt::Write;

/// The content type of what [`Text`] holds.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// `# TYPE`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Type {
    Counter,
    Gauge,
    Histogram,
}

/// A text that grows family by family. A family is written at once, as the format wants it; one without samples is not.
#[derive(Debug, Default)]
pub struct Text {
    text: String,
    name: String,
    /// The head of a family that has no samples yet.
    head: String,
}

impl Text {
    /// Begins a family.
    pub fn family(&mut self, name: &str, kind: Type, help: &str) {
        let kind = match kind {
            Type::Counter => "counter",
            Type::Gauge => "gauge",
            Type::Histogram => "histogram",
        };
        name.clone_into(&mut self.name);
        self.head = format!("# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    /// Adds a sample of the family.
    pub fn sample(&mut self, labels: &[(&str, &str)], value: f64) {
        self.line("", labels, value, None);
    }

    /// Adds a sample that was taken at a time, in milliseconds since 1970.
    pub fn sample_at(&mut self, labels: &[(&str, &str)], value: f64, millis: i64) {
        self.line("", labels, value, Some(millis));
    }

    /// Adds a line of a histogram: `_bucket`, `_sum` or `_count`.
    pub fn part(&mut self, suffix: &str, labels: &[(&str, &str)], value: f64) {
        self.line(suffix, labels, value, None);
    }

    /// A family with one sample and no labels.
    pub fn single(&mut self, name: &str, kind: Type, help: &str, value: f64) {
        self.family(name, kind, help);
        self.sample(&[], value);
    }

    /// What was written.
    #[must_use]
    pub fn into_string(self) -> String {
        self.text
    }

    fn line(&mut self, suffix: &str, labels: &[(&str, &str)], value: f64, millis: Option<i64>) {
        let text = &mut self.text;
        text.push_str(&std::mem::take(&mut self.head));
        text.push_str(&self.name);
        text.push_str(suffix);
        for (index, (key, value)) in labels.iter().enumerate() {
            text.push(if index == 0 { '{' } else { ',' });
            text.push_str(key);
            text.push_str("=\"");
            escape(text, value);
            text.push('"');
        }
        if !labels.is_empty() {
            text.push('}');
        }
        // Writing to a String cannot fail.
        let _ = match (value.is_infinite(), millis) {
            (true, _) => writeln!(text, " +Inf"),
            (false, Some(millis)) => writeln!(text, " {value} {millis}"),
            (false, None) => writeln!(text, " {value}"),
        };
    }
}

fn escape(text: &mut String, value: &str) {
    for c in value.chars() {
        match c {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            c => text.push(c),
        }
    }
}

/// A count as a sample. Beyond 2^53 it is as exact as the format, whose values are floats.
#[must_use]
#[allow(clippy::cast_precision_loss)]
pub fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_written_as_prometheus_reads_them() {
        let mut text = Text::default();
        text.family("a_total", Type::Counter, "All of a.");
        text.sample(&[("x", "1\"\\\n"), ("y", "")], 2.5);
        text.sample_at(&[], 3.0, 1_700_000_000_000);
        text.family("none", Type::Gauge, "Without samples.");
        text.single("b", Type::Gauge, "B.", f64::INFINITY);
        let expected = "# HELP a_total All of a.\n# TYPE a_total counter\na_total{x=\"1\\\"\\\\\\n\",y=\"\"} 2.5\n\
                        a_total 3 1700000000000\n# HELP b B.\n# TYPE b gauge\nb +Inf\n";
        assert_eq!(text.into_string(), expected);
    }
}
