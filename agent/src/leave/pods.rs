//! What pods have on this machine: sandboxes, volumes, cgroups, logs.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::Path;
use std::time::Duration;

use cgroups::{Naming, Tree};
use cri::v1::{
    ContainerFilter, ContainerState, ContainerStateValue, ListContainersRequest, ListPodSandboxRequest,
    RemovePodSandboxRequest, StopPodSandboxRequest,
};
use futures::{StreamExt as _, stream};
use pod::plan::MINIMUM_GRACE;

use super::{say, shims};
use crate::client::watch::describe;
use crate::config::Config;
use crate::pods::{labels, log_links, open_cgroups_of};

/// Containers that are stopped at a time: those of a full node, which wait for nothing but themselves.
const AT_ONCE: usize = 256;
/// The most of a grace period that a container gets, in seconds.
const LONGEST_GRACE: i64 = 60;
/// `terminationGracePeriodSeconds` where a container does not say.
const DEFAULT_GRACE: i64 = 30;
/// How long all of them together may take.
const STOPPING: Duration = Duration::from_secs(90);

/// Ends all pods and removes what they had; answers what could not be. By force also those that the runtime does not end.
pub(super) async fn end(config: &Config, force: bool) -> Vec<String> {
    let mut failures = match cri::Client::new(&config.kubelet.container_runtime_endpoint) {
        Ok(runtime) => sandboxes(&runtime).await,
        Err(error) => vec![error.to_string()],
    };
    if !failures.is_empty() && !force {
        // Their volumes and cgroups are in use.
        failures.push("--force kills what the runtime does not end".into());
        return failures;
    }
    for failure in failures.drain(..) {
        say(&format!("killing what runs, and leaving the rest to the runtime (crictl pods): {failure}"));
    }
    let own = config.clone();
    let removed = tokio::task::spawn_blocking(move || {
        // First, as it kills what still uses volumes.
        let mut failures: Vec<_> = cgroups(&own).err().map(|error| describe(&error)).into_iter().collect();
        failures.extend(volumes(&own.layout.data_dir));
        failures.extend(logs(Path::new(&own.kubelet.pod_logs_dir)).err().map(|error| format!("pod logs: {error}")));
        failures
    });
    failures.extend(removed.await.unwrap_or_else(|error| vec![error.to_string()]));
    failures
}

/// Through the runtime, which has the plugins undo each pod's network.
async fn sandboxes(runtime: &cri::Client) -> Vec<String> {
    let mut failures = Vec::new();
    let mut met = HashSet::new();
    loop {
        let mut listed = match runtime.list_pod_sandbox(ListPodSandboxRequest::default()).await {
            Ok(answer) => answer.items,
            Err(error) => return vec![describe(&error)],
        };
        // One that the agent had asked for when it ended may be there only the second time.
        listed.retain(|sandbox| met.insert(sandbox.id.clone()));
        if listed.is_empty() {
            break;
        }
        say(&format!("ending {} sandboxes", listed.len()));
        stop_containers(runtime).await;
        for sandbox in listed {
            failures.extend(end_sandbox(runtime, sandbox.id).await.err().map(|error| describe(&error)));
        }
    }
    if failures.is_empty() {
        shims::end(&met).await;
    }
    failures
}

async fn end_sandbox(runtime: &cri::Client, id: String) -> Result<(), cri::CallError> {
    runtime.stop_pod_sandbox(StopPodSandboxRequest { pod_sandbox_id: id.clone() }).await?;
    runtime.remove_pod_sandbox(RemovePodSandboxRequest { pod_sandbox_id: id }).await.map(drop)
}

/// Gives all containers their time to end: with a sandbox they would be killed at once. What does not work here is the sandbox' affair.
async fn stop_containers(runtime: &cri::Client) {
    let running = ContainerStateValue { state: ContainerState::ContainerRunning.into() };
    let filter = ContainerFilter { state: Some(running), ..ContainerFilter::default() };
    let containers = match runtime.list_containers(ListContainersRequest { filter: Some(filter) }).await {
        Ok(answer) => answer.containers,
        Err(error) => return say(&format!("containers end without their grace period: {}", describe(&error))),
    };
    let stopping = stream::iter(containers).for_each_concurrent(AT_ONCE, async |container| {
        if let Err(error) = runtime.stop_container(&container.id, grace(&container.annotations)).await {
            say(&format!("container {} ends without its grace period: {}", container.id, describe(&error)));
        }
    });
    if tokio::time::timeout(STOPPING, stopping).await.is_err() {
        say("not all containers have ended in time");
    }
}

/// The pod's own grace period, in seconds, within limits: a machine that leaves does not wait for ever.
fn grace(annotations: &HashMap<String, String>) -> i64 {
    let own = annotations.get(labels::POD_GRACE).and_then(|text| text.parse().ok());
    own.unwrap_or(DEFAULT_GRACE).clamp(MINIMUM_GRACE, LONGEST_GRACE)
}

fn volumes(data_dir: &Path) -> Vec<String> {
    let layout = ::volumes::Layout::new(data_dir);
    let found = match ::volumes::teardown::existing(&layout) {
        Ok(found) => found,
        Err(error) => return vec![describe(&error)],
    };
    found.iter().filter_map(|uid| Some(describe(&::volumes::teardown::tear_down(&layout, uid).err()?))).collect()
}

/// The trees of all pods. The runtime may spell them otherwise now than when they were made: both ways are looked for.
fn cgroups(config: &Config) -> Result<(), cgroups::Error> {
    let pods = Tree::new(&config.kubelet.cgroup_root).pods();
    for naming in [Naming::Cgroupfs, Naming::Systemd] {
        match open_cgroups_of(naming) {
            // Nobody can have made slices here.
            Err(cgroups::Error::SystemdOnV1) => {}
            driver => driver?.destroy(&pods)?,
        }
    }
    Ok(())
}

/// Folders named `<namespace>_<name>_<uid>`, and the links to logs in them.
fn logs(dir: &Path) -> std::io::Result<()> {
    let links = log_links::folder(dir);
    for link in fs::read_dir(&links).into_iter().flatten().flatten().map(|entry| entry.path()) {
        if fs::read_link(&link).is_ok_and(|target| target.starts_with(dir)) {
            fs::remove_file(&link)?;
        }
    }
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().matches('_').count() == 2 {
            fs::remove_dir_all(entry.path())?;
        }
    }
    // They stay where something else is in them.
    for folder in [&links, dir] {
        let _ = fs::remove_dir(folder);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use cri::fake::{Fake, Program};
    use cri::v1::{ContainerConfig, ContainerMetadata, CreateContainerRequest, PodSandboxConfig, RunPodSandboxRequest};
    use cri::v1::{ImageSpec, StartContainerRequest};
    use tokio::time::Instant;

    use super::*;

    async fn run(runtime: &cri::Client, name: &str, grace: &str) {
        let config = Some(PodSandboxConfig::default());
        let request = RunPodSandboxRequest { config: config.clone(), ..RunPodSandboxRequest::default() };
        let pod_sandbox_id = runtime.run_pod_sandbox(request).await.unwrap().pod_sandbox_id;
        let container = ContainerConfig {
            metadata: Some(ContainerMetadata { name: name.into(), attempt: 0 }),
            image: Some(ImageSpec { image: "i".into(), ..ImageSpec::default() }),
            annotations: [(labels::POD_GRACE.to_owned(), grace.to_owned())].into(),
            ..ContainerConfig::default()
        };
        let request = CreateContainerRequest { pod_sandbox_id, config: Some(container), sandbox_config: config };
        let container_id = Box::pin(runtime.create_container(request)).await.unwrap().container_id;
        runtime.start_container(StartContainerRequest { container_id }).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn containers_end_in_their_own_time_and_together_before_their_sandboxes_go() {
        let fake = Fake::default();
        fake.add_image("i");
        let runtime = fake.client();
        let (slow, deaf) = (Some(Duration::from_secs(20)), None);
        for (name, on_term) in [("slow", slow), ("slow too", slow), ("deaf", deaf)] {
            fake.program(name, Program { on_term, ..Program::default() });
            Box::pin(run(&runtime, name, if name == "deaf" { "3600" } else { "30" })).await;
        }
        let begun = Instant::now();
        assert_eq!(sandboxes(&runtime).await, Vec::<String>::new());
        let took = begun.elapsed().as_secs();
        assert!((60..STOPPING.as_secs()).contains(&took), "{took} s");
        let order: Vec<_> = fake.calls().iter().map(|call| call.rpc).filter(|rpc| rpc.starts_with("Stop")).collect();
        assert_eq!(order, [["StopContainer"; 3], ["StopPodSandbox"; 3]].concat());
        assert!(fake.sandboxes().is_empty() && fake.containers().is_empty());
    }

    /// As root, with cgroups of this machine.
    #[tokio::test]
    async fn by_force_pods_end_without_the_runtime_however_cgroups_are_spelt_now() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = crate::config::tests::minimal();
        config.layout.data_dir = dir.path().join("data");
        let kubelet = &mut config.kubelet;
        kubelet.container_runtime_endpoint = format!("unix://{}/gone.sock", dir.path().display());
        kubelet.pod_logs_dir = dir.path().join("logs").display().to_string();
        kubelet.cgroup_root = format!("/kl-leave-{}", std::process::id());
        // What was configured when the machine joined.
        kubelet.cgroup_driver = "systemd".into();
        let (tree, driver) = (Tree::new(&kubelet.cgroup_root), open_cgroups_of(Naming::Cgroupfs).unwrap());
        driver.ensure(&tree.pods(), &cgroups::Values::default()).unwrap();
        fs::create_dir_all(dir.path().join("logs/n_p_u")).unwrap();

        let failures = end(&config, false).await;
        assert!(failures.len() == 2 && failures[1].starts_with("--force"), "{failures:?}");
        assert!(driver.exists(&tree.pods()) && dir.path().join("logs/n_p_u").exists());
        assert_eq!(end(&config, true).await, Vec::<String>::new());
        assert!(!driver.exists(&tree.pods()) && !dir.path().join("logs").exists());
        driver.destroy(tree.root()).unwrap();
    }

    #[test]
    fn a_grace_period_is_the_pods_own_within_limits() {
        let of = |text: &str| grace(&[(labels::POD_GRACE.to_owned(), text.to_owned())].into());
        assert_eq!([of("0"), of("7"), of("3600"), of("x")], [2, 7, 60, 30]);
        assert_eq!(grace(&HashMap::new()), 30);
    }
}
