//! The task of one probe of one container instance.
//!
//! ```text
//! gate (startup probe) -> wait -> ask -> count -> publish -+-> done (final verdict)
//!                          ^                               |
//!                          +-------------------------------+
//! ```

use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::kinds::{self, exec::Exec};
use crate::probe::{Kind, Outcome, Probe};
use crate::schedule::{self, Schedule};
use crate::verdict::{Verdict, Verdicts};

/// How often a question is asked of which nothing comes (`maxProbeRetries`).
const ATTEMPTS: u32 = 3;

/// How a prober begins.
#[derive(Debug, Clone)]
pub struct Start {
    /// What the container was last known to be.
    pub initial: Verdict,
    /// How long ago the container was started.
    pub age: Duration,
    /// Whether the agent was started after the container: the first questions are then spread over a period.
    pub resumed: bool,
    /// The verdicts of the startup probe, which must succeed first.
    pub gate: Option<watch::Receiver<Verdict>>,
}

/// What came of a question that counts, with what a user should hear about it: text of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The result in a kubelet's word, `successful` or `failed`; nothing where the answer counts neither way.
    pub result: Option<&'static str>,
    /// How long the answer took.
    pub took: Duration,
    /// Nothing, where all is well.
    pub report: Option<Report>,
}

/// Text of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// Reason `Unhealthy`, type Warning.
    Unhealthy(String),
    /// Reason `ProbeWarning`, type Warning.
    Warning(String),
}

/// A running prober; dropping it ends the task.
#[derive(Debug)]
pub struct Prober {
    verdict: watch::Receiver<Verdict>,
    task: JoinHandle<()>,
}

impl Prober {
    /// Starts to ask. `asked` is called for each answer that counts.
    pub fn spawn<E: Exec>(
        kind: Kind,
        probe: Probe,
        start: Start,
        exec: Arc<E>,
        asked: impl Fn(Asked) + Send + Sync + 'static,
    ) -> Self {
        let (publish, verdict) = watch::channel(start.initial);
        let task = tokio::spawn(run(Run { kind, probe, exec, publish }, start, asked));
        Self { verdict, task }
    }

    /// The verdict now.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        *self.verdict.borrow()
    }

    /// Verdicts to come. The channel closes after a final one.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Verdict> {
        self.verdict.clone()
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Run<E> {
    kind: Kind,
    probe: Probe,
    exec: Arc<E>,
    publish: watch::Sender<Verdict>,
}

async fn run<E: Exec>(run: Run<E>, start: Start, asked: impl Fn(Asked) + Send + Sync) {
    let Run { kind, probe, exec, publish } = run;
    let now = Instant::now();
    let born = now.checked_sub(start.age).unwrap_or(now);
    if let Some(mut gate) = start.gate
        && gate.wait_for(|verdict| *verdict == Verdict::Success).await.is_err()
    {
        // The startup probe failed for good: this instance is done with.
        return;
    }
    let mut verdicts = Verdicts::new(kind, &probe, start.initial);
    let mut schedule = Schedule::new(&probe, born.elapsed(), jitter(&probe, start.resumed));
    while !verdicts.is_final() {
        let next = schedule.next();
        tokio::time::sleep_until(born + next.at).await;
        let begun = Instant::now();
        let outcome = ask(&probe, exec.as_ref()).await;
        let success = outcome.is_success();
        if next.counts || success {
            if result(&outcome).is_some() {
                let verdict = verdicts.record(success);
                publish.send_if_modified(|current| std::mem::replace(current, verdict) != verdict);
            }
            let (result, took) = (result(&outcome), begun.elapsed());
            asked(Asked { result, took, report: text(kind, outcome) });
        }
        let scouting = verdicts.verdict() != Verdict::Success && !success && schedule::scouts(kind, &probe);
        schedule.answered(next, success, scouting, born.elapsed());
    }
}

/// Only after a restart of the agent: else all containers of a node would be asked at once.
fn jitter(probe: &Probe, resumed: bool) -> Duration {
    if resumed { probe.period.mul_f64(rand::rng().random_range(0.0..1.0)) } else { Duration::ZERO }
}

/// Asks again at once when nothing came of it.
async fn ask<E: Exec>(probe: &Probe, exec: &E) -> Outcome {
    let mut outcome = kinds::ask(probe, exec).await;
    for _ in 1..ATTEMPTS {
        if result(&outcome).is_some() {
            break;
        }
        outcome = kinds::ask(probe, exec).await;
    }
    outcome
}

fn result(outcome: &Outcome) -> Option<&'static str> {
    match outcome {
        Outcome::Success | Outcome::Warning(_) => Some("successful"),
        Outcome::Failure(_) => Some("failed"),
        Outcome::Error(_) | Outcome::Broken(_) => None,
    }
}

/// Texts as pkg/kubelet/prober/prober.go words them.
fn text(kind: Kind, outcome: Outcome) -> Option<Report> {
    match outcome {
        Outcome::Success => None,
        Outcome::Warning(output) => Some(Report::Warning(format!("{kind} probe warning: {output}"))),
        Outcome::Failure(output) => Some(Report::Unhealthy(format!("{kind} probe failed: {output}"))),
        Outcome::Broken(error) => {
            Some(Report::Unhealthy(format!("{kind} probe errored and resulted in failure state: {error}")))
        }
        Outcome::Error(error) => {
            Some(Report::Unhealthy(format!("{kind} probe errored and resulted in unknown state: {error}")))
        }
    }
}
