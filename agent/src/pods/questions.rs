//! People who ask a worker what it is about to do. It answers with its next pass, which the question brings about: nothing
//! is kept for them meanwhile.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use api::PodUid;
use pod::Explanation;
use tokio::sync::{mpsc, oneshot};

/// Where an answer goes. It is dropped where there is none, because the runtime cannot be read.
pub type Question = oneshot::Sender<Explanation>;

/// How to reach the workers.
#[derive(Debug, Default)]
pub struct Questions(Mutex<HashMap<PodUid, mpsc::Sender<Question>>>);

impl Questions {
    /// For the worker of a pod.
    #[must_use]
    pub fn listen(&self, uid: &PodUid) -> mpsc::Receiver<Question> {
        let (sender, receiver) = mpsc::channel(1);
        self.lock().insert(uid.clone(), sender);
        receiver
    }

    /// There is no such pod any more.
    pub fn forget(&self, uid: &PodUid) {
        self.lock().remove(uid);
    }

    /// Asks a worker; `None` when there is none, or it cannot tell.
    pub async fn ask(&self, uid: &PodUid) -> Option<Explanation> {
        let worker = self.lock().get(uid).cloned()?;
        let (question, answer) = oneshot::channel();
        worker.send(question).await.ok()?;
        answer.await.ok()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PodUid, mpsc::Sender<Question>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
