//! Host ports of running pods. The plugin makes their rules when a sandbox is made; where these went since, as by an administrator's
//! `nft flush ruleset`, it is asked once more. What it was asked then is in what libcni keeps of each attachment.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use netns::Netlink;
use netns::nft::{Batch, Kernel, Nft};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};

use super::{BRIDGE, Folders, cached, plugins};
use crate::client::watch::describe;

/// The plugins' table (`cni-plugins/src/rules.rs`), and its sets of ports.
pub(super) const TABLE: &str = "keelson-cni";
const PORTS: [&str; 4] = ["ports4", "ports6", "bound-ports4", "bound-ports6"];
const PLUGIN: &str = "portmap";
/// As with the table of Services.
const CHECK: Duration = Duration::from_secs(30);

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("look for host ports")]
    Kernel(#[from] netns::Error),
    #[error("call plugin {0:?}")]
    Call(PathBuf, #[source] std::io::Error),
    #[error("plugin {PLUGIN}: {0}")]
    Plugin(String),
}

/// What libcni keeps of an attachment (`cachedInfo`), as far as it matters here.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Attachment {
    container_id: String,
    if_name: String,
    network_name: String,
    #[serde(default)]
    capability_args: Capabilities,
    result: Made,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Capabilities {
    port_mappings: Option<Vec<Value>>,
}

/// The plugins' result.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Made {
    cni_version: String,
    #[serde(default)]
    interfaces: Vec<Link>,
    #[serde(flatten)]
    rest: serde_json::Map<String, Value>,
}

#[derive(Debug, Clone, Deserialize, serde::Serialize)]
struct Link {
    name: String,
    /// The path of its namespace; none on the host.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    sandbox: String,
}

impl Attachment {
    fn read(path: &Path) -> Option<Self> {
        let read: Self = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
        read.capability_args.port_mappings.as_ref().is_some_and(|ports| !ports.is_empty()).then_some(read)
    }

    /// Whether its links are on this host: not those of a sandbox that went with the machine's last start.
    fn is_here(&self, links: &BTreeSet<String>) -> bool {
        let mut own = self.result.interfaces.iter().filter(|link| link.sandbox.is_empty()).peekable();
        own.peek().is_some() && own.all(|link| links.contains(&link.name))
    }

    fn is_in(&self, owners: &BTreeSet<String>) -> bool {
        owners.contains(&self.container_id)
    }

    /// What the plugin is given.
    fn request(&self) -> Value {
        let Made { cni_version, interfaces, rest } = &self.result;
        let mut result = rest.clone();
        result.insert("cniVersion".to_owned(), json!(cni_version));
        result.insert("interfaces".to_owned(), json!(interfaces));
        json!({
            "cniVersion": cni_version, "name": self.network_name, "type": PLUGIN, "snat": true,
            "runtimeConfig": {"portMappings": self.capability_args.port_mappings}, "prevResult": result,
        })
    }

    async fn call(&self, command: &str, program: &Path) -> Result<(), Error> {
        let sandbox = self.result.interfaces.iter().map(|link| link.sandbox.as_str()).find(|path| !path.is_empty());
        let fail = |error| Error::Call(program.to_owned(), error);
        let mut child = Command::new(program)
            .env_clear()
            .envs([("CNI_COMMAND", command), ("CNI_CONTAINERID", &self.container_id), ("CNI_IFNAME", &self.if_name)])
            .envs([("CNI_NETNS", sandbox.unwrap_or("/")), ("CNI_PATH", "/")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(fail)?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(self.request().to_string().as_bytes()).await.map_err(fail)?;
        }
        let said = child.wait_with_output().await.map_err(fail)?;
        match said.status.success() {
            true => Ok(()),
            false => Err(Error::Plugin(String::from_utf8_lossy(&said.stdout).into_owned())),
        }
    }
}

/// Looks after them until this task is ended, where the plugin in these folders is ours.
pub(super) async fn look_after(folders: watch::Receiver<Option<Folders>>) {
    let mut put_back = BTreeMap::new();
    let mut looks = tokio::time::interval_at(Instant::now() + CHECK, CHECK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let Some(folder) = folders.borrow().as_ref().map(|folders| folders.bin.clone()) else { continue };
        let Some(program) = plugins::ours(&folder, PLUGIN) else { continue };
        if let Err(error) = look(&program, &mut put_back).await {
            tracing::warn!(error = %describe(&error), "host ports of running pods may not be forwarded, will retry");
        }
    }
}

/// One look. `put_back`: what was called for at the last one, by the file that told of it.
async fn look(program: &Path, put_back: &mut BTreeMap<PathBuf, Attachment>) -> Result<(), Error> {
    // A sandbox may have gone between reading and calling.
    for (path, attachment) in std::mem::take(put_back) {
        if !path.exists() {
            attachment.call("DEL", program).await?;
        }
    }
    let kernel = Nft::open_current()?;
    let owners = owners(&kernel).await?;
    if owners.is_none() {
        close_localhost();
    }
    let links = Netlink::open_current()?.links().await?.into_iter().map(|link| link.name).collect();
    let mut failed = Ok(());
    for (path, attachment) in lost(cached(), &owners.unwrap_or_default(), &links) {
        tracing::warn!(
            container = attachment.container_id,
            "rules of host ports are gone from the kernel: they are made anew"
        );
        let called = attachment.call("ADD", program).await;
        put_back.insert(path, attachment);
        failed = failed.and(called);
    }
    failed
}

/// The containers that have ports; `None` without a table.
async fn owners(kernel: &impl Kernel) -> Result<Option<BTreeSet<String>>, netns::Error> {
    if !kernel.has_table(TABLE).await? {
        return Ok(None);
    }
    let mut owners = BTreeSet::new();
    for set in PORTS {
        let elements = match kernel.elements(TABLE, set).await {
            Err(error) if error.is_not_found() => Vec::new(),
            elements => elements?,
        };
        // Comments are NETWORK CONTAINER INTERFACE.
        let comments = elements.iter().filter_map(|element| element.comment.as_deref());
        owners.extend(comments.filter_map(|comment| comment.split(' ').nth(1)).map(str::to_owned));
    }
    Ok(Some(owners))
}

/// The attachments on this host whose ports are not in the kernel.
fn lost(files: Vec<PathBuf>, owners: &BTreeSet<String>, links: &BTreeSet<String>) -> Vec<(PathBuf, Attachment)> {
    let known = files.into_iter().filter_map(|path| Some((Attachment::read(&path)?, path)));
    let lost = known.filter(|(attachment, _)| attachment.is_here(links) && !attachment.is_in(owners));
    lost.map(|(attachment, path)| (path, attachment)).collect()
}

/// Without the table nothing keeps pods from what listens on localhost alone: until a port needs it again, and the plugin has made the rules,
/// the kernel itself refuses them.
fn close_localhost() {
    match netns::sysctl::write_current(&format!("net/ipv4/conf/{BRIDGE}/route_localnet"), "0") {
        Err(error) if !error.is_not_found() => {
            tracing::warn!(error = %describe(&error), "pods may reach what listens on localhost");
        }
        _ => {}
    }
}

/// Removes the table. None is no error.
pub(super) async fn remove() -> Result<(), netns::Error> {
    Nft::open_current()?.commit(&Batch::deleting(TABLE)).await
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// As libcni of containerd 1.7 writes it, shortened.
    fn written(id: &str, veth: &str, ports: &Value) -> Value {
        json!({
            "kind": "cniCacheV1", "containerId": id, "config": "e30=", "ifName": "eth0", "networkName": "keelson",
            "cniArgs": [["K8S_POD_NAME", "p"]], "capabilityArgs": {"dns": {}, "portMappings": ports},
            "result": {
                "cniVersion": "1.0.0", "dns": {},
                "interfaces": [
                    {"name": "keelson0", "mac": "a"}, {"name": veth, "mac": "b"},
                    {"name": "eth0", "mac": "c", "sandbox": "/var/run/netns/cni-1"},
                ],
                "ips": [{"address": "10.1.0.5/24", "gateway": "10.1.0.1", "interface": 2}],
            },
        })
    }

    fn names(all: &[&str]) -> BTreeSet<String> {
        all.iter().map(|name| (*name).to_owned()).collect()
    }

    #[tokio::test]
    async fn the_plugin_is_asked_again_for_sandboxes_that_are_here_and_have_no_rules() {
        let dir = tempfile::tempdir().unwrap();
        let port = json!([{"HostPort": 8080, "ContainerPort": 80, "Protocol": "tcp", "HostIP": ""}]);
        let all = [
            written("a", "veth1", &port),
            written("b", "veth2", &port),
            written("gone", "veth9", &port),
            written("plain", "veth3", &Value::Null),
        ];
        let mut files = vec![dir.path().join("nothing")];
        for one in &all {
            let path = dir.path().join(format!("keelson-{}-eth0", one["containerId"].as_str().unwrap()));
            std::fs::write(&path, one.to_string()).unwrap();
            files.push(path);
        }
        let links = names(&["lo", "keelson0", "veth1", "veth2", "veth3"]);
        let lost = lost(files, &names(&["b"]), &links);
        let [(_, attachment)] = lost.as_slice() else { panic!("{lost:?}") };

        let program = dir.path().join("portmap");
        let said = dir.path().join("said");
        let script = format!(
            "#!/bin/sh\n(/bin/cat; echo; echo $CNI_COMMAND $CNI_CONTAINERID $CNI_IFNAME $CNI_NETNS) >{}\n",
            said.display()
        );
        std::fs::write(&program, script).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        attachment.call("ADD", &program).await.unwrap();
        let text = std::fs::read_to_string(&said).unwrap();
        let (config, environment) = text.split_once('\n').unwrap();
        assert_eq!(environment, "ADD a eth0 /var/run/netns/cni-1\n");
        let config: Value = serde_json::from_str(config).unwrap();
        assert_eq!((&config["runtimeConfig"]["portMappings"], &config["name"]), (&port, &json!("keelson")));
        assert_eq!(config["prevResult"]["ips"], all[0]["result"]["ips"]);
    }
}
