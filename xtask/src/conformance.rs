//! `make conformance`: runs upstream's tests and prints the table.

use std::time::Duration;

use anyhow::{Result, bail};
use clap::builder::FalseyValueParser;
use keelson_tests::conformance::suite::{Against, Stage, Suite};
use keelson_tests::conformance::{self, Conclusion, Request, Selection, table};

use crate::show::Show;

/// How many newly green tests are named.
const SHOWN: usize = 20;
/// How much of a failure's message is printed.
const LINE: usize = 180;

#[derive(clap::Args)]
pub struct Options {
    /// node, conformance, node-features, e2e-node or cri
    #[arg(long, env = "SUITE", default_value = "node")]
    suite: Suite,
    /// ours, stock, stock+agent or master+kubelet
    #[arg(long, env = "AGAINST", default_value = "ours")]
    against: Against,
    /// Only tests whose name has this text; their namespaces stay until the cluster goes
    #[arg(long, env = "FOCUS")]
    focus: Option<String>,
    /// Only what can run beside others (parallel), only what has to run alone (serial), or only what restarts units of systemd, on a virtual
    /// machine (machine); with FOCUS, where it runs
    #[arg(long, env = "STAGE")]
    stage: Option<Stage>,
    /// Tests at a time
    #[arg(long, env = "PROCESSES", default_value_t = 10)]
    processes: u8,
    /// Only a part of what passes, of about this many minutes
    #[arg(long, env = "SLICE", conflicts_with = "focus")]
    slice: Option<u64>,
    /// The slice of another turn than this commit's
    #[arg(long, env = "TURN", requires = "slice")]
    turn: Option<u64>,
    /// Add what passes to tests/upstream/passing
    #[arg(long, env = "UPDATE", value_parser = FalseyValueParser::new())]
    update: bool,
    /// Leave the cluster for the next run, and use the one that is there
    #[arg(long, env = "KEEP", value_parser = FalseyValueParser::new())]
    keep: bool,
    /// containerd 2 instead of the machine's own
    #[arg(long, env = "CONTAINERD2", value_parser = FalseyValueParser::new())]
    containerd2: bool,
    /// End a cluster that was kept, and nothing else
    #[arg(long)]
    down: bool,
}

pub fn conformance(options: Options) -> Result<()> {
    let mut show = Show::default();
    if options.down {
        let left = conformance::down(options.against, &mut show)?;
        show.done();
        return clean(&left);
    }
    let selection = match (options.focus.filter(|f| !f.is_empty()), options.slice) {
        (Some(text), _) => Selection::Focus(text, options.stage.unwrap_or(Stage::Parallel)),
        (None, Some(minutes)) => Selection::Slice(Duration::from_secs(minutes * 60), options.turn),
        (None, None) => {
            let all = || options.suite.stages(options.against);
            Selection::All(options.stage.map_or_else(all, |one| vec![one]))
        }
    };
    if options.stage == Some(Stage::Machine) && !options.suite.stages(options.against).contains(&Stage::Machine) {
        bail!("STAGE=machine is for SUITE=e2e-node against our agent: AGAINST=ours or stock+agent");
    }
    let request = Request {
        suite: options.suite,
        against: options.against,
        selection,
        processes: options.processes,
        update: options.update,
        keep: options.keep,
        containerd2: options.containerd2,
    };
    let conclusion = conformance::run(&request, &mut show)?;
    show.done();
    print(&request, &conclusion);
    clean(&conclusion.left)?;
    match conclusion.change.red.len() {
        0 => Ok(()),
        red => bail!("{red} test(s) of the list of what passes are red"),
    }
}

fn print(request: &Request, conclusion: &Conclusion) {
    println!("\n{}", table::render(&conclusion.rows, conclusion.stock.as_ref()));
    for (name, message) in &conclusion.failures {
        let line: String = message.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(LINE).collect();
        println!("red   {name}\n      {line}");
    }
    for name in &conclusion.change.red {
        println!("newly red    {name}");
    }
    for name in conclusion.change.green.iter().take(SHOWN) {
        println!("newly green  {name}");
    }
    if let Some(more @ 1..) = conclusion.change.green.len().checked_sub(SHOWN) {
        println!("newly green  and {more} more");
    }
    if !conclusion.change.green.is_empty() && !request.update {
        println!("Newly green tests become part of the list with UPDATE=1.");
    }
    println!("Table, logs and a folder for each red test: {}", conclusion.dir.display());
}

fn clean(left: &[String]) -> Result<()> {
    for line in left {
        println!("left behind: {line}");
    }
    if left.is_empty() { Ok(()) } else { bail!("{} thing(s) that were not there before are still there", left.len()) }
}
