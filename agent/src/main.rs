//! `agent join`, `agent run`, `agent status`, `agent pods`, `agent top`, `agent explain`, `agent doctor`, `agent config`, `agent leave`,
//! `agent upgrade`, `agent support-bundle`, `agent version`.

use std::path::PathBuf;
use std::process::ExitCode;

use agent::bundle::BundleOptions;
use agent::config::check::{self, ConfigOptions};
use agent::doctor::{DoctorOptions, Output};
use agent::inspect::{ExplainOptions, InspectOptions};
use agent::join::JoinError;
use agent::join::options::JoinOptions;
use agent::leave::LeaveOptions;
use agent::upgrade::UpgradeOptions;
use agent::{bundle, doctor, inspect, join, leave, run, upgrade};
use anyhow::Context;
use clap::{CommandFactory as _, Parser, Subcommand};

/// Keelson's node agent: everything a worker machine needs beside containerd.
#[derive(Parser)]
#[command(name = "agent", version = agent::node::facts::KUBELET_VERSION)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Make this machine a node of a cluster
    Join(Box<JoinOptions>),
    /// Run the node (what agent.service runs)
    Run {
        /// Folder of configuration and keys
        #[arg(long, default_value = "/etc/keelson")]
        config_dir: PathBuf,
    },
    /// Say whether this node works, and how long its certificates last
    Status(InspectOptions),
    /// List the pods and containers of this node
    Pods(InspectOptions),
    /// Show what pods and containers use
    Top(InspectOptions),
    /// Say what is wanted next for a pod, and what was decided before, with the reasons
    Explain(ExplainOptions),
    /// Check a configuration
    Config(ConfigOptions),
    /// Undo what join and run made on this machine
    Leave(LeaveOptions),
    /// Say what is wrong with this node, and what to do about it
    Doctor(DoctorOptions),
    /// Have another version take over this node, and go back where it does not come to be Ready
    Upgrade(UpgradeOptions),
    /// Gather what one would ask for who is to help, without secrets, in one archive
    SupportBundle(BundleOptions),
    /// Print the version
    Version {
        /// How it is printed; as JSON with the formats of state that this agent reads and writes
        #[arg(short, long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
    /// Write man pages and completions below a folder such as /usr/share: for packages
    #[command(hide = true)]
    Manual {
        /// The folder
        share: PathBuf,
    },
}

/// docs/adr/0015-allocator.md
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    systemd::logging::install("agent", "KEELSON_LOG", "info", false);
    match dispatch(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(command: Command) -> anyhow::Result<()> {
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        anyhow::bail!("a tls provider is already installed");
    }
    // Two workers: the work is waiting, and each thread costs memory.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(16)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    match command {
        Command::Join(options) => runtime.block_on(join_told(&options)),
        Command::Run { config_dir } => {
            // Who joins this machine, or asks systemd, reads why it does not run.
            runtime.block_on(run::run(&config_dir)).inspect_err(|error| systemd::notify::status(&format!("{error:#}")))
        }
        Command::Doctor(options) => runtime.block_on(doctor::doctor(&options)),
        Command::Status(options) => runtime.block_on(inspect::status(&options)),
        Command::Pods(options) => runtime.block_on(inspect::pods(&options)),
        Command::Top(options) => runtime.block_on(inspect::top(&options)),
        Command::Explain(options) => runtime.block_on(inspect::explain(&options)),
        Command::Config(options) => check::run(&options),
        Command::Leave(options) => runtime.block_on(leave::leave(&options)),
        Command::Upgrade(options) => runtime.block_on(upgrade::upgrade(&options)),
        Command::SupportBundle(options) => runtime.block_on(bundle::bundle(&options)),
        Command::Version { output } => version(output),
        Command::Manual { share } => {
            manual::write(&Cli::command(), &share).with_context(|| share.display().to_string())
        }
    }
}

fn version(output: Output) -> anyhow::Result<()> {
    let about = upgrade::About::own();
    match output {
        Output::Text => manual::output::line(about.version),
        Output::Json => manual::output::line(serde_json::to_string(&about)?),
    }
    Ok(())
}

async fn join_told(options: &JoinOptions) -> anyhow::Result<()> {
    let ended = join_and_run(options).await;
    if let Err(error) = &ended {
        join::Progress(options.output).failed(&format!("{error:#}"));
    }
    ended
}

async fn join_and_run(options: &JoinOptions) -> anyhow::Result<()> {
    let Some(joined) = join::join(options).await? else { return Ok(()) };
    if systemd::is_running() && !options.foreground {
        let executable = std::env::current_exe().context("cannot tell where this program lies")?;
        return Ok(joined.start_service(&executable).await?);
    }
    let watching = tokio::spawn(async move {
        match joined.wait_ready().await {
            // It goes on trying in the foreground; the reason is worth reading, not worth ending for.
            Err(error @ JoinError::NotReady { .. }) => eprintln!("agent: {error}"),
            Err(error) => eprintln!("agent: cannot tell whether the node is Ready: {error}"),
            Ok(()) => {}
        }
    });
    let ended = run::run(&options.config_dir).await;
    watching.abort();
    ended
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
        let parse = |line: &str| Cli::try_parse_from(line.split(' '));
        let hash = "sha256:7c2e69131a36ae2a042a339b33381c6d0d43887e2de83720eff5359e26aec866";
        let all = format!("agent join 10.0.0.1,10.0.0.2 --token abcdef.0123456789abcdef --ca-cert-hash {hash}");
        for fine in
            [&all, "agent join --join-file n.join --fix", "agent upgrade --back", "agent upgrade a.deb --dry-run"]
        {
            assert!(parse(fine).is_ok(), "{fine}");
        }
        for wrong in
            ["agent join 10.0.0.1", "agent join 10.0.0.1 --join-file n.join", "agent upgrade", "agent upgrade a --back"]
        {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
