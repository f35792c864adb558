//! What the runtime has of a pod: CRI answers as the facts that [`pod::World`] holds.
//!
//! Lists are cheap and say which states changed; only what changed is asked about in detail.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;

use api::{ContainerId, PodUid, SandboxId};
use cri::v1;
use pod::world::UserFacts;
use pod::{Container, ContainerState, Sandbox};

use super::labels;

/// The most of a termination message that is kept (`MaxContainerTerminationMessageLength`), in bytes.
const MESSAGE_MAX: usize = 4096;
/// The most of a log that stands for a message (`MaxContainerTerminationMessageLogLength`, `...LogLines`).
const LOG_MAX: usize = 2048;
const LOG_LINES: usize = 80;
/// Where so much is to be found: a line of a log is cut into parts of 16 KiB, and each has its time and stream.
const LOG_TAIL: usize = 32 << 10;

/// What was seen last, to see only changes.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    pub sandboxes: Vec<Sandbox>,
    pub containers: Vec<Container>,
    states: HashMap<String, i32>,
}

impl Seen {
    /// What [`all`] says of this pod while nothing of it changes; `None` when there is nothing of it.
    #[must_use]
    pub fn fingerprint(&self) -> Option<u64> {
        self.states.iter().map(|(id, state)| fingerprint(id, *state)).reduce(|a, b| a ^ b)
    }

    fn put_sandbox(&mut self, status: v1::PodSandboxStatus) {
        self.states.insert(status.id.clone(), status.state);
        let new = sandbox(status);
        match self.sandboxes.iter_mut().find(|known| known.id == new.id) {
            Some(known) => *known = new,
            None => self.sandboxes.push(new),
        }
    }

    async fn put_container(&mut self, status: v1::ContainerStatus, sandbox: &SandboxId) {
        self.states.insert(status.id.clone(), status.state);
        let new = container(status, sandbox.as_str()).await;
        match self.containers.iter_mut().find(|known| known.id == new.id) {
            Some(known) => *known = new,
            None => self.containers.push(new),
        }
    }
}

/// What a worker has to look at before it plans.
#[derive(Debug, Clone, Default)]
pub struct Stale {
    /// All of the pod's sandboxes and containers.
    pub all: bool,
    /// Sandboxes that this worker has just made.
    pub sandboxes: Vec<SandboxId>,
    /// Containers that this worker has just started, with their sandboxes.
    pub containers: Vec<(ContainerId, SandboxId)>,
}

impl Stale {
    /// Whether nothing has to be looked at.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.all && self.sandboxes.is_empty() && self.containers.is_empty()
    }
}

/// Reads what is stale. One question is enough for what the worker itself has made.
///
/// # Errors
/// What the runtime said; it must be asked again.
pub async fn look(runtime: &cri::Client, uid: &PodUid, stale: &Stale, seen: &mut Seen) -> Result<(), cri::CallError> {
    if stale.all {
        return pod(runtime, uid, seen).await;
    }
    for id in &stale.sandboxes {
        if let Some(status) = present(runtime.sandbox(id.as_str()).await)?.and_then(|answer| answer.status) {
            seen.put_sandbox(status);
        }
    }
    for (id, sandbox) in &stale.containers {
        if let Some(status) = present(runtime.container(id.as_str()).await)?.and_then(|answer| answer.status) {
            seen.put_container(status, sandbox).await;
        }
    }
    Ok(())
}

/// `None` for what went away meanwhile.
fn present<T>(answer: Result<T, cri::CallError>) -> Result<Option<T>, cri::CallError> {
    match answer {
        Err(error) if error.is_not_found() => Ok(None),
        other => other.map(Some),
    }
}

/// Reads all sandboxes and containers of a pod.
///
/// # Errors
/// What the runtime said; what was seen before stays.
async fn pod(runtime: &cri::Client, uid: &PodUid, seen: &mut Seen) -> Result<(), cri::CallError> {
    let selector = HashMap::from([(labels::POD_UID.to_owned(), uid.as_str().to_owned())]);
    let sandboxes = v1::PodSandboxFilter { label_selector: selector.clone(), ..v1::PodSandboxFilter::default() };
    let containers = v1::ContainerFilter { label_selector: selector, ..v1::ContainerFilter::default() };
    let (sandboxes, containers) = tokio::try_join!(
        runtime.list_pod_sandbox(v1::ListPodSandboxRequest { filter: Some(sandboxes) }),
        runtime.list_containers(v1::ListContainersRequest { filter: Some(containers) }),
    )?;
    let mut next = Seen::default();
    for item in sandboxes.items {
        if let Some(sandbox) = detail_sandbox(runtime, &item, seen).await? {
            next.states.insert(item.id, item.state);
            next.sandboxes.push(sandbox);
        }
    }
    for item in containers.containers {
        if let Some(container) = detail_container(runtime, &item, seen).await? {
            next.states.insert(item.id, item.state);
            next.containers.push(container);
        }
    }
    *seen = next;
    Ok(())
}

/// One sandbox; `None` when it went away between the list and the question.
async fn detail_sandbox(
    runtime: &cri::Client,
    item: &v1::PodSandbox,
    seen: &Seen,
) -> Result<Option<Sandbox>, cri::CallError> {
    let known = seen.sandboxes.iter().find(|known| known.id.as_str() == item.id);
    if let Some(known) = known.filter(|_| seen.states.get(&item.id) == Some(&item.state)) {
        return Ok(Some(known.clone()));
    }
    Ok(present(runtime.sandbox(&item.id).await)?.and_then(|answer| answer.status).map(sandbox))
}

async fn detail_container(
    runtime: &cri::Client,
    item: &v1::Container,
    seen: &Seen,
) -> Result<Option<Container>, cri::CallError> {
    let known = seen.containers.iter().find(|known| known.id.as_str() == item.id);
    if let Some(known) = known.filter(|_| seen.states.get(&item.id) == Some(&item.state)) {
        return Ok(Some(known.clone()));
    }
    let status = present(runtime.container(&item.id).await)?.and_then(|answer| answer.status);
    match status {
        Some(status) => Ok(Some(container(status, &item.pod_sandbox_id).await)),
        None => Ok(None),
    }
}

fn sandbox(status: v1::PodSandboxStatus) -> Sandbox {
    // A runtime that says nothing of a network has none to give.
    let unaddressed = status.network.as_ref().is_some_and(|network| network.ip.is_empty());
    let network = status.network.clone().unwrap_or_default();
    let first = (!network.ip.is_empty()).then_some(network.ip);
    let ips = first.into_iter().chain(network.additional_ips.into_iter().map(|ip| ip.ip));
    let options = status.linux.as_ref().and_then(|linux| linux.namespaces.as_ref()?.options.as_ref());
    Sandbox {
        id: SandboxId::new(&status.id),
        attempt: status.metadata.as_ref().map_or(0, |metadata| metadata.attempt),
        ready: status.state() == v1::PodSandboxState::SandboxReady,
        // The worker knows what it stopped itself.
        stopped: false,
        created_at: status.created_at,
        ips: ips.filter_map(|ip| ip.parse::<IpAddr>().ok()).collect(),
        unaddressed,
        host_network: options.is_some_and(|options| options.network() == v1::NamespaceMode::Node),
        handler: status.runtime_handler,
    }
}

async fn container(status: v1::ContainerStatus, sandbox: &str) -> Container {
    let state = state(&status).await;
    let text = |key: &str| status.annotations.get(key).cloned();
    let metadata = status.metadata.clone().unwrap_or_default();
    let image = status.image.clone().unwrap_or_default();
    let user = status.user.as_ref().and_then(|user| user.linux.clone());
    Container {
        id: ContainerId::new(&status.id),
        sandbox: SandboxId::new(sandbox),
        name: status.labels.get(labels::CONTAINER_NAME).cloned().unwrap_or(metadata.name),
        attempt: metadata.attempt,
        state,
        created_at: status.created_at,
        started_at: status.started_at,
        image: if image.user_specified_image.is_empty() { image.image } else { image.user_specified_image },
        image_id: status.image_ref,
        spec_hash: text(labels::HASH),
        backoff: text(labels::BACKOFF).and_then(|level| level.parse().ok()).unwrap_or(0),
        resources: text(labels::RESOURCES).and_then(|json| serde_json::from_str(&json).ok()),
        log_path: status.log_path,
        user: user.map(|user| UserFacts {
            uid: user.uid,
            gid: user.gid,
            supplemental_groups: user.supplemental_groups,
        }),
    }
}

async fn state(status: &v1::ContainerStatus) -> ContainerState {
    match status.state() {
        v1::ContainerState::ContainerCreated => ContainerState::Created,
        v1::ContainerState::ContainerRunning => ContainerState::Running,
        v1::ContainerState::ContainerExited => ContainerState::Exited {
            exit_code: status.exit_code,
            reason: status.reason.clone(),
            message: message(status).await,
            finished_at: status.finished_at,
        },
        v1::ContainerState::ContainerUnknown => ContainerState::Unknown,
    }
}

/// Why a container ended: what the runtime says, and the container itself.
async fn message(status: &v1::ContainerStatus) -> String {
    let from = status.clone();
    // Disks may take their time.
    let own = tokio::task::spawn_blocking(move || last_words(&from)).await.unwrap_or_default();
    match (status.message.as_str(), own.as_str()) {
        (_, "") => status.message.clone(),
        ("", _) => own,
        (runtime, own) => format!("{runtime}: {own}"),
    }
}

/// A container's own words, or those of its log where it asked for that.
fn last_words(status: &v1::ContainerStatus) -> String {
    let at = status.annotations.get(labels::MESSAGE_PATH).map_or(super::stages::request::MESSAGE_PATH, String::as_str);
    let file = status.mounts.iter().find(|mount| mount.container_path == at);
    let own = file.and_then(|mount| tail(Path::new(&mount.host_path), MESSAGE_MAX)).unwrap_or_default();
    if !own.text.is_empty() {
        return own.text;
    }
    let from_log =
        status.annotations.get(labels::MESSAGE_POLICY).is_some_and(|policy| policy == "FallbackToLogsOnError");
    if from_log && status.exit_code != 0 {
        return tail(Path::new(&status.log_path), LOG_TAIL).map(|tail| last_lines(&tail)).unwrap_or_default();
    }
    String::new()
}

/// The last bytes of a file.
#[derive(Default)]
struct Tail {
    text: String,
    /// Whether there are others before them.
    is_cut: bool,
}

/// What a pod mounts in the place of a file may be anything, also what nobody ever writes to: only a file is read.
fn tail(path: &Path, max: usize) -> Option<Tail> {
    use std::io::{Read, Seek, SeekFrom};
    use std::os::unix::fs::OpenOptionsExt;
    let flags = nix::fcntl::OFlag::O_NONBLOCK.bits();
    let mut file = std::fs::OpenOptions::new().read(true).custom_flags(flags).open(path).ok()?;
    let about = file.metadata().ok().filter(std::fs::Metadata::is_file)?;
    let max = u64::try_from(max).unwrap_or(0);
    let start = about.len().saturating_sub(max);
    file.seek(SeekFrom::Start(start)).ok()?;
    let mut bytes = Vec::new();
    file.take(max).read_to_end(&mut bytes).ok()?;
    Some(Tail { text: String::from_utf8_lossy(&bytes).into_owned(), is_cut: start > 0 })
}

/// Lines of a CRI log without their time and stream. A part of a line (`P`) has no end.
fn last_lines(log: &Tail) -> String {
    let parts = |line| {
        let mut fields = str::splitn(line, 4, ' ').skip(2);
        let end = if fields.next()?.split(':').any(|tag| tag == "P") { "" } else { "\n" };
        Some([fields.next()?, end])
    };
    // Of a line that begins before what was read only the end is there.
    let (cut, whole) = match log.text.split_once('\n') {
        Some((cut, whole)) if log.is_cut => (Some([cut, "\n"]), whole),
        _ => (None, log.text.as_str()),
    };
    let lines: Vec<_> = cut.into_iter().chain(whole.lines().filter_map(parts)).collect();
    let skip = lines.len().saturating_sub(LOG_LINES);
    let text: String = lines.into_iter().skip(skip).flatten().collect();
    let start = text.ceil_char_boundary(text.len().saturating_sub(LOG_MAX));
    text.get(start..).unwrap_or_default().to_owned()
}

/// Every pod that the runtime has something of, with a number that changes when its states do.
///
/// # Errors
/// What the runtime said.
pub async fn all(runtime: &cri::Client) -> Result<Everything, cri::CallError> {
    let (sandboxes, containers) = tokio::try_join!(
        runtime.list_pod_sandbox(v1::ListPodSandboxRequest { filter: None }),
        runtime.list_containers(v1::ListContainersRequest { filter: None }),
    )?;
    let mut out = Everything::default();
    let parts = sandboxes.items.into_iter().map(|item| (item.labels, item.id, item.state));
    let parts = parts.chain(containers.containers.into_iter().map(|item| (item.labels, item.id, item.state)));
    for (labels, id, state) in parts {
        // What has no such label is not Kubernetes' and none of ours.
        let Some(uid) = labels.get(labels::POD_UID).filter(|uid| !uid.is_empty()) else { continue };
        let uid = PodUid::new(uid);
        *out.pods.entry(uid.clone()).or_default() ^= fingerprint(&id, state);
        out.owners.insert(id, uid);
    }
    Ok(out)
}

/// A look at the whole runtime.
#[derive(Debug, Clone, Default)]
pub struct Everything {
    /// A fingerprint of each pod's parts and their states.
    pub pods: HashMap<PodUid, u64>,
    /// The pod of each container and sandbox.
    pub owners: HashMap<String, PodUid>,
}

fn fingerprint(id: &str, state: i32) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    (id, state).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_stand_in_for_a_message() {
        let folder = tempfile::tempdir().unwrap();
        let of = |log: &str| {
            let path = folder.path().join("0.log");
            std::fs::write(&path, log).unwrap();
            last_lines(&tail(&path, LOG_TAIL).unwrap())
        };
        let log = "2026-11-21T07:00:00Z stdout F one\n2026-11-21T07:00:01Z stderr F two words\n";
        assert_eq!(of(log), "one\ntwo words\n");
        assert_eq!(of("t stdout F one\nt stdout P half\nt stdout P DONE\n"), "one\nhalfDONE");
        let time = "2026-11-21T07:00:00.123456789Z stdout";
        let long: String = (0..2000).map(|n| format!("{time} F line {n}\n")).collect();
        let kept = of(&long);
        assert!(kept.starts_with("line 1920\n") && kept.ends_with("line 1999\n"), "{kept}");
        assert!(of(&format!("t stdout F {}\n", "ä".repeat(5000))).len() <= LOG_MAX);
        // The end of a line counts, however long that is: in parts, or in one piece.
        let (part, line) = ("x y ".repeat(4 << 10), "x y ".repeat(20 << 10));
        let end = |line: &str| format!("{}!\n", &line[line.len() - LOG_MAX + 2..]);
        assert_eq!(of(&format!("{time} P {part}\n{time} P {part}\n{time} F !\n")), end(&part));
        assert_eq!(of(&format!("{time} F before\n{time} F {line}!\n")), end(&line));
    }

    #[test]
    fn only_files_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let (file, pipe) = (folder.path().join("file"), folder.path().join("pipe"));
        std::fs::write(&file, "first and last").unwrap();
        assert!(tail(&file, 4).is_some_and(|tail| tail.text == "last" && tail.is_cut));
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRUSR).unwrap();
        assert!(tail(&pipe, 4).is_none());
        assert!(tail(folder.path(), 4).is_none());
    }

    #[tokio::test]
    async fn facts_of_a_container() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("message");
        std::fs::write(&file, "because").unwrap();
        let status = v1::ContainerStatus {
            id: "c1".into(),
            metadata: Some(v1::ContainerMetadata { name: "c".into(), attempt: 2 }),
            state: v1::ContainerState::ContainerExited.into(),
            exit_code: 3,
            reason: "Error".into(),
            finished_at: 7,
            image_id: "sha256:1".into(),
            image_ref: "docker.io/library/a@sha256:2".into(),
            mounts: vec![v1::Mount {
                container_path: "/dev/termination-log".into(),
                host_path: file.to_string_lossy().into_owned(),
                ..v1::Mount::default()
            }],
            annotations: [(labels::HASH.to_owned(), "h".to_owned()), (labels::BACKOFF.to_owned(), "4".to_owned())]
                .into(),
            ..v1::ContainerStatus::default()
        };
        let container = container(status, "s1").await;
        assert_eq!(container.image_id, "docker.io/library/a@sha256:2");
        assert_eq!((container.attempt, container.backoff, container.spec_hash.as_deref()), (2, 4, Some("h")));
        let expected =
            ContainerState::Exited { exit_code: 3, reason: "Error".into(), message: "because".into(), finished_at: 7 };
        assert_eq!(container.state, expected);
    }
}
