//! What the runtime in memory knows, and how it changes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::sync::Notify;
use tokio::time::Instant;
use tonic::Status;

use super::images::name_of;
use super::{Call, Failure, Program};
use crate::v1::{self, ContainerState};

/// Time 0 of the runtime's clock, in nanoseconds since 1970: any moment in the past will do.
const EPOCH: i64 = 1_700_000_000_000_000_000;

/// A sandbox that was run and not removed.
#[derive(Debug, Clone)]
pub struct Sandbox {
    pub id: String,
    pub config: v1::PodSandboxConfig,
    pub ready: bool,
    pub created_at: i64,
    pub ip: String,
}

/// A container that was created and not removed.
#[derive(Debug, Clone)]
pub struct Container {
    pub id: String,
    pub sandbox_id: String,
    pub config: v1::ContainerConfig,
    pub state: ContainerState,
    pub created_at: i64,
    pub started_at: i64,
    pub finished_at: i64,
    pub exit_code: i32,
    pub reason: String,
}

impl Container {
    /// The name in its metadata.
    #[must_use]
    pub fn name(&self) -> &str {
        self.config.metadata.as_ref().map_or("", |m| &m.name)
    }
}

pub(super) struct State {
    started: Instant,
    next: u32,
    pub sandboxes: BTreeMap<String, Sandbox>,
    pub containers: BTreeMap<String, Container>,
    pub images: BTreeSet<String>,
    /// The configuration that a verbose status shows.
    pub config: Option<String>,
    pub programs: BTreeMap<String, Program>,
    pub failures: Vec<Failure>,
    pub hangs: Vec<Hang>,
    pub effects: usize,
    pub calls: Vec<Call>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            next: 1,
            sandboxes: BTreeMap::new(),
            containers: BTreeMap::new(),
            images: BTreeSet::new(),
            config: None,
            programs: BTreeMap::new(),
            failures: Vec::new(),
            hangs: Vec::new(),
            effects: 0,
            calls: Vec::new(),
        }
    }
}

/// A call that is to wait for ever.
pub(super) struct Hang {
    pub effect: usize,
    pub after: bool,
    pub reached: Arc<Notify>,
}

/// Whether a call that changes something is to fail, and how.
pub(super) enum Verdict {
    Go,
    FailBefore(Status),
    FailAfter(Status),
    HangBefore(Arc<Notify>),
    HangAfter(Arc<Notify>),
}

impl Verdict {
    /// Whether the change is not made.
    pub fn prevents(&self) -> bool {
        matches!(self, Self::FailBefore(_) | Self::HangBefore(_))
    }

    /// What the caller gets to see of an answer.
    pub async fn seen<T>(self, answer: Result<T, Status>) -> Result<T, Status> {
        match self {
            Self::Go => answer,
            Self::FailBefore(status) | Self::FailAfter(status) => answer.and(Err(status)),
            Self::HangBefore(reached) | Self::HangAfter(reached) => {
                reached.notify_one();
                std::future::pending().await
            }
        }
    }
}

impl State {
    pub fn now(&self) -> i64 {
        EPOCH.saturating_add(i64::try_from(self.started.elapsed().as_nanos()).unwrap_or(i64::MAX))
    }

    pub fn log(&mut self, rpc: &'static str, id: &str) {
        self.calls.push(Call { rpc, id: id.to_owned() });
    }

    /// Counts a call that changes something, and says whether it is one that fails.
    pub fn effect(&mut self) -> Verdict {
        self.effects += 1;
        let mut verdict = Verdict::Go;
        self.hangs.retain_mut(|hang| {
            if hang.effect > 0 {
                hang.effect -= 1;
                return true;
            }
            let reached = Arc::clone(&hang.reached);
            verdict = if hang.after { Verdict::HangAfter(reached) } else { Verdict::HangBefore(reached) };
            false
        });
        self.failures.retain_mut(|failure| {
            if failure.effect > 0 {
                failure.effect -= 1;
                return true;
            }
            let status = failure.status.clone();
            verdict = if failure.after { Verdict::FailAfter(status) } else { Verdict::FailBefore(status) };
            false
        });
        verdict
    }

    /// Ids look like containerd's: 64 hexadecimal digits.
    pub fn fresh_id(&mut self) -> String {
        self.next += 1;
        format!("{:064x}", u64::from(self.next).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    pub fn add_sandbox(&mut self, config: v1::PodSandboxConfig) -> String {
        let id = self.fresh_id();
        let created_at = self.now();
        let host =
            config.linux.as_ref().and_then(|l| l.security_context.as_ref()).and_then(|s| s.namespace_options.as_ref());
        let on_host = host.is_some_and(|n| n.network() == v1::NamespaceMode::Node);
        let ip = if on_host { String::new() } else { format!("10.244.{}.{}", self.next / 250, self.next % 250 + 2) };
        self.sandboxes.insert(id.clone(), Sandbox { id: id.clone(), config, ready: true, created_at, ip });
        id
    }

    pub fn add_container(&mut self, sandbox_id: &str, config: v1::ContainerConfig) -> Result<String, Status> {
        let ready = self.sandboxes.get(sandbox_id).is_some_and(|s| s.ready);
        if !ready {
            return Err(Status::not_found(format!("failed to find sandbox id {sandbox_id:?}: not found")));
        }
        let image = config.image.as_ref().map_or("", |i| &i.image);
        // By name or, as kubelets do, by id.
        if !self.images.contains(name_of(image)) {
            return Err(Status::not_found(format!("failed to resolve image {image:?}: not found")));
        }
        let id = self.fresh_id();
        let container = Container {
            id: id.clone(),
            sandbox_id: sandbox_id.to_owned(),
            config,
            state: ContainerState::ContainerCreated,
            created_at: self.now(),
            started_at: 0,
            finished_at: 0,
            exit_code: 0,
            reason: String::new(),
        };
        self.containers.insert(id.clone(), container);
        Ok(id)
    }

    pub fn start(&mut self, id: &str) -> Result<(), Status> {
        let now = self.now();
        let container = self.container(id)?;
        if container.state != ContainerState::ContainerCreated {
            return Err(Status::unknown(format!("container {id:?} is in {} state", container.state.as_str_name())));
        }
        container.state = ContainerState::ContainerRunning;
        container.started_at = now;
        Ok(())
    }

    /// What the container does, as asked for by its name.
    pub fn program_of(&self, id: &str) -> Program {
        self.containers.get(id).and_then(|c| self.programs.get(c.name())).cloned().unwrap_or_default()
    }

    /// Whether it was running.
    pub fn finish(&mut self, id: &str, code: i32, reason: &str) -> bool {
        let now = self.now();
        let Ok(container) = self.container(id) else { return false };
        if container.state != ContainerState::ContainerRunning {
            return false;
        }
        container.state = ContainerState::ContainerExited;
        container.finished_at = now;
        container.exit_code = code;
        container.reason = reason.to_owned();
        true
    }

    pub fn container(&mut self, id: &str) -> Result<&mut Container, Status> {
        self.containers.get_mut(id).ok_or_else(|| missing("container", id))
    }

    pub fn event(&self, id: &str, kind: v1::ContainerEventType) -> v1::ContainerEventResponse {
        let sandbox = self.containers.get(id).map_or(id, |c| &c.sandbox_id);
        let sandbox = self.sandboxes.get(sandbox);
        v1::ContainerEventResponse {
            container_id: id.to_owned(),
            container_event_type: kind.into(),
            created_at: self.now(),
            pod_sandbox_status: sandbox.map(sandbox_status),
            containers_statuses: Vec::new(),
        }
    }
}

pub(super) fn missing(what: &str, id: &str) -> Status {
    Status::not_found(format!("an error occurred when try to find {what} {id:?}: not found"))
}

pub(super) fn sandbox_status(sandbox: &Sandbox) -> v1::PodSandboxStatus {
    let state = if sandbox.ready { v1::PodSandboxState::SandboxReady } else { v1::PodSandboxState::SandboxNotready };
    v1::PodSandboxStatus {
        id: sandbox.id.clone(),
        metadata: sandbox.config.metadata.clone(),
        state: state.into(),
        created_at: sandbox.created_at,
        network: Some(v1::PodSandboxNetworkStatus { ip: sandbox.ip.clone(), additional_ips: Vec::new() }),
        labels: sandbox.config.labels.clone(),
        annotations: sandbox.config.annotations.clone(),
        ..v1::PodSandboxStatus::default()
    }
}

pub(super) fn container_status(container: &Container) -> v1::ContainerStatus {
    let image = container.config.image.clone().unwrap_or_default();
    v1::ContainerStatus {
        id: container.id.clone(),
        metadata: container.config.metadata.clone(),
        state: container.state.into(),
        created_at: container.created_at,
        started_at: container.started_at,
        finished_at: container.finished_at,
        exit_code: container.exit_code,
        image_ref: format!("sha256:{}", image.image),
        image_id: format!("sha256:{}", image.image),
        image: Some(image),
        reason: container.reason.clone(),
        labels: container.config.labels.clone(),
        annotations: container.config.annotations.clone(),
        mounts: container.config.mounts.clone(),
        log_path: container.config.log_path.clone(),
        ..v1::ContainerStatus::default()
    }
}
