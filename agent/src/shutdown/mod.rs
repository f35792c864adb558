//! Ending pods before the machine goes down (<https://kubernetes.io/docs/concepts/cluster-administration/node-shutdown/>).
//!
//! ```text
//! logind --PrepareForShutdown--> Manager --+--> told: the Node is not Ready, no pod is admitted
//!    ^                                     +--> plan::groups --> an order for each pod of the first group, then of the next
//!    +------ inhibitor is dropped ---------+    (as soon as a group has ended, or its time has)
//! ```
//!
//! The machine waits for as long as the inhibitor is held, which logind bounds: so it is told first how long that may be.

pub mod plan;
pub mod state;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use api::PodUid;
use jiff::Timestamp;
use pod::{Admission, Eviction};
use systemd::logind::{self, Inhibitor, Logind, Shutdowns};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::client::backoff::Backoff;
use crate::client::watch::describe;
use crate::config::kubelet::ShutdownGracePeriodByPodPriority;
use crate::events::{Kind, node_reference};
use crate::pods::Context;
use plan::Group;
use state::State;

/// Why the Node is not Ready.
pub const NOT_READY: &str = "node is shutting down";
const WHO: &str = "agent";
const WHY: &str = "pods need time to end before the machine goes down";
/// The reason of the events that tell of it.
const EVENT: &str = "Shutdown";
const MESSAGE: &str = "Pod was terminated in response to imminent node shutdown.";
/// Pauses between attempts to follow logind.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// How long logind may take for its new configuration.
const RELOADED: Duration = Duration::from_secs(3);
const POLL: Duration = Duration::from_millis(100);
/// How long the API server may take to hear how pods ended.
const TELLING: Duration = Duration::from_secs(5);

/// Whether the machine is shutting down.
pub type Receiver = watch::Receiver<bool>;

/// Holds shutdowns back.
pub struct Manager {
    context: Arc<Context>,
    told: watch::Sender<bool>,
}

/// The answer to a pod that comes while the machine goes down.
#[must_use]
pub fn refusal() -> Admission {
    Admission::Rejected {
        reason: "NodeShutdown".to_owned(),
        message: "Pod was rejected as the node is shutting down.".to_owned(),
    }
}

fn order(grace: i64) -> Eviction {
    Eviction {
        reason: "Terminated".to_owned(),
        message: MESSAGE.to_owned(),
        disruption: Some(MESSAGE.to_owned()),
        grace: Some(grace),
        annotations: BTreeMap::new(),
        event: false,
        clears: false,
    }
}

impl Manager {
    /// `told` is told when the machine shuts down, and when that was cancelled.
    #[must_use]
    pub fn new(context: Arc<Context>, told: watch::Sender<bool>) -> Self {
        Self { context, told }
    }

    /// Runs for as long as the agent does. Without periods, or without systemd, nothing is held back.
    pub async fn run(self) {
        if self.periods().is_empty() || !systemd::is_running() {
            return;
        }
        let mut retry = Backoff::new(RETRY.0, RETRY.1);
        loop {
            match self.follow().await {
                Ok(()) => {
                    retry.reset();
                    tracing::debug!("the bus is gone, shutdowns are followed anew");
                }
                Err(error) => tracing::warn!(error = %describe(&error), "shutdowns of the machine are not held back"),
            }
            tokio::time::sleep(retry.pause()).await;
        }
    }

    fn periods(&self) -> &[ShutdownGracePeriodByPodPriority] {
        &self.context.config.shutdown
    }

    /// Follows logind until the bus is gone.
    async fn follow(&self) -> Result<(), logind::Error> {
        let logind = Logind::connect().await?;
        // First of all: logind takes a while for its new configuration, and a shutdown may begin meanwhile.
        let mut shutdowns = logind.follow().await?;
        allow(&logind, plan::whole(self.periods()), Path::new(logind::OVERRIDE_DIR)).await?;
        let mut lock = match logind.inhibit(WHO, WHY).await {
            Ok(lock) => Some(lock),
            // One that is under way cannot be held back any more; its pods end all the same.
            Err(_) if shutdowns.is_under_way() => None,
            Err(error) => return Err(error),
        };
        tracing::info!(seconds = plan::whole(self.periods()).as_secs(), "shutdowns of the machine wait for its pods");
        while let Some(begins) = shutdowns.next().await {
            self.announce(begins);
            if begins && self.end_pods(&mut shutdowns, lock.take()).await {
                continue;
            }
            self.told.send_replace(false);
            lock = Some(logind.inhibit(WHO, WHY).await?);
        }
        Ok(())
    }

    fn announce(&self, begins: bool) {
        let what = if begins { "shutdown event" } else { "shutdown cancellation" };
        tracing::warn!("{what}");
        let node = node_reference(&self.context.config.node_name);
        let message = format!("Shutdown manager detected {what}");
        self.context.recorder.event(&node, Kind::Normal, EVENT, &message);
        self.told.send_replace(begins);
    }

    /// Ends the pods, then lets the machine go down. False when the shutdown was cancelled before.
    async fn end_pods(&self, shutdowns: &mut Shutdowns, lock: Option<Inhibitor>) -> bool {
        let cancelled = async {
            // It may be told of one shutdown twice; a bus that is gone cancels nothing.
            while let Some(begins) = shutdowns.next().await {
                if !begins {
                    return;
                }
            }
            std::future::pending().await
        };
        // Cancel-safe: orders that were given hold, others are not given.
        tokio::select! {
            () = self.end_groups() => {}
            () = cancelled => {
                self.announce(false);
                return false;
            }
        }
        tracing::info!("pods have ended, the machine may go down");
        drop(lock);
        true
    }

    async fn end_groups(&self) {
        let begun = State { start_time: Some(Timestamp::now()), end_time: None };
        self.write(begun).await;
        let active = self.context.registry.active();
        let groups = plan::groups(self.periods(), active.iter().map(|(uid, pod)| (uid.clone(), &**pod)));
        for group in &groups {
            tracing::info!(pods = group.pods.len(), seconds = group.seconds, "pods end: the machine shuts down");
            for (uid, grace) in &group.pods {
                self.context.orders.give(uid, order(*grace));
            }
            self.await_end(group).await;
        }
        self.write(State { end_time: Some(Timestamp::now()), ..begun }).await;
    }

    /// Waits until a group has ended and the API server knows, but no longer than it has time.
    async fn await_end(&self, group: &Group) {
        let over = Instant::now() + Duration::from_secs(group.seconds.max(0).unsigned_abs());
        let mut telling = None;
        loop {
            let is = |stage: fn(&Self, &PodUid) -> bool| group.pods.iter().all(|(uid, _)| stage(self, uid));
            if is(Self::has_ended) {
                let since = *telling.get_or_insert_with(Instant::now);
                if is(Self::is_told) || since.elapsed() >= TELLING {
                    return;
                }
            }
            if Instant::now() >= over {
                tracing::warn!("pods did not end in their time");
                return;
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Whether nothing of a pod runs and its volumes are gone.
    fn has_ended(&self, uid: &PodUid) -> bool {
        let entry = self.context.registry.entry(uid);
        let runs = entry.is_some_and(|entry| entry.sandbox.is_some() || !entry.running.is_empty());
        !runs && !self.context.layout.pod(uid.as_str()).exists()
    }

    fn is_told(&self, uid: &PodUid) -> bool {
        self.context.registry.entry(uid).is_none_or(|entry| entry.published)
    }

    async fn write(&self, state: State) {
        let data_dir = self.context.config.data_dir.clone();
        let written = tokio::task::spawn_blocking(move || state.write(&data_dir)).await;
        if let Ok(Err(error)) = written {
            tracing::warn!(%error, "the time of the shutdown is not written down");
        }
    }
}

/// Makes logind hold shutdowns back for as long as the pods may need.
async fn allow(logind: &Logind, wanted: Duration, dir: &Path) -> Result<(), logind::Error> {
    if logind.delay().await? >= wanted {
        return Ok(());
    }
    logind::write_override(dir, wanted)?;
    logind.reload().await?;
    let given_up = Instant::now() + RELOADED;
    loop {
        let delay = logind.delay().await?;
        if delay >= wanted {
            return Ok(());
        }
        if Instant::now() >= given_up {
            tracing::warn!(?delay, ?wanted, "logind holds shutdowns back for less time than configured");
            return Ok(());
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Forgets what logind was told.
///
/// # Errors
/// A file that cannot be removed, or a logind that is not there.
pub async fn forget() -> Result<(), logind::Error> {
    if logind::remove_override(Path::new(logind::OVERRIDE_DIR))? {
        Logind::connect().await?.reload().await?;
    }
    Ok(())
}

/// The file that it removes, where there is one.
pub(crate) fn overridden() -> Option<PathBuf> {
    logind::own_override(Path::new(logind::OVERRIDE_DIR))
}
