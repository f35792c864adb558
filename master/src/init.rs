//! `master init`: what makes a machine a master, and what a person is told then.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use auth::BootstrapToken;
use jiff::Timestamp;
use kube::Client;
use systemd::{Manager, Role, Service};
use tokio::runtime::{Builder, Runtime};

use crate::cli::{InitOptions, RunOptions};
use crate::data_dir::DataDir;
use crate::pki::Pki;
use crate::settings::Settings;
use crate::{join, kubeconfig, token};

/// How long a started service may take until it answers.
const START_PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(200);
/// How long to try whether a master serves already.
const PROBE: Duration = Duration::from_secs(2);

/// Makes or completes the files, then starts serving as asked and prints how to join.
pub fn init(options: &InitOptions) -> Result<()> {
    let now = Timestamp::now();
    let dir = DataDir::new(&std::path::absolute(&options.location.data_dir)?);
    dir.create()?;
    let before = Settings::load(&dir)?;
    let settings = Settings::choose(options, before.clone())?;
    let pki = Pki::ensure(&dir, &settings, now)?;
    kubeconfig::ensure(&dir, &settings, &pki, now)?;
    settings.save(&dir)?;

    let runtime = runtime()?;
    let token = runtime.block_on(token_to_print(&dir, options, now))?;
    let is_changed = settings.are_news(&dir, before.as_ref());
    let how = start(options, &dir, is_changed, &runtime)?;
    manual::output::line(format_args!("Cluster CA and certificates: {}", dir.pki("").display()));
    manual::output::line(format_args!("Kubeconfig:                  export KUBECONFIG={}", dir.admin_conf().display()));
    if let How::ByHand = how {
        manual::output::line(format_args!(
            "Serve it with:               master run --data-dir {}",
            dir.root().display()
        ));
    }
    manual::output::line(format_args!(
        "\nTo join a machine, run there as root:\n\n{}",
        join::Invitation::new(&[], &settings, &pki.authorities.signing.certificate_pem, &token)?.command()
    ));
    if let How::Foreground = how {
        return runtime.block_on(crate::run::run(&dir));
    }
    Ok(())
}

/// `master run`
pub fn run(options: &RunOptions) -> Result<()> {
    runtime()?.block_on(crate::run::run(&DataDir::new(&options.location.data_dir)))
}

/// How the cluster is served after `init`.
enum How {
    Service,
    Foreground,
    ByHand,
}

fn start(options: &InitOptions, dir: &DataDir, is_changed: bool, runtime: &Runtime) -> Result<How> {
    if options.foreground {
        return Ok(How::Foreground);
    }
    if options.no_service || !systemd::is_running() {
        return Ok(How::ByHand);
    }
    let manager = Manager::default();
    let args = vec!["run".to_owned(), "--data-dir".to_owned(), dir.root().to_string_lossy().into_owned()];
    let writes = Some(dir.root().to_owned());
    let service = Service { role: Role::Master, executable: executable()?, args, writes };
    let is_new = manager.install(&service)?;
    manager.enable_and_start(Role::Master, is_new || is_changed)?;
    runtime.block_on(wait_ready(dir))?;
    Ok(How::Service)
}

fn executable() -> Result<PathBuf> {
    std::env::current_exe().context("cannot tell where this program is")
}

async fn wait_ready(dir: &DataDir) -> Result<()> {
    let client = token::connect(dir).await?;
    let start = Instant::now();
    while !is_ready(&client).await {
        if start.elapsed() > START_PATIENCE {
            bail!("master.service does not become ready: see `journalctl -u master`");
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

pub async fn is_ready(client: &Client) -> bool {
    let request = http::Request::get("/readyz").body(Vec::new());
    let Ok(request) = request else { return false };
    tokio::time::timeout(PROBE, client.request_text(request)).await.is_ok_and(|answer| answer.is_ok())
}

/// A token that is good: one of the running cluster, the one left earlier, or a new one.
async fn token_to_print(dir: &DataDir, options: &InitOptions, now: Timestamp) -> Result<BootstrapToken> {
    let client = token::connect(dir).await?;
    let serves = is_ready(&client).await;
    let existing = if serves { token::usable(&client, now).await? } else { join::pending_token(dir, now)? };
    if let Some(token) = existing {
        return Ok(token);
    }
    let token = BootstrapToken::generate(join::expiration(options.token_ttl, now)?);
    if serves {
        token::store(&client, &token).await?;
    } else {
        join::leave_token(dir, &token)?;
    }
    Ok(token)
}

pub fn runtime() -> Result<Runtime> {
    Builder::new_multi_thread().enable_all().build().context("cannot start the runtime")
}
