//! Rotation of container logs (pkg/kubelet/logs): by size, with a number of files kept.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use api::ContainerId;
use cri::v1::ReopenContainerLogRequest;

use super::Context;
use super::registry::Running;

/// `containerLogMonitorInterval`'s default.
const INTERVAL: Duration = Duration::from_secs(10);

/// Looks at the logs of running containers for as long as the agent runs.
pub async fn rotate(context: Arc<Context>) {
    let (max_size, max_files) = context.config.log_limit;
    loop {
        tokio::time::sleep(INTERVAL).await;
        let running = context.registry.entries().into_iter().flat_map(|(_, entry)| entry.running);
        for Running { id, log, .. } in running {
            if !tokio::fs::metadata(&log).await.is_ok_and(|meta| meta.len() > max_size) {
                continue;
            }
            if let Err(error) = rotate_one(&context, &id, &log, max_files).await {
                tracing::warn!(container = %id, log = %log.display(), %error, "log not rotated");
            }
        }
    }
}

async fn rotate_one(context: &Context, id: &ContainerId, log: &Path, max_files: usize) -> io::Result<()> {
    let stamp = jiff::Zoned::now().strftime("%Y%m%d-%H%M%S").to_string();
    let rotated = PathBuf::from(format!("{}.{stamp}", log.display()));
    tokio::fs::rename(log, &rotated).await?;
    let request = ReopenContainerLogRequest { container_id: id.as_str().to_owned() };
    if let Err(error) = context.runtime.reopen_container_log(request).await {
        // The runtime still writes to the old file: give it its name back, or nobody finds it.
        tokio::fs::rename(&rotated, log).await?;
        return Err(io::Error::other(error));
    }
    // The current file counts too.
    prune(log, max_files.saturating_sub(1)).await
}

/// Keeps the newest rotated files of a log.
async fn prune(log: &Path, keep: usize) -> io::Result<()> {
    let (Some(folder), Some(name)) = (log.parent(), log.file_name().and_then(|name| name.to_str())) else {
        return Ok(());
    };
    let prefix = format!("{name}.");
    let mut rotated = Vec::new();
    let mut entries = tokio::fs::read_dir(folder).await?;
    while let Some(entry) = entries.next_entry().await? {
        if entry.file_name().to_str().is_some_and(|file| file.starts_with(&prefix)) {
            rotated.push(entry.path());
        }
    }
    // Their names are their times.
    rotated.sort();
    let excess = rotated.len().saturating_sub(keep);
    for old in rotated.into_iter().take(excess) {
        tokio::fs::remove_file(old).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_newest_stay() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("0.log");
        for name in ["0.log", "0.log.20260101-000000", "0.log.20260102-000000", "0.log.20260103-000000", "10.log"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        prune(&log, 2).await.unwrap();
        let mut left: Vec<_> =
            std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        left.sort();
        assert_eq!(left, ["0.log", "0.log.20260102-000000", "0.log.20260103-000000", "10.log"]);
    }
}
