//! One run: a section, of one side, in a cluster of its own that is gone afterwards.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::kbench::{self, Kbench};
use super::{Figures, Section, Side, Sizes, cni, control, flat, node, proxy};
use crate::harness::cluster::{Part, Progress};
use crate::harness::process::Process;
use crate::harness::shell::{output, run};
use crate::harness::upstream::Upstream;
use crate::harness::{Cluster, Layout, Options, host, images};

/// What all runs share.
#[derive(Debug, Clone)]
pub struct Tools {
    pub kbench: Kbench,
    pub sizes: Sizes,
    pub layout: Layout,
    /// The stock components, where ours is measured beside them.
    upstream: Option<Upstream>,
}

impl Tools {
    /// Builds what is needed: the client and, to measure beside them, the stock components.
    ///
    /// # Errors
    /// When something is missing or does not build.
    pub fn prepare(sizes: Sizes, beside: bool) -> Result<Self> {
        let upstream = beside.then(Upstream::build).transpose()?;
        Ok(Self { kbench: Kbench::build()?, upstream, sizes, layout: layout() })
    }

    /// What figures depend on beside the machine, as words.
    ///
    /// # Errors
    /// When a program is not there.
    pub fn programs(&self) -> Result<Vec<String>> {
        let ours = ["agent", "master", "cni-plugins", "hello"].map(|name| images::bin_dir().join(name));
        let sums = run("sha256sum", ours.iter().chain([&self.kbench.program])).context("run `make build` first")?;
        Ok(vec![sums, serde_json::to_string(&self.sizes)?, serde_json::to_string(&self.upstream)?])
    }

    /// The versions of all that takes part.
    ///
    /// # Errors
    /// When a program does not say.
    pub fn versions(&self) -> Result<Vec<String>> {
        let checkout = images::checkout();
        let git = |args: &[&str]| output(Command::new("git").current_dir(&checkout).args(args));
        let commit = git(&["rev-parse", "--short", "HEAD"])?;
        let changed = !git(&["status", "--porcelain", "--", ".", ":!docs"])?.is_empty();
        let mut versions = vec![format!("Keelson {}{}", commit.trim(), if changed { " with changes" } else { "" })];
        if let Some(upstream) = &self.upstream {
            versions.push(first_line(&upstream.program("kubelet"))?);
            versions.push(first_line(&upstream.program("etcd"))?.replace(" Version:", ""));
        }
        let tools = self.containerd();
        // What a folder does not have is found in PATH.
        let program =
            |name: &str| tools.as_ref().map(|dir| dir.join(name)).filter(|p| p.exists()).unwrap_or(name.into());
        let containerd = first_line(&program("containerd"))?;
        versions.push(format!("containerd {}", containerd.split_whitespace().nth(2).map_or("?", bare)));
        versions.push(bare(&first_line(&program("runc"))?).replace(" version", ""));
        Ok(versions)
    }

    /// The containerd that all sides have: the one that came with the stock components, if there are some.
    fn containerd(&self) -> Option<PathBuf> {
        let given = std::env::var_os("KEELSON_CONTAINERD").map(PathBuf::from);
        given.or_else(|| Some(self.upstream.as_ref()?.containerd.clone()))
    }

    fn options(&self, side: Side, nodes: u8) -> Options {
        let part = match side {
            Side::Ours => Part::Ours,
            Side::Stock => Part::Stock,
        };
        Options {
            control_plane: part,
            workers: part,
            upstream: self.upstream.clone(),
            containerd: self.containerd(),
            ..Options::nodes(nodes)
        }
    }

    /// Measures a section of a side.
    ///
    /// # Errors
    /// When the side does not start or does not do what is measured. Its cluster then stays for a look; [`clear`] removes it.
    pub fn run(&self, section: Section, side: Side, progress: &mut dyn Progress) -> Result<Figures> {
        clear(progress)?;
        match section {
            Section::Node => self.in_cluster(side, 1, progress, node::measure),
            Section::Control => self.in_cluster(side, 0, progress, control::measure),
            Section::Proxy => self.in_cluster(side, 1, progress, proxy::measure),
            Section::Flat => self.in_cluster(side, 1, progress, flat::measure),
            Section::Cni => cni::measure(self, side, progress),
        }
    }

    fn in_cluster(&self, side: Side, nodes: u8, progress: &mut dyn Progress, measure: Measure) -> Result<Figures> {
        let logs = || format!("the logs of {side} are in {}", self.layout.base.join("log").display());
        let mut cluster = Cluster::up(self.layout.clone(), self.options(side, nodes), progress).with_context(logs)?;
        let mut bench = Bench { side, cluster: &mut cluster, kbench: &self.kbench, sizes: &self.sizes };
        let figures = measure(&mut bench, progress).with_context(logs)?;
        end(cluster, side, progress)?;
        Ok(figures)
    }
}

/// Ends a cluster that has nothing to save, and is not asked to take its time.
fn end(cluster: Cluster, side: Side, progress: &mut dyn Progress) -> Result<()> {
    for name in side.control_parts().iter().chain(side.node_parts()) {
        if let Ok(process) = cluster.process(name) {
            process.kill()?;
        }
    }
    let marks = [cluster.layout.prefix(), cluster.layout.run().display().to_string()];
    let left = cluster.down(progress)?;
    // Other clusters may have come to this machine meanwhile.
    let ours: Vec<_> = left.iter().filter(|line| marks.iter().any(|mark| line.contains(mark))).collect();
    ensure!(ours.is_empty(), "left behind by {side}: {ours:?}");
    Ok(())
}

/// A version without the distribution's own.
fn bare(version: &str) -> &str {
    version.split(['~', '+']).next().unwrap_or(version)
}

/// What a program answers to `--version`, without its details.
fn first_line(program: &Path) -> Result<String> {
    let said = output(Command::new(program).arg("--version"))?;
    Ok(said.lines().next().unwrap_or_default().to_owned())
}

type Measure = fn(&mut Bench<'_>, &mut dyn Progress) -> Result<Figures>;

/// The bench's cluster in this checkout. Another checkout's has another name.
fn layout() -> Layout {
    let base = images::checkout().join(".cache/bench/cluster");
    let mut hasher = DefaultHasher::new();
    base.hash(&mut hasher);
    Layout::new(format!("b{:04x}", hasher.finish() & 0xffff), base)
}

/// Removes what an interrupted or failed run left.
///
/// # Errors
/// When something refuses to go.
pub fn clear(progress: &mut dyn Progress) -> Result<()> {
    match Cluster::adopt(layout())? {
        Some(cluster) => cluster.down(progress).map(drop).context("remove what an interrupted run left"),
        // The plugins are called without a cluster, in namespaces named as its hosts are.
        None => host::remove(&layout()),
    }
}

/// A side that runs and is to be measured.
pub struct Bench<'a> {
    pub side: Side,
    pub cluster: &'a mut Cluster,
    pub kbench: &'a Kbench,
    pub sizes: &'a Sizes,
}

impl Bench<'_> {
    /// Runs kbench as an administrator.
    pub(super) fn ask(&self, args: &[&str]) -> Result<Figures> {
        self.kbench.run(&self.cluster.layout.admin_conf(), args)
    }

    /// A command that runs kbench in the network of the worker machine, with its address.
    pub(super) fn inside(&self, args: &[&str]) -> Command {
        let mut command = self.cluster.inside("n1", &self.kbench.program.to_string_lossy());
        command.args(args).args(["-address", &self.cluster.lan.worker(1).to_string(), "-kubeconfig"]);
        command.arg(self.cluster.layout.admin_conf());
        command
    }

    pub(super) fn ask_inside(&self, args: &[&str]) -> Result<Figures> {
        kbench::read(&output(&mut self.inside(args))?)
    }

    pub(super) fn processes(&self, names: &[&str]) -> Result<Vec<Process>> {
        names.iter().map(|name| self.cluster.process(name).cloned()).collect()
    }
}

/// Where a side's CNI plugins are; ours are put there first.
pub(super) fn plugins(tools: &Tools, side: Side, dir: &Path) -> Result<PathBuf> {
    match side {
        Side::Ours => {
            // One program, which does what its name says.
            fs::create_dir_all(dir)?;
            for name in ["loopback", "bridge", "host-local", "portmap"] {
                symlink(images::bin_dir().join("cni-plugins"), dir.join(name))
                    .with_context(|| format!("link {name}"))?;
            }
            Ok(dir.to_owned())
        }
        Side::Stock => {
            Ok(tools.upstream.as_ref().context("the reference plugins come with the stock components")?.program("cni"))
        }
    }
}
