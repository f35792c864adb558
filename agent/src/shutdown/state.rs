//! When the node was last shut down gracefully: on the disk, for the metrics of the agent that runs next.

use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::config::write_atomic;

/// As a kubelet has it (`graceful_node_shutdown_state`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct State {
    /// When pods began to end; `None` where no shutdown ever began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub start_time: Option<Timestamp>,
    /// When the last of them had ended, or its time had; `None` where the machine went down before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_time: Option<Timestamp>,
}

impl State {
    /// What is on the disk; nothing where there is none, or none that is understood.
    #[must_use]
    pub fn read(data_dir: &Path) -> Self {
        std::fs::read(path(data_dir)).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
    }

    /// Writes it. Blocks.
    ///
    /// # Errors
    /// What the filesystem said.
    pub fn write(&self, data_dir: &Path) -> io::Result<()> {
        write_atomic(&path(data_dir), &serde_json::to_vec(self)?, 0o644)
    }
}

fn path(data_dir: &Path) -> PathBuf {
    data_dir.join("graceful_node_shutdown_state")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(State::read(dir.path()), State::default());
        let state = State { start_time: Some(Timestamp::from_second(100).unwrap()), end_time: None };
        state.write(dir.path()).unwrap();
        assert_eq!(State::read(dir.path()), state);
        std::fs::write(path(dir.path()), "no json").unwrap();
        assert_eq!(State::read(dir.path()), State::default());
    }
}
