//! The worker tasks: one a pod, started again with the pod that was wanted last when one panics.
//!
//! A pod whose worker is between two lives is still a pod with a worker: nobody takes it for an orphan.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use api::PodUid;
use futures::future::BoxFuture;
use pod::Desired;
use tokio::sync::watch;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;

use super::worker::{Inputs, Origin};
use crate::client::backoff::Backoff;

/// Pauses before a worker that panicked is started again. One that lived for longer than the last starts over.
const RESTART: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Makes the task of a pod.
type Start = Box<dyn Fn(PodUid, Inputs) -> BoxFuture<'static, ()> + Send>;

struct Handle {
    desired: watch::Sender<Desired>,
    runtime: watch::Sender<u64>,
    origin: Origin,
    task: Id,
    begun: Instant,
    restart: Backoff,
}

/// What became of a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// Nothing is left of its pod.
    Done(PodUid),
    /// It panicked.
    Restarted,
}

/// All workers; dropping it ends them.
pub struct Workers {
    start: Start,
    handles: HashMap<PodUid, Handle>,
    tasks: JoinSet<PodUid>,
}

impl Workers {
    /// None yet; `start` makes each.
    pub fn new(start: impl Fn(PodUid, Inputs) -> BoxFuture<'static, ()> + Send + 'static) -> Self {
        Self { start: Box::new(start), handles: HashMap::new(), tasks: JoinSet::new() }
    }

    /// Whether a pod has a worker.
    #[must_use]
    pub fn has(&self, uid: &PodUid) -> bool {
        self.handles.contains_key(uid)
    }

    /// The pods that have one.
    pub fn uids(&self) -> impl Iterator<Item = &PodUid> {
        self.handles.keys()
    }

    /// Hands a pod to its worker, which is started if there is none. `found`: see [`Inputs::found`].
    pub fn want(&mut self, uid: PodUid, origin: Origin, desired: Desired, found: bool) {
        if let Some(handle) = self.handles.get(&uid) {
            handle.desired.send_replace(desired);
            return;
        }
        let (desired, desired_seen) = watch::channel(desired);
        let (runtime, runtime_seen) = watch::channel(0);
        let inputs = Inputs { desired: desired_seen, runtime: runtime_seen, origin: origin.clone(), found };
        let task = self.spawn(uid.clone(), inputs, Duration::ZERO);
        let restart = Backoff::new(RESTART.0, RESTART.1);
        self.handles.insert(uid, Handle { desired, runtime, origin, task, begun: Instant::now(), restart });
    }

    /// The object of a pod is gone; its worker keeps what it was last.
    pub fn gone(&self, uid: &PodUid) {
        let Some(handle) = self.handles.get(uid) else { return };
        handle.desired.send_if_modified(|desired| match desired {
            Desired::Present(pod) => {
                let grace = pod.metadata.deletion_grace_period_seconds;
                *desired = Desired::Gone { last: Some(Arc::clone(pod)), grace, returns: false };
                true
            }
            Desired::Gone { returns, .. } => std::mem::take(returns),
        });
    }

    /// The manifest of a pod that ends came back.
    pub fn returns(&self, uid: &PodUid) {
        let Some(handle) = self.handles.get(uid) else { return };
        handle.desired.send_if_modified(|desired| match desired {
            Desired::Gone { returns, .. } => !std::mem::replace(returns, true),
            Desired::Present(_) => false,
        });
    }

    /// The API server has no other pods than these any more.
    pub fn retain(&self, there: &HashSet<PodUid>) {
        let from_api = self.handles.iter().filter(|(_, handle)| matches!(handle.origin, Origin::Api));
        for (uid, _) in from_api.filter(|(uid, _)| !there.contains(*uid)) {
            self.gone(uid);
        }
    }

    /// Something of a pod changed in the runtime.
    pub fn wake(&self, uid: &PodUid) {
        if let Some(handle) = self.handles.get(uid) {
            handle.runtime.send_modify(|count| *count = count.wrapping_add(1));
        }
    }

    /// Waits until a worker has ended, and starts it again if it was not done. `None` while there is none.
    ///
    /// Cancel-safe: a task that ended is only taken once, together with what follows from it.
    pub async fn supervise(&mut self) -> Option<Ended> {
        match self.tasks.join_next().await? {
            Ok(uid) => {
                self.handles.remove(&uid);
                Some(Ended::Done(uid))
            }
            Err(error) => {
                self.restart(&error);
                Some(Ended::Restarted)
            }
        }
    }

    fn restart(&mut self, error: &JoinError) {
        let Some((uid, handle)) = self.handles.iter_mut().find(|(_, handle)| handle.task == error.id()) else { return };
        if handle.begun.elapsed() > RESTART.1 {
            handle.restart.reset();
        }
        let pause = handle.restart.pause();
        tracing::error!(%uid, %error, ?pause, "worker of a pod panicked, it will be started again");
        // What the one before knew is lost: the new one looks at the machine first, as after a start of the agent.
        let inputs = Inputs {
            desired: handle.desired.subscribe(),
            runtime: handle.runtime.subscribe(),
            origin: handle.origin.clone(),
            found: true,
        };
        let uid = uid.clone();
        let task = self.spawn(uid.clone(), inputs, pause);
        if let Some(handle) = self.handles.get_mut(&uid) {
            handle.task = task;
            handle.begun = Instant::now() + pause;
        }
    }

    fn spawn(&mut self, uid: PodUid, inputs: Inputs, pause: Duration) -> Id {
        let worker = (self.start)(uid.clone(), inputs);
        let task = async move {
            tokio::time::sleep(pause).await;
            worker.await;
            uid
        };
        self.tasks.spawn(task).id()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// What each life of a worker was given.
    type Lives = Arc<Mutex<Vec<(Desired, bool)>>>;

    /// Workers whose first lives, this many, end in a panic.
    fn workers(panics: usize) -> (Workers, Lives) {
        let lives = Lives::default();
        let seen = Arc::clone(&lives);
        let workers = Workers::new(move |_, inputs| {
            let lives = Arc::clone(&seen);
            Box::pin(async move {
                let desired = inputs.desired.borrow().clone();
                let count = {
                    let mut lives = lives.lock().unwrap();
                    lives.push((desired, inputs.found));
                    lives.len()
                };
                assert!(count > panics, "asked for by the test");
            })
        });
        (workers, lives)
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_that_panics_lives_again_with_what_is_wanted_now() {
        let (mut workers, lives) = workers(2);
        let uid = PodUid::new("u");
        workers.want(uid.clone(), Origin::Api, Desired::Present(Arc::default()), false);
        workers.supervise().await.unwrap();
        assert!(workers.has(&uid), "it is nobody's orphan");
        workers.gone(&uid);
        let before = Instant::now();
        workers.supervise().await.unwrap();
        assert!(workers.has(&uid) && before.elapsed() >= RESTART.0);
        workers.supervise().await.unwrap();
        assert!(!workers.has(&uid), "the third life ended well");
        assert!(workers.supervise().await.is_none());
        let lives = lives.lock().unwrap();
        let seen: Vec<_> =
            lives.iter().map(|(desired, found)| (matches!(desired, Desired::Present(_)), *found)).collect();
        assert_eq!(seen, [(true, false), (false, true), (false, true)]);
    }
}
