//! Changes of files, seen by their folders: files are replaced by others of the same name, and those of a Secret by a link.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use futures::{FutureExt, StreamExt};
use inotify::{Event, EventMask, EventStream, Inotify, WatchMask};

/// Folders whose changes are waited for.
pub struct Watched {
    /// A change is seldom alone: how long until those that come with it are there.
    settle: Duration,
    folders: BTreeSet<PathBuf>,
    /// Names of files that were taken out of a folder.
    gone: BTreeSet<OsString>,
    /// None where they cannot be watched, or one of them went away.
    events: Option<EventStream<[u8; 1024]>>,
}

impl Watched {
    /// Of no folder yet.
    #[must_use]
    pub fn new(settle: Duration) -> Self {
        Self { settle, folders: BTreeSet::new(), gone: BTreeSet::new(), events: None }
    }

    /// Has these watched from now on. Called before files are read: what changes meanwhile is then seen. Answers the names of files that
    /// were taken out of the folders since the call before, whether or not there are others of these names now.
    pub fn set(&mut self, folders: BTreeSet<PathBuf>) -> BTreeSet<OsString> {
        if self.events.is_none() || self.folders != folders {
            self.events = watch(&folders).ok();
            self.folders = folders;
        }
        std::mem::take(&mut self.gone)
    }

    /// Waits for a change; for ever where none can be seen, so that who waits looks now and then, too. Cancel-safe: events that are not read
    /// stay in the queue.
    pub async fn changed(&mut self) {
        let Some(events) = &mut self.events else { return std::future::pending().await };
        let event = events.next().await;
        self.take(event);
        tokio::time::sleep(self.settle).await;
        while let Some(event) = self.events.as_mut().and_then(|events| events.next().now_or_never()) {
            self.take(event);
        }
    }

    fn take(&mut self, event: Option<io::Result<Event<OsString>>>) {
        match event {
            // The last that is told of a folder that goes away.
            Some(Ok(event)) if event.mask.contains(EventMask::IGNORED) => self.events = None,
            Some(Ok(event)) if event.mask.intersects(EventMask::DELETE | EventMask::MOVED_FROM) => {
                self.gone.extend(event.name);
            }
            Some(Ok(_)) => {}
            Some(Err(_)) | None => self.events = None,
        }
    }
}

/// A file is written in steps; what counts is that it was closed, or moved to its name.
fn watch(folders: &BTreeSet<PathBuf>) -> io::Result<EventStream<[u8; 1024]>> {
    let inotify = Inotify::init()?;
    let mask =
        WatchMask::CLOSE_WRITE | WatchMask::MOVE | WatchMask::DELETE | WatchMask::CREATE | WatchMask::DELETE_SELF;
    for folder in folders {
        inotify.watches().add(folder, mask)?;
    }
    inotify.into_event_stream([0; 1024])
}
