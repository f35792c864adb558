//! `master status`: facts are gathered, [`problems`] judges them.

use anyhow::{Context as _, Result, bail};
use jiff::{SignedDuration, Timestamp};
use kube::Client;
use serde::Serialize;
use serde_json::Value;
use store::Embedded;

use crate::certs::{self, Certificate};
use crate::cli::{Output, StatusOptions};
use crate::data_dir::DataDir;
use crate::settings::Settings;
use crate::{api, init, token};

/// A certificate that is this near its end was not renewed in its time.
const NEAR: SignedDuration = SignedDuration::from_hours(30 * 24);

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    healthy: bool,
    problems: Vec<String>,
    address: String,
    /// The running server's, as clients see it.
    version: Option<String>,
    store: StoreFacts,
    certificates: Vec<Certificate>,
    nodes: Option<Nodes>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct StoreFacts {
    path: String,
    bytes: u64,
    /// What this program writes; a store that is served has it.
    format: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Nodes {
    ready: usize,
    total: usize,
}

pub fn run(options: &StatusOptions) -> Result<()> {
    let dir = DataDir::new(&options.location.data_dir);
    let Some(settings) = Settings::load(&dir)? else {
        bail!("there is no cluster in {}: run `master init` first", dir.root().display())
    };
    let status = init::runtime()?.block_on(gather(&dir, &settings, Timestamp::now()))?;
    match options.output {
        Output::Json => manual::output::line(serde_json::to_string_pretty(&status)?),
        Output::Text => manual::output::text(text(&status, Timestamp::now())),
    }
    match status.problems.len() {
        0 => Ok(()),
        1 => bail!("not well: one problem"),
        number => bail!("not well: {number} problems"),
    }
}

async fn gather(dir: &DataDir, settings: &Settings, now: Timestamp) -> Result<Status> {
    let path = dir.store();
    let bytes = [path.clone(), path.with_extension("journal")].iter().map(size).sum();
    let (certificates, unread) = match certs::all(dir) {
        Ok(certificates) => (certificates, None),
        Err(error) => (Vec::new(), Some(format!("{error:#}"))),
    };
    let answers = match token::connect(dir).await {
        Ok(client) => ask(&client).await,
        Err(error) => Err(error),
    };
    let mut problems: Vec<String> = unread.into_iter().collect();
    let (version, nodes) = match answers {
        Ok((version, nodes)) => (Some(version), Some(nodes)),
        Err(error) => {
            problems.push(format!("the API server does not answer: {error:#}"));
            (None, None)
        }
    };
    problems.extend(self::problems(&certificates, nodes, now));
    Ok(Status {
        healthy: problems.is_empty(),
        problems,
        address: settings.endpoint().to_string(),
        version,
        store: StoreFacts { path: path.display().to_string(), bytes, format: Embedded::FORMAT },
        certificates,
        nodes,
    })
}

fn size(path: &std::path::PathBuf) -> u64 {
    std::fs::metadata(path).map_or(0, |meta| meta.len())
}

async fn ask(client: &Client) -> Result<(String, Nodes)> {
    if !init::is_ready(client).await {
        bail!("/readyz is not ok");
    }
    let version = api::get(client, "/version").await?.context("/version is not served")?;
    let version = version.get("gitVersion").and_then(Value::as_str).unwrap_or_default().to_owned();
    let list = api::get(client, "/api/v1/nodes").await?.unwrap_or_default();
    let items: Vec<&Value> = list.get("items").and_then(Value::as_array).into_iter().flatten().collect();
    let ready = items.iter().filter(|node| is_ready(node)).count();
    Ok((version, Nodes { ready, total: items.len() }))
}

fn is_ready(node: &Value) -> bool {
    let conditions = node.pointer("/status/conditions").and_then(Value::as_array).into_iter().flatten();
    let is = |condition: &Value, name: &str, value: &str| condition.get(name).and_then(Value::as_str) == Some(value);
    conditions.into_iter().any(|condition| is(condition, "type", "Ready") && is(condition, "status", "True"))
}

fn problems(certificates: &[Certificate], nodes: Option<Nodes>, now: Timestamp) -> Vec<String> {
    let mut problems = Vec::new();
    for Certificate { file, begins, expires, .. } in certificates {
        let left = expires.duration_since(now);
        if *begins > now {
            let remedy = "if this machine's clock is right, `master certs rotate` makes a new one";
            problems.push(format!("{file} is not valid before {begins}: {remedy}"));
        } else if left <= SignedDuration::ZERO {
            problems.push(format!("{file} expired at {expires}: `master certs rotate` makes a new one"));
        } else if left < NEAR {
            problems.push(format!("{file} expires at {expires} and was not renewed: see the master's log"));
        }
    }
    if let Some(Nodes { ready, total }) = nodes.filter(|nodes| nodes.ready < nodes.total) {
        problems.push(format!("{} of {total} nodes are not Ready: see `kubectl get nodes`", total - ready));
    }
    problems
}

fn text(status: &Status, now: Timestamp) -> String {
    let Status { address, version, store, nodes, certificates, problems, healthy } = status;
    let version = version.as_deref().unwrap_or("<unknown>");
    let nodes = nodes.map_or("<unknown>".to_owned(), |n| format!("{} of {} Ready", n.ready, n.total));
    let mut out = format!("Healthy:  {healthy}\nAddress:  {address}\nVersion:  {version}\nNodes:    {nodes}\n");
    out += &format!("Store:    {}, {} bytes, format {}\n\n", store.path, store.bytes, store.format);
    out += &certs::table(certificates, now);
    for problem in problems {
        out += &format!("\nPROBLEM: {problem}\n");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(now: Timestamp, days: i64) -> Certificate {
        let expires = now + SignedDuration::from_hours(24 * days);
        Certificate {
            file: "pki/apiserver.crt".into(),
            common_name: "kube-apiserver".into(),
            begins: expires - SignedDuration::from_hours(24 * 365),
            expires,
            sans: Vec::new(),
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let well = Some(Nodes { ready: 3, total: 3 });
        assert_eq!(problems(&[certificate(now, 300)], well, now), Vec::<String>::new());
        let found = problems(&[certificate(now, -1), certificate(now, 3)], Some(Nodes { ready: 1, total: 3 }), now);
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found[0].contains("pki/apiserver.crt expired"), "{found:?}");
        let ahead = problems(&[certificate(now, 400)], well, now);
        assert!(ahead[0].contains("pki/apiserver.crt is not valid before 20"), "{ahead:?}");
        assert!(found[2].starts_with("2 of 3 nodes are not Ready"), "{found:?}");
    }
}
