//! journald with fields: what `journalctl -o json` shows and `journalctl POD=default/web` finds.
//!
//! The protocol is journald's own (<https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>), the field names are those of systemd.journal-fields(7).

mod layer;

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use layer::JournalLayer;

const SOCKET: &str = "/run/systemd/journal/socket";
/// A longer text is cut: one datagram holds an entry.
const LONGEST: usize = 32 * 1024;
/// How long a journald that is busy may hold up who logs.
const PATIENCE: Duration = Duration::from_secs(1);

/// Where entries go.
#[derive(Debug)]
pub struct Journal {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Journal {
    /// The machine's, where this process' standard error is connected to it (systemd.exec(5), `$JOURNAL_STREAM`): then somebody expects
    /// logs there.
    #[must_use]
    pub fn of_this_process() -> Option<Self> {
        let stream = std::env::var("JOURNAL_STREAM").ok()?;
        let stderr = std::fs::metadata("/proc/self/fd/2").ok()?;
        is_stream(&stream, stderr.dev(), stderr.ino()).then_some(())?;
        Self::at(Path::new(SOCKET)).ok()
    }

    /// One that listens at `path`.
    ///
    /// # Errors
    /// No socket can be made.
    pub fn at(path: &Path) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { socket, path: path.to_owned() })
    }

    /// Sends an entry. It is addressed anew each time, so that a journald that was restarted gets it.
    ///
    /// # Errors
    /// Nobody takes it.
    pub fn send(&self, fields: &[(&str, &str)]) -> io::Result<()> {
        self.socket.send_to(&encode(fields), &self.path).map(drop)
    }
}

fn is_stream(variable: &str, device: u64, inode: u64) -> bool {
    variable.split_once(':').is_some_and(|(d, i)| d.parse() == Ok(device) && i.parse() == Ok(inode))
}

/// `NAME=value`, or where the value has several lines its length before it.
fn encode(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        let value = value.get(..value.floor_char_boundary(LONGEST)).unwrap_or_default();
        bytes.extend_from_slice(name.as_bytes());
        if value.contains('\n') {
            bytes.push(b'\n');
            bytes.extend_from_slice(&(value.len() as u64).to_le_bytes());
        } else {
            bytes.push(b'=');
        }
        bytes.extend_from_slice(value.as_bytes());
        bytes.push(b'\n');
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_in_the_native_protocol() {
        assert_eq!(encode(&[("MESSAGE", "a=b"), ("POD", "x/y")]), b"MESSAGE=a=b\nPOD=x/y\n");
        assert_eq!(encode(&[("MESSAGE", "a\nb")]), b"MESSAGE\n\x03\0\0\0\0\0\0\0a\nb\n");
        let long = "ä".repeat(LONGEST);
        assert_eq!(encode(&[("M", &long)]).len(), "M=\n".len() + LONGEST);
    }

    #[test]
    fn the_stream_is_known_by_device_and_inode() {
        assert!(is_stream("8:1234", 8, 1234));
        for other in ["8:1235", "9:1234", "8", "", "a:b"] {
            assert!(!is_stream(other, 8, 1234), "{other}");
        }
    }
}
