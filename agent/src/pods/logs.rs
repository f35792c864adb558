//! Rotation of container logs (pkg/kubelet/logs): by size, with a number of files kept, compressed but for the newest.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use api::ContainerId;
use api::quantity::Quantity;
use cri::v1::ReopenContainerLogRequest;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures::{StreamExt as _, stream};

use super::registry::Running;
use super::{Context, log_links};
use crate::config::KubeletConfiguration;

/// When logs are rotated, and how many files of one are kept.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `containerLogMonitorInterval`.
    pub interval: Duration,
    /// `containerLogMaxSize` in bytes.
    pub max_size: u64,
    /// `containerLogMaxFiles`.
    pub max_files: usize,
    /// `containerLogMaxWorkers`: logs at a time.
    pub workers: usize,
}

impl Settings {
    /// What the configuration says; it was validated.
    #[must_use]
    pub fn new(kubelet: &KubeletConfiguration) -> Self {
        let size = kubelet.container_log_max_size.parse::<Quantity>().ok();
        Self {
            interval: kubelet.container_log_monitor_interval.0,
            max_size: size.and_then(|size| u64::try_from(size.value()).ok()).unwrap_or(10 << 20),
            max_files: usize::try_from(kubelet.container_log_max_files).unwrap_or(5),
            workers: usize::try_from(kubelet.container_log_max_workers).unwrap_or(1).max(1),
        }
    }
}

/// Of a file that is being compressed.
const UNFINISHED: &str = "tmp";
const COMPRESSED: &str = "gz";

/// Rotates logs and removes dead links to them, for as long as the agent runs.
pub async fn tend(context: Arc<Context>) {
    let sweeping = log_links::keep_swept(&context.config.logs_dir, &context.runtime);
    tokio::join!(rotate(Arc::clone(&context)), sweeping);
}

/// Looks at the logs of running containers.
async fn rotate(context: Arc<Context>) {
    loop {
        tokio::time::sleep(context.config.logs.interval).await;
        let running = context.registry.entries().into_iter().flat_map(|(_, entry)| entry.running);
        let context = &context;
        let looking = stream::iter(running).for_each_concurrent(context.config.logs.workers, async |running| {
            let Running { id, log, .. } = running;
            if let Err(error) = look(context, &id, &log).await {
                tracing::warn!(container = %id, log = %log.display(), %error, "log not rotated");
            }
        });
        looking.await;
    }
}

async fn look(context: &Context, id: &ContainerId, log: &Path) -> io::Result<()> {
    let about = match tokio::fs::metadata(log).await {
        // An agent that ended just then gave it another name, and the runtime goes on writing to that one.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            reopen(context, id).await?;
            tokio::fs::metadata(log).await?
        }
        about => about?,
    };
    if about.len() <= context.config.logs.max_size {
        return Ok(());
    }
    let (path, keep) = (log.to_owned(), context.config.logs.max_files.saturating_sub(2));
    // The current file counts too, and the one that it becomes now.
    tokio::task::spawn_blocking(move || tidy(&path, keep)).await??;
    let stamp = jiff::Zoned::now().strftime("%Y%m%d-%H%M%S").to_string();
    let rotated = PathBuf::from(format!("{}.{stamp}", log.display()));
    tokio::fs::rename(log, &rotated).await?;
    if let Err(error) = reopen(context, id).await {
        // The runtime still writes to the old file: give it its name back, or nobody finds it.
        tokio::fs::rename(&rotated, log).await?;
        return Err(error);
    }
    Ok(())
}

async fn reopen(context: &Context, id: &ContainerId) -> io::Result<()> {
    let request = ReopenContainerLogRequest { container_id: id.as_str().to_owned() };
    context.runtime.reopen_container_log(request).await.map(drop).map_err(io::Error::other)
}

/// Keeps the newest rotated files of a log, and compresses them. Blocks.
fn tidy(log: &Path, keep: usize) -> io::Result<()> {
    let mut rotated = rotated(log)?;
    // Their names are their times.
    rotated.sort();
    let excess = rotated.len().saturating_sub(keep);
    for old in rotated.drain(..excess) {
        fs::remove_file(old)?;
    }
    rotated.iter().filter(|path| !has_extension(path, COMPRESSED)).try_for_each(|path| compress(path))
}

/// The rotated files of a log. What was not finished is removed, and what was compressed already.
fn rotated(log: &Path) -> io::Result<Vec<PathBuf>> {
    let (Some(folder), Some(name)) = (log.parent(), log.file_name().and_then(|name| name.to_str())) else {
        return Ok(Vec::new());
    };
    let prefix = format!("{name}.");
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.file_name().and_then(|file| file.to_str()).is_some_and(|file| file.starts_with(&prefix)) {
            found.push(path);
        }
    }
    let is_useless =
        |path: &Path| has_extension(path, UNFINISHED) || found.contains(&path.with_added_extension(COMPRESSED));
    let (useless, kept): (Vec<_>, Vec<_>) = found.iter().cloned().partition(|path| is_useless(path));
    useless.iter().try_for_each(fs::remove_file)?;
    Ok(kept)
}

fn compress(path: &Path) -> io::Result<()> {
    let unfinished = path.with_added_extension(UNFINISHED);
    let mut from = File::open(path)?;
    let to = File::create(&unfinished)?;
    to.set_permissions(from.metadata()?.permissions())?;
    let mut encoder = GzEncoder::new(to, Compression::default());
    io::copy(&mut from, &mut encoder)?;
    encoder.finish()?;
    fs::rename(&unfinished, path.with_added_extension(COMPRESSED))?;
    fs::remove_file(path)
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|own| own == extension)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn the_newest_stay_and_are_compressed() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("0.log");
        let half = ["0.log.20260104-000000.tmp", "0.log.20260102-000000.gz"];
        let whole = ["0.log.20260101-000000.gz", "0.log.20260102-000000", "0.log.20260103-000000"];
        for name in half.iter().chain(&whole).chain(&["0.log", "10.log"]) {
            std::fs::write(folder.path().join(name), name).unwrap();
        }
        tidy(&log, 2).unwrap();
        let mut left: Vec<_> =
            std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        left.sort();
        assert_eq!(left, ["0.log", "0.log.20260102-000000.gz", "0.log.20260103-000000.gz", "10.log"]);
        let mut text = String::new();
        let file = File::open(folder.path().join("0.log.20260103-000000.gz")).unwrap();
        flate2::read::GzDecoder::new(file).read_to_string(&mut text).unwrap();
        assert_eq!(text, "0.log.20260103-000000");
    }
}
