//! No sandbox is stopped while a container is being made in it: that would fail, and the pod's status would tell of a
//! failure that is none. Images are pulled outside, and who still waits there when the door is closed goes home: nothing
//! of a pod is made any more once it is being torn down.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use api::SandboxId;
use tokio_util::sync::CancellationToken;

/// The doors of a pod's sandboxes. One that nobody came to yet is open.
#[derive(Debug, Default)]
pub struct Doors(Mutex<HashMap<SandboxId, Door>>);

#[derive(Debug, Default)]
struct Door {
    /// Starts that came, whether they are inside or not.
    guests: usize,
    inside: usize,
    closed: CancellationToken,
}

/// A start that came to the door of its sandbox, until it is dropped.
#[derive(Debug)]
pub struct Guest {
    doors: Arc<Doors>,
    sandbox: SandboxId,
    closed: CancellationToken,
}

/// Somebody who makes a container, until it is dropped.
#[derive(Debug)]
pub struct Inside<'a>(&'a Guest);

impl Doors {
    /// A start is about to begin.
    #[must_use]
    pub fn come(self: &Arc<Self>, sandbox: &SandboxId) -> Guest {
        let mut doors = self.lock();
        let door = doors.entry(sandbox.clone()).or_default();
        door.guests = door.guests.saturating_add(1);
        Guest { doors: Arc::clone(self), sandbox: sandbox.clone(), closed: door.closed.clone() }
    }

    /// Lets nobody in any more. Whether nobody is inside.
    #[must_use]
    pub fn close(&self, sandbox: &SandboxId) -> bool {
        let mut doors = self.lock();
        let door = doors.entry(sandbox.clone()).or_default();
        door.closed.cancel();
        door.inside == 0
    }

    /// Closes the doors of all sandboxes but those that are ready, and forgets them when the last guest went.
    pub fn keep(&self, is_ready: impl Fn(&SandboxId) -> bool) {
        self.lock().retain(|sandbox, door| {
            let ready = is_ready(sandbox);
            if !ready {
                door.closed.cancel();
            }
            ready || door.guests > 0
        });
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SandboxId, Door>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Guest {
    /// Cancelled when the sandbox is to be stopped, or gone.
    #[must_use]
    pub fn over(&self) -> &CancellationToken {
        &self.closed
    }

    /// Lets a start in, unless it is over.
    #[must_use]
    pub fn enter(&self) -> Option<Inside<'_>> {
        let mut doors = self.doors.lock();
        let door = doors.get_mut(&self.sandbox)?;
        if door.closed.is_cancelled() {
            return None;
        }
        door.inside = door.inside.saturating_add(1);
        Some(Inside(self))
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        if let Some(door) = self.doors.lock().get_mut(&self.sandbox) {
            door.guests = door.guests.saturating_sub(1);
        }
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        if let Some(door) = self.0.doors.lock().get_mut(&self.0.sandbox) {
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
        let (guest, late) = (doors.come(&sandbox), doors.come(&sandbox));
        let inside = guest.enter().unwrap();
        assert!(!doors.close(&sandbox));
        assert!(late.over().is_cancelled() && late.enter().is_none());
        assert!(doors.come(&other).enter().is_some());
        drop(inside);
        assert!(doors.close(&sandbox));
    }

    #[test]
    fn a_sandbox_that_went_lets_nobody_in_and_is_forgotten_with_its_guests() {
        let doors = Arc::new(Doors::default());
        let sandbox = SandboxId::new("a");
        let guest = doors.come(&sandbox);
        doors.keep(|_| true);
        assert!(!guest.over().is_cancelled());
        doors.keep(|_| false);
        assert!(guest.over().is_cancelled() && guest.enter().is_none());
        drop(guest);
        doors.keep(|_| false);
        assert!(doors.lock().is_empty());
    }
}
