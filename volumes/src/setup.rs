//! Makes a plan's volumes. Repeating it is safe at any time, and is how contents are refreshed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use futures::future::join_all;
use jiff::{SignedDuration, Timestamp};

use crate::atomic::{self, Payload};
use crate::kinds::claim::{self, Backing};
use crate::kinds::config_map::{self, Ask};
use crate::kinds::local::Placed;
use crate::kinds::{Kind, Medium, downward_api, empty_dir, host_path, local, projected, secret};
use crate::objects::{Downward, Objects};
use crate::plan::{Ownership, VolumePlan};
use crate::{Error, Layout, Plan, SetUpError, fs, mounts, ownership};

/// Says that an emptyDir is as it is to be, as a kubelet's does.
const READY: &str = "ready";
/// When content that could not be asked for is tried again.
const AGAIN: SignedDuration = SignedDuration::from_secs(15);

/// What setting up needs beside the plan.
pub struct SetUp<'a, O, D> {
    pub layout: &'a Layout,
    pub objects: &'a O,
    pub fields: &'a D,
    /// Caps emptyDirs in memory, in bytes: the pod's memory limit, and what all pods may use.
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
    /// Of volumes that other pods have, and whose group is another: texts of events.
    pub already_mounted: Vec<String>,
}

/// One volume, ready to be written.
struct Work {
    name: String,
    folder: PathBuf,
    content: Content,
    ownership: Ownership,
}

enum Content {
    Empty { medium: Medium, limit: Option<u64>, max: Option<u64>, marker: PathBuf },
    Host { path: String, check: String },
    Local(local::Usage),
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
            Ok(Fetched { content, renew_at, at }) => {
                let folder = at.unwrap_or(folder);
                prepared.renew_at = prepared.renew_at.into_iter().chain(renew_at).min();
                work.push(Work { name: volume.name.clone(), folder, content, ownership: plan.ownership });
            }
            // What an earlier set-up has left is still good: a pod goes on while the API server is away.
            Err(error) if error.is_unavailable() && atomic::is_written(&folder) => {
                let again = with.now.checked_add(AGAIN).unwrap_or(with.now);
                prepared.renew_at = prepared.renew_at.into_iter().chain([again]).min();
                prepared.paths.insert(volume.name.clone(), folder);
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
                    Ok(written) => {
                        prepared.paths.insert(written.name, written.path);
                        prepared.already_mounted.extend(written.already_mounted);
                    }
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

/// What a volume is to hold.
struct Fetched {
    content: Content,
    renew_at: Option<Timestamp>,
    /// Where it lies, when not in the pod's folder.
    at: Option<PathBuf>,
}

impl From<Content> for Fetched {
    fn from(content: Content) -> Self {
        Self { content, renew_at: None, at: None }
    }
}

fn location(volume: &VolumePlan, plan: &Plan, layout: &Layout) -> PathBuf {
    layout.volume(&plan.pod_uid, volume.kind.plugin(), &volume.name)
}

async fn fetch<O: Objects, D: Downward>(
    volume: &VolumePlan,
    plan: &Plan,
    with: &SetUp<'_, O, D>,
) -> Result<Fetched, Error> {
    let namespace = &plan.namespace;
    let files = |payload, medium| Ok(Content::Files { payload, medium }.into());
    match &volume.kind {
        Kind::EmptyDir { medium, size_limit } => {
            let limit = size_limit.as_deref().map(bytes).transpose()?;
            let marker = with.layout.plugin(&plan.pod_uid, volume.kind.plugin(), &volume.name).join(READY);
            Ok(Content::Empty { medium: medium.clone(), limit, max: with.memory, marker }.into())
        }
        Kind::HostPath { path, check } => Ok(on_host(path, check)),
        Kind::Claim { name, read_only } => match claim::resolve(namespace, name, with.objects).await? {
            Backing::Host { path, check } => Ok(on_host(&path, &check)),
            Backing::Local { name, path, block, file_system } => {
                let (layout, pod_uid) = (with.layout.clone(), plan.pod_uid.clone());
                let volume = volume.name.clone();
                let usage = local::Usage { name, block, file_system, read_only: *read_only, layout, pod_uid, volume };
                Ok(Fetched { content: Content::Local(usage), renew_at: None, at: Some(path.into()) })
            }
        },
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
            Ok(Fetched { renew_at, ..Content::Files { payload, medium: Medium::Memory }.into() })
        }
        Kind::Unsupported(kind) => Err(Error::Unsupported(kind)),
    }
}

fn on_host(path: &str, check: &str) -> Fetched {
    let content = Content::Host { path: path.to_owned(), check: check.to_owned() };
    Fetched { content, renew_at: None, at: Some(path.into()) }
}

/// A size such as `64Mi` or `1G`, in bytes.
fn bytes(quantity: &str) -> Result<u64, Error> {
    let size = quantity.parse::<api::quantity::Quantity>().ok().and_then(|size| u64::try_from(size.value()).ok());
    size.ok_or_else(|| Error::Quantity(quantity.to_owned()))
}

/// A volume that is ready.
struct Written {
    name: String,
    path: PathBuf,
    already_mounted: Option<String>,
}

fn write(work: Work, now: Timestamp) -> Result<Written, SetUpError> {
    match write_content(&work, now) {
        Ok(Placed { path, already_mounted }) => {
            Ok(Written { name: work.name, path: path.unwrap_or(work.folder), already_mounted })
        }
        Err(error) => Err(SetUpError { volume: work.name, error }),
    }
}

fn write_content(work: &Work, now: Timestamp) -> Result<Placed, Error> {
    let written = match &work.content {
        Content::Empty { medium, limit, max, marker } => {
            let mounted = empty_dir::set_up(&work.folder, medium, *limit, *max);
            mounted.and_then(|mounted| give_once(work, marker, mounted))
        }
        Content::Host { path, check } => host_path::set_up(path, check),
        Content::Local(usage) => return local::set_up(&work.folder, usage, &work.ownership),
        Content::Files { payload, medium } => write_files(work, payload, medium, now),
    };
    written.map(|()| Placed::default())
}

/// Gives an emptyDir to everyone, and to the pod's group. Only once: what the pod's processes did with it and their own files is theirs. That
/// it was done is said by `marker`, which is made last, but for what was `mounted` now.
fn give_once(work: &Work, marker: &Path, mounted: bool) -> Result<(), Error> {
    if marker.exists() && !mounted {
        return Ok(());
    }
    fs::allow(&work.folder, empty_dir::MODE)?;
    // Where only the marker is missing, the folder's own owner, who is changed last, says that nothing is left to do.
    ownership::apply(&work.folder, &Ownership { on_root_mismatch: true, ..work.ownership }, false)?;
    fs::make_dir(marker)
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
    // Also where a crash came between the swap and this.
    let on_root_mismatch = work.ownership.on_root_mismatch || !changed;
    ownership::apply(&work.folder, &Ownership { on_root_mismatch, ..work.ownership }, true)
}
