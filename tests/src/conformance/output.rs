//! Reads ginkgo's output while the suite runs: for progress, and for results where there is no report in the end.

use super::report::{Outcome, Verdict};

/// What a line says.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// So many tests will run.
    Begins(u64),
    Ended,
    /// A test with this name ended red.
    Failed(String),
    Nothing,
}

/// What has been read so far.
#[derive(Debug, Default)]
pub struct Seen {
    pub total: u64,
    pub ended: u64,
    pub red: u64,
    outcomes: Vec<Outcome>,
    state: State,
}

#[derive(Debug, Default, PartialEq)]
enum State {
    #[default]
    Between,
    /// A test's end was said; its name is on the next line.
    Name { verdict: Verdict, seconds: f64 },
    /// What a test printed.
    Output,
}

impl Seen {
    /// The tests that ended, as far as the output says it.
    #[must_use]
    pub fn outcomes(self) -> Vec<Outcome> {
        self.outcomes.into_iter().map(Outcome::judged).collect()
    }

    /// Takes one line.
    pub fn line(&mut self, line: &str) -> Event {
        match std::mem::take(&mut self.state) {
            State::Name { verdict, seconds } => return self.named(line, verdict, seconds),
            State::Output if !line.starts_with("------") => {
                self.state = State::Output;
                if let Some(outcome) = self.outcomes.last_mut() {
                    printed(outcome, line.trim_start());
                }
                return Event::Nothing;
            }
            State::Output | State::Between => {}
        }
        if let Some(total) = line.strip_prefix("Will run ").and_then(|l| l.split(' ').next()?.parse().ok()) {
            // Each process says it.
            let first = self.total == 0;
            self.total = total;
            return if first { Event::Begins(total) } else { Event::Nothing };
        }
        if let Some((verdict, seconds)) = line.strip_prefix("• [").and_then(end) {
            self.state = State::Name { verdict, seconds };
        }
        Event::Nothing
    }

    fn named(&mut self, line: &str, verdict: Verdict, seconds: f64) -> Event {
        let name = named(line);
        self.ended += 1;
        self.state = State::Output;
        let (message, location, output) = Default::default();
        self.outcomes.push(Outcome { name: name.clone(), verdict, seconds, message, location, output });
        if verdict == Verdict::Pass {
            return Event::Ended;
        }
        self.red += 1;
        Event::Failed(name)
    }
}

/// The name as it is in reports: the labels follow it, and where a test is red its failed node is in it.
fn named(line: &str) -> String {
    const NODES: [&str; 5] = ["[It]", "[BeforeEach]", "[JustBeforeEach]", "[AfterEach]", "[DeferCleanup (Each)]"];
    let mut name = line.rsplit_once(" [").map_or(line, |(name, _)| name).to_owned();
    for node in NODES {
        name = name.replace(node, "");
    }
    name.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// `1.250 seconds]` of a green test, `FAILED] [300.110 seconds]` of a red one.
fn end(rest: &str) -> Option<(Verdict, f64)> {
    let (verdict, time) = match rest.split_once("] [") {
        Some((_, time)) => (Verdict::Fail, time),
        None => (Verdict::Pass, rest),
    };
    Some((verdict, time.strip_suffix(" seconds]")?.parse().ok()?))
}

fn printed(outcome: &mut Outcome, line: &str) {
    const REASONS: [&str; 5] = ["[FAILED] ", "[TIMEDOUT] ", "[PANICKED] ", "[INTERRUPTED] ", "[ABORTED] "];
    if let Some(reason) = REASONS.iter().find_map(|r| line.strip_prefix(r)).filter(|_| outcome.message.is_empty()) {
        reason.clone_into(&mut outcome.message);
    }
    outcome.output.push_str(line);
    outcome.output.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_and_results_are_read_from_the_output() {
        let mut seen = Seen::default();
        assert_eq!(seen.line("Will run 236 of 7000 specs"), Event::Begins(236));
        assert_eq!(seen.line("Will run 236 of 7000 specs"), Event::Nothing);
        assert_eq!(seen.line("• [1.250 seconds]"), Event::Nothing);
        assert_eq!(seen.line("[sig-node] a [Conformance] [sig-node, Conformance]"), Event::Ended);
        assert_eq!(seen.line("------------------------------"), Event::Nothing);
        assert_eq!(seen.line("S [SKIPPED] [0.001 seconds]"), Event::Nothing);
        assert_eq!(seen.line("• [FAILED] [300.110 seconds]"), Event::Nothing);
        assert_eq!(
            seen.line("[sig-node] Pods [It] should run [sig-node, Slow]"),
            Event::Failed("[sig-node] Pods should run".into())
        );
        for line in [
            "",
            "  STEP: waiting",
            "  [FAILED] Timed out.",
            "  In [It] at: a.go:1",
            "  [FAILED] and again",
            "-----------",
        ] {
            assert_eq!(seen.line(line), Event::Nothing);
        }
        assert_eq!(seen.line("• [2.000 seconds]"), Event::Nothing);
        assert_eq!(seen.line("[sig-node] b [sig-node]"), Event::Ended);
        assert_eq!(seen.line("  Unexpected error while creating CustomResourceDefinition: not found"), Event::Nothing);
        assert_eq!(seen.line("------"), Event::Nothing);
        assert_eq!(seen.line("• [FAILED] [2.000 seconds]"), Event::Nothing);
        let failed = seen.line("[sig-node] c [DeferCleanup (Each)] ends [Slow] [sig-node, Slow]");
        assert_eq!(failed, Event::Failed("[sig-node] c ends [Slow]".into()));
        assert_eq!((seen.ended, seen.red), (4, 2));
        let outcomes = seen.outcomes();
        let [a, red, b, _] = outcomes.as_slice() else { panic!("{outcomes:?}") };
        assert_eq!((a.name.as_str(), a.verdict), ("[sig-node] a [Conformance]", Verdict::Pass));
        assert_eq!((red.message.as_str(), red.verdict), ("Timed out.", Verdict::Fail));
        assert!(red.output.contains("STEP: waiting\n") && (b.seconds - 2.0).abs() < 1e-9);
        // It says so itself: it gave up.
        assert_eq!(b.verdict, Verdict::Fail);
    }
}
