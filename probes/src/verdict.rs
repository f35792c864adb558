//! Outcomes to a verdict, by the thresholds of the probe (pkg/kubelet/prober/worker.go). Pure.

use crate::probe::{Kind, Probe};

/// What is known of the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Not enough answers yet. Counts as not started, not ready, and alive.
    Unknown,
    Success,
    Failure,
}

/// Counts answers of one probe of one container instance.
#[derive(Debug, Clone)]
pub struct Verdicts {
    kind: Kind,
    success_threshold: u32,
    failure_threshold: u32,
    verdict: Verdict,
    last: Option<bool>,
    run: u32,
}

impl Verdicts {
    /// Starts from what the container is thought to be: [`Verdict::Unknown`] for a new one.
    #[must_use]
    pub fn new(kind: Kind, probe: &Probe, initial: Verdict) -> Self {
        Self {
            kind,
            success_threshold: probe.success_threshold.max(1),
            failure_threshold: probe.failure_threshold.max(1),
            verdict: initial,
            last: None,
            run: 0,
        }
    }

    /// The verdict so far.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// Counts one answer and says what is now known.
    pub fn record(&mut self, success: bool) -> Verdict {
        if self.last == Some(success) {
            self.run = self.run.saturating_add(1);
        } else {
            self.last = Some(success);
            self.run = 1;
        }
        let threshold = if success { self.success_threshold } else { self.failure_threshold };
        if self.run >= threshold {
            self.verdict = if success { Verdict::Success } else { Verdict::Failure };
        }
        self.verdict
    }

    /// Whether no more answers are wanted of this instance: a started container has no startup probe, and one that failed
    /// its liveness or startup probe is going to be replaced.
    #[must_use]
    pub fn is_final(&self) -> bool {
        match self.kind {
            Kind::Readiness => false,
            Kind::Liveness => self.verdict == Verdict::Failure,
            Kind::Startup => self.verdict != Verdict::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::probe::Handler;

    fn verdicts(kind: Kind, success: u32, failure: u32) -> Verdicts {
        let probe = Probe {
            handler: Handler::Exec { command: vec![] },
            initial_delay: Duration::ZERO,
            period: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            success_threshold: success,
            failure_threshold: failure,
        };
        Verdicts::new(kind, &probe, Verdict::Unknown)
    }

    fn run(mut verdicts: Verdicts, answers: &str) -> Vec<Verdict> {
        answers.chars().map(|answer| verdicts.record(answer == '+')).collect()
    }

    use Verdict::{Failure as F, Success as S, Unknown as U};

    #[test]
    fn thresholds_count_answers_in_a_row() {
        assert_eq!(run(verdicts(Kind::Readiness, 1, 3), "--+--+---+"), [U, U, S, S, S, S, S, S, F, S]);
        assert_eq!(run(verdicts(Kind::Readiness, 2, 1), "+-++-"), [U, F, F, S, F]);
        assert_eq!(run(verdicts(Kind::Readiness, 0, 0), "+-"), [S, F]);
    }

    #[test]
    fn which_verdicts_end_the_probe() {
        let last = |kind, answers: &str| {
            let mut verdicts = verdicts(kind, 1, 2);
            for answer in answers.chars() {
                verdicts.record(answer == '+');
            }
            verdicts.is_final()
        };
        assert!(!last(Kind::Readiness, "--"));
        assert!(!last(Kind::Liveness, "-"));
        assert!(last(Kind::Liveness, "--"));
        assert!(!last(Kind::Liveness, "+"));
        assert!(last(Kind::Startup, "+"));
        assert!(last(Kind::Startup, "--"));
        assert!(!last(Kind::Startup, "-"));
    }

    #[test]
    fn a_container_that_was_ready_stays_so_until_the_threshold() {
        let mut known = verdicts(Kind::Readiness, 1, 3);
        known.verdict = S;
        assert_eq!(run(known, "--+---"), [S, S, S, S, S, F]);
    }
}
