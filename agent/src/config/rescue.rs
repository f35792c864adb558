//! What taking a node apart needs of its configuration, also where that is broken: a machine must be able to leave whatever was written
//! into its files.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::{
    Config, Error, KubeletConfiguration, Layout, NodeSettings, dropins, layout, parse_yaml, read, read_kubelet,
};

/// A configuration to take a node apart by.
#[derive(Debug)]
pub(crate) struct Rescued {
    pub(crate) config: Config,
    /// Whether it is known which node of which cluster this is.
    pub(crate) is_known: bool,
    /// What is wrong with the files.
    pub(crate) trouble: Vec<Error>,
}

/// Reads what there is of `config_dir`; everything else is as where nothing was chosen. Without `node.yaml` only `by_force`.
///
/// # Errors
/// `node.yaml` is missing or broken.
pub(crate) fn rescue(config_dir: &Path, by_force: bool) -> Result<Rescued, Error> {
    let path = config_dir.join(layout::NODE_YAML);
    let mut trouble = Vec::new();
    let (node, is_known) = match read(&path).and_then(|text| parse_yaml::<NodeSettings>(&path, &text)) {
        Ok(node) => (node, true),
        Err(error) if by_force => {
            trouble.push(error);
            (settings(&values(&path))?, false)
        }
        Err(error) => return Err(error),
    };
    let layout = Layout::new(config_dir, &node.data_dir, &node.run_dir);
    let mut files = vec![layout.agent_yaml()];
    files.extend(dropins::files(&layout.dropin_dir()).unwrap_or_default());
    let kubelet = match read_kubelet(&files) {
        Ok((kubelet, _)) => kubelet,
        Err(error) => {
            trouble.push(error);
            essentials(&files)
        }
    };
    Ok(Rescued { config: Config { layout, kubelet, node }, is_known, trouble })
}

/// The folders that a broken `node.yaml` names.
fn settings(found: &Value) -> Result<NodeSettings, Error> {
    let mut fields = Map::from_iter([("nodeName".to_owned(), "".into()), ("server".to_owned(), "localhost".into())]);
    for name in ["dataDir", "runDir", "cniConfDir", "cniBinDir"] {
        if let Some(path) = found.get(name).and_then(Value::as_str).filter(|path| path.starts_with('/')) {
            fields.insert(name.to_owned(), path.into());
        }
    }
    let failed = |e: serde_json::Error| Error::Parse { path: layout::NODE_YAML.into(), message: e.to_string() };
    serde_json::from_value(Value::Object(fields)).map_err(failed)
}

/// The runtime's socket, and where pods have cgroups and logs.
fn essentials(files: &[PathBuf]) -> KubeletConfiguration {
    let mut all = Value::Null;
    files.iter().for_each(|path| dropins::merge(&mut all, values(path)));
    let text = |name: &str| all.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let mut kubelet = KubeletConfiguration::default();
    for (name, field, starts) in [
        ("containerRuntimeEndpoint", &mut kubelet.container_runtime_endpoint, "unix://"),
        ("podLogsDir", &mut kubelet.pod_logs_dir, "/"),
        ("cgroupRoot", &mut kubelet.cgroup_root, "/"),
    ] {
        if let Some(value) = text(name).filter(|value| value.starts_with(starts)) {
            value.clone_into(field);
        }
    }
    kubelet
}

/// The fields of a file, none where it cannot be read.
fn values(path: &Path) -> Value {
    let found = read(path).and_then(|text| parse_yaml::<Value>(path, &text));
    found.ok().filter(Value::is_object).unwrap_or_else(|| Value::Object(Map::new()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const KUBELET: &str = "kind: KubeletConfiguration\napiVersion: kubelet.config.k8s.io/v1beta1\n";

    fn folder(node: &str, agent: &str, dropin: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("agent.conf.d")).unwrap();
        for (name, text) in [("node.yaml", node), ("agent.yaml", agent), ("agent.conf.d/10.conf", dropin)] {
            fs::write(folder.path().join(name), text).unwrap();
        }
        folder
    }

    #[test]
    fn a_typo_keeps_nobody_from_leaving() {
        let node = "nodeName: n1\nserver: https://10.0.0.1:6443\ndataDir: /data/agent\n";
        let agent = format!("{KUBELET}containerRuntimeEndpoint: unix:///run/other.sock\ncgroupRoot: /kl\n");
        let broken = format!("{KUBELET}maxPods: many\npodLogsDir: /logs\ncgroupRoot: 7\n");
        let folder = folder(node, &agent, &broken);
        let found = rescue(folder.path(), false).unwrap();
        assert!(found.is_known && found.trouble.len() == 1, "{found:?}");
        let (node, kubelet) = (&found.config.node, &found.config.kubelet);
        assert_eq!((&*node.node_name, &*found.config.layout.data_dir), ("n1", Path::new("/data/agent")));
        assert_eq!(kubelet.container_runtime_endpoint, "unix:///run/other.sock");
        assert_eq!((&*kubelet.cgroup_root, &*kubelet.pod_logs_dir), ("", "/logs"), "7 is no path");
        fs::remove_dir_all(folder.path().join("agent.conf.d")).unwrap();
        fs::write(folder.path().join("agent.yaml"), "").unwrap();
        let found = rescue(folder.path(), false).unwrap();
        assert!(found.is_known);
        assert_eq!(found.config.kubelet, KubeletConfiguration::default());
    }

    #[test]
    fn without_node_yaml_only_by_force() {
        let folder = folder("nodeName: n1\ndataDir: /data/agent\nrunDir: run\n", KUBELET, KUBELET);
        assert!(matches!(rescue(folder.path(), false), Err(Error::Parse { .. })));
        let found = rescue(folder.path(), true).unwrap();
        assert!(!found.is_known && found.trouble.len() == 1);
        let layout = &found.config.layout;
        assert_eq!((&*layout.data_dir, &*layout.run_dir), (Path::new("/data/agent"), Path::new("/run/keelson")));
        let empty = tempfile::tempdir().unwrap();
        assert!(rescue(empty.path(), false).unwrap_err().remedy().contains("has not joined"));
        let found = rescue(empty.path(), true).unwrap();
        assert_eq!(found.config.layout.data_dir, Path::new("/var/lib/keelson"));
    }
}
