//! Makes a plan's volumes. Repeating it is safe at any time, and is how contents are refreshed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use futures::future::join_all;
use jiff::Timestamp;

use crate::atomic::{self, Payload};
use crate::kinds::config_map::{self, Ask};
use crate::kinds::{Kind, Medium, downward_api, empty_dir, host_path, projected, secret};
use crate::objects::{Downward, Objects};
use crate::plan::{Ownership, VolumePlan};
use crate::{Error, Layout, Plan, SetUpError, fs, mounts, ownership};

/// What setting up needs beside the plan.
pub struct SetUp<'a, O, D> {
    pub layout: &'a Layout,
    pub objects: &'a O,
    pub fields: &'a D,
    /// Caps emptyDirs in memory, in bytes: the pod's memory limit.
    pub memory: Option<u64>,
    pub now: Timestamp,
}

/// Volumes that are ready.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Prepared {
    /// Where each volume lies on the node, by name.
    pub paths: BTreeMap<String, PathBuf>,
    /// When a token must be replaced, by setting up again.
    pub renew_at: Option<Timestamp>,
}

/// One volume, ready to be written.
struct Work {
    name: String,
    folder: PathBuf,
    content: Content,
    ownership: Ownership,
}

enum Content {
    Empty { medium: Medium, limit: Option<u64>, max: Option<u64> },
    Host { path: String, check: String },
    Files { payload: Payload, medium: Medium },
}

/// Fetches what the volumes hold, all at once, then writes them on a blocking thread.
///
/// # Errors
/// All volumes that could not be set up; the others are.
pub async fn set_up<O: Objects, D: Downward>(plan: &Plan, with: &SetUp<'_, O, D>) -> Result<Prepared, Vec<SetUpError>> {
    let mut prepared = Prepared::default();
    let mut errors = Vec::new();
    let mut work = Vec::new();
    for (volume, fetched) in join_all(plan.volumes.iter().map(|v| async move { (v, fetch(v, plan, with).await) })).await
    {
        let folder = location(volume, plan, with.layout);
        match fetched {
            Ok((content, renew_at)) => {
                prepared.renew_at = prepared.renew_at.into_iter().chain(renew_at).min();
                work.push(Work { name: volume.name.clone(), folder, content, ownership: plan.ownership });
            }
            Err(error) => errors.push(SetUpError { volume: volume.name.clone(), error }),
        }
    }
    let now = with.now;
    let written = tokio::task::spawn_blocking(move || work.into_iter().map(|w| write(w, now)).collect::<Vec<_>>());
    match written.await {
        Ok(results) => {
            for result in results {
                match result {
                    Ok((name, path)) => drop(prepared.paths.insert(name, path)),
                    Err(error) => errors.push(error),
                }
            }
        }
        // Only when the runtime is being shut down.
        Err(error) => errors.push(SetUpError {
            volume: String::new(),
            error: Error::Io { action: "write volumes below", path: with.layout.pods(), source: error.into() },
        }),
    }
    if errors.is_empty() { Ok(prepared) } else { Err(errors) }
}

fn location(volume: &VolumePlan, plan: &Plan, layout: &Layout) -> PathBuf {
    match &volume.kind {
        Kind::HostPath { path, .. } => PathBuf::from(path),
        kind => layout.volume(&plan.pod_uid, kind.plugin(), &volume.name),
    }
}

async fn fetch<O: Objects, D: Downward>(
    volume: &VolumePlan,
    plan: &Plan,
    with: &SetUp<'_, O, D>,
) -> Result<(Content, Option<Timestamp>), Error> {
    let namespace = &plan.namespace;
    let files = |payload, medium| Ok((Content::Files { payload, medium }, None));
    match &volume.kind {
        Kind::EmptyDir { medium, size_limit } => {
            let limit = size_limit.as_deref().map(bytes).transpose()?;
            Ok((Content::Empty { medium: medium.clone(), limit, max: with.memory }, None))
        }
        Kind::HostPath { path, check } => Ok((Content::Host { path: path.clone(), check: check.clone() }, None)),
        Kind::ConfigMap(source) => {
            let (name, items, default_mode) = (&source.name, source.items.as_deref(), source.default_mode);
            let ask = Ask { namespace, name, items, default_mode, optional: source.optional.unwrap_or(false) };
            files(config_map::payload(ask, with.objects).await?, Medium::Disk)
        }
        Kind::Secret(source) => {
            let name = source.secret_name.as_deref().unwrap_or_default();
            let (items, default_mode) = (source.items.as_deref(), source.default_mode);
            let ask = Ask { namespace, name, items, default_mode, optional: source.optional.unwrap_or(false) };
            files(secret::payload(ask, with.objects).await?, Medium::Memory)
        }
        Kind::DownwardApi(source) => {
            let items = source.items.as_deref().unwrap_or_default();
            files(downward_api::payload(items, source.default_mode, with.fields)?, Medium::Memory)
        }
        Kind::Projected(source) => {
            let (payload, renew_at) = projected::payload(source, plan, with.objects, with.fields).await?;
            Ok((Content::Files { payload, medium: Medium::Memory }, renew_at))
        }
        Kind::Unsupported(kind) => Err(Error::Unsupported(kind)),
    }
}

/// A size such as `64Mi` or `1G`, in bytes.
fn bytes(quantity: &str) -> Result<u64, Error> {
    let size = quantity.parse::<api::quantity::Quantity>().ok().and_then(|size| u64::try_from(size.value()).ok());
    size.ok_or_else(|| Error::Quantity(quantity.to_owned()))
}

fn write(work: Work, now: Timestamp) -> Result<(String, PathBuf), SetUpError> {
    match write_content(&work, now) {
        Ok(()) => Ok((work.name, work.folder)),
        Err(error) => Err(SetUpError { volume: work.name, error }),
    }
}

fn write_content(work: &Work, now: Timestamp) -> Result<(), Error> {
    match &work.content {
        Content::Empty { medium, limit, max } => {
            // Only once: what the pod's processes did with their own files is theirs.
            let fresh = !work.folder.exists();
            empty_dir::set_up(&work.folder, medium, *limit, *max)?;
            if fresh { ownership::apply(&work.folder, &work.ownership, false) } else { Ok(()) }
        }
        Content::Host { path, check } => host_path::set_up(path, check),
        Content::Files { payload, medium } => write_files(work, payload, medium, now),
    }
}

fn write_files(work: &Work, payload: &Payload, medium: &Medium, now: Timestamp) -> Result<(), Error> {
    fs::make_dir(&work.folder)?;
    if *medium == Medium::Memory {
        // Secrets never touch the disk.
        mounts::tmpfs(&work.folder, None)?;
    }
    fs::allow(&work.folder, 0o777)?;
    let give = |generation: &Path| ownership::apply(generation, &work.ownership, true);
    let changed = atomic::write(&work.folder, payload, now, give)?;
    if changed { ownership::apply(&work.folder, &work.ownership, true) } else { Ok(()) }
}
