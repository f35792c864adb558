//! Which images are removed to make room (pkg/kubelet/images/image_gc_manager.go). Deciding is pure; [`Collector`] does.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cri::v1;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::ObjectReference;

use super::records::Records;
use crate::client::watch::describe;
use crate::events::{Kind, Recorder};
use crate::exposition::float;
use crate::metrics::families::IMAGES_COLLECTED;
use crate::node::facts::{self, Filesystem};
use crate::pause_image;
use crate::pods::registry::Registry;

/// How often images are looked at, and removed where that is due (`ImageGCPeriod`).
const PERIOD: Duration = Duration::from_secs(300);
/// Why images are removed, as upstream's metrics name it.
const AGE: &str = "age";
const SPACE: &str = "space";

/// When images are removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// `imageGCHighThresholdPercent`: from this use of the filesystem on.
    pub high: u8,
    /// `imageGCLowThresholdPercent`: until this use.
    pub low: u8,
    /// `imageMinimumGCAge`: never before an image is this old.
    pub min_age: Duration,
    /// `imageMaximumGCAge`: always when it was unused for this long; zero for never.
    pub max_age: Duration,
}

/// What is known of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    first_detected: Timestamp,
    last_used: Option<Timestamp>,
    size: u64,
    pinned: bool,
}

/// The images of the node as they were seen over time.
#[derive(Debug, Default)]
pub struct Tracker {
    images: BTreeMap<String, Seen>,
}

/// An image that may be removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    pub id: String,
    pub size: u64,
}

impl Tracker {
    /// Takes in what is there now. `used` holds ids of images that containers are made of, or will be.
    pub fn observe(&mut self, images: &[v1::Image], used: &HashSet<String>, now: Timestamp) {
        let there: BTreeSet<&str> = images.iter().map(|image| image.id.as_str()).collect();
        self.images.retain(|id, _| there.contains(id.as_str()));
        for image in images {
            let new = Seen { first_detected: now, last_used: None, size: 0, pinned: false };
            let seen = self.images.entry(image.id.clone()).or_insert(new);
            seen.size = image.size;
            seen.pinned = image.pinned;
            if used.contains(&image.id) {
                seen.last_used = Some(now);
            }
        }
    }

    /// Images that nothing uses and that are old enough, the longest unused first.
    #[must_use]
    pub fn unused(&self, min_age: Duration, now: Timestamp) -> Vec<Candidate> {
        let mut unused: Vec<(&String, &Seen)> = self
            .images
            .iter()
            .filter(|(_, seen)| !seen.pinned && seen.last_used != Some(now))
            .filter(|(_, seen)| now.duration_since(seen.first_detected) >= signed(min_age))
            .collect();
        unused.sort_by_key(|(_, seen)| (seen.last_used, seen.first_detected));
        unused.into_iter().map(|(id, seen)| Candidate { id: id.clone(), size: seen.size }).collect()
    }

    /// Images that were unused for too long. None before the tracker itself is that old: what was used earlier is not
    /// known.
    #[must_use]
    pub fn outdated(&self, max_age: Duration, began: Timestamp, now: Timestamp) -> Vec<Candidate> {
        if max_age.is_zero() || now.duration_since(began) <= signed(max_age) {
            return Vec::new();
        }
        let old = |seen: &Seen| {
            let last = seen.last_used.unwrap_or(seen.first_detected);
            !seen.pinned && now.duration_since(last) > signed(max_age)
        };
        let outdated = self.images.iter().filter(|(_, seen)| old(seen));
        outdated.map(|(id, seen)| Candidate { id: id.clone(), size: seen.size }).collect()
    }

    fn forget(&mut self, id: &str) {
        self.images.remove(id);
    }
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

/// How many bytes must be freed on a filesystem; `None` while it is not used too much. Percentages as upstream rounds.
#[must_use]
pub fn to_free(policy: &Policy, filesystem: &Filesystem) -> Option<(u64, u64)> {
    let capacity = u128::from(filesystem.capacity);
    let available = u128::from(filesystem.available.min(filesystem.capacity));
    let used = 100 - (available * 100).checked_div(capacity)?;
    if used < u128::from(policy.high) {
        return None;
    }
    let wanted = capacity * u128::from(100_u8.saturating_sub(policy.low)) / 100;
    let bytes = u64::try_from(wanted.saturating_sub(available)).unwrap_or(u64::MAX);
    Some((bytes, u64::try_from(used).unwrap_or(100)))
}

/// Why images could not be collected.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("failed to list images or containers")]
    List(#[source] cri::CallError),
    #[error("failed to get image stats")]
    Filesystem,
    #[error("invalid capacity 0 on image filesystem")]
    NoCapacity,
    #[error("wanted to free {wanted} bytes, but freed {freed} bytes space with errors in image deletion: {message}")]
    Remove { wanted: u64, freed: u64, message: String },
    #[error(
        "Insufficient free disk space on the node's image filesystem ({used}% of {capacity} used). Failed to free \
         sufficient space by deleting unused images (freed {freed} bytes). Investigate disk usage, as it could be used \
         by active images, logs, volumes, or other data."
    )]
    NotEnough { used: u64, capacity: String, freed: u64 },
}

/// Removes images.
pub struct Collector {
    runtime: cri::Client,
    registry: Arc<Registry>,
    records: Arc<Records>,
    policy: Policy,
    recorder: Recorder,
    node: ObjectReference,
    tracker: tokio::sync::Mutex<Tracker>,
}

/// What a collector works with.
pub struct Parts {
    pub runtime: cri::Client,
    pub registry: Arc<Registry>,
    pub records: Arc<Records>,
    pub policy: Policy,
    pub recorder: Recorder,
    /// The Node, which events are about.
    pub node: ObjectReference,
}

impl Collector {
    /// Nothing is known of any image yet.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let Parts { runtime, registry, records, policy, recorder, node } = parts;
        Self { runtime, registry, records, policy, recorder, node, tracker: tokio::sync::Mutex::default() }
    }

    /// Looks at images and collects them for as long as the agent runs.
    pub async fn run(self: Arc<Self>) {
        let began = Timestamp::now();
        let mut failed_before = false;
        // What is under way when the agent starts is told by the runtime's list.
        if let Ok(images) = self.runtime.list_images(v1::ListImagesRequest { filter: None }).await {
            self.records.recover(&images.images).await;
        }
        loop {
            match self.collect(began).await {
                Ok(()) => failed_before = false,
                Err(error) => {
                    let message = describe(&error);
                    tracing::warn!(error = %message, "image garbage collection failed");
                    if failed_before {
                        self.recorder.event(&self.node, Kind::Warning, "ImageGCFailed", &message);
                    }
                    failed_before = true;
                }
            }
            tokio::time::sleep(PERIOD).await;
        }
    }

    async fn collect(&self, began: Timestamp) -> Result<(), Error> {
        let now = Timestamp::now();
        let mut tracker = self.tracker.lock().await;
        let there = self.look(&mut tracker, now).await?;
        let old = tracker.outdated(self.policy.max_age, began, now);
        self.remove(&mut tracker, old, (AGE, u64::MAX), &there).await?;
        if self.policy.high >= 100 {
            return Ok(());
        }
        let filesystem = self.filesystem().await.ok_or(Error::Filesystem)?;
        if filesystem.capacity == 0 {
            self.recorder.event(&self.node, Kind::Warning, "InvalidDiskCapacity", &Error::NoCapacity.to_string());
            return Err(Error::NoCapacity);
        }
        let Some((bytes, used)) = to_free(&self.policy, &filesystem) else { return Ok(()) };
        tracing::info!(used, high = self.policy.high, bytes, "image filesystem is used too much, images are removed");
        let candidates = tracker.unused(self.policy.min_age, now);
        let freed = self.remove(&mut tracker, candidates, (SPACE, bytes), &there).await?;
        if freed < bytes {
            let error = Error::NotEnough { used, capacity: human(filesystem.capacity), freed };
            self.recorder.event(&self.node, Kind::Warning, "FreeDiskSpaceFailed", &error.to_string());
            return Err(error);
        }
        Ok(())
    }

    /// Removes every image that nothing uses, for a node under pressure. Answers how many bytes they took.
    ///
    /// # Errors
    /// The runtime does not answer, or an image cannot be removed.
    pub async fn remove_unused(&self) -> Result<u64, Error> {
        let now = Timestamp::now();
        let mut tracker = self.tracker.lock().await;
        let there = self.look(&mut tracker, now).await?;
        let candidates = tracker.unused(self.policy.min_age, now);
        self.remove(&mut tracker, candidates, (SPACE, u64::MAX), &there).await
    }

    async fn look(&self, tracker: &mut Tracker, now: Timestamp) -> Result<Vec<v1::Image>, Error> {
        let (images, containers) = tokio::try_join!(
            self.runtime.list_images(v1::ListImagesRequest { filter: None }),
            self.runtime.list_containers(v1::ListContainersRequest { filter: None }),
        )
        .map_err(Error::List)?;
        let sandbox = pause_image::name(&self.runtime).await.map_err(Error::List)?;
        let used = self.used(&images.images, &containers.containers, sandbox);
        tracker.observe(&images.images, &used, now);
        Ok(images.images)
    }

    /// Images of all containers, those that pods name as volumes, and that of sandboxes, which not every runtime pins.
    fn used(&self, images: &[v1::Image], containers: &[v1::Container], sandbox: String) -> HashSet<String> {
        let own = |container: &v1::Container| {
            [container.image_id.clone(), container.image_ref.clone()].into_iter().find(|id| !id.is_empty())
        };
        let mut used: HashSet<String> = containers.iter().filter_map(own).collect();
        let named: HashSet<String> = volumes(&self.registry).chain([sandbox]).collect();
        let has = |image: &&v1::Image| image.repo_tags.iter().chain(&image.repo_digests).any(|n| named.contains(n));
        used.extend(images.iter().filter(has).map(|image| image.id.clone()));
        used
    }

    async fn filesystem(&self) -> Option<Filesystem> {
        let answer = self.runtime.image_fs_info(v1::ImageFsInfoRequest {}).await.ok()?;
        let mountpoint = PathBuf::from(answer.image_filesystems.into_iter().next()?.fs_id?.mountpoint);
        tokio::task::spawn_blocking(move || facts::filesystem(&mountpoint)).await.ok()?
    }

    async fn remove(
        &self,
        tracker: &mut Tracker,
        candidates: Vec<Candidate>,
        (reason, wanted): (&'static str, u64),
        there: &[v1::Image],
    ) -> Result<u64, Error> {
        let begun = Timestamp::now();
        let (mut freed, mut removed, mut errors) = (0_u64, HashSet::new(), Vec::new());
        for candidate in candidates {
            if freed >= wanted {
                break;
            }
            tracing::info!(image = %candidate.id, bytes = candidate.size, "image is removed");
            let image = v1::ImageSpec { image: candidate.id.clone(), ..v1::ImageSpec::default() };
            match self.runtime.remove_image(v1::RemoveImageRequest { image: Some(image) }).await {
                Ok(_) => {
                    IMAGES_COLLECTED.count([reason.into()]);
                    tracker.forget(&candidate.id);
                    freed = freed.saturating_add(candidate.size);
                    removed.insert(candidate.id);
                }
                Err(error) => errors.push(error.rpc_text()),
            }
        }
        if !errors.is_empty() {
            return Err(Error::Remove { wanted, freed, message: errors.join(", ") });
        }
        if !removed.is_empty() {
            let left: Vec<String> =
                there.iter().map(|image| image.id.clone()).filter(|id| !removed.contains(id)).collect();
            self.records.prune(&left, begun).await;
        }
        Ok(freed)
    }
}

/// Names of images that pods mount.
fn volumes(registry: &Registry) -> impl Iterator<Item = String> {
    let pods = registry.entries().into_iter().map(|(_, entry)| entry.pod);
    let volumes = pods.flat_map(|pod| pod.spec.clone().and_then(|spec| spec.volumes).unwrap_or_default());
    let names = volumes.filter_map(|volume| volume.image.and_then(|image| image.reference));
    names.filter_map(|name| api::image::normalise(&name).ok())
}

/// Bytes for people, as upstream's `formatSize` has them.
fn human(bytes: u64) -> String {
    const UNITS: [(&str, u64); 4] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match UNITS.into_iter().find(|(_, size)| bytes >= *size) {
        Some((name, size)) => format!("{:.1} {name}", float(bytes) / float(size)),
        None => format!("{bytes} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: Policy = Policy { high: 85, low: 80, min_age: Duration::from_secs(120), max_age: Duration::ZERO };

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn image(id: &str, pinned: bool) -> v1::Image {
        v1::Image { id: id.into(), size: 10, pinned, ..v1::Image::default() }
    }

    fn ids(candidates: &[Candidate]) -> Vec<&str> {
        candidates.iter().map(|candidate| candidate.id.as_str()).collect()
    }

    #[test]
    fn the_longest_unused_go_first_and_used_pinned_or_young_ones_never() {
        let mut tracker = Tracker::default();
        let images = ["used", "recent", "never", "long"].map(|id| image(id, false));
        let mut images: Vec<_> = images.into_iter().chain([image("pinned", true)]).collect();
        let used = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<HashSet<_>>();
        tracker.observe(&images, &used(&["used", "recent", "long"]), at(0));
        tracker.observe(&images, &used(&["used", "recent"]), at(100));
        images.push(image("young", false));
        tracker.observe(&images, &used(&["used"]), at(1000));
        assert_eq!(ids(&tracker.unused(POLICY.min_age, at(1000))), ["never", "long", "recent"]);
        tracker.observe(&images[..1], &HashSet::new(), at(2000));
        assert_eq!(ids(&tracker.unused(POLICY.min_age, at(2000))), ["used"]);
    }

    #[test]
    fn unused_for_too_long() {
        let mut tracker = Tracker::default();
        tracker.observe(&[image("a", false), image("b", false)], &["b".to_owned()].into(), at(0));
        tracker.observe(&[image("a", false), image("b", false)], &["b".to_owned()].into(), at(500));
        let hour = Duration::from_secs(3600);
        assert!(tracker.outdated(hour, at(0), at(3600)).is_empty(), "nothing is known of the time before");
        assert_eq!(ids(&tracker.outdated(hour, at(0), at(3700))), ["a"]);
        assert!(tracker.outdated(Duration::ZERO, at(0), at(9999)).is_empty());
    }

    #[test]
    fn only_a_full_filesystem_asks_for_room() {
        let filesystem = |available| Filesystem { capacity: 1000, available, ..Filesystem::default() };
        assert_eq!(to_free(&POLICY, &filesystem(151)), Some((49, 85)));
        assert_eq!(to_free(&POLICY, &filesystem(160)), None);
        assert_eq!(to_free(&POLICY, &filesystem(0)), Some((200, 100)));
        assert_eq!(to_free(&POLICY, &Filesystem::default()), None);
        assert_eq!(human(61_255_492 * 1024), "58.4 GiB");
        assert_eq!(human(12), "12 B");
    }
}
