//! Removes what processes leave when they are killed rather than stopped: pods, shims, mounts, cgroups, namespaces, sockets.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::stream::{self, StreamExt, TryStreamExt};
use nix::mount::{MntFlags, umount2};

use super::layout::{HostPaths, Layout};
use super::shell::wait_for;
use super::{containerd, host};

/// Where kubelets link every container's log; a path that cannot be configured.
const CONTAINER_LOGS: &str = "/var/log/containers";

/// Where libcni keeps the results of plugins; containerd 1.6 names no other place.
const CNI_RESULTS: &str = "/var/lib/cni/results";

/// How many pods of a host end at the same time.
const AT_ONCE: usize = 8;

/// Ends a host's pods in its runtime.
///
/// # Errors
/// When the runtime does not answer or a pod does not end.
pub fn remove_pods(host: &HostPaths) -> Result<()> {
    containerd::call(host, async |client| {
        let pods = client.list_pod_sandbox(cri::v1::ListPodSandboxRequest::default()).await?.items;
        let ended = stream::iter(pods).map(|pod| remove_pod(&client, pod.id)).buffer_unordered(AT_ONCE);
        ended.try_collect().await
    })
}

async fn remove_pod(client: &cri::Client, id: String) -> Result<()> {
    client.stop_pod_sandbox(cri::v1::StopPodSandboxRequest { pod_sandbox_id: id.clone() }).await?;
    client.remove_pod_sandbox(cri::v1::RemovePodSandboxRequest { pod_sandbox_id: id }).await?;
    Ok(())
}

/// Removes all of a cluster whose processes were stopped.
///
/// # Errors
/// When something refuses to go.
pub fn sweep(layout: &Layout) -> Result<()> {
    let run = layout.run();
    kill_strays(layout)?;
    for mount in mounts_below(&[&run, &layout.base])? {
        umount2(mount.as_str(), MntFlags::MNT_DETACH).with_context(|| format!("unmount {mount}"))?;
    }
    host::remove(layout)?;
    remove_cgroups(&layout.prefix())?;
    remove_log_links(layout)?;
    // Made with the first pod of a machine. They stay where somebody's pods have results in them.
    for folder in Path::new(CNI_RESULTS).ancestors().take(2) {
        let _ = fs::remove_dir(folder);
    }
    if run.exists() {
        fs::remove_dir_all(&run).with_context(|| format!("remove {}", run.display()))?;
    }
    Ok(())
}

/// What is in the pods' cgroups, what holds them, and upstream's suites that an interrupted run left.
fn kill_strays(layout: &Layout) -> Result<()> {
    let mark = format!("{}/", layout.run().display());
    let files = format!("{}/", layout.base.display());
    let cgroup = format!("/{}-", layout.prefix());
    let ours = |pid: &i32| {
        let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        let is_suite = line.contains("ginkgo") && (line.contains(&mark) || line.contains(&files));
        (line.contains("containerd-shim") && line.contains(&mark)) || is_suite || groups.contains(&cgroup)
    };
    wait_for("the pods' processes to end", Duration::from_secs(20), || {
        let pids = fs::read_dir("/proc")?.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok());
        let left: Vec<i32> =
            pids.filter(|pid| *pid != i32::try_from(std::process::id()).unwrap_or(0)).filter(ours).collect();
        for pid in &left {
            // It may have ended since it was listed.
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(*pid), nix::sys::signal::Signal::SIGKILL);
        }
        ensure!(left.is_empty(), "processes {left:?} live");
        Ok(())
    })
}

fn mounts_below(dirs: &[&Path]) -> Result<Vec<String>> {
    let text = fs::read_to_string("/proc/self/mountinfo")?;
    let points = text.lines().filter_map(|l| l.split(' ').nth(4));
    let mut found: Vec<String> =
        points.filter(|p| dirs.iter().any(|d| Path::new(p).starts_with(d))).map(str::to_owned).collect();
    // The deepest first: a mount below another goes before it.
    found.reverse();
    Ok(found)
}

/// Links to logs of containers of this cluster, and their folder once it is empty.
fn remove_log_links(layout: &Layout) -> Result<()> {
    let all = fs::read_dir(CONTAINER_LOGS).into_iter().flatten().flatten().map(|e| e.path());
    let ours: Vec<_> = all.filter(|l| fs::read_link(l).is_ok_and(|target| target.starts_with(&layout.base))).collect();
    for link in &ours {
        fs::remove_file(link).with_context(|| format!("remove {}", link.display()))?;
    }
    if !ours.is_empty() {
        // It stays where somebody else's links are in it.
        let _ = fs::remove_dir(CONTAINER_LOGS);
    }
    Ok(())
}

fn remove_cgroups(prefix: &str) -> Result<()> {
    let tops = fs::read_dir("/sys/fs/cgroup")?.flatten().map(|e| e.path()).filter(|p| p.is_dir() && !p.is_symlink());
    for top in tops.chain([Path::new("/sys/fs/cgroup").to_owned()]) {
        let ours = fs::read_dir(&top).into_iter().flatten().flatten();
        for folder in ours.filter(|e| e.file_name().to_string_lossy().starts_with(&format!("{prefix}-"))) {
            remove_tree(&folder.path()).with_context(|| format!("remove cgroup {}", folder.path().display()))?;
        }
    }
    Ok(())
}

/// Cgroups are removed from the leaves up; the files in them are the kernel's.
fn remove_tree(dir: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(dir)?.flatten().filter(|e| e.path().is_dir()) {
        remove_tree(&entry.path())?;
    }
    fs::remove_dir(dir)
}
