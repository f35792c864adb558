//! When a probe asks. Pure: time is the caller's.
//!
//! Answers that count are a period apart, as the API promises. A container that has not succeeded yet is also *scouted*
//! in between: a scout's failure is forgotten, its success counts, so that a container is known to be up soon after it
//! is, and never thought to be down sooner. Scouts grow apart with the time waited (a fiftieth of it), so that a
//! container that never comes up is asked a logarithmic number of times.

use std::time::Duration;

use crate::probe::{Kind, Probe};

/// The least time between a scout's answer and the next.
const SCOUT_MIN: Duration = Duration::from_millis(25);
/// Part of the time waited that scouts are apart.
const SCOUT_PART: u32 = 50;

/// When to ask next. All times are since the container was started.
#[derive(Debug, Clone)]
pub struct Schedule {
    period: Duration,
    first: Duration,
    /// When the next answer counts.
    counted: Duration,
    /// When to look before that.
    scout: Option<Duration>,
}

/// What to do, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Next {
    pub at: Duration,
    /// Whether a failure counts.
    pub counts: bool,
}

impl Schedule {
    /// A schedule that begins when the initial delay is over, or at once where it is already. `offset` delays the first
    /// question (jitter after a restart of the agent).
    #[must_use]
    pub fn new(probe: &Probe, age: Duration, offset: Duration) -> Self {
        let first = probe.initial_delay.max(age) + offset;
        Self { period: probe.period.max(Duration::from_secs(1)), first, counted: first, scout: None }
    }

    /// The next question.
    #[must_use]
    pub fn next(&self) -> Next {
        match self.scout {
            Some(at) if at < self.counted => Next { at, counts: false },
            _ => Next { at: self.counted, counts: true },
        }
    }

    /// An answer came in at `now` to the question `asked`. `scouting` says whether scouts are wanted from here on.
    pub fn answered(&mut self, asked: Next, success: bool, scouting: bool, now: Duration) {
        if asked.counts {
            self.counted += self.period;
            // The answer took longer than the period.
            if self.counted < now {
                self.counted = now;
            }
        } else if success {
            self.counted = now + self.period;
        }
        let gap = (now.saturating_sub(self.first) / SCOUT_PART).max(SCOUT_MIN);
        self.scout = scouting.then(|| now + gap);
    }
}

/// Whether a probe scouts while it has not succeeded: success must be good news, and asking cheap.
#[must_use]
pub fn scouts(kind: Kind, probe: &Probe) -> bool {
    kind != Kind::Liveness && probe.handler.is_cheap()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::Handler;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn probe(delay: u64, period: u64) -> Probe {
        Probe {
            handler: Handler::Tcp { host: "127.0.0.1".into(), port: 1 },
            initial_delay: Duration::from_secs(delay),
            period: Duration::from_secs(period),
            timeout: Duration::from_secs(1),
            success_threshold: 1,
            failure_threshold: 3,
        }
    }

    #[test]
    fn without_scouts_answers_are_a_period_apart() {
        let mut schedule = Schedule::new(&probe(5, 10), MS(100), Duration::ZERO);
        for expected in [5, 15, 25] {
            let next = schedule.next();
            assert_eq!(next, Next { at: Duration::from_secs(expected), counts: true });
            schedule.answered(next, false, false, next.at + MS(50));
        }
    }

    #[test]
    fn an_old_container_is_asked_at_once() {
        let schedule = Schedule::new(&probe(5, 10), Duration::from_secs(100), Duration::from_secs(2));
        assert_eq!(schedule.next().at, Duration::from_secs(102));
    }

    #[test]
    fn scouts_find_a_success_early_and_count_failures_once_a_period() {
        let mut schedule = Schedule::new(&probe(0, 10), Duration::ZERO, Duration::ZERO);
        let (mut counted, mut asked, mut widest) = (0, 0, Duration::ZERO);
        let mut now = Duration::ZERO;
        while now < Duration::from_secs(35) {
            let next = schedule.next();
            widest = widest.max(next.at - now);
            now = next.at + MS(1);
            counted += u32::from(next.counts);
            asked += 1;
            schedule.answered(next, false, true, now);
            if now < Duration::from_secs(4) {
                assert!(widest <= MS(100), "{widest:?} at {now:?}");
            }
        }
        assert_eq!(counted, 4);
        assert!(asked < 350, "{asked} questions");
    }

    #[test]
    fn a_scouts_success_starts_the_period() {
        let mut schedule = Schedule::new(&probe(0, 10), Duration::ZERO, Duration::ZERO);
        let first = schedule.next();
        schedule.answered(first, false, true, MS(1));
        let scout = schedule.next();
        assert_eq!(scout, Next { at: MS(26), counts: false });
        schedule.answered(scout, true, false, MS(30));
        assert_eq!(schedule.next(), Next { at: MS(10_030), counts: true });
    }

    #[test]
    fn a_slow_answer_does_not_make_questions_pile_up() {
        let mut schedule = Schedule::new(&probe(0, 1), Duration::ZERO, Duration::ZERO);
        let first = schedule.next();
        schedule.answered(first, true, false, MS(5500));
        assert_eq!(schedule.next().at, MS(5500));
    }
}
