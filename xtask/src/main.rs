//! What developers type, behind `make`: `cargo xtask up | down | bench | bench-beside | conformance | package | check`.

mod bench;
mod check;
mod conformance;
mod machines;
mod package;
mod show;
mod twins;
mod up;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "Keelson's developer commands")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start a cluster on this machine and show a service answering
    Up {
        /// How many worker machines
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=50))]
        nodes: u8,
    },
    /// End the cluster and look for leftovers
    Down,
    /// Measure this checkout on this machine
    Bench(bench::Options),
    /// The same beside the stock components of Kubernetes
    BenchBeside(bench::Options),
    /// Measure a virtual machine as a node, beside one with kubeadm and the kubelet
    BenchMachines(machines::Options),
    /// Run upstream's conformance tests and print one table
    Conformance(conformance::Options),
    /// Build what is shipped: Debian packages, an archive, their bills of materials
    Package(package::Options),
    /// Check the house rules: layers, sizes
    Check,
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Up { nodes } => up::up(nodes),
        Command::Down => bench::clear().and_then(|()| up::down()),
        Command::Bench(options) => bench::alone(&options),
        Command::BenchBeside(options) => bench::beside(&options),
        Command::BenchMachines(options) => machines::bench(&options),
        Command::Conformance(options) => conformance::conformance(options),
        Command::Package(options) => package::package(&options),
        Command::Check => check::check(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
