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
//! | `unit` | stands in for systemd |

mod critest;
pub mod evidence;
pub mod ginkgo;
pub mod lists;
pub mod output;
pub mod report;
pub mod slice;
pub mod suite;
pub mod table;
pub mod unit;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
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
    /// Those whose name has this text; their namespaces stay.
    Focus(String),
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

/// Where a cluster of this checkout is.
#[must_use]
pub fn layout(against: Against) -> Layout {
    let mut hasher = DefaultHasher::new();
    (checkout(), against.to_string()).hash(&mut hasher);
    let id = format!("c{:04x}", hasher.finish() & 0xffff);
    // Its name is in the path, by which an audit of another cluster knows whose mounts these are.
    let base = checkout().join(".cache/conformance").join(format!("kl-{id}-{against}"));
    Layout::new(id, base)
}

/// Builds what is missing, starts the cluster, runs the suite, compares, and ends the cluster.
///
/// # Errors
/// When something does not start; red tests are no error.
pub fn run(request: &Request, progress: &mut dyn Progress) -> Result<Conclusion> {
    let upstream = Upstream::build()?;
    if request.suite == Suite::Cri {
        let dir = fresh_results(request)?;
        let passing = expected(request)?;
        let due = due(request, &passing)?;
        let outcomes = critest::run(request, &upstream, &dir, progress)?;
        return conclude(request, passing, &due, outcomes, dir);
    }
    let cluster = cluster(request, &upstream, progress)?;
    let outcome = judge(request, &upstream, &cluster, progress);
    let left = if request.keep {
        progress.note(&format!("the cluster stays: export KUBECONFIG={}", cluster.layout.admin_conf().display()));
        Vec::new()
    } else {
        // Tests may have started its agent anew.
        Cluster::adopt(cluster.layout.clone())?.unwrap_or(cluster).down(progress)?
    };
    let mut conclusion = outcome?;
    conclusion.left = left;
    Ok(conclusion)
}

/// Ends a cluster that was kept, or that an interrupted run left; answers what is left of it, `None` where there was none.
///
/// # Errors
/// When something refuses to go.
pub fn down(against: Against, progress: &mut dyn Progress) -> Result<Option<Vec<String>>> {
    Cluster::adopt(layout(against))?.map(|cluster| cluster.down(progress)).transpose()
}

fn cluster(request: &Request, upstream: &Upstream, progress: &mut dyn Progress) -> Result<Cluster> {
    let layout = layout(request.against);
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
        options.containerd = Some(upstream.debian.join("containerd"));
    }
    let logs = layout.base.join("log");
    Cluster::up(layout, options, progress)
        .with_context(|| format!("the cluster did not start; its logs are in {}", logs.display()))
}

fn judge(request: &Request, upstream: &Upstream, cluster: &Cluster, progress: &mut dyn Progress) -> Result<Conclusion> {
    let passing = expected(request)?;
    let due = due(request, &passing)?;
    let dir = fresh_results(request)?;
    let mut outcomes = Vec::new();
    for run in runs(request, &due, cluster, &dir)? {
        outcomes.extend(run.run(upstream, progress)?);
    }
    for red in outcomes.iter().filter(|o| o.verdict == Verdict::Fail) {
        evidence::gather(cluster, red, &dir.join("red"))?;
    }
    // What the list has and is red, or did not end, has a second chance: these machines are shared.
    let mut again = passing.compare(&outcomes).red;
    again.extend(unended(&due, &outcomes));
    if !again.is_empty() {
        let what = format!("{} red test(s) of the list once more", again.len());
        let mut second = named(request, cluster, &what, &again, &dir.join("again"))?;
        if let Selection::Slice(budget, _) = request.selection {
            second.timeout = budget * 4;
        }
        outcomes.extend(second.run(upstream, progress)?);
    }
    conclude(request, passing, &due, outcomes, dir)
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
    if request.against == Against::Stock && matches!(&request.selection, Selection::All(stages) if stages.len() == 2) {
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
        Selection::All(stages) => passing.0.keys().filter(|n| stages.contains(&Stage::of(n))).cloned().collect(),
        Selection::Focus(text) => passing.0.keys().filter(|n| n.contains(text.as_str())).cloned().collect(),
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

/// The calls of ginkgo that a request is made of.
fn runs(request: &Request, due: &[String], cluster: &Cluster, dir: &Path) -> Result<Vec<Run>> {
    Ok(match &request.selection {
        Selection::All(stages) => {
            stages.iter().map(|s| part(request, cluster, *s, &dir.join(s.to_string()))).collect::<Result<_>>()?
        }
        Selection::Focus(text) => {
            let what = format!("tests with {text:?} in their name");
            let mut run = named(request, cluster, &what, &[], &dir.join("focus"))?;
            run.focus = vec![ginkgo::part(text)];
            // The namespace of a red test stays, so that its state can be gathered.
            run.flags.push("--delete-namespace-on-failure=false".into());
            vec![run]
        }
        Selection::Slice(budget, _) => {
            let what = format!("a slice of {} tests that pass", due.len());
            let mut run = named(request, cluster, &what, due, &dir.join("slice"))?;
            // Red tests take long. What is not reached is red, too, and has its second chance.
            run.timeout = *budget * 4;
            vec![run]
        }
    })
}

/// A run of the tests that have these names.
fn named(request: &Request, cluster: &Cluster, what: &str, names: &[String], dir: &Path) -> Result<Run> {
    let mut run = part(request, cluster, Stage::Parallel, dir)?;
    run.what = what.to_owned();
    run.labels = String::new();
    run.focus = names.iter().map(|name| ginkgo::exactly(name)).collect();
    Ok(run)
}

fn part(request: &Request, cluster: &Cluster, stage: Stage, dir: &Path) -> Result<Run> {
    let (suite, against) = (request.suite, request.against);
    let what = match stage {
        Stage::Parallel => "in parallel",
        Stage::Serial => "what is slow, and what runs alone",
    };
    let upstream = cluster.upstream()?;
    let (program, flags, netns, path) = match suite {
        Suite::Node | Suite::Conformance => (upstream.program("e2e.test"), cluster_flags(cluster)?, None, None),
        Suite::Cri => bail!("SUITE=cri needs no cluster"),
        Suite::E2eNode => {
            let program = upstream.program("e2e_node.test");
            let stand_ins = unit::stand_ins(&dir.with_extension("machine"), &cluster.layout, against, &program)?;
            // It asks the node's own ports at localhost.
            let netns = Some(cluster.layout.host("n1").netns_path());
            (stand_ins.program, node_flags(cluster)?, netns, Some(stand_ins.bin))
        }
    };
    Ok(Run {
        what: format!("SUITE={suite} AGAINST={against}, {what}"),
        program,
        flags,
        labels: suite.labels(stage),
        focus: Vec::new(),
        // ginkgo itself runs alone what is labelled Serial.
        processes: request.processes,
        timeout: HOURS,
        netns,
        path,
        dir: dir.to_owned(),
    })
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
fn node_flags(cluster: &Cluster) -> Result<Vec<String>> {
    let kubectl = cluster.kubectl();
    let (namespace, name) = ("kube-system", "e2e-node");
    if kubectl.say(&format!("get serviceaccount {name} -n {namespace}")).is_err() {
        kubectl.say(&format!("create serviceaccount {name} -n {namespace}"))?;
        let binding =
            format!("create clusterrolebinding {name} --clusterrole=cluster-admin --serviceaccount={namespace}:{name}");
        kubectl.say(&binding)?;
    }
    let token = kubectl.say(&format!("create token {name} -n {namespace} --duration=12h"))?;
    let host = cluster.layout.host("n1");
    // Unlike test/e2e it takes -h of -host for help.
    Ok(vec![
        format!("--host=https://{}:6443", cluster.lan.master()),
        format!("--bearer-token={}", token.trim()),
        format!("--node-name={}", host.name),
        format!("--container-runtime-endpoint={}", host.endpoint()),
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
        Selection::Focus(_) => format!("{name}-focus"),
        Selection::Slice(..) => format!("slice-{}", request.against),
    };
    checkout().join(".cache/conformance/results").join(folder)
}

/// What stock made of a suite on this machine, for all checkouts.
fn stock_table(suite: Suite) -> Result<PathBuf> {
    Ok(Upstream::cache()?.join("results").join(format!("{suite}-{}.tsv", Against::Stock)))
}
