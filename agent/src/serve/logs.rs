//! Container logs as `kubectl logs` wants them, from the files that the runtime writes, in flat memory.
//!
//! Rules as kubelet's (pkg/kubelet/kuberuntime/logs): `tailLines` counts entries of the current file, a partial entry
//! has no line end, a time stamp stands at the start of a line only, and following goes over a rotation by reading the
//! old file to its end before the new one.

use std::io::SeekFrom;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use inotify::{EventMask, EventStream, Inotify, WatchMask};
use tokio::fs::File;
use tokio::io::{self, AsyncBufReadExt, AsyncReadExt, AsyncSeekExt, BufReader};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::logline::{Entry, Stream, fixed, parse};

/// How often a follower that has come to the end of the log asks whether the container still runs (upstream's `logForceCheckPeriod`).
const STATE_CHECK: Duration = Duration::from_secs(1);
/// Runtimes split at 16 KiB; a longer line is somebody else's file, and is passed on in pieces.
const MAX_LINE: u64 = 256 * 1024;
const BLOCK: u64 = 64 * 1024;

/// What of a log is wanted (`PodLogOptions`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Go on when the end is reached, for as long as the container runs.
    pub follow: bool,
    /// Only the last entries.
    pub tail_lines: Option<u64>,
    /// Only entries of this time and later.
    pub since: Option<jiff::Timestamp>,
    /// Put the time in front of each line.
    pub timestamps: bool,
    /// Stop after so many bytes.
    pub limit_bytes: Option<u64>,
    /// Only this stream.
    pub stream: Option<Stream>,
}

/// Whether the container still runs: followers ask this when they have come to the end.
pub trait Liveness: Send {
    /// Answers at once or after asking the runtime.
    fn is_running(&mut self) -> impl Future<Output = bool> + Send;
}

/// Reads `path` into `sink` until the end, the limit, or the receiver's loss of interest.
///
/// # Errors
/// A log that cannot be opened or read.
pub async fn read(
    path: &Path,
    options: &LogOptions,
    sink: mpsc::Sender<Bytes>,
    mut liveness: impl Liveness,
) -> io::Result<()> {
    // The runtime gives a path with symbolic links in some versions; rotation happens where the file really is.
    let path = tokio::fs::canonicalize(path).await?;
    // Watched before it is opened, so that nothing falls between.
    let mut changes = if options.follow { Some(Changes::new(&path)?) } else { None };
    let mut file = File::open(&path).await?;
    if let Some(lines) = options.tail_lines {
        let start = tail_start(&mut file, lines).await?;
        file.seek(SeekFrom::Start(start)).await?;
    }
    // What is written meanwhile is not asked for (upstream's limited mode).
    let entries_left = options.tail_lines.filter(|_| !options.follow);
    if entries_left == Some(0) {
        return Ok(());
    }
    let left = options.limit_bytes;
    let mut writer = Writer { options, sink, left, entries_left, at_line_start: true, out: BytesMut::new() };
    let mut reader = Reader::new(file);
    let mut ask_at = Instant::now();
    loop {
        if !reader.drain(&mut writer).await? {
            return Ok(());
        }
        let Some(changes) = &mut changes else {
            // A last line without its end is there when the runtime was cut short.
            writer.unfinished(&reader.pending).await;
            return Ok(());
        };
        if Instant::now() >= ask_at {
            if !liveness.is_running().await {
                // What was written between the last read and the end.
                reader.drain(&mut writer).await?;
                return Ok(());
            }
            ask_at = Instant::now() + STATE_CHECK;
        }
        // Cancel-safe: reading inotify events is; closed() and the clock hold nothing.
        let change = tokio::select! {
            change = changes.next() => change,
            () = tokio::time::sleep_until(ask_at) => Change::Grown,
            () = writer.sink.closed() => return Ok(()),
        };
        if matches!(change, Change::Rotated) {
            reader.drain(&mut writer).await?;
            reader = Reader::new(File::open(&path).await?);
        }
    }
}

/// Where the last `lines` entries begin, found backwards block by block.
async fn tail_start(file: &mut File, lines: u64) -> io::Result<u64> {
    let size = file.metadata().await?.len();
    if lines == 0 {
        return Ok(size);
    }
    let mut seen = 0;
    let mut end = size;
    let mut block = Vec::new();
    while end > 0 {
        let begin = end.saturating_sub(BLOCK);
        file.seek(SeekFrom::Start(begin)).await?;
        block.clear();
        (&mut *file).take(end - begin).read_to_end(&mut block).await?;
        for (offset, _) in block.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
            let after = begin + offset as u64 + 1;
            // The end of the last entry is not the beginning of one.
            if after == size {
                continue;
            }
            seen += 1;
            if seen == lines {
                return Ok(after);
            }
        }
        end = begin;
    }
    Ok(0)
}

struct Reader {
    file: BufReader<File>,
    pending: Vec<u8>,
}

impl Reader {
    fn new(file: File) -> Self {
        Self { file: BufReader::with_capacity(16 * 1024, file), pending: Vec::new() }
    }

    /// Passes on all whole lines up to the present end of the file. `false` when no more is wanted.
    async fn drain(&mut self, writer: &mut Writer<'_>) -> io::Result<bool> {
        loop {
            let room = MAX_LINE.saturating_sub(self.pending.len() as u64);
            let read = (&mut self.file).take(room).read_until(b'\n', &mut self.pending).await?;
            if !self.pending.ends_with(b"\n") && (read == 0 || (self.pending.len() as u64) < MAX_LINE) {
                return Ok(writer.flush().await);
            }
            let more = writer.line(&self.pending).await;
            self.pending.clear();
            if !more {
                writer.flush().await;
                return Ok(false);
            }
        }
    }
}

/// Formats entries and sends them in blocks.
struct Writer<'a> {
    options: &'a LogOptions,
    sink: mpsc::Sender<Bytes>,
    left: Option<u64>,
    entries_left: Option<u64>,
    at_line_start: bool,
    out: BytesMut,
}

impl Writer<'_> {
    /// Takes a line of the file; `false` when no more is wanted.
    async fn line(&mut self, line: &[u8]) -> bool {
        // What is no entry was not written by a runtime: kubelet skips it, too.
        let Some(entry) = parse(line) else { return true };
        let is_other = self.options.stream.is_some_and(|stream| stream != entry.stream);
        if !is_other && self.options.since.is_none_or(|since| entry.time >= since) {
            self.entry(&entry);
        }
        self.entries_left = self.entries_left.map(|left| left.saturating_sub(1));
        if self.left == Some(0) || self.entries_left == Some(0) {
            return false;
        }
        self.out.len() < BLOCK as usize || self.flush().await
    }

    async fn unfinished(&mut self, line: &[u8]) {
        if !line.is_empty() {
            self.line(line).await;
            self.flush().await;
        }
    }

    fn entry(&mut self, entry: &Entry<'_>) {
        if self.options.timestamps && self.at_line_start {
            self.put(&fixed(entry.stamp));
            self.put(b" ");
        }
        self.put(entry.content);
        if !entry.partial {
            self.put(b"\n");
        }
        self.at_line_start = !entry.partial;
    }

    fn put(&mut self, bytes: &[u8]) {
        let taken = match &mut self.left {
            None => bytes,
            Some(left) => {
                let count = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= count as u64;
                bytes.get(..count).unwrap_or_default()
            }
        };
        self.out.extend_from_slice(taken);
    }

    /// `false` when nobody listens any more, or the limit is reached.
    async fn flush(&mut self) -> bool {
        if self.out.is_empty() {
            return self.left != Some(0) && !self.sink.is_closed();
        }
        self.sink.send(self.out.split().freeze()).await.is_ok() && self.left != Some(0)
    }
}

enum Change {
    /// There may be more in it.
    Grown,
    Rotated,
}

/// What happens to a log file and its name.
struct Changes {
    events: EventStream<[u8; 1024]>,
    name: PathBuf,
}

impl Changes {
    fn new(path: &Path) -> io::Result<Self> {
        let inotify = Inotify::init()?;
        let dir = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        inotify.watches().add(dir, WatchMask::MODIFY | WatchMask::CREATE | WatchMask::MOVED_TO)?;
        let name = PathBuf::from(path.file_name().ok_or(io::ErrorKind::InvalidInput)?);
        Ok(Self { events: inotify.into_event_stream([0; 1024])?, name })
    }

    async fn next(&mut self) -> Change {
        loop {
            match self.events.next().await {
                // It never ends.
                None => std::future::pending().await,
                // An overflowing queue reads as an error or a nameless event: look at the file in any case.
                Some(Err(_)) => return Change::Grown,
                Some(Ok(event)) => match event.name {
                    Some(name) if Path::new(&name) != self.name => {}
                    Some(_) if event.mask.intersects(EventMask::CREATE | EventMask::MOVED_TO) => {
                        return Change::Rotated;
                    }
                    _ => return Change::Grown,
                },
            }
        }
    }
}

#[cfg(test)]
mod tests;
