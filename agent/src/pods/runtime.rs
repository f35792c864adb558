//! What the runtime can do, and whether its pod network is up. The network is asked for until it is up; what breaks
//! later is seen by the sandboxes that fail.

use std::collections::BTreeSet;
use std::time::Duration;

use cri::v1::{RuntimeHandlerFeatures, StatusResponse};
use tokio::sync::watch;
use tokio::task::JoinHandle;

const RETRY: Duration = Duration::from_millis(500);
/// A runtime that was replaced can do more, or less.
const AGAIN: Duration = Duration::from_secs(300);

/// What pods depend on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RuntimeFacts {
    pub network_ready: bool,
    /// It keeps `supplementalGroupsPolicy: Strict`.
    pub strict_groups: bool,
    /// Handlers that can mount recursively read-only; the default one has the empty name. Runtimes before containerd 2.0
    /// do not list theirs.
    pub recursive_read_only: BTreeSet<String>,
    /// Handlers that make user namespaces, likewise.
    pub user_namespaces: BTreeSet<String>,
}

/// Follows what the runtime says.
#[must_use]
pub fn follow(runtime: cri::Client) -> (watch::Receiver<RuntimeFacts>, JoinHandle<()>) {
    let (publish, facts) = watch::channel(RuntimeFacts::default());
    let task = tokio::spawn(async move {
        loop {
            let answer = runtime.status(cri::v1::StatusRequest { verbose: false }).await;
            if let Ok(answer) = answer {
                publish.send_if_modified(|known| {
                    let mut now = facts_of(answer);
                    now.network_ready |= known.network_ready;
                    let changed = *known != now;
                    *known = now;
                    changed
                });
            }
            let ready = publish.borrow().network_ready;
            tokio::time::sleep(if ready { AGAIN } else { RETRY }).await;
        }
    });
    (facts, task)
}

fn facts_of(answer: StatusResponse) -> RuntimeFacts {
    let conditions = answer.status.unwrap_or_default().conditions;
    let able = |can: fn(&RuntimeHandlerFeatures) -> bool| {
        let handlers = answer.runtime_handlers.iter();
        handlers
            .filter(|handler| handler.features.as_ref().is_some_and(can))
            .map(|handler| handler.name.clone())
            .collect()
    };
    RuntimeFacts {
        network_ready: conditions.iter().any(|condition| condition.r#type == "NetworkReady" && condition.status),
        strict_groups: answer.features.is_some_and(|features| features.supplemental_groups_policy),
        recursive_read_only: able(|features| features.recursive_read_only_mounts),
        user_namespaces: able(|features| features.user_namespaces),
    }
}
