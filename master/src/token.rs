//! `master token`: bootstrap tokens, through the API like any administrator.

use anyhow::{Context as _, Result, bail, ensure};
use auth::{BOOTSTRAP_SECRET_PREFIX, BootstrapToken, TokenPurpose};
use jiff::{SignedDuration, Timestamp};
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};

use crate::cli::{CreateTokenOptions, Location, Output, TokenCommand};
use crate::data_dir::{self, DataDir};
use crate::join::Invitation;
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
            TokenCommand::Create(options) => create(options).await,
            TokenCommand::List { location, output } => list(location, *output).await,
            TokenCommand::Delete { location, tokens } => delete(location, tokens).await,
        }
    })
}

async fn create(options: &CreateTokenOptions) -> Result<()> {
    let dir = DataDir::new(&options.location.data_dir);
    let expires = join::expiration(options.ttl, Timestamp::now())?;
    let token = match &options.token {
        Some(text) => BootstrapToken::chosen(text, expires)?,
        None => BootstrapToken::generate(expires),
    };
    let CreateTokenOptions { usages, groups, description, .. } = options.clone();
    let token = token.purposed(TokenPurpose { usages, groups, description })?;
    let settings = Settings::load(&dir)?.context("run `master init` first")?;
    let ca = data_dir::read(&dir.pki("ca.crt"))?.context("run `master init` first")?;
    let invitation = Invitation::new(&options.endpoints, &settings, &ca, &token)?;
    if let Some(path) = &options.join_file {
        // A file that is there may be another machine's.
        ensure!(!path.exists(), "{} is there already", path.display());
    }
    store(&connect(&dir).await?, &token).await?;
    match &options.join_file {
        Some(path) => {
            data_dir::write_private(path, &invitation.file())?;
            manual::output::line(format_args!(
                "{}: bring it to the machine and run there: agent join --join-file FILE",
                path.display()
            ));
        }
        None if options.print_join_command => manual::output::line(invitation.command()),
        None => manual::output::line(token.reveal()),
    }
    Ok(())
}

async fn list(location: &Location, output: Output) -> Result<()> {
    let client = connect(&DataDir::new(&location.data_dir)).await?;
    let (tokens, now) = (stored(&client).await?, Timestamp::now());
    match output {
        Output::Text => manual::output::text(table(&tokens, now)),
        Output::Json => manual::output::line(format_args!("{:#}", tokens.iter().map(described).collect::<Value>())),
    }
    Ok(())
}

/// As kubeadm shows them, but for the secrets.
fn table(tokens: &[BootstrapToken], now: Timestamp) -> String {
    let or = |text: String, none: &str| if text.is_empty() { none.to_owned() } else { text };
    let heading = ["TOKEN", "TTL", "EXPIRES", "USAGES", "DESCRIPTION", "EXTRA GROUPS"].map(str::to_owned);
    let rows = tokens.iter().map(|token| {
        let (ttl, expires) = match token.expires() {
            Some(at) if at <= now => ("<expired>".to_owned(), at.to_string()),
            Some(at) => (human(at.duration_since(now)), at.to_string()),
            None => ("<forever>".to_owned(), "<never>".to_owned()),
        };
        let groups = or(token.extra_groups().join(","), "<none>");
        let usages = or(token.usages().join(","), "<none>");
        [token.id().to_owned(), ttl, expires, usages, or(token.description().to_owned(), "<none>"), groups]
    });
    let rows: Vec<[String; 6]> = std::iter::once(heading).chain(rows).collect();
    let widths: Vec<usize> = (0..6)
        .map(|column| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0))
        .collect();
    let line = |row: &[String; 6]| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}   "));
        cells.collect::<String>().trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

fn described(token: &BootstrapToken) -> Value {
    json!({
        "id": token.id(),
        "expires": token.expires().map(|at| at.to_string()),
        "usages": token.usages(),
        "description": token.description(),
        "groups": token.extra_groups(),
    })
}

async fn delete(location: &Location, tokens: &[String]) -> Result<()> {
    let ids: Vec<&str> = tokens.iter().map(|token| token.split('.').next().unwrap_or_default()).collect();
    let is_id = |id: &&str| id.len() == 6 && id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    if !ids.iter().all(is_id) {
        bail!("a bootstrap token begins with six characters of a-z and 0-9");
    }
    let client = connect(&DataDir::new(&location.data_dir)).await?;
    for id in ids {
        if !api::delete(&client, &format!("{SECRETS}/{BOOTSTRAP_SECRET_PREFIX}{id}")).await? {
            bail!("there is no bootstrap token {id}");
        }
        manual::output::line(format_args!("bootstrap token {id:?} deleted"));
    }
    Ok(())
}

/// A client with the administrator's credentials, of the master on this machine.
pub async fn connect(dir: &DataDir) -> Result<Client> {
    let path = dir.admin_conf();
    let kubeconfig = Kubeconfig::read_from(&path).with_context(|| format!("cannot use {}", path.display()))?;
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
    let mut config = config.with_context(|| format!("cannot use {}", path.display()))?;
    // What HTTPS_PROXY says is for the way out; this machine is asked straight, and the client is built without proxies.
    config.proxy_url = None;
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
    let items = list.get("items").and_then(Value::as_array).into_iter().flatten();
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

    #[tokio::test]
    async fn a_proxy_is_not_asked_for_the_master_of_this_machine() {
        let root = tempfile::tempdir().unwrap();
        let dir = DataDir::new(root.path());
        // As kube reads HTTPS_PROXY, and refuses both where it is built without proxies.
        let admin = "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts: [{name: c, context: {cluster: k, user: u}}]\n\
             clusters: [{name: k, cluster: {server: 'https://172.30.1.2:6443', proxy-url: 'http://proxy.example:3128'}}]\n\
             users: [{name: u, user: {token: t}}]\n";
        data_dir::write_private(&dir.admin_conf(), admin).unwrap();
        connect(&dir).await.unwrap();
    }

    #[test]
    fn tokens_are_shown_as_kubeadm_does() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let token = |text: &str, expires: Option<&str>, purpose| {
            let expires = expires.map(|at| at.parse().unwrap());
            BootstrapToken::chosen(text, expires).unwrap().purposed(purpose).unwrap()
        };
        let purpose = |usage: &str, description: &str| TokenPurpose {
            usages: vec![usage.to_owned()],
            description: description.to_owned(),
            groups: Vec::new(),
        };
        let tokens = [
            token("abcdef.0123456789abcdef", Some("2026-01-01T23:59:59Z"), TokenPurpose::default()),
            token("bcdefg.0123456789abcdef", None, purpose("signing", "rack 7")),
            token("cdefgh.0123456789abcdef", Some("2025-12-31T00:00:00Z"), purpose("authentication", "")),
        ];
        let node = "system:bootstrappers:kubeadm:default-node-token";
        let expected = format!(
            "TOKEN    TTL         EXPIRES                USAGES                   DESCRIPTION   EXTRA GROUPS\n\
             abcdef   23h         2026-01-01T23:59:59Z   authentication,signing   <none>        {node}\n\
             bcdefg   <forever>   <never>                signing                  rack 7        <none>\n\
             cdefgh   <expired>   2025-12-31T00:00:00Z   authentication           <none>        {node}\n"
        );
        assert_eq!(table(&tokens, now), expected);
        assert!(
            !expected.contains("0123456789abcdef") && !described(&tokens[0]).to_string().contains("0123456789abcdef")
        );
    }
}
