//! The command line.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use ipnet::IpNet;
use jiff::SignedDuration;

use crate::data_dir;

/// A Kubernetes control plane in one process.
#[derive(Debug, Parser)]
#[command(name = "master", version)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Makes this machine a master: CA, certificates, kubeconfigs, a bootstrap token, the systemd unit. Harmless when repeated.
    Init(InitOptions),
    /// Serves the cluster that `master init` made.
    Run(RunOptions),
    /// Makes, lists and deletes bootstrap tokens.
    #[command(subcommand)]
    Token(TokenCommand),
    /// Writes man pages and completions below a folder such as /usr/share: for packages.
    #[command(hide = true)]
    Manual {
        /// The folder.
        share: PathBuf,
    },
    /// Shows certificates, and makes new ones before their time.
    #[command(subcommand)]
    Certs(CertsCommand),
    /// Says whether the master on this machine is well; fails where it is not.
    Status(StatusOptions),
    /// Writes all objects and settings into one file, also while the master runs.
    Backup(BackupOptions),
    /// Puts a backup into a data folder. The master must not run.
    Restore(RestoreOptions),
}

#[derive(Debug, Subcommand)]
pub enum CertsCommand {
    /// Shows every certificate, until when it is good and for which names.
    Show {
        #[command(flatten)]
        location: Location,
        #[arg(long, short, value_enum, default_value = "text")]
        output: Output,
    },
    /// Signs all certificates of the master anew, and the kubeconfigs; a running master takes them by itself.
    Rotate {
        #[command(flatten)]
        location: Location,
    },
    /// Replaces the CA, in three steps: said three times, each when all nodes are ready for it.
    RotateCa(RotateCaOptions),
    /// Signs ServiceAccount tokens with another key from now on; those of earlier keys stay valid.
    RotateSa(RotateSaOptions),
}

#[derive(Debug, Clone, Args)]
pub struct RotateCaOptions {
    #[command(flatten)]
    pub location: Location,
    /// Take the step although nodes are not ready for it; those have to join again.
    #[arg(long)]
    pub force: bool,
    /// Take the first step back.
    #[arg(long, conflicts_with = "force")]
    pub withdraw: bool,
}

#[derive(Debug, Clone, Args)]
pub struct RotateSaOptions {
    #[command(flatten)]
    pub location: Location,
    /// Make no other key, but end the tokens of earlier ones.
    #[arg(long)]
    pub forget: bool,
}

/// How something is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    Text,
    Json,
}

#[derive(Debug, Clone, Args)]
pub struct StatusOptions {
    #[command(flatten)]
    pub location: Location,
    #[arg(long, short, value_enum, default_value = "text")]
    pub output: Output,
}

#[derive(Debug, Clone, Args)]
pub struct BackupOptions {
    #[command(flatten)]
    pub location: Location,
    /// Also the CA's key and the one that signs ServiceAccount tokens: with them, nodes and pods go on after a restoration
    /// on another machine.
    #[arg(long)]
    pub with_pki: bool,
    /// Where it is written.
    pub file: PathBuf,
}

#[derive(Debug, Clone, Args)]
pub struct RestoreOptions {
    #[command(flatten)]
    pub location: Location,
    /// Replace what is in the data folder; it is kept in a folder `replaced-…` there.
    #[arg(long)]
    pub force: bool,
    /// What `master backup` wrote.
    pub file: PathBuf,
}

#[derive(Debug, Clone, Args)]
pub struct Location {
    /// Where the cluster's store, keys and settings live.
    #[arg(long, default_value = data_dir::DEFAULT, value_name = "DIR")]
    pub data_dir: PathBuf,
}

/// What is not given keeps its value from an earlier `master init`.
#[derive(Debug, Clone, Args)]
pub struct InitOptions {
    #[command(flatten)]
    pub location: Location,
    /// The address that nodes reach this master by [default: the one of the default route].
    #[arg(long, value_name = "IP")]
    pub advertise_address: Option<IpAddr>,
    /// What the API server listens on; 0.0.0.0 is every address, of IPv6 too [default: 0.0.0.0:6443].
    #[arg(long, value_name = "IP:PORT")]
    pub bind: Option<SocketAddr>,
    /// Addresses of Services [default: 10.96.0.0/16].
    #[arg(long, value_name = "CIDR")]
    pub service_cidr: Option<IpNet>,
    /// Addresses of pods; every node gets a part of it [default: 10.244.0.0/16].
    #[arg(long, value_name = "CIDR")]
    pub cluster_cidr: Option<IpNet>,
    /// A further name or address of the API server's certificate; repeatable.
    #[arg(long = "cert-san", value_name = "NAME")]
    pub cert_sans: Vec<String>,
    /// How long a node may be silent before it counts as lost [default: 50s].
    #[arg(long, value_name = "DURATION", value_parser = positive)]
    pub node_monitor_grace_period: Option<SignedDuration>,
    /// How long a certificate is good that nodes and users ask for [default: 8760h].
    #[arg(long, value_name = "DURATION", value_parser = positive)]
    pub cluster_signing_duration: Option<SignedDuration>,
    /// How long the printed bootstrap token is good.
    #[arg(long, default_value = "24h", value_name = "DURATION", value_parser = positive)]
    pub token_ttl: SignedDuration,
    /// Serve in this process instead of a systemd unit.
    #[arg(long, conflicts_with = "no_service")]
    pub foreground: bool,
    /// Only write the files; start nothing.
    #[arg(long)]
    pub no_service: bool,
}

#[derive(Debug, Clone, Args)]
pub struct RunOptions {
    #[command(flatten)]
    pub location: Location,
}

#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Makes a bootstrap token and prints it.
    Create(CreateTokenOptions),
    /// Lists the bootstrap tokens, without their secrets.
    List {
        #[command(flatten)]
        location: Location,
        #[arg(long, short, value_enum, default_value = "text")]
        output: Output,
    },
    /// Deletes bootstrap tokens.
    Delete {
        #[command(flatten)]
        location: Location,
        /// Tokens, or their first six characters.
        #[arg(required = true)]
        tokens: Vec<String>,
    },
}

#[derive(Debug, Clone, Args)]
pub struct CreateTokenOptions {
    #[command(flatten)]
    pub location: Location,
    /// The token, ID.SECRET [default: a random one].
    #[arg(value_name = "TOKEN")]
    pub token: Option<String>,
    /// How long it is good; 0 for ever.
    #[arg(long, default_value = "24h", value_name = "DURATION", value_parser = not_negative)]
    pub ttl: SignedDuration,
    /// What it is good for: signing, authentication [default: both].
    #[arg(long, value_delimiter = ',', value_name = "USAGE,...")]
    pub usages: Vec<String>,
    /// What people are told of it.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "TEXT")]
    pub description: String,
    /// Groups of who presents it, system:bootstrappers:... [default: the one that may ask for node certificates].
    #[arg(long, value_delimiter = ',', value_name = "GROUP,...")]
    pub groups: Vec<String>,
    /// Print the whole `agent join` command.
    #[arg(long)]
    pub print_join_command: bool,
    /// Write a file for `agent join --join-file` instead: endpoints, hash of the CA and token, for its owner only.
    #[arg(long, value_name = "FILE", conflicts_with = "print_join_command")]
    pub join_file: Option<PathBuf>,
    /// Where machines that join reach a master, HOST[:PORT]; repeatable [default: this one's address].
    #[arg(long = "endpoint", value_name = "HOST[:PORT]")]
    pub endpoints: Vec<String>,
}

fn not_negative(text: &str) -> Result<SignedDuration, String> {
    if text == "0" {
        return Ok(SignedDuration::ZERO);
    }
    let duration: SignedDuration = text.parse().map_err(|_| "not a duration such as 40s, 15m or 24h".to_owned())?;
    if duration.is_negative() { Err("a duration cannot be negative".to_owned()) } else { Ok(duration) }
}

fn positive(text: &str) -> Result<SignedDuration, String> {
    let duration = not_negative(text)?;
    if duration.is_zero() { Err("must be longer than nothing".to_owned()) } else { Ok(duration) }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn durations_are_as_kubernetes_writes_them() {
        assert_eq!(positive("40s"), Ok(SignedDuration::from_secs(40)));
        assert_eq!(positive("24h0m0s"), Ok(SignedDuration::from_hours(24)));
        assert_eq!(not_negative("0"), Ok(SignedDuration::ZERO));
        for wrong in ["0", "0s", "-5s", "40", "soon", ""] {
            positive(wrong).unwrap_err();
        }
    }
}
