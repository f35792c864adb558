//! `make bench` measures this checkout, `make bench-beside` the stock components beside it. Finished runs are kept, so that what was
//! interrupted goes on where it was.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use keelson_tests::bench::compare::compare;
use keelson_tests::bench::goals::judge;
use keelson_tests::bench::machine::Busy;
use keelson_tests::bench::page::{self, Block};
use keelson_tests::bench::run::Tools;
use keelson_tests::bench::store::{self, Finished, Run, Store};
use keelson_tests::bench::{self, Section, Side, Sizes, machine, plot, table};
use keelson_tests::harness::cluster::Progress;
use keelson_tests::harness::images::checkout;

use crate::show::Show;

/// What is measured, and how much.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// One section: node, control, proxy or cni, or flat, which is measured on request only
    #[arg(long)]
    only: Option<Section>,
    /// In each round either side is measured once; 3 for bench-beside and 1 for bench
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=20))]
    rounds: Option<u32>,
    /// Few of everything, for work on the benches: shows that they run, and nothing about speed
    #[arg(long)]
    small: bool,
    /// Measure again what is finished
    #[arg(long)]
    fresh: bool,
}

/// How many rounds the page wants at least.
const ROUNDS: u32 = 3;
/// A machine that is busier than this before a run has something else to do.
const QUIET_PERCENT: f64 = 10.0;

/// Measures ours.
pub fn alone(options: &Options) -> Result<()> {
    Session::begin(options, &[Side::Ours], options.rounds.unwrap_or(1))?.all()
}

/// Measures ours beside stock, and writes what came of it into the docs.
pub fn beside(options: &Options) -> Result<()> {
    Session::begin(options, &[Side::Stock, Side::Ours], options.rounds.unwrap_or(ROUNDS))?.all()
}

/// Removes what an interrupted measurement left.
pub fn clear() -> Result<()> {
    let mut show = Show::default();
    bench::run::clear(&mut show)?;
    show.done();
    Ok(())
}

/// One call of the command.
struct Session<'a> {
    options: &'a Options,
    sides: &'a [Side],
    rounds: u32,
    tools: Tools,
    store: Store,
    show: Show,
}

impl<'a> Session<'a> {
    fn begin(options: &'a Options, sides: &'a [Side], rounds: u32) -> Result<Self> {
        ensure!(
            nix::unistd::geteuid().is_root(),
            "benches need root: they make network namespaces, cgroups and mounts"
        );
        let sizes = if options.small { Sizes::small() } else { Sizes::full() };
        let mut show = Show::default();
        show.step("build what is measured, and what measures", 0);
        let tools = Tools::prepare(sizes, sides.contains(&Side::Stock))?;
        show.done();
        let store = Store::new(&checkout().join(".cache/bench/runs"), &(tools.programs()?, machine::describe()?));
        if options.fresh {
            store.forget()?;
        }
        Ok(Self { options, sides, rounds, tools, store, show })
    }

    fn all(mut self) -> Result<()> {
        let sections = self.options.only.map_or_else(|| Section::USUAL.to_vec(), |only| vec![only]);
        let mut missed = 0;
        for section in sections {
            for round in 1..=self.rounds {
                self.round(section, round)?;
            }
            missed += self.report(section)?;
        }
        match missed {
            0 => println!("Every goal that was measured is met."),
            missed => println!("{missed} goal(s) are missed: see the tables above."),
        }
        Ok(())
    }

    /// Which side comes first alternates, so that what changes on the machine meanwhile does not always meet the same one.
    fn round(&mut self, section: Section, round: u32) -> Result<()> {
        let mut sides = self.sides.to_vec();
        if round.is_multiple_of(2) {
            sides.reverse();
        }
        for side in sides {
            let run = Run { section, round, side };
            let title = format!("{section}, round {round} of {}, {side}", self.rounds);
            if let Some(finished) = self.store.load(run)? {
                println!("{title}: measured on {}, kept", finished.day);
                continue;
            }
            println!("{title}");
            let finished = self.measure(section, side)?;
            self.store.save(run, &finished)?;
        }
        Ok(())
    }

    fn measure(&mut self, section: Section, side: Side) -> Result<Finished> {
        // The last run may still be on its way out.
        std::thread::sleep(Duration::from_secs(1));
        let busy = Busy::now(Duration::from_secs(2))?;
        if busy.percent > QUIET_PERCENT {
            println!(
                "  {:.0} % of this machine is used by others: the figures of this run will say little",
                busy.percent
            );
        }
        let figures = self.tools.run(section, side, &mut self.show)?;
        self.show.done();
        Ok(Finished { day: jiff::Zoned::now().date().to_string(), busy, figures })
    }

    /// Prints a section and writes it to the page; answers how many goals are missed.
    fn report(&self, section: Section) -> Result<usize> {
        let rounds = self.store.rounds(section, self.rounds)?;
        let compared = compare(section.rows(), &store::figures(&rounds));
        let verdicts = judge(section.goals(), &compared);
        let (rows, goals) = (table::rows(&compared, &self.tools.sizes), table::goals(&verdicts, &self.tools.sizes));
        println!("\n{}\n\n{rows}\n{goals}", section.title());
        if self.sides.len() > 1 {
            let finished: Vec<&Finished> = rounds.iter().flat_map(|(stock, ours)| stock.iter().chain(ours)).collect();
            let plot = format!("benchmarks/{section}.svg");
            let measured = self.measured(&finished)?;
            let drawing = plot::draw(section.title(), &measured, &compared, &self.tools.sizes);
            self.write(&Block { section, measured: measured.join(" "), rows, goals, plot }, &drawing)?;
        }
        Ok(verdicts.iter().filter(|(verdict, _)| !verdict.met).count())
    }

    /// Where, when and of what the finished runs are.
    fn measured(&self, finished: &[&Finished]) -> Result<[String; 3]> {
        let days: BTreeSet<&str> = finished.iter().map(|f| f.day.as_str()).collect();
        let days = days.into_iter().collect::<Vec<_>>().join(" and ");
        let busy = Busy::worst(finished.iter().map(|f| f.busy));
        let rounds = match self.rounds {
            1 => "One round".to_owned(),
            rounds => format!("{rounds} alternating rounds: the middle, in brackets the lowest and the highest"),
        };
        Ok([
            format!("Measured on {days} on {}.", machine::describe()?),
            format!("{}.", self.tools.versions()?.join(", ")),
            format!(
                "{rounds}. Just before the runs others used at most {:.0} % of the machine, and niced programs {:.0} % more.",
                busy.percent, busy.niced
            ),
        ])
    }

    /// Into the docs where it was measured in full; what was measured in passing stays in the cache.
    fn write(&self, block: &Block, drawing: &str) -> Result<()> {
        let full = !self.options.small && self.rounds >= ROUNDS;
        let path = checkout().join(if full { "docs" } else { ".cache/bench" }).join("benchmarks.md");
        let plot = path.with_file_name(&block.plot);
        write(&plot, drawing)?;
        let page = fs::read_to_string(&path).unwrap_or_else(|_| "# Benchmarks\n".to_owned());
        write(&path, &page::with(&page, block))?;
        println!("written to {} and {}\n", path.display(), plot.display());
        Ok(())
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
    }
    fs::write(path, text).with_context(|| format!("write {}", path.display()))
}
