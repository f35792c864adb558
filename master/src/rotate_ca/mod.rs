//! `master certs rotate-ca`: takes the replacement of the CA one step further, when every node is ready for it
//! (docs/adr/0018-ca-rotation.md). The files are changed here; the running master follows them.

mod nodes;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use auth::pki::Ca;
use jiff::Timestamp;
use kube::Client;
use serde_json::Value;

use crate::cli::RotateCaOptions;
use crate::data_dir::DataDir;
use crate::pki::Pki;
use crate::pki::authorities::{self, Authorities, Phase};
use crate::settings::Settings;
use crate::{api, certs, init, kubeconfig, leaves, token};

const CLUSTER_INFO: &str = "/api/v1/namespaces/kube-public/configmaps/cluster-info";
const ROOT_CA_MAPS: &str = "/api/v1/configmaps?fieldSelector=metadata.name%3Dkube-root-ca.crt";
/// How long a running master may take; it looks at its files every ten seconds.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(500);

/// Takes the next step, or the first one back.
pub fn run(options: &RotateCaOptions) -> Result<()> {
    let dir = DataDir::new(&options.location.data_dir);
    let Some(settings) = Settings::load(&dir)? else { bail!("there is no cluster in {}", dir.root().display()) };
    init::runtime()?.block_on(Step { dir, settings, force: options.force }.take(options.withdraw))
}

struct Step {
    dir: DataDir,
    settings: Settings,
    force: bool,
}

impl Step {
    async fn take(&self, withdraw: bool) -> Result<()> {
        let now = Timestamp::now();
        let phase = Authorities::ensure(&self.dir, now)?.phase();
        let next = match (phase, withdraw) {
            (Phase::Announced, true) => {
                authorities::withdraw(&self.dir)?;
                "The CA stays; the announced one is forgotten."
            }
            (_, true) => bail!("nothing is announced that could be withdrawn"),
            (Phase::Settled, false) => {
                authorities::announce(&self.dir, now)?;
                "A new CA is trusted from now on, and nodes are told of it. Say `master certs rotate-ca` again: then it signs."
            }
            (Phase::Announced, false) => {
                self.ready_to_replace(now).await?;
                authorities::replace(&self.dir, now)?;
                "The new CA signs, and nodes get new certificates. Programs that have read the old CA once are still served: restart what \
                 does not read kube-root-ca.crt anew, hand out the new admin.conf, and say `master certs rotate-ca` again: then the old CA ends."
            }
            (Phase::Replaced, false) => {
                self.ready_to_finish(now).await?;
                authorities::finish(&self.dir)?;
                "The old CA is trusted no longer: the new one has taken its place."
            }
        };
        let pki = Pki::ensure(&self.dir, &self.settings, now)?;
        kubeconfig::ensure(&self.dir, &self.settings, &pki, now)?;
        self.wait_until_followed(&pki.authorities.bundle_pem()).await?;
        manual::output::text(format_args!("{}\n{next}\n", certs::table(&certs::all(&self.dir)?, now)));
        Ok(())
    }

    /// Every node believes the next CA, and every namespace has it.
    async fn ready_to_replace(&self, now: Timestamp) -> Result<()> {
        let authorities = Authorities::ensure(&self.dir, now)?;
        let next = authorities.next.as_ref().context("no CA is announced")?;
        let signer = Ca::load(&next.certificate_pem, &next.key_pem).context("pki/ca-next.crt cannot sign")?;
        let ours = signer.issue(&leaves::kubelet_client(), now)?;
        let client = self.client().await?;
        let mut problems = nodes::ask_all(&client, &authorities.bundle_pem(), Some(&ours)).await?;
        problems.extend(without(&client, &next.certificate_pem).await?);
        self.judge(&problems)
    }

    /// Every node has a certificate of the CA that signs now; agents renew the one for clients first.
    async fn ready_to_finish(&self, now: Timestamp) -> Result<()> {
        let authorities = Authorities::ensure(&self.dir, now)?;
        let problems = nodes::ask_all(&self.client().await?, &authorities.signing.certificate_pem, None).await?;
        self.judge(&problems)
    }

    async fn client(&self) -> Result<Client> {
        let client = token::connect(&self.dir).await?;
        ensure!(init::is_ready(&client).await, "the master does not serve: nodes cannot be told");
        Ok(client)
    }

    fn judge(&self, problems: &[String]) -> Result<()> {
        for problem in problems {
            eprintln!("{problem}");
        }
        ensure!(
            problems.is_empty() || self.force,
            "not yet: try again in a minute; --force goes on, and what is not ready then has to join again"
        );
        Ok(())
    }

    /// Waits until the running master has taken the files up. One that does not run needs no waiting for.
    async fn wait_until_followed(&self, bundle_pem: &str) -> Result<()> {
        let client = token::connect(&self.dir).await?;
        if !init::is_ready(&client).await {
            manual::output::line(format_args!("The master takes it up when it runs next."));
            return Ok(());
        }
        let wanted = kubeconfig::cluster_info(&format!("https://{}", self.settings.endpoint()), bundle_pem)?;
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            let info = api::get(&client, CLUSTER_INFO).await.ok().flatten();
            if info.is_some_and(|map| text(&map, "/data/kubeconfig") == wanted) {
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
        }
        bail!("the running master has not taken it up after {} s: see its log", PATIENCE.as_secs())
    }
}

/// Namespaces whose kube-root-ca.crt does not have a CA.
async fn without(client: &Client, ca_pem: &str) -> Result<Vec<String>> {
    let list = api::get(client, ROOT_CA_MAPS).await?.unwrap_or_default();
    let maps = list.get("items").and_then(Value::as_array).into_iter().flatten();
    let lacks = |map: &&Value| !text(map, "/data/ca.crt").contains(ca_pem);
    let problem =
        |map| format!("namespace {}: kube-root-ca.crt does not have the new CA", text(map, "/metadata/namespace"));
    Ok(maps.filter(lacks).map(problem).collect())
}

/// A text in an object; empty where there is none.
fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}
