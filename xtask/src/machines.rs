//! `cargo xtask bench-machines`: a virtual machine as a node, beside the same with kubeadm and the kubelet.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::Args;
use keelson_tests::bench::machine::Busy;
use keelson_tests::bench::{Side, machine, machines, page};
use keelson_tests::harness::images::checkout;
use keelson_tests::harness::shell::output;

/// How much is measured.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// In each round either side is measured once; a round takes a quarter of an hour
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=20))]
    rounds: u32,
}

/// Measures both sides and writes what came of it into docs/benchmarks.md.
pub fn bench(options: &Options) -> Result<()> {
    ensure!(nix::unistd::geteuid().is_root(), "machines need root: they are on a bridge of this machine");
    let (mut rounds, mut busiest) = (Vec::new(), Vec::new());
    for round in 1..=options.rounds {
        println!("round {round} of {}", options.rounds);
        busiest.push(Busy::now(std::time::Duration::from_secs(2))?);
        let stock = machines::measure(Side::Stock).context("stock")?;
        println!("  stock: {stock:?}");
        let ours = machines::measure(Side::Ours).context("ours")?;
        println!("  ours:  {ours:?}");
        rounds.push((stock, ours));
    }
    let commit = output(Command::new("git").current_dir(checkout()).args(["rev-parse", "--short", "HEAD"]))?;
    let busy = Busy::worst(busiest);
    let measured = format!(
        "Measured on {} at Keelson {}, {} round(s), in a virtual Debian 13 with 2 processors that are emulated by QEMU (no KVM) on {}. Emulated processors are some twenty times slower: \
         only the ratios say something. Just before the rounds others used at most {:.0} % of the machine, and niced programs {:.0} % more. What is measured is said in \
         `tests/src/bench/machines.rs`; `cargo xtask bench-machines` measures it again.",
        jiff::Zoned::now().date(),
        commit.trim(),
        options.rounds,
        machine::describe()?,
        busy.percent,
        busy.niced,
    );
    let table = machines::table(&rounds);
    println!("\n{measured}\n\n{table}");
    let path = checkout().join("docs/benchmarks.md");
    let before = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    fs::write(&path, page::with_machines(&before, &measured, &table)).with_context(|| path.display().to_string())
}
