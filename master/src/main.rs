//! `master`: a Kubernetes control plane in one process.
//!
//! `master init` makes what a cluster is known by: its CA and certificates ([`pki`]), kubeconfigs ([`kubeconfig`]), settings
//! ([`settings`]) and a first bootstrap token ([`join`]). `master run` serves it ([`run`]): store, API server, scheduler and
//! controllers, the last two through the API like anyone else. `master token` talks to the running API ([`token`]), as does
//! `master status` ([`status`]) and `master certs` ([`certs`], [`rotate_ca`]); `master backup` and `master restore` are [`backup`], their file is [`archive`].

mod api;
mod archive;
mod backup;
mod bootstrap;
mod certs;
mod cli;
mod data_dir;
mod init;
mod join;
mod kubeconfig;
mod leaves;
mod logging;
mod pki;
mod rotate_ca;
mod run;
mod settings;
mod status;
mod tls;
mod token;
mod trust;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::{CommandFactory as _, Parser as _};
use cli::{Cli, Command};

/// What a burst of writes took is given back when its history is forgotten (docs/adr/0015-allocator.md).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    logging::install();
    let outcome = match cli.command {
        Command::Init(options) => init::init(&options),
        Command::Run(options) => init::run(&options),
        Command::Token(command) => token::run(&command),
        Command::Manual { share } => {
            manual::write(&Cli::command(), &share).with_context(|| share.display().to_string())
        }
        Command::Certs(command) => certs::run(&command),
        Command::Status(options) => status::run(&options),
        Command::Backup(options) => backup::backup(&options),
        Command::Restore(options) => backup::restore(&options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("master: {error:#}");
            ExitCode::FAILURE
        }
    }
}
