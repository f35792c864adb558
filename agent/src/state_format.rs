//! Which formats the files have that an agent leaves for the next one: `format.json` in the data folder says it, so that an agent that cannot
//! go on with them says so instead of guessing.
//!
//! A change of any of these files is a new [`FORMAT`]. One that agents of the format before can live with (they skip fields that they do
//! not know) leaves [`OLDEST_READER`] at that one, and it has to: a downgrade by one version works.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::config::write_atomic;
use crate::node::facts::KUBELET_VERSION;

/// What this agent writes.
pub const FORMAT: u32 = 1;
/// The oldest format that this agent goes on with; 0 is that of agents that wrote no `format.json`.
pub const OLDEST_READABLE: u32 = 0;
/// The oldest format whose agents go on with what this one writes.
const OLDEST_READER: u32 = 0;

const FILE: &str = "format.json";

/// What is written down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stamp {
    /// The format of the files.
    pub format: u32,
    /// Agents of this format and later can go on with them.
    pub oldest_reader: u32,
    /// The agent that wrote this.
    pub agent: String,
}

/// Why an agent does not start.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// The file cannot be read or written.
    #[error("{path}")]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Another agent's files, and too different.
    #[error(
        "the state in {dir} is that of agent {} (format {}), with which this one (format {}, reading {} and later) cannot go on: \
         install that agent again, or leave and join anew",
        stamp.agent, stamp.format, FORMAT, OLDEST_READABLE
    )]
    Foreign {
        /// The data folder.
        dir: PathBuf,
        /// What is written down there.
        stamp: Stamp,
    },
}

impl Stamp {
    /// Of agents that wrote none.
    fn none() -> Self {
        Self { format: 0, oldest_reader: 0, agent: "without a stamp".to_owned() }
    }

    fn own() -> Self {
        Self { format: FORMAT, oldest_reader: OLDEST_READER, agent: KUBELET_VERSION.to_owned() }
    }

    /// What the data folder says.
    ///
    /// # Errors
    /// A file that is there and cannot be read or understood.
    pub fn read(data_dir: &Path) -> Result<Self, FormatError> {
        let path = data_dir.join(FILE);
        let text = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::none()),
            other => other.map_err(|source| FormatError::File { path: path.clone(), source })?,
        };
        serde_json::from_slice(&text).map_err(|error| FormatError::File { path, source: error.into() })
    }

    /// Whether an agent that writes `format` and reads those from `oldest_readable` on can go on with these files.
    #[must_use]
    pub fn suits(&self, format: u32, oldest_readable: u32) -> bool {
        format >= self.oldest_reader && self.format >= oldest_readable
    }
}

/// Makes sure that this agent can go on with the files, and says from now on that they are its own.
///
/// # Errors
/// See [`FormatError`].
pub fn take_over(data_dir: &Path) -> Result<(), FormatError> {
    let (stamp, own) = (Stamp::read(data_dir)?, Stamp::own());
    if !stamp.suits(FORMAT, OLDEST_READABLE) {
        return Err(FormatError::Foreign { dir: data_dir.to_owned(), stamp });
    }
    if stamp == own {
        return Ok(());
    }
    let path = data_dir.join(FILE);
    let text =
        serde_json::to_vec(&own).map_err(|error| FormatError::File { path: path.clone(), source: error.into() })?;
    write_atomic(&path, &text, 0o644).map_err(|source| FormatError::File { path, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_version_down_and_one_up_is_always_possible() {
        assert!(Stamp::own().suits(FORMAT - 1, 0), "a downgrade by one version works");
        assert!(Stamp { format: FORMAT - 1, oldest_reader: 0, agent: String::new() }.suits(FORMAT, OLDEST_READABLE));
    }

    #[test]
    fn files_of_no_agent_and_of_this_one_are_taken_over_and_foreign_ones_are_not() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Stamp::read(dir.path()).unwrap(), Stamp::none());
        take_over(dir.path()).unwrap();
        assert_eq!(Stamp::read(dir.path()).unwrap(), Stamp::own());
        take_over(dir.path()).unwrap();
        let next = Stamp { format: FORMAT + 1, oldest_reader: FORMAT, agent: "v1.37.0-keelson.2.0.0".into() };
        let write = |stamp: &Stamp| fs::write(dir.path().join(FILE), serde_json::to_vec(stamp).unwrap()).unwrap();
        write(&next);
        take_over(dir.path()).unwrap();
        let far = Stamp { format: FORMAT + 2, oldest_reader: FORMAT + 1, agent: "v1.38.0-keelson.3.0.0".into() };
        write(&far);
        let error = take_over(dir.path()).unwrap_err().to_string();
        assert!(
            error.contains("v1.38.0-keelson.3.0.0") && error.contains(&format!("format {}", FORMAT + 2)),
            "{error}"
        );
        assert_eq!(Stamp::read(dir.path()).unwrap(), far, "what is not ours stays");
        fs::write(dir.path().join(FILE), "{").unwrap();
        assert!(matches!(take_over(dir.path()), Err(FormatError::File { .. })));
    }
}
