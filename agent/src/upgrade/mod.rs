//! `agent upgrade`: another program takes over the node, and where it does not come to be Ready, the one before does again.
//!
//! ```text
//! FILE -> stage beside the present one -> ask it: version, state, this node's configuration -> may it? (candidate, pure)
//!      -> keep the present one, note it (fallback) -> rename -> restart -> is the node Ready, with that version? -- no --> put back, restart
//!                                                         yes --> a package is installed now, too
//! ```
//!
//! No step touches containers: they are the runtime's, and the agent that starts finds them.

mod candidate;
mod fallback;
mod programs;

use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use fallback::Fallback;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use systemd::{Manager, Role};

pub use candidate::About;
use programs::Programs;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::client::api_code;
use crate::commands::{CommandError, run};
use crate::config::Config;
use crate::join::{unit_says, wait_ready};
use crate::state_format::Stamp;
use crate::{identity, leave, network};

/// How long somebody else may have packages in hand, and how often he is asked for them.
const LOCKED: [Duration; 2] = [Duration::from_secs(120), Duration::from_secs(2)];
/// How long the API server may take to tell its version.
const PATIENCE: Duration = Duration::from_secs(10);

/// Command line of `agent upgrade`.
#[derive(Debug, Clone, Args)]
pub struct UpgradeOptions {
    /// The agent that is to take over: a program (CNI plugins beside it come along), or a Debian package
    #[arg(required_unless_present = "back", conflicts_with = "back")]
    pub file: Option<PathBuf>,
    /// FILE is a Debian package, whatever its name
    #[arg(long)]
    pub deb: bool,
    /// Go back to what the last upgrade replaced
    #[arg(long)]
    pub back: bool,
    /// Folder of configuration and keys
    #[arg(long, default_value = "/etc/keelson")]
    pub config_dir: PathBuf,
    /// How long the node may take until it is Ready, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 180)]
    pub timeout: u64,
    /// Take it even if versions or state do not fit
    #[arg(long)]
    pub force: bool,
    /// Check everything, and change nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// Why there is no upgrade.
#[derive(Debug, thiserror::Error)]
pub enum UpgradeError {
    /// A file that cannot be read or put in its place.
    #[error("{path}")]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A command that failed.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// Something else than an agent.
    #[error("{path} is no agent that runs here: {message}")]
    NoAgent {
        /// The program.
        path: PathBuf,
        /// What it said.
        message: String,
    },
    /// It may not be this node's agent.
    #[error("{}; --force takes it all the same", objections.join("; "))]
    Unfit {
        /// Each reason.
        objections: Vec<String>,
    },
    /// It was tried.
    #[error("{version} did not come to be Ready ({reason}); {previous} runs again")]
    FellBack {
        /// The version that was tried.
        version: String,
        /// What happened.
        reason: String,
        /// The version that runs.
        previous: String,
    },
}

/// Says a line to the person who upgrades.
fn say(line: &str) {
    manual::output::line(format_args!("[upgrade] {line}"));
}

/// Has another program take over this node.
///
/// # Errors
/// What is in the way, before anything was changed; or [`UpgradeError::FellBack`].
pub async fn upgrade(options: &UpgradeOptions) -> anyhow::Result<()> {
    anyhow::ensure!(nix::unistd::geteuid().is_root(), "upgrading needs root: try again with sudo");
    anyhow::ensure!(systemd::is_running(), "there is no systemd here that could restart the agent");
    let (config, _) = Config::load_or_say(&options.config_dir)?;
    let upgrade = Upgrade { present: present()?, folder: config.layout.data_dir.join("upgrade"), config, options };
    let staged = upgrade.candidate().and_then(|found| Ok(found.stage(&upgrade.present)?));
    upgrade.clean()?;
    let staged = staged?;
    let about = match upgrade.check(&staged).await {
        Ok(about) if !options.dry_run => about,
        checked => {
            staged.discard()?;
            let about = checked?;
            say(&format!("nothing is in the way of {}; a dry run ends here, with nothing changed", about.version));
            return Ok(());
        }
    };
    let taken = match deaf() {
        Ok(_deaf) => upgrade.take_over(&staged, &about).await,
        Err(error) => Err(error.into()),
    };
    if let Err(error) = taken {
        // Whatever went wrong: what was not renamed lies beside the programs.
        let _ = staged.discard();
        return Err(error);
    }
    upgrade.settle(&about).await
}

/// From here to its end an upgrade is not cut short by Ctrl-C, nor by a terminal that is gone: the node would be left to a program that nobody
/// has looked at.
fn deaf() -> io::Result<[Signal; 2]> {
    Ok([signal(SignalKind::interrupt())?, signal(SignalKind::hangup())?])
}

/// Removes what an upgrade that was cut short has left beside the programs.
///
/// # Errors
/// A file that cannot be removed.
pub(crate) fn tidy() -> Result<(), UpgradeError> {
    let agent = std::env::current_exe().map_err(programs::file(Path::new("agent")))?;
    Programs { agent, plugins: network::plugins_source().ok() }.tidy()
}

/// One upgrade under way.
struct Upgrade<'a> {
    options: &'a UpgradeOptions,
    config: Config,
    /// What runs, in its places.
    present: Programs,
    /// Where programs are unpacked and kept.
    folder: PathBuf,
}

impl Upgrade<'_> {
    fn candidate(&self) -> anyhow::Result<Programs> {
        let Some(file) = &self.options.file else {
            let kept = self.fallback().programs();
            anyhow::ensure!(kept.agent.is_file(), "no upgrade was done here that could be undone");
            return Ok(kept);
        };
        if !self.is_package() {
            return Ok(Programs::of_file(file));
        }
        let unpacked = self.unpacked();
        std::fs::create_dir_all(&unpacked).with_context(|| unpacked.display().to_string())?;
        Ok(Programs::of_package(file, &unpacked)?)
    }

    fn is_package(&self) -> bool {
        let file = self.options.file.as_deref();
        file.is_some_and(|file| self.options.deb || file.extension().is_some_and(|end| end == "deb"))
    }

    fn unpacked(&self) -> PathBuf {
        self.folder.join("unpacked")
    }

    fn fallback(&self) -> Fallback {
        Fallback::new(&self.folder)
    }

    /// Asks the program, the API server and the state.
    async fn check(&self, staged: &Programs) -> anyhow::Result<About> {
        let about = About::ask(&staged.agent)?;
        say(&format!("from {} to {}", About::own().version, about.version));
        if let Some(version) = self.fallback().unfinished() {
            say(&format!("an upgrade to {version} did not come to its end; what was before it stays the way back"));
        }
        let client = leave::node_client(&self.config)?;
        let answer = tokio::time::timeout(PATIENCE, client.apiserver_version()).await;
        let server = answer.ok().and_then(Result::ok).map(|info| info.git_version);
        let stamp = Stamp::read(&self.config.layout.data_dir)?;
        let objections = candidate::judge(&about, server.as_deref(), &stamp);
        if !self.options.force && !objections.is_empty() {
            return Err(UpgradeError::Unfit { objections }.into());
        }
        objections.iter().for_each(|objection| say(&format!("warning: {objection}")));
        let mut check = Command::new(&staged.agent);
        run(check.args(["config", "check", "--config-dir"]).arg(&self.options.config_dir))
            .context("it cannot run with this node's configuration")?;
        Ok(about)
    }

    /// Puts the program in its place, and the one before back where it does not work.
    async fn take_over(&self, staged: &Programs, about: &About) -> anyhow::Result<()> {
        let fallback = self.fallback();
        fallback.begin(&self.present, staged, &about.version)?;
        staged.replace(&self.present)?;
        say("the program is in its place; the agent is restarted, containers go on");
        let Err(error) = self.restarted(&about.version).await else { return Ok(()) };
        let (version, reason) = (about.version.clone(), format!("{error:#}"));
        say(&format!("{version} did not come to be Ready: {reason}; going back"));
        let kept = fallback.programs();
        kept.stage(&self.present)?.replace(&self.present)?;
        // Not always this program: that may be the one of an upgrade that was cut short.
        let previous = About::ask(&kept.agent)?.version;
        self.restarted(&previous).await.context("and neither did the one before, which is in its place again")?;
        fallback.settled()?;
        Err(UpgradeError::FellBack { version, reason, previous }.into())
    }

    /// Restarts the unit and waits until the node is Ready and says that it has that version.
    async fn restarted(&self, version: &str) -> anyhow::Result<()> {
        let since = identity::now();
        tokio::task::spawn_blocking(|| Manager::default().restart(Role::Agent)).await??;
        let client = leave::node_client(&self.config)?;
        let name = &self.config.node.node_name;
        if !self.config.kubelet.register_node && is_missing(&client, name).await {
            say(&format!(
                "node {name} does not register itself (registerNode), and nobody has made it: {version} runs"
            ));
            return Ok(());
        }
        let patience = Duration::from_secs(self.options.timeout);
        wait_ready(client.clone(), name, since, patience, &say, unit_says).await?;
        let node = Api::<Node>::all(client).get(name).await?;
        let said = node.status.and_then(|status| status.node_info).map(|info| info.kubelet_version).unwrap_or_default();
        anyhow::ensure!(said == version, "node {name} says that its agent is {said}");
        say(&format!("node {name} is Ready with {version}"));
        Ok(())
    }

    /// What is left to do when the program has proved itself.
    async fn settle(&self, about: &About) -> anyhow::Result<()> {
        if let Some(file) = self.options.file.as_deref().filter(|_| self.is_package()) {
            let mut install = Command::new("dpkg");
            install.args(["--force-confdef", "--force-confold", "--install"]).arg(std::path::absolute(file)?);
            install.env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C.UTF-8");
            let installed = when_unlocked(|| undisturbed(&mut install)).await;
            installed.context("the program runs, but the package is not installed: the same command does it")?;
            self.restarted(&about.version).await?;
            say("the package is installed");
        }
        self.fallback().settled()?;
        say("done; `agent upgrade --back` undoes it");
        Ok(())
    }

    /// Removes what was unpacked.
    fn clean(&self) -> anyhow::Result<()> {
        let unpacked = self.unpacked();
        if unpacked.exists() {
            std::fs::remove_dir_all(&unpacked).with_context(|| unpacked.display().to_string())?;
        }
        Ok(())
    }
}

/// Waits where apt, or unattended-upgrades, has dpkg's locks.
async fn when_unlocked(mut install: impl FnMut() -> Result<(), CommandError>) -> Result<(), CommandError> {
    let [patience, pause] = LOCKED;
    let begun = tokio::time::Instant::now();
    loop {
        match install() {
            Err(error) if is_locked(&error.to_string()) && begun.elapsed() < patience => {
                if begun.elapsed() < pause {
                    say("another program has dpkg's lock; waiting for it");
                }
                tokio::time::sleep(pause).await;
            }
            done => return done,
        }
    }
}

/// Whether the API server says that there is no such Node.
async fn is_missing(client: &kube::Client, name: &str) -> bool {
    Api::<Node>::all(client.clone()).get(name).await.is_err_and(|error| api_code(&error) == Some(404))
}

/// Runs a command that neither Ctrl-C nor a terminal that is gone ends: those are for the terminal's process group.
fn undisturbed(command: &mut Command) -> Result<(), CommandError> {
    run(command.process_group(0))
}

/// "dpkg frontend lock was locked by another process with pid 7", "unable to lock dpkg status database": as dpkg says it.
fn is_locked(message: &str) -> bool {
    message.contains("lock was locked by") || message.contains("unable to lock")
}

/// The programs that are to be replaced: this one has to be the one that the unit runs.
fn present() -> anyhow::Result<Programs> {
    let agent = std::env::current_exe().context("cannot tell where this program lies")?;
    let service = Manager::default().executable(Role::Agent)?;
    anyhow::ensure!(
        same_file(&agent, &service),
        "agent.service runs {}, and this is {}: upgrade with that one",
        service.display(),
        agent.display()
    );
    Ok(Programs { agent: service, plugins: network::plugins_source().ok() })
}

fn same_file(a: &Path, b: &Path) -> bool {
    let real = |path: &Path| path.canonicalize().ok();
    real(a).is_some() && real(a) == real(b)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::testing::answered;

    #[tokio::test]
    async fn only_a_node_that_nobody_has_made_is_missing() {
        let (node, refusal) = (r#"{"metadata":{}}"#, r#"{"status":"Failure","message":"","reason":"","code":0}"#);
        for (code, body, missing) in [(200, node, false), (404, refusal, true), (500, refusal, false)] {
            let body = body.replace(":0", &format!(":{code}"));
            let client = answered(move |_| Some((code, body.clone())));
            assert_eq!(is_missing(&client, "n1").await, missing, "{code}");
        }
    }

    #[test]
    fn no_terminal_cuts_dpkg_short() {
        let leads_its_group = "[ $(cut -d ' ' -f 5 /proc/$$/stat) = $$ ]";
        undisturbed(Command::new("sh").args(["-c", leads_its_group])).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_package_waits_for_dpkgs_lock_and_for_nothing_else() {
        let says = |text: &str| run(Command::new("sh").args(["-c", &format!("echo '{text}' >&2; exit 2")]));
        let locked = "dpkg: error: dpkg frontend lock was locked by another process with pid 7";
        let mut tries = 0;
        let done = when_unlocked(|| {
            tries += 1;
            if tries < 4 { says(locked) } else { Ok(()) }
        });
        done.await.unwrap();
        assert_eq!(tries, 4);
        let begun = tokio::time::Instant::now();
        assert!(when_unlocked(|| says(locked)).await.unwrap_err().to_string().contains("pid 7"));
        assert!(begun.elapsed() >= LOCKED[0]);
        let mut tries = 0;
        let broken = when_unlocked(|| {
            tries += 1;
            says("dpkg: error: archive is no package; block 7")
        });
        broken.await.unwrap_err();
        assert_eq!(tries, 1);
    }
}
