//! Renewal of a certificate while the agent runs.

use std::path::PathBuf;
use std::time::Duration;

use rand::Rng;
use tokio::sync::watch;

use super::csr::{Purpose, obtain};
use super::{Error, Identity, now};
use crate::client::backoff::Backoff;
use crate::client::watch::describe;

/// As kubelet: how long an unanswered request is waited for before another is made.
const PATIENCE: Duration = Duration::from_secs(15 * 60);
/// Timers do not run while a machine is suspended, and clocks get corrected: look at the clock at least this often.
const LOOK: Duration = Duration::from_secs(3600);

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
    /// Where it is published; the initial value is the stored one.
    pub current: watch::Sender<Option<Identity>>,
}

/// When a certificate is renewed: at 70 to 90 % of its life, at random (client-go `certificate.Manager`).
#[must_use]
pub fn renewal_time(not_before: i64, not_after: i64, random: f64) -> i64 {
    let life = not_after.saturating_sub(not_before);
    // Precision is lost beyond 2^52 seconds only.
    #[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)]
    let part = (life as f64 * (0.7 + 0.2 * random)).round() as i64;
    not_before.saturating_add(part)
}

impl Rotation {
    /// Runs until the sender of the purpose is dropped.
    pub async fn run(mut self) {
        let mut backoff = Backoff::new(Duration::from_secs(2), Duration::from_secs(128));
        // Drawn once a certificate: drawing at every look would make the earliest draw win.
        let mut random = rand::rng().random_range(0.0..1.0);
        loop {
            let Some(purpose) = self.purpose.borrow_and_update().clone() else {
                if self.purpose.changed().await.is_err() {
                    return;
                }
                continue;
            };
            if let Some(pause) = self.pause(&purpose, random) {
                // Cancel-safe: a missed sleep is computed anew, a change stays marked until it is read.
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    changed = self.purpose.changed() => if changed.is_err() { return },
                }
                continue;
            }
            match self.renew(&purpose).await {
                Ok(()) => {
                    random = rand::rng().random_range(0.0..1.0);
                    backoff.reset();
                }
                Err(error) => {
                    tracing::warn!(error = %describe(&error), path = %self.path.display(), "certificate not renewed, will retry");
                    backoff.wait().await;
                }
            }
        }
    }

    /// How long nothing is due; `None` when a certificate is to be asked for now.
    fn pause(&self, purpose: &Purpose, random: f64) -> Option<Duration> {
        let current = self.current.borrow();
        let identity = current.as_ref()?;
        if identity.sans != purpose.sans() {
            return None;
        }
        let due = renewal_time(identity.not_before, identity.not_after, random);
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
