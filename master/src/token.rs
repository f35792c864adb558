//! `master token`: bootstrap tokens, through the API like any administrator.

use anyhow::{Context as _, Result, bail};
use auth::{BOOTSTRAP_SECRET_PREFIX, BootstrapToken};
use jiff::{SignedDuration, Timestamp};
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};

use crate::cli::{Location, TokenCommand};
use crate::data_dir::{self, DataDir};
use crate::settings::Settings;
use crate::{api, join};

const SECRETS: &str = "/api/v1/namespaces/kube-system/secrets";
const OF_TOKENS: &str = "fieldSelector=type%3Dbootstrap.kubernetes.io%2Ftoken";
/// A token that is about to expire is no use to who reads it now.
const LONG_ENOUGH: SignedDuration = SignedDuration::from_mins(10);

pub fn run(command: &TokenCommand) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match command {
            TokenCommand::Create { location, ttl, print_join_command } => {
                create(location, *ttl, *print_join_command).await
            }
            TokenCommand::List { location } => list(location).await,
            TokenCommand::Delete { location, token } => delete(location, token).await,
        }
    })
}

async fn create(location: &Location, ttl: SignedDuration, print_join_command: bool) -> Result<()> {
    let dir = DataDir::new(&location.data_dir);
    let token = join::new_token(ttl, Timestamp::now())?;
    store(&connect(&dir).await?, &token).await?;
    if print_join_command {
        let settings = Settings::load(&dir)?.context("run `master init` first")?;
        let ca = data_dir::read(&dir.pki("ca.crt"))?.context("run `master init` first")?;
        println!("{}", join::command(&settings, &ca, &token)?);
    } else {
        println!("{}", token.reveal());
    }
    Ok(())
}

async fn list(location: &Location) -> Result<()> {
    let client = connect(&DataDir::new(&location.data_dir)).await?;
    let now = Timestamp::now();
    println!("{:<8}{:<12}{:<24}{:<16}EXTRA GROUPS", "TOKEN", "TTL", "EXPIRES", "USAGES");
    for token in stored(&client).await? {
        let (ttl, expires) = match token.expires() {
            Some(at) if at <= now => ("<expired>".to_owned(), at.to_string()),
            Some(at) => (human(at.duration_since(now)), at.to_string()),
            None => ("<forever>".to_owned(), "<never>".to_owned()),
        };
        let usages = if token.is_usable(now) { "authentication" } else { "<none>" };
        println!("{:<8}{ttl:<12}{expires:<24}{usages:<16}{}", token.id(), token.extra_groups().join(","));
    }
    Ok(())
}

async fn delete(location: &Location, token: &str) -> Result<()> {
    let id = token.split('.').next().unwrap_or_default();
    let is_id = id.len() == 6 && id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    if !is_id {
        bail!("a bootstrap token begins with six characters of a-z and 0-9");
    }
    let client = connect(&DataDir::new(&location.data_dir)).await?;
    if !api::delete(&client, &format!("{SECRETS}/{BOOTSTRAP_SECRET_PREFIX}{id}")).await? {
        bail!("there is no bootstrap token {id}");
    }
    println!("bootstrap token {id} deleted");
    Ok(())
}

/// A client with the administrator's credentials, of the master on this machine.
pub async fn connect(dir: &DataDir) -> Result<Client> {
    let path = dir.admin_conf();
    let kubeconfig = Kubeconfig::read_from(&path).with_context(|| format!("cannot use {}", path.display()))?;
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
    let mut config = config.with_context(|| format!("cannot use {}", path.display()))?;
    // The kubeconfig is for other machines too; from here the advertised address need not be reachable.
    if let Some(settings) = Settings::load(dir)? {
        config.cluster_url = format!("https://{}", settings.local_endpoint()).parse()?;
    }
    Client::try_from(config).context("cannot make a client")
}

/// Puts a token into the cluster.
pub async fn store(client: &Client, token: &BootstrapToken) -> Result<()> {
    if api::create(client, SECRETS, &token.to_secret()).await? {
        Ok(())
    } else {
        bail!("a bootstrap token {} exists already", token.id())
    }
}

/// A token in the cluster that is good for a while yet.
pub async fn usable(client: &Client, now: Timestamp) -> Result<Option<BootstrapToken>> {
    let lasts = |token: &BootstrapToken| token.is_usable(now.saturating_add(LONG_ENOUGH).unwrap_or(now));
    Ok(stored(client).await?.into_iter().find(lasts))
}

async fn stored(client: &Client) -> Result<Vec<BootstrapToken>> {
    let list = api::get(client, &format!("{SECRETS}?{OF_TOKENS}")).await?.unwrap_or_default();
    let items = list.get("items").and_then(serde_json::Value::as_array).into_iter().flatten();
    // Items of a list carry no kind; nothing here needs it.
    Ok(items.filter_map(BootstrapToken::from_secret).collect())
}

/// `23h`, `45m`, `10s`: as kubectl shows ages.
pub fn human(left: SignedDuration) -> String {
    match left.as_secs() {
        seconds @ ..120 => format!("{seconds}s"),
        seconds @ 120..7200 => format!("{}m", seconds / 60),
        seconds => format!("{}h", seconds / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_readable() {
        for (seconds, shown) in [(5, "5s"), (119, "119s"), (120, "2m"), (7199, "119m"), (86_399, "23h")] {
            assert_eq!(human(SignedDuration::from_secs(seconds)), shown);
        }
    }
}
