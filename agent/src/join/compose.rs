//! From what was asked and what the cluster says to the node's configuration.

use std::path::Path;

use rustls_pki_types::CertificateDer;
use serde_json::{Value, json};

use super::error::JoinError;
use super::options::JoinOptions;
use crate::client::Servers;
use crate::config::settings::{default_cni_bin_dir, default_cni_conf_dir};
use crate::config::{
    self, Config, KubeletConfiguration, Layout, NodeSettings, parse_kubelet, parse_kubelet_over, write_atomic,
    write_private,
};
use crate::identity::{Identity, to_pem};
use crate::runtime_info::RuntimeInfo;

/// Puts the configuration together: the cluster's document, or a stored one, under what the command line says.
///
/// # Errors
/// A document that cannot be used.
pub fn configuration(
    options: &JoinOptions,
    masters: &Servers,
    node_name: &str,
    cluster: Option<&str>,
    runtime: RuntimeInfo,
) -> Result<(Config, Vec<String>), JoinError> {
    let layout = Layout::new(&options.config_dir, &options.data_dir, &options.run_dir);
    let (mut kubelet, mut warnings) = match cluster {
        Some(text) => parse_kubelet(Path::new("configmap kube-system/kubelet-config"), text)?,
        None => (KubeletConfiguration::default(), Vec::new()),
    };
    if let Some(path) = &options.kubelet_config {
        let (own, more) = parse_kubelet_over(Some(&kubelet), path, &config::read(path)?)?;
        kubelet = own;
        warnings.extend(more);
    }
    // Paths of the machine that the document was written on say nothing about this one.
    kubelet.authentication.x509.client_ca_file = String::new();
    kubelet.container_runtime_endpoint.clone_from(&options.container_runtime_endpoint);
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
    let node = NodeSettings {
        node_name: node_name.to_owned(),
        server: masters.clone(),
        node_ip: options.node_ip.clone(),
        node_labels: options.node_labels.clone().unwrap_or_default(),
        data_dir: options.data_dir.clone(),
        run_dir: options.run_dir.clone(),
        cni_conf_dir: options.cni_conf_dir.clone().or(runtime.cni_conf_dir).unwrap_or_else(default_cni_conf_dir),
        cni_bin_dir: options.cni_bin_dir.clone().or(runtime.cni_bin_dir).unwrap_or_else(default_cni_bin_dir),
    };
    Ok((Config { layout, kubelet, node }, warnings))
}

/// Writes everything that `agent run` needs. The client certificate comes last: where it is, the rest is.
///
/// # Errors
/// What the filesystem said.
pub fn write(config: &Config, ca: &CertificateDer<'_>, identity: &Identity) -> Result<(), JoinError> {
    let layout = &config.layout;
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| JoinError::Write { path, source }
    };
    for (dir, mode) in [
        (layout.config_dir.clone(), 0o755),
        (layout.pki_dir(), 0o700),
        (layout.data_dir.clone(), 0o750),
        (layout.run_dir.clone(), 0o755),
    ] {
        make_dir(&dir, mode).map_err(failed(&dir))?;
    }
    write_atomic(&layout.ca_cert(), to_pem(ca).as_bytes(), 0o644).map_err(failed(&layout.ca_cert()))?;
    config.save()?;
    let kubeconfig = serde_json::to_vec_pretty(&kubeconfig(config)).unwrap_or_default();
    write_private(&layout.kubeconfig(), &kubeconfig).map_err(failed(&layout.kubeconfig()))?;
    identity.save(&layout.client_pem())?;
    Ok(())
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
