//! Containers: start, kill, remove.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::ContainerId;
use cri::v1::{
    CreateContainerRequest, Device, ImageSpec, Mount, RemoveContainerRequest, StartContainerRequest, UserNamespace,
};
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::{Container, Pod};
use pod::env::{Inputs, Source};
use pod::plan::MINIMUM_GRACE;
use pod::resolve::DnsConfig;
use pod::{ContainerState, Event, KillContainer, PreStop, Role, StartContainer, events, resolve};
use tracing::Instrument as _;
use volumes::plan::MountPlan;
use volumes::{ObjectError, Objects, Reference, subpath};

use super::prepare::field_facts;
use super::request::{self, ContainerParts, MountOptions};
use super::security::Given;
use super::{Job, Outcome, Say, StageError, blocking, image_volumes, sandbox, sub_path};
use crate::client::watch::describe;
use crate::images::{Ask, Image};
use crate::pods::objects::named;
use crate::pods::{hooks, log_links};

/// Reason of a container that cannot be configured.
pub const CONFIG_ERROR: &str = "CreateContainerConfigError";
/// What a file of variables may have, in bytes: as much as a ConfigMap.
const LONGEST_FILE: u64 = 1 << 20;

/// The image of a container is here, its environment is known, and its mounts are in place.
struct Ready<'a> {
    pod: &'a Pod,
    container: &'a Container,
    image: Image,
    env: BTreeMap<String, String>,
    mounts: Vec<Mount>,
    devices: Vec<Device>,
    users: UserNamespace,
}

/// Gets the image, then creates and starts a container.
///
/// # Errors
/// Reasons of images, `CreateContainerConfigError`, `CreateContainerError`, `RunContainerError`.
pub async fn start(job: &Job, start: &StartContainer) -> Result<Outcome, StageError> {
    let pod = job.pod()?;
    let found = pod.spec.as_ref().and_then(|spec| api::pod::container(spec, &start.name));
    let container =
        found.ok_or_else(|| StageError::new(CONFIG_ERROR, format!("container {} not found", start.name)))?;
    let say = job.say();
    let Some(guest) = &job.facts.guest else { return Ok(Outcome::Done) };
    let over = guest.over();
    let ask = Ask { pod, container: &container, role: start.role, say: &say, objects: &*job.context.objects, over };
    let fetched = async {
        // Both to their ends, and the image's error first: upstream pulls before it looks what the configuration needs.
        let (image, env) = tokio::join!(job.context.images.ensure(ask), environment(job, pod, &container));
        let (image, env) = (image?, env?);
        Ok((image, env, image_volumes::pull(job, pod, &container, start, &say, over).await?))
    };
    let fetched = fetched.await;
    // The pod may have ended meanwhile: nothing of it is made any more, on the disk neither.
    let Some(_inside) = guest.enter() else { return Ok(Outcome::Done) };
    let (image, env, images) = fetched?;
    let mounts = mounts(job, pod, &container, &env, &images).await?;
    let devices = devices(job, pod, &container)?;
    let users = sandbox::users(job, pod).await?;
    let ready = Ready { pod, container: &container, image, env, mounts, devices, users };
    // Boxed: requests are large, and every pod has one of these tasks.
    let id = Box::pin(create(job, start, ready)).await?;
    let told = |state: &ContainerState| {
        if let Some(event) = events::started(start.role, &start.name, state) {
            say.event(event);
        }
    };
    told(&ContainerState::Created);
    let request = StartContainerRequest { container_id: id.as_str().to_owned() };
    job.context.runtime.start_container(request).await.map_err(|error| StageError::cri("RunContainerError", &error))?;
    told(&ContainerState::Running);
    let log = request::log_directory(&job.context.config.logs_dir, pod);
    let log = log.join(request::log_path(&start.name, start.attempt));
    log_links::make(&log, &request::container_labels(pod, &container), id.as_str()).await;
    Ok(Outcome::Started(id))
}

async fn create(job: &Job, start: &StartContainer, ready: Ready<'_>) -> Result<ContainerId, StageError> {
    let Ready { pod, container, image, env, mounts, devices, users } = ready;
    let config = &job.context.config;
    let images = mounts.iter().filter(|mount| mount.image.is_some()).count();
    let target = ephemeral_target(job, pod, &start.name);
    let data_dir = config.data_dir.to_string_lossy();
    let parts = ContainerParts {
        start,
        image: image.reference,
        env,
        mounts,
        devices,
        machine: config.machine,
        given: Given {
            image_user: &image.user,
            seccomp_default: config.seccomp_default,
            data_dir: &data_dir,
            users: &users,
            target: target.as_deref(),
        },
    };
    let built =
        request::container(pod, container, parts).map_err(|error| StageError::new(CONFIG_ERROR, error.to_string()))?;
    let request = CreateContainerRequest {
        pod_sandbox_id: start.sandbox.as_str().to_owned(),
        config: Some(built),
        // Only names and the log folder are read of it, and these do not change with the attempt.
        sandbox_config: Some(sandbox::config(&job.context, pod, 0, users, DnsConfig::default())?),
    };
    let answer = Box::pin(job.context.runtime.create_container(request)).await;
    image_volumes::counted(images, &answer);
    let answer = answer.map_err(|error| StageError::cri("CreateContainerError", &error))?;
    Ok(ContainerId::new(answer.container_id))
}

/// The container whose processes an ephemeral container joins.
fn ephemeral_target(job: &Job, pod: &Pod, name: &str) -> Option<String> {
    let ephemeral = pod.spec.as_ref()?.ephemeral_containers.iter().flatten().find(|c| c.name == name)?;
    let target = ephemeral.target_container_name.as_deref().filter(|target| !target.is_empty())?;
    job.facts.running.get(target).map(|id| id.as_str().to_owned())
}

type Keys = Result<Option<BTreeMap<String, Vec<u8>>>, String>;

/// Fetches what the environment names, then makes it.
async fn environment(job: &Job, pod: &Pod, container: &Container) -> Result<BTreeMap<String, String>, StageError> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let reader = &job.context.objects;
    let mut config_maps: BTreeMap<String, Keys> = BTreeMap::new();
    let mut secrets: BTreeMap<String, Keys> = BTreeMap::new();
    let (env, from) = (container.env.as_deref(), container.env_from.as_deref());
    for reference in named::by_environment(env.unwrap_or_default(), from.unwrap_or_default()) {
        match reference {
            Reference::ConfigMap(name) => {
                let object = reader.config_map(namespace, &name).await;
                let data = object.map(|o| o.data.into_iter().flatten().map(|(k, v)| (k, v.into_bytes())).collect());
                config_maps.insert(name, keys(data));
            }
            Reference::Secret(name) => {
                let object = reader.secret(namespace, &name).await;
                let data = object.map(|o| o.data.into_iter().flatten().map(|(k, v)| (k, v.0)).collect());
                secrets.insert(name, keys(data));
            }
        }
    }
    let files = variable_files(job, container).await?;
    let lookup = |source: Source<'_>| match source {
        Source::ConfigMap(name) => config_maps.get(name).cloned().unwrap_or(Ok(None)),
        Source::Secret(name) => secrets.get(name).cloned().unwrap_or(Ok(None)),
        Source::File { volume, path, key } => match files.get(&(volume, path)) {
            Some(Ok(text)) => variable(text, key),
            Some(Err(error)) => {
                tracing::info!(volume, path, %error, "file of variables cannot be read");
                Err("couldn't parse env file".to_owned())
            }
            None => Err(format!("cannot find the volume {volume:?} referenced by FileKeyRef")),
        },
    };
    // A manifest of the node's own may be what the API server itself is made of.
    if !api::pod::is_static(pod) && !job.context.services.ready().await {
        let text = "services have not yet been read at least once, cannot construct envvars";
        return Err(StageError::new(CONFIG_ERROR, text));
    }
    let services = job.context.services.of(namespace);
    let facts = field_facts(&job.context, &job.facts.ips);
    let inputs = Inputs { pod, container, facts: &facts, services: &services, lookup: &lookup };
    pod::env::environment(&inputs).map_err(|error| StageError::new(CONFIG_ERROR, error.to_string()))
}

type VariableFiles<'a> = BTreeMap<(&'a str, &'a str), Result<String, String>>;

/// The files of variables that an environment names, by volume and path.
async fn variable_files<'a>(job: &Job, container: &'a Container) -> Result<VariableFiles<'a>, StageError> {
    let mut files = VariableFiles::new();
    let sources = container.env.iter().flatten().filter_map(|variable| variable.value_from.as_ref());
    for file in sources.filter_map(|source| source.file_key_ref.as_ref()) {
        let key = (file.volume_name.as_str(), file.path.as_str());
        let Some(volume) = job.facts.volumes.get(&file.volume_name).filter(|_| !files.contains_key(&key)) else {
            continue;
        };
        let (volume, path) = (volume.clone(), file.path.clone());
        let read = move || Ok(subpath::read(&volume, &path, LONGEST_FILE).map_err(|error| describe(&error)));
        files.insert(key, blocking(CONFIG_ERROR, read).await?);
    }
    Ok(files)
}

fn variable(text: &str, key: &str) -> Result<Option<BTreeMap<String, Vec<u8>>>, String> {
    match pod::env::file::variable(text, key) {
        Ok(value) => Ok(Some(value.map(|value| (key.to_owned(), value.into_bytes())).into_iter().collect())),
        Err(error) => {
            tracing::info!(%error, "file of variables is not understood");
            Err("couldn't parse env file".to_owned())
        }
    }
}

fn keys(object: Result<BTreeMap<String, Vec<u8>>, ObjectError>) -> Keys {
    match object {
        Ok(data) => Ok(Some(data)),
        Err(ObjectError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

/// Volumes, /etc/hosts and the termination message, all in place on the node.
async fn mounts(
    job: &Job,
    pod: &Pod,
    container: &Container,
    env: &BTreeMap<String, String>,
    images: &BTreeMap<String, ImageSpec>,
) -> Result<Vec<Mount>, StageError> {
    let plans = volumes::plan::container_mounts(container.volume_mounts.as_deref().unwrap_or_default());
    let mut out = Vec::with_capacity(plans.len() + 2);
    for plan in &plans {
        let forced = is_read_only(pod, &plan.volume);
        let plan = &MountPlan { read_only: plan.read_only || forced, ..plan.clone() };
        let sub_path = sub_path::resolve(&plan.sub_path, env)?;
        if let Some(image) = images.get(&plan.volume) {
            out.push(image_volumes::mount(plan, image, sub_path));
            continue;
        }
        let volume = job.facts.volumes.get(&plan.volume).ok_or_else(|| {
            StageError::new(
                CONFIG_ERROR,
                format!("cannot find volume {:?} to mount into container {:?}", plan.volume, container.name),
            )
        })?;
        let relabel = job.context.config.selinux && is_relabelled(job, pod, &plan.volume, volume);
        let host_path = part(job, container, plan, volume, sub_path).await?;
        let given = container.volume_mounts.iter().flatten().nth(plan.index);
        let recursive =
            given.map_or(Ok(false), |mount| resolve::recursive_read_only(mount, job.facts.recursive_read_only));
        let recursive = recursive.map_err(|error| {
            StageError::new(CONFIG_ERROR, format!("failed to resolve recursive read-only mode: {error}"))
        })?;
        out.push(request::mount(plan, &host_path, MountOptions { recursive, relabel }));
    }
    let relabel = job.context.config.selinux;
    let own = |path: &str| plans.iter().any(|plan| plan.container_path == path);
    if !own("/etc/hosts") {
        out.push(request::file_mount("/etc/hosts", &hosts(job, pod).await?, relabel));
    }
    let message_path = request::message_path(container);
    if !own(&message_path) {
        out.push(request::file_mount(&message_path, &message_file(job, container).await?, relabel));
    }
    Ok(out)
}

/// Where a volume, or the part of it that a container sees, lies on the node.
async fn part(
    job: &Job,
    container: &Container,
    plan: &MountPlan,
    volume: &Path,
    sub_path: Option<String>,
) -> Result<PathBuf, StageError> {
    let Some(path) = sub_path else { return Ok(volume.to_owned()) };
    let target = job.context.layout.subpath(job.uid.as_str(), &plan.volume, &container.name, plan.index);
    bind(volume.to_owned(), path, target, &plan.volume, &container.name).await
}

/// Whether the files of a volume get the labels of its containers: those that the agent made, and local volumes that are not read-only
/// (`Managed` and `SELinuxRelabel` of upstream's volumes). What a hostPath shows stays the machine's.
fn is_relabelled(job: &Job, pod: &Pod, name: &str, volume: &Path) -> bool {
    let (layout, uid) = (&job.context.layout, job.uid.as_str());
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let claim = volumes.filter(|other| other.name == name).find_map(|volume| volume.persistent_volume_claim.as_ref());
    // Only a local volume has this.
    let is_local = || layout.volume(uid, "local-volume", name).exists();
    match claim {
        Some(claim) => !claim.read_only.unwrap_or(false) && is_local(),
        None => volume.starts_with(layout.pod(uid)),
    }
}

/// Whether a volume may not be written at all: a claim that says so, and whatever the agent itself writes into, as root (CVE-2017-1002102).
fn is_read_only(pod: &Pod, volume: &str) -> bool {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes.filter(|other| other.name == volume).any(|volume| {
        let claim = volume.persistent_volume_claim.as_ref();
        claim.and_then(|claim| claim.read_only).unwrap_or(false)
            || volume.config_map.is_some()
            || volume.secret.is_some()
            || volume.downward_api.is_some()
            || volume.projected.is_some()
    })
}

/// The block devices of a container.
fn devices(job: &Job, pod: &Pod, container: &Container) -> Result<Vec<Device>, StageError> {
    let wanted = container.volume_devices.iter().flatten();
    let devices = wanted.map(|device| {
        let host = job.facts.volumes.get(&device.name).ok_or_else(|| {
            let (name, container) = (&device.name, &container.name);
            StageError::new(CONFIG_ERROR, format!("cannot find volume {name:?} to pass into container {container:?}"))
        })?;
        Ok(Device {
            container_path: device.device_path.clone(),
            host_path: host.to_string_lossy().into_owned(),
            permissions: if is_read_only(pod, &device.name) { "r" } else { "mrw" }.to_owned(),
        })
    });
    devices.collect()
}

async fn bind(
    volume: PathBuf,
    path: String,
    target: PathBuf,
    name: &str,
    container: &str,
) -> Result<PathBuf, StageError> {
    let text = format!("failed to prepare subPath for volumeMount {name:?} of container {container:?}");
    blocking(CONFIG_ERROR, move || {
        // What is wrong would tell the pod of the node's files.
        subpath::bind(&volume, &path, &target).map_err(|error| {
            tracing::warn!(error = %describe(&error), "subPath cannot be prepared");
            text
        })
    })
    .await
}

/// The pod's hosts file, written anew for each container: the addresses may have changed with the sandbox.
async fn hosts(job: &Job, pod: &Pod) -> Result<PathBuf, StageError> {
    let path = job.context.layout.hosts_file(job.uid.as_str());
    let names = resolve::hostname(pod, &job.context.config.dns.cluster_domain)
        .map_err(|error| StageError::new(CONFIG_ERROR, error.to_string()))?;
    let spec = pod.spec.clone().unwrap_or_default();
    let ips = job.facts.ips.clone();
    let file = path.clone();
    blocking(CONFIG_ERROR, move || {
        let aliases = spec.host_aliases.as_deref().unwrap_or_default();
        let text = if spec.host_network.unwrap_or(false) {
            let node = std::fs::read("/etc/hosts").unwrap_or_default();
            resolve::node_hosts_file(&String::from_utf8_lossy(&node), aliases)
        } else {
            resolve::hosts_file(&names, &ips, aliases)
        };
        write_open(&file, &text, 0o644)
    })
    .await?;
    Ok(path)
}

/// A new file for a container's last words, which its user may write whoever that is.
async fn message_file(job: &Job, container: &Container) -> Result<PathBuf, StageError> {
    let folder = job.context.layout.container(job.uid.as_str(), &container.name);
    let path = folder.join(format!("{:08x}", rand::random::<u32>()));
    let file = path.clone();
    blocking(CONFIG_ERROR, move || write_open(&file, "", 0o666)).await?;
    Ok(path)
}

fn write_open(path: &Path, text: &str, mode: u32) -> Result<(), String> {
    use std::os::unix::fs::PermissionsExt;
    let fail = |error: std::io::Error| format!("cannot write {}: {error}", path.display());
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(fail)?;
    }
    // In place: the file is bound into containers that run.
    std::fs::write(path, text).map_err(fail)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(fail)
}

/// Runs the preStop hook, then stops a container: its signal, and SIGKILL when the grace period is over.
///
/// # Errors
/// What the runtime said. A hook that fails is only an event.
pub async fn kill(job: &Job, kill: &KillContainer) -> Result<Outcome, StageError> {
    let begun = Instant::now();
    if let Some(pod) = &job.pod
        && kill.pre_stop
    {
        pre_stop(job, pod, &kill.id, &kill.name, kill.grace).await;
    }
    let spent = i64::try_from(begun.elapsed().as_secs()).unwrap_or(i64::MAX);
    let grace = kill.grace.saturating_sub(spent).max(MINIMUM_GRACE);
    match job.context.runtime.stop_container(kill.id.as_str(), grace).await {
        Err(error) if !error.is_not_found() => Err(StageError::cri("KillContainerError", &error)),
        _ => Ok(Outcome::Done),
    }
}

/// Runs a preStop hook ahead of the kill.
///
/// # Errors
/// None: a hook that fails is only an event.
pub async fn hook(job: &Job, hook: &PreStop) -> Result<Outcome, StageError> {
    if let Some(pod) = &job.pod {
        pre_stop(job, pod, &hook.id, &hook.name, hook.limit).await;
    }
    Ok(Outcome::Done)
}

async fn pre_stop(job: &Job, pod: &Arc<Pod>, id: &ContainerId, name: &str, seconds: i64) {
    let container = pod.spec.as_ref().and_then(|spec| api::pod::container(spec, name));
    let Some(container) = container.map(std::borrow::Cow::into_owned) else { return };
    let Some(hook) = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.clone()) else { return };
    let ip = job.facts.ips.first().copied().or_else(|| job.context.addresses.borrow().first().copied());
    let limit = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    let (context, pod, id) = (Arc::clone(&job.context), Arc::clone(pod), id.clone());
    let hooked = async move {
        if let Err(error) = hooks::run(&context, &pod, &container, &id, &hook, ip).await {
            tracing::debug!(container = %container.name, %error, "preStop hook failed");
            let role = events::role(&pod, &container.name).unwrap_or(Role::App);
            let event = Event::warning("FailedPreStopHook", "PreStopHook failed").of_container(role, &container.name);
            Say::new(&context.recorder, Some(&pod)).event(event);
        }
    };
    // One that nobody waits for any more goes on until its container ends, as with a kubelet; a call that is dropped would end it.
    match tokio::time::timeout(limit, tokio::spawn(hooked.in_current_span())).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::error!(container = %name, %error, "preStop hook panicked"),
        Err(_) => tracing::debug!(container = %name, "preStop hook did not end in the grace period"),
    }
}

/// Removes a dead container and its logs; one that is gone is removed.
///
/// # Errors
/// What the runtime said.
pub async fn remove(job: &Job, id: &ContainerId, name: &str) -> Result<Outcome, StageError> {
    let removed = remove_container(&job.context.runtime, id.as_str(), name).await;
    removed.map(|()| Outcome::Done).map_err(|error| StageError::cri("RemoveContainerError", &error))
}

/// Removes a dead container of this name and its logs; one that is gone is removed.
///
/// # Errors
/// What the runtime said.
pub async fn remove_container(runtime: &cri::Client, id: &str, name: &str) -> Result<(), cri::CallError> {
    let known = match runtime.container(id).await {
        Ok(answer) => answer.status.map(|status| (PathBuf::from(status.log_path), status.labels)),
        Err(_) => None,
    };
    match runtime.remove_container(RemoveContainerRequest { container_id: id.to_owned() }).await {
        Err(error) if !error.is_not_found() => return Err(error),
        _ => {}
    }
    if let Some((log, labels)) = known.filter(|(log, _)| log.parent().is_some_and(|folder| folder.ends_with(name))) {
        log_links::remove(&log, &labels, id).await;
        remove_logs(&log).await;
    }
    Ok(())
}

/// A container's log with its rotated files: `3.log`, `3.log.20261121-071818`, `3.log.20261121-071818.gz`.
async fn remove_logs(log: &Path) {
    let log = log.to_owned();
    let (Some(folder), Some(name)) = (log.parent(), log.file_name().and_then(|n| n.to_str())) else { return };
    let Ok(mut entries) = tokio::fs::read_dir(folder).await else { return };
    let mut doomed = Vec::new();
    while let Ok(Some(entry)) = entries.next_entry().await {
        let is_ours = entry
            .file_name()
            .to_str()
            .is_some_and(|file| file.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')));
        if is_ours {
            doomed.push(entry.path());
        }
    }
    // A log that stays costs space and nothing else; the pod's folder goes with the pod.
    drop(try_join_all(doomed.into_iter().map(tokio::fs::remove_file)).await);
}
