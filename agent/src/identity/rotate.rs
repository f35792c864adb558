//! Renewal of a certificate while the agent runs.

use std::path::PathBuf;
use std::time::Duration;

use rand::Rng;
use tokio::sync::watch;

use super::csr::{Purpose, obtain};
use super::trust::Roots;
use super::{Error, Identity, now};
use crate::client::backoff::Backoff;
use crate::client::watch::describe;
use crate::exposition::float;
use crate::metrics::families::{CLIENT_CERTIFICATE, CLIENT_RENEWAL_ERRORS, SERVER_RENEWAL_ERRORS, SERVING_CERTIFICATE};
use crate::metrics::{Counter, Gauge};

/// As kubelet: how long an unanswered request is waited for before another is made.
const PATIENCE: Duration = Duration::from_secs(15 * 60);
/// Timers do not run while a machine is suspended, and clocks get corrected: look at the clock at least this often.
const LOOK: Duration = Duration::from_secs(600);

/// Keeps one certificate valid and in the form that is wanted.
pub struct Rotation {
    /// The client that requests are made with.
    pub client: kube::Client,
    /// The node.
    pub node_name: String,
    /// Where the certificate is stored.
    pub path: PathBuf,
    /// What it is to be for; a change of it (new addresses) causes a new certificate. `None` until it is known.
    pub purpose: watch::Receiver<Option<Purpose>>,
    /// The cluster's CAs. Certificates of another than the first are renewed, once for each set of CAs: no more, as not every cluster has
    /// them in the order that Keelson's master has.
    pub authorities: watch::Receiver<Roots>,
    /// Where it is published; the initial value is the stored one.
    pub current: watch::Sender<Option<Identity>>,
}

/// When a certificate is renewed: at 70 to 90 % of its life, at random (client-go `certificate.Manager`). `from` is when it was obtained
/// where that is known: signers backdate, and of a life of minutes that would be most.
#[must_use]
pub fn renewal_time(from: i64, not_after: i64, random: f64) -> i64 {
    let life = not_after.saturating_sub(from);
    // Precision is lost beyond 2^52 seconds only.
    #[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)]
    let part = (life as f64 * (0.7 + 0.2 * random)).round() as i64;
    from.saturating_add(part)
}

/// What a rotation remembers between two looks.
struct Memory {
    /// Drawn once a certificate: drawing at every look would make the earliest draw win.
    random: f64,
    /// When the certificate was obtained; a stored one says only from when it holds.
    obtained: Option<i64>,
    /// With which CAs it was.
    under: Option<Roots>,
}

impl Memory {
    fn draw(obtained: Option<i64>, under: Option<Roots>) -> Self {
        Self { random: rand::rng().random_range(0.0..1.0), obtained, under }
    }
}

impl Rotation {
    /// Runs until the sender of the purpose is dropped.
    pub async fn run(mut self) {
        let mut backoff = Backoff::new(Duration::from_secs(2), Duration::from_secs(128));
        let mut memory = Memory::draw(None, None);
        loop {
            let Some(purpose) = self.purpose.borrow_and_update().clone() else {
                if self.purpose.changed().await.is_err() {
                    return;
                }
                continue;
            };
            let authorities = self.authorities.borrow_and_update().clone();
            self.show(&purpose);
            if let Some(pause) = self.pause(&purpose, &authorities, &memory) {
                // Cancel-safe: a missed sleep is computed anew, a change stays marked until it is read.
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    changed = self.purpose.changed() => if changed.is_err() { return },
                    // Who publishes them ends with the agent.
                    changed = self.authorities.changed() => if changed.is_err() { return },
                }
                continue;
            }
            match self.renew(&purpose).await {
                Ok(()) => {
                    memory = Memory::draw(Some(now()), Some(authorities));
                    backoff.reset();
                }
                Err(error) => {
                    tracing::warn!(error = %describe(&error), path = %self.path.display(), "certificate not renewed, will retry");
                    metrics(&purpose).1.count([]);
                    backoff.wait().await;
                }
            }
        }
    }

    /// Tells people until when the certificate holds.
    fn show(&self, purpose: &Purpose) {
        if let Some(identity) = self.current.borrow().as_ref() {
            metrics(purpose).0.set(float(identity.not_after.unsigned_abs()));
        }
    }

    /// How long nothing is due; `None` when a certificate is to be asked for now.
    fn pause(&self, purpose: &Purpose, authorities: &Roots, memory: &Memory) -> Option<Duration> {
        let current = self.current.borrow();
        let identity = current.as_ref()?;
        if identity.sans != purpose.sans() {
            return None;
        }
        let is_foreign = authorities.first().is_some_and(|first| !identity.is_issued_by(std::slice::from_ref(first)));
        if is_foreign && memory.under.as_ref() != Some(authorities) {
            return None;
        }
        let due = renewal_time(memory.obtained.unwrap_or(identity.not_before), identity.not_after, memory.random);
        let left = u64::try_from(due.saturating_sub(now())).ok().filter(|left| *left > 0)?;
        Some(Duration::from_secs(left).min(LOOK))
    }

    async fn renew(&self, purpose: &Purpose) -> Result<(), Error> {
        let identity = obtain(&self.client, &self.node_name, purpose, PATIENCE).await?;
        identity.save(&self.path)?;
        tracing::info!(path = %self.path.display(), "certificate renewed");
        self.current.send_replace(Some(identity));
        Ok(())
    }
}

fn metrics(purpose: &Purpose) -> (&'static Gauge, &'static Counter<0>) {
    match purpose {
        Purpose::Client => (&CLIENT_CERTIFICATE, &CLIENT_RENEWAL_ERRORS),
        Purpose::Serving { .. } => (&SERVING_CERTIFICATE, &SERVER_RENEWAL_ERRORS),
    }
}
