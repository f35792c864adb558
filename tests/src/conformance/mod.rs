//! `make conformance`: upstream's own tests against a cluster whose halves are ours or stock, one table, and the ratchet.
//!
//! | file | does |
//! |---|---|
//! | `suite` | which tests, which cluster |
//! | `ginkgo` | runs the suite and follows it |
//! | `critest` | the suite that needs no cluster |
//! | `output`, `report` | read what comes out, meanwhile and in the end |
//! | `lists` | what passes, what cannot pass on this machine |
//! | `slice` | chooses a part for CI |
//! | `table` | results beside stock's, totals |
//! | `evidence` | gathers the logs of a red test |
//! | `machine` | the suite on a virtual machine with systemd |

mod critest;
pub mod evidence;
pub mod ginkgo;
pub mod lists;
mod machine;
pub mod output;
pub mod report;
pub mod slice;
pub mod suite;
pub mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;

use crate::harness::cluster::Progress;
use crate::harness::images::checkout;
use crate::harness::upstream::Upstream;
use crate::harness::{Cluster, Layout, Options};
use ginkgo::Run;
use lists::{Change, Passing, Reasons};
use machine::Site;
use report::{Outcome, Verdict};
use suite::{Against, Stage, Suite};
use table::Rows;

/// Many tests expect two.
const NODES: u8 = 2;
/// Longer than any suite takes.
const HOURS: Duration = Duration::from_secs(12 * 3600);

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Request {
    pub suite: Suite,
    pub against: Against,
    pub selection: Selection,
    /// How many tests at a time. They wait more than they work.
    pub processes: u8,
    /// Add what passes to the list.
    pub update: bool,
    /// Leave the cluster, and use one that was left.
    pub keep: bool,
    /// containerd 2 rather than the machine's own.
    pub containerd2: bool,
}

/// Which tests of the suite.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// One stage after the other.
    All(Vec<Stage>),
    /// Those whose name has this text, where tests of this stage run; their namespaces stay.
    Focus(String, Stage),
    /// A part of what passes of both suites of test/e2e that takes about this long: the one whose turn it is, or this one.
    Slice(Duration, Option<u64>),
}

/// What came out.
#[derive(Debug)]
pub struct Conclusion {
    pub rows: Rows,
    pub stock: Option<Rows>,
    pub change: Change,
    /// The table, the logs, and a folder for each red test are here.
    pub dir: PathBuf,
    /// Why the first red tests are red: name, message.
    pub failures: Vec<(String, String)>,
    /// What the cluster left behind although it should not.
    pub left: Vec<String>,
}

/// Where a cluster of this checkout is; that of a virtual machine is another one, for both may be there.
#[must_use]
pub fn layout(against: Against, machine: bool) -> Layout {
    let name = format!("{against}{}", if machine { "-machine" } else { "" });
    let mut hasher = DefaultHasher::new();
    (checkout(), &name).hash(&mut hasher);
    let id = format!("c{:04x}", hasher.finish() & 0xffff);
    // Its name is in the path, by which an audit of another cluster knows whose mounts these are.
    let base = checkout().join(".cache/conformance").join(format!("kl-{id}-{name}"));
    Layout::new(id, base)
}

/// Builds what is missing, starts the clusters, runs the suite, compares, and ends the clusters.
///
/// # Errors
/// When something does not start; red tests are no error.
pub fn run(request: &Request, progress: &mut dyn Progress) -> Result<Conclusion> {
    let upstream = Upstream::build()?;
    let passing = expected(request)?;
    let due = due(request, &passing)?;
    let dir = fresh_results(request)?;
    if request.suite == Suite::Cri {
        let outcomes = critest::run(request, &upstream, &dir, progress)?;
        return conclude(request, passing, &due, outcomes, dir);
    }
    let (mut outcomes, mut left) = (Vec::new(), Vec::new());
    for on_machine in [false, true] {
        if !request.selection.is_on(on_machine) {
            continue;
        }
        let ground = Ground::up(request, on_machine, &upstream, progress)?;
        let judged = judge(request, &upstream, &ground, (&passing, &due, &dir), progress);
        left.extend(ground.down(request, progress)?);
        outcomes.extend(judged?);
    }
    let mut conclusion = conclude(request, passing, &due, outcomes, dir)?;
    conclusion.left = left;
    Ok(conclusion)
}

/// Ends clusters that were kept, or that an interrupted run left; answers what is left of them.
///
/// # Errors
/// When something refuses to go.
pub fn down(against: Against, progress: &mut dyn Progress) -> Result<Vec<String>> {
    let mut left = Vec::new();
    for on_machine in [false, true] {
        if let Some(cluster) = Cluster::adopt(layout(against, on_machine))? {
            left.extend(cluster.down(progress)?);
        }
    }
    Ok(left)
}

impl Selection {
    /// Whether some of it runs on a virtual machine, or some of it on hosts that are namespaces.
    fn is_on(&self, machine: bool) -> bool {
        match self {
            Self::All(stages) => stages.iter().any(|stage| stage.is_on_machine() == machine),
            Self::Focus(_, stage) => stage.is_on_machine() == machine,
            Self::Slice(..) => !machine,
        }
    }
}

/// Where tests run.
enum Ground {
    /// Hosts that are namespaces of this machine.
    Hosts(Box<Cluster>),
    Machine(Box<Site>),
}

impl Ground {
    fn up(request: &Request, on_machine: bool, upstream: &Upstream, progress: &mut dyn Progress) -> Result<Self> {
        let layout = layout(request.against, on_machine);
        let logs = layout.base.join("log");
        let ground = if on_machine {
            site(layout, request, upstream, progress).map(Box::new).map(Self::Machine)
        } else {
            hosts(layout, request, upstream, progress).map(Box::new).map(Self::Hosts)
        };
        ground.with_context(|| format!("the cluster did not start; its logs are in {}", logs.display()))
    }

    fn cluster(&self) -> &Cluster {
        match self {
            Self::Hosts(cluster) => cluster,
            Self::Machine(site) => &site.cluster,
        }
    }

    fn run(&self, run: &Run, upstream: &Upstream, progress: &mut dyn Progress) -> Result<Vec<Outcome>> {
        match self {
            Self::Hosts(_) => run.run(upstream, progress),
            Self::Machine(site) => site.run(run, progress),
        }
    }

    /// Ends the cluster, unless it is to stay; answers what is left of it.
    fn down(self, request: &Request, progress: &mut dyn Progress) -> Result<Vec<String>> {
        if request.keep {
            let config = self.cluster().layout.admin_conf();
            progress.note(&format!("the cluster stays: export KUBECONFIG={}", config.display()));
            if let Self::Machine(site) = self {
                site.leave();
            }
            return Ok(Vec::new());
        }
        match self {
            Self::Hosts(cluster) => cluster.down(progress),
            Self::Machine(site) => site.down(progress),
        }
    }
}

fn site(layout: Layout, request: &Request, upstream: &Upstream, progress: &mut dyn Progress) -> Result<Site> {
    match Site::adopt(layout.clone(), progress)? {
        Some(site) if request.keep => return Ok(site),
        Some(stale) => drop(stale.down(progress)?),
        None => {}
    }
    Site::up(layout, request, upstream, progress)
}

fn hosts(layout: Layout, request: &Request, upstream: &Upstream, progress: &mut dyn Progress) -> Result<Cluster> {
    let nodes = if request.suite == Suite::E2eNode { 1 } else { NODES };
    match Cluster::adopt(layout.clone())? {
        Some(cluster) if request.keep && cluster.healthy() && cluster.nodes() == nodes => return Ok(cluster),
        Some(stale) => drop(stale.down(progress)?),
        None => {}
    }
    let (control_plane, workers) = request.against.parts();
    let mut options = Options::nodes(nodes);
    options.control_plane = control_plane;
    options.workers = workers;
    options.suite = true;
    options.upstream = Some(upstream.clone());
    if request.suite == Suite::E2eNode {
        // Its tests write static pods, and read metrics without credentials.
        let manifests = layout.host("n1").dir().join("static-pods");
        std::fs::create_dir_all(&manifests).with_context(|| format!("create {}", manifests.display()))?;
        options.kubelet = [("staticPodPath".into(), json!(manifests)), ("readOnlyPort".into(), json!(10255))].into();
    }
    if request.containerd2 {
        options.containerd = Some(upstream.containerd.clone());
    }
    Cluster::up(layout, options, progress)
}

/// Runs what of the request runs on this ground; `told` are the list, what of it is due, and the folder of results.
fn judge(
    request: &Request,
    upstream: &Upstream,
    ground: &Ground,
    (passing, due, dir): (&Passing, &[String], &Path),
    progress: &mut dyn Progress,
) -> Result<Vec<Outcome>> {
    let mut outcomes = Vec::new();
    for run in runs(request, due, ground, dir)? {
        outcomes.extend(ground.run(&run, upstream, progress)?);
    }
    for red in outcomes.iter().filter(|o| o.verdict == Verdict::Fail) {
        evidence::gather(ground.cluster(), red, &dir.join("red"))?;
    }
    // What the list has and is red, or did not end, has a second chance: these machines are shared.
    let mut again = passing.compare(&outcomes).red;
    again.extend(unended(&here(request, due, ground), &outcomes));
    if !again.is_empty() {
        let what = format!("{} red test(s) of the list once more", again.len());
        let mut second = named(request, ground, &what, &again, &dir.join("again"))?;
        if let Selection::Slice(budget, _) = request.selection {
            second.timeout = budget * 4;
        }
        outcomes.extend(ground.run(&second, upstream, progress)?);
    }
    Ok(outcomes)
}

/// What of the tests that are due runs on this ground.
fn here(request: &Request, due: &[String], ground: &Ground) -> Vec<String> {
    let on_machine = matches!(ground, Ground::Machine(_));
    let is_here = |name: &&String| match request.selection {
        Selection::All(_) => Stage::of(request.suite, name).is_on_machine() == on_machine,
        Selection::Focus(..) | Selection::Slice(..) => true,
    };
    due.iter().filter(is_here).cloned().collect()
}

/// Compares what ran with the lists, and writes table and list.
fn conclude(
    request: &Request,
    mut passing: Passing,
    due: &[String],
    outcomes: Vec<Outcome>,
    dir: PathBuf,
) -> Result<Conclusion> {
    ensure!(!outcomes.is_empty(), "no test ran: is there one with this name? The log is below {}", dir.display());
    let not_here = Reasons::not_here()?;
    let rows = table::rows(&outcomes, &not_here);
    let last = latest(outcomes);
    let mut change = passing.compare(&last);
    change.red.extend(unended(due, &last));
    if request.update {
        passing.add(&last);
        passing.write(&lists::path(request.suite, request.against))?;
    }
    let stock = table::load(&stock_table(request.suite)?)?;
    table::save(&dir.join("table.tsv"), &rows, stock.as_ref())?;
    if request.against == Against::Stock && matches!(&request.selection, Selection::All(stages) if stages.len() > 1) {
        table::save(&stock_table(request.suite)?, &rows, None)?;
    }
    let red = |o: &&Outcome| o.verdict == Verdict::Fail && !not_here.0.contains_key(&o.name);
    let failures = last.iter().filter(red).map(|o| (o.name.clone(), o.message.clone()));
    Ok(Conclusion { rows, stock, change, failures: failures.collect(), dir, left: Vec::new() })
}

/// The folder of a request's results, with nothing in it.
fn fresh_results(request: &Request) -> Result<PathBuf> {
    let dir = results(request);
    if dir.exists() {
        std::fs::remove_dir_all(&dir).with_context(|| format!("remove {}", dir.display()))?;
    }
    Ok(dir)
}

/// What is on the list.
fn expected(request: &Request) -> Result<Passing> {
    let read = |suite| Passing::read(&lists::path(suite, request.against));
    if let Selection::Slice(..) = request.selection {
        let mut both = read(Suite::Conformance)?;
        both.0.extend(read(Suite::Node)?.0);
        return Ok(both);
    }
    read(request.suite)
}

/// What is on the list and is to run.
fn due(request: &Request, passing: &Passing) -> Result<Vec<String>> {
    Ok(match &request.selection {
        Selection::All(stages) => {
            passing.0.keys().filter(|n| stages.contains(&Stage::of(request.suite, n))).cloned().collect()
        }
        Selection::Focus(text, _) => passing.0.keys().filter(|n| n.contains(text.as_str())).cloned().collect(),
        Selection::Slice(budget, turn) => {
            let mut wish = slice::Wish::of_checkout(*budget, request.processes)?;
            wish.turn = turn.unwrap_or(wish.turn);
            let names = slice::choose(passing, &Reasons::unsteady()?, &wish);
            ensure!(!names.is_empty(), "nothing is on the lists of what passes against {}", request.against);
            names
        }
    })
}

/// Tests that were to run and have no result: a process of the suite died under them.
fn unended(due: &[String], outcomes: &[Outcome]) -> Vec<String> {
    let ended: BTreeSet<&str> = outcomes.iter().map(|o| o.name.as_str()).collect();
    due.iter().filter(|name| !ended.contains(name.as_str())).cloned().collect()
}

/// Of tests that ran twice, the second run.
fn latest(outcomes: Vec<Outcome>) -> Vec<Outcome> {
    let mut by_name = BTreeMap::new();
    for outcome in outcomes {
        by_name.insert(outcome.name.clone(), outcome);
    }
    by_name.into_values().collect()
}

/// The calls of ginkgo that a request is made of on this ground.
fn runs(request: &Request, due: &[String], ground: &Ground, dir: &Path) -> Result<Vec<Run>> {
    let on_machine = matches!(ground, Ground::Machine(_));
    Ok(match &request.selection {
        Selection::All(stages) => stages
            .iter()
            .filter(|stage| stage.is_on_machine() == on_machine)
            .map(|stage| part(request, ground, *stage, &dir.join(stage.to_string())))
            .collect::<Result<_>>()?,
        Selection::Focus(text, _) => {
            let what = format!("tests with {text:?} in their name");
            let mut run = named(request, ground, &what, &[], &dir.join("focus"))?;
            run.focus = vec![ginkgo::part(text)];
            // The namespace of a red test stays, so that its state can be gathered.
            run.flags.push("--delete-namespace-on-failure=false".into());
            vec![run]
        }
        Selection::Slice(budget, _) => {
            let what = format!("a slice of {} tests that pass", due.len());
            let mut run = named(request, ground, &what, due, &dir.join("slice"))?;
            // Red tests take long. What is not reached is red, too, and has its second chance.
            run.timeout = *budget * 4;
            vec![run]
        }
    })
}

/// A run of the tests that have these names.
fn named(request: &Request, ground: &Ground, what: &str, names: &[String], dir: &Path) -> Result<Run> {
    let mut run = part(request, ground, Stage::Parallel, dir)?;
    run.what = what.to_owned();
    run.labels = String::new();
    run.skip = Vec::new();
    run.focus = names.iter().map(|name| ginkgo::exactly(name)).collect();
    Ok(run)
}

fn part(request: &Request, ground: &Ground, stage: Stage, dir: &Path) -> Result<Run> {
    let (suite, against) = (request.suite, request.against);
    let what = match stage {
        Stage::Parallel => "in parallel",
        Stage::Serial => "what is slow, and what runs alone",
        Stage::Machine => "what restarts units of systemd, on a virtual machine",
    };
    let (focus, skip) = on_a_machine(suite, stage);
    let mut run = Run {
        what: format!("SUITE={suite} AGAINST={against}, {what}"),
        program: PathBuf::new(),
        flags: Vec::new(),
        labels: suite.labels(stage),
        focus,
        skip,
        // ginkgo itself runs alone what is labelled Serial.
        processes: request.processes,
        timeout: HOURS,
        netns: None,
        dir: dir.to_owned(),
    };
    match (ground, suite) {
        (_, Suite::Cri) => bail!("SUITE=cri needs no cluster"),
        (Ground::Hosts(cluster), Suite::Node | Suite::Conformance | Suite::NodeFeatures) => {
            run.program = cluster.upstream()?.program("e2e.test");
            run.flags = cluster_flags(cluster)?;
        }
        (Ground::Hosts(cluster), Suite::E2eNode) => {
            let host = cluster.layout.host("n1");
            run.program = with_folder(&cluster.upstream()?.program("e2e_node.test"), &dir.with_extension("work"))?;
            run.flags = node_flags(cluster, &host.name, &host.endpoint())?;
            // It asks the node's own ports at localhost.
            run.netns = Some(host.netns_path());
        }
        (Ground::Machine(site), _) => {
            run.program = Site::suite();
            run.flags = node_flags(&site.cluster, site.node(), "unix:///run/containerd/containerd.sock")?;
            // Emulated, it has enough to do with one.
            run.processes = 1;
        }
    }
    Ok(run)
}

/// Which tests are meant in a stage, and which are not, where some run on a virtual machine.
fn on_a_machine(suite: Suite, stage: Stage) -> (Vec<String>, Vec<String>) {
    let names: Vec<String> = suite.on_a_machine().iter().map(|name| ginkgo::part(name)).collect();
    match stage {
        Stage::Parallel | Stage::Serial => (suite.part_of_names().map(ginkgo::part).into_iter().collect(), names),
        Stage::Machine => (names, Vec::new()),
    }
}

/// A suite that writes into the folder that it is in, in one of its own.
fn with_folder(program: &Path, dir: &Path) -> Result<PathBuf> {
    let link = dir.join(program.file_name().unwrap_or_default());
    std::fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
    if !link.is_symlink() {
        symlink(program, &link).with_context(|| format!("link {}", link.display()))?;
    }
    Ok(link)
}

fn cluster_flags(cluster: &Cluster) -> Result<Vec<String>> {
    Ok(vec![
        format!("-kubeconfig={}", cluster.layout.admin_conf().display()),
        "-provider=local".into(),
        "-dns-domain=cluster.local".into(),
        format!("-num-nodes={}", cluster.nodes()),
        // Not the kubectl that is in PATH.
        format!("-kubectl-path={}", cluster.upstream()?.program("kubectl").display()),
        "-disable-log-dump".into(),
    ])
}

/// test/e2e_node against a node that runs already: it starts neither an API server nor a kubelet. It knows tokens only, and needs every right.
fn node_flags(cluster: &Cluster, node: &str, endpoint: &str) -> Result<Vec<String>> {
    let kubectl = cluster.kubectl();
    let (namespace, name) = ("kube-system", "e2e-node");
    if kubectl.say(&format!("get serviceaccount {name} -n {namespace}")).is_err() {
        kubectl.say(&format!("create serviceaccount {name} -n {namespace}"))?;
        let binding =
            format!("create clusterrolebinding {name} --clusterrole=cluster-admin --serviceaccount={namespace}:{name}");
        kubectl.say(&binding)?;
    }
    let token = kubectl.say(&format!("create token {name} -n {namespace} --duration=12h"))?;
    // Unlike test/e2e it takes -h of -host for help.
    Ok(vec![
        format!("--host=https://{}:6443", cluster.lan.master()),
        format!("--bearer-token={}", token.trim()),
        format!("--node-name={node}"),
        format!("--container-runtime-endpoint={endpoint}"),
        "--start-services=false".into(),
        "--prepull-images=false".into(),
        "--dns-domain=cluster.local".into(),
    ])
}

/// Where results of a request are, in this checkout.
fn results(request: &Request) -> PathBuf {
    let name = format!("{}-{}", request.suite, request.against);
    let folder = match &request.selection {
        Selection::All(stages) => match stages.as_slice() {
            [one] => format!("{name}-{one}"),
            _ => name,
        },
        Selection::Focus(..) => format!("{name}-focus"),
        Selection::Slice(..) => format!("slice-{}", request.against),
    };
    checkout().join(".cache/conformance/results").join(folder)
}

/// What stock made of a suite on this machine, for all checkouts.
fn stock_table(suite: Suite) -> Result<PathBuf> {
    Ok(Upstream::cache()?.join("results").join(format!("{suite}-{}.tsv", Against::Stock)))
}
