//! No sandbox is stopped while a container is being made in it: that would fail, and the pod's status would tell of a
//! failure that is none. Images are pulled outside.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use api::SandboxId;

/// The doors of a pod's sandboxes. One that nobody came to yet is open.
#[derive(Debug, Default)]
pub struct Doors(Mutex<HashMap<SandboxId, Door>>);

#[derive(Debug, Default)]
struct Door {
    inside: usize,
    closed: bool,
}

/// Somebody who makes a container, until it is dropped.
#[derive(Debug)]
pub struct Inside {
    doors: Arc<Doors>,
    sandbox: SandboxId,
}

impl Doors {
    /// Lets a start in, if the sandbox is not to be stopped.
    #[must_use]
    pub fn enter(self: &Arc<Self>, sandbox: &SandboxId) -> Option<Inside> {
        let mut doors = self.lock();
        let door = doors.entry(sandbox.clone()).or_default();
        if door.closed {
            return None;
        }
        door.inside = door.inside.saturating_add(1);
        Some(Inside { doors: Arc::clone(self), sandbox: sandbox.clone() })
    }

    /// Lets nobody in any more. Whether nobody is inside.
    #[must_use]
    pub fn close(&self, sandbox: &SandboxId) -> bool {
        let mut doors = self.lock();
        let door = doors.entry(sandbox.clone()).or_default();
        door.closed = true;
        door.inside == 0
    }

    /// A sandbox is removed.
    pub fn forget(&self, sandbox: &SandboxId) {
        self.lock().remove(sandbox);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SandboxId, Door>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        if let Some(door) = self.doors.lock().get_mut(&self.sandbox) {
            door.inside = door.inside.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_inside_is_waited_for_and_nobody_comes_after() {
        let doors = Arc::new(Doors::default());
        let (sandbox, other) = (SandboxId::new("a"), SandboxId::new("b"));
        let inside = doors.enter(&sandbox).unwrap();
        assert!(!doors.close(&sandbox));
        assert!(doors.enter(&sandbox).is_none() && doors.enter(&other).is_some());
        drop(inside);
        assert!(doors.close(&sandbox));
        doors.forget(&sandbox);
        assert!(doors.enter(&sandbox).is_some());
    }
}
