//! From what was asked, what an earlier join made, and what the cluster says to the node's configuration.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use rustls_pki_types::CertificateDer;
use serde_json::{Value, json};

use super::error::JoinError;
use super::options::JoinOptions;
use crate::client::Servers;
use crate::config::settings::{default_data_dir, default_run_dir};
use crate::config::{
    self, Config, KubeletConfiguration, Layout, NodeSettings, parse_kubelet, parse_kubelet_over, write_atomic,
    write_private,
};
use crate::identity::{Identity, to_pem};
use crate::runtime_info::RuntimeInfo;

/// Puts the configuration together: the node's own of an earlier join or else the cluster's document, under what the command line says. The second
/// value holds warnings.
///
/// # Errors
/// A document that cannot be used.
pub fn configuration(
    options: &JoinOptions,
    masters: &Servers,
    node_name: &str,
    earlier: Option<&Config>,
    cluster: Option<&str>,
    runtime: &RuntimeInfo,
) -> Result<(Config, Vec<String>), JoinError> {
    let (mut kubelet, mut warnings) = base(earlier, cluster)?;
    if let Some(path) = &options.kubelet_config {
        let (own, more) = parse_kubelet_over(Some(&kubelet), path, &config::read(path)?)?;
        kubelet = own;
        // Paths of the machine that the document was written on say nothing about this one.
        kubelet.authentication.x509.client_ca_file = String::new();
        warnings.extend(more);
    }
    kubelet.container_runtime_endpoint = runtime_endpoint(options, earlier);
    if let Some(driver) = runtime.cgroup_driver {
        kubelet.cgroup_driver = driver.to_string();
    }
    if let Some(root) = &options.cgroup_root {
        kubelet.cgroup_root.clone_from(root);
    }
    if let Some(dir) = &options.pod_log_dir {
        kubelet.pod_logs_dir.clone_from(dir);
    }
    if let Some(taints) = &options.register_with_taints {
        kubelet.register_with_taints.clone_from(&taints.0);
    }
    let node = settings(options, masters, node_name, earlier.map(|config| &config.node));
    // Those of the command line were refused at once; a Node that has them already stays as it is.
    warnings.extend(node.node_labels.keys().filter(|key| !api::node_labels::is_a_nodes(key)).map(|key| {
        format!("node.yaml: a node may not give itself the label {key}; if it does not register, that is why: --node-labels sets others")
    }));
    if node.server.iter().any(|known| masters.iter().all(|one| one != known)) {
        let known = &node.server;
        warnings.push(format!("server in node.yaml stays {known}: take out there what is gone for good"));
    }
    let layout = Layout::new(&options.config_dir, &node.data_dir, &node.run_dir);
    Ok((Config { layout, kubelet, node }, warnings))
}

/// The socket of the runtime, which is asked before there is a configuration.
pub fn runtime_endpoint(options: &JoinOptions, earlier: Option<&Config>) -> String {
    let kept = earlier.map(|config| &config.kubelet.container_runtime_endpoint);
    let default = || KubeletConfiguration::default().container_runtime_endpoint;
    chosen(options.container_runtime_endpoint.as_ref(), kept).unwrap_or_else(default)
}

fn chosen<T: Clone>(asked: Option<&T>, kept: Option<&T>) -> Option<T> {
    asked.or(kept).cloned()
}

/// What the command line is laid over.
fn base(earlier: Option<&Config>, cluster: Option<&str>) -> Result<(KubeletConfiguration, Vec<String>), config::Error> {
    let cluster = cluster.map(|text| parse_kubelet(Path::new("configmap kube-system/kubelet-config"), text));
    let Some(Config { kubelet: kept, .. }) = earlier else {
        let (mut kubelet, warnings) = cluster.transpose()?.unwrap_or_default();
        kubelet.authentication.x509.client_ca_file = String::new();
        return Ok((kubelet, warnings));
    };
    // A node's own wins. Its pods would notice these two in another cluster, such as one that was made anew.
    let mut warnings = Vec::new();
    if let Some(Ok((theirs, _))) = cluster {
        let mut compare = |name: &str, ours: &str, theirs: &str| {
            if ours != theirs {
                warnings.push(format!(
                    "{name} stays {ours:?}, as in agent.yaml; the cluster's kubelet-config has {theirs:?}"
                ));
            }
        };
        compare("clusterDNS", &kept.cluster_dns.join(","), &theirs.cluster_dns.join(","));
        compare("clusterDomain", &kept.cluster_domain, &theirs.cluster_domain);
    }
    Ok((kept.clone(), warnings))
}

/// `node.yaml`.
fn settings(options: &JoinOptions, masters: &Servers, node_name: &str, kept: Option<&NodeSettings>) -> NodeSettings {
    // A command that was printed on one of several masters names that one.
    let server =
        kept.map(|node| &node.server).filter(|known| masters.iter().all(|one| known.iter().any(|it| it == one)));
    let node_ip = chosen(options.node_ip.as_ref(), kept.and_then(|node| node.node_ip.as_ref()));
    let node_labels = chosen(options.node_labels.as_ref(), kept.map(|node| &node.node_labels));
    let data_dir = chosen(options.data_dir.as_ref(), kept.map(|node| &node.data_dir));
    let run_dir = chosen(options.run_dir.as_ref(), kept.map(|node| &node.run_dir));
    // What the runtime says of them may change: it is asked by the agent.
    let cni_conf_dir = chosen(options.cni_conf_dir.as_ref(), kept.and_then(|node| node.cni_conf_dir.as_ref()));
    let cni_bin_dir = chosen(options.cni_bin_dir.as_ref(), kept.and_then(|node| node.cni_bin_dir.as_ref()));
    NodeSettings {
        node_name: node_name.to_owned(),
        server: server.unwrap_or(masters).clone(),
        node_ip,
        node_labels: node_labels.unwrap_or_default(),
        data_dir: data_dir.unwrap_or_else(default_data_dir),
        run_dir: run_dir.unwrap_or_else(default_run_dir),
        cni_conf_dir,
        cni_bin_dir,
    }
}

/// Writes everything that `agent run` needs. The client certificate comes last: where it is, the rest is.
///
/// # Errors
/// What the filesystem said.
pub fn write(config: &Config, ca: &CertificateDer<'_>, identity: &Identity) -> Result<(), JoinError> {
    let layout = &config.layout;
    write_settings(config)?;
    write_atomic(&layout.ca_cert(), to_pem(ca).as_bytes(), 0o644).map_err(failed(&layout.ca_cert()))?;
    identity.save(&layout.client_pem())?;
    match std::fs::remove_file(layout.asked_client_key()) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(failed(&layout.asked_client_key())(error)),
        _ => Ok(()),
    }
}

fn failed(path: &Path) -> impl FnOnce(std::io::Error) -> JoinError + use<> {
    let path = path.to_owned();
    move |source| JoinError::Write { path, source }
}

/// The same of a node that keeps its keys.
///
/// # Errors
/// What the filesystem said.
pub fn write_settings(config: &Config) -> Result<(), JoinError> {
    let layout = &config.layout;
    for (dir, mode) in [
        (layout.config_dir.clone(), 0o755),
        (layout.pki_dir(), 0o700),
        (layout.data_dir.clone(), 0o750),
        (layout.run_dir.clone(), 0o755),
    ] {
        make_dir(&dir, mode).map_err(failed(&dir))?;
    }
    // What people wrote into the files, such as comments, stays where nothing is to change.
    let is_written = Config::written(&layout.config_dir)
        .is_ok_and(|written| written.is_some_and(|it| it.kubelet == config.kubelet && it.node == config.node));
    if !is_written {
        config.save()?;
    }
    let kubeconfig = serde_json::to_vec_pretty(&kubeconfig(config)).unwrap_or_default();
    write_private(&layout.kubeconfig(), &kubeconfig).map_err(failed(&layout.kubeconfig()))
}

/// Makes the folder of keys, and answers where that of a first certificate is kept until there is one.
///
/// # Errors
/// What the filesystem said.
pub fn key_file(layout: &Layout) -> Result<PathBuf, JoinError> {
    for (path, mode) in [(layout.config_dir.clone(), 0o755), (layout.pki_dir(), 0o700)] {
        make_dir(&path, mode).map_err(|source| JoinError::Write { path, source })?;
    }
    Ok(layout.asked_client_key())
}

/// A folder that is there keeps its mode: somebody chose it, perhaps for more than this node.
fn make_dir(path: &Path, mode: u32) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    if let Some(above) = path.parent() {
        std::fs::create_dir_all(above)?;
    }
    match std::fs::DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// A kubeconfig that acts as this node. JSON, which is YAML. It names files, so that a renewal needs no rewrite.
fn kubeconfig(config: &Config) -> Value {
    // It has room for one.
    let server = format!("https://{}", config.node.server.first());
    let client = config.layout.client_pem();
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "keelson", "cluster": {
            "server": server, "certificate-authority": config.layout.ca_cert(),
        }}],
        "users": [{"name": "node", "user": {"client-certificate": client, "client-key": client}}],
        "contexts": [{"name": "node", "context": {"cluster": "keelson", "user": "node"}}],
        "current-context": "node",
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_folder_that_is_there_keeps_its_mode() {
        let dir = tempfile::tempdir().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let (theirs, ours) = (dir.path().join("theirs"), dir.path().join("above/ours"));
        fs::create_dir(&theirs).unwrap();
        fs::set_permissions(&theirs, fs::Permissions::from_mode(0o777)).unwrap();
        for folder in [&theirs, &ours] {
            make_dir(folder, 0o700).unwrap();
            make_dir(folder, 0o700).unwrap();
        }
        assert_eq!((mode(&theirs), mode(&ours)), (0o777, 0o700));
        fs::write(dir.path().join("file"), "").unwrap();
        assert!(make_dir(&dir.path().join("file/below"), 0o700).is_err());
    }
}
