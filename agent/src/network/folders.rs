//! Where the runtime looks for CNI configuration and plugins: its packages and versions differ in that, and a machine may come to have
//! another. Which folders were used is written down, for who leaves.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::config::{Config, NodeSettings, write_atomic};
use crate::runtime_info::RuntimeInfo;

/// The file, below the agent's data folder: a JSON list, the present folders last.
const FILE: &str = "cni-folders.json";
/// Upstream's, where the runtime says nothing.
const CONF: &str = "/etc/cni/net.d";
const BIN: &str = "/opt/cni/bin";

/// Both folders.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Folders {
    /// Of configuration.
    pub conf: PathBuf,
    /// Of plugins.
    pub bin: PathBuf,
}

impl Folders {
    /// What `node.yaml` names, else what the runtime says.
    #[must_use]
    pub fn of(node: &NodeSettings, runtime: &RuntimeInfo) -> Self {
        let conf = node.cni_conf_dir.as_ref().or(runtime.cni_conf_dir.as_ref());
        let bin = node.cni_bin_dir.as_ref().or(runtime.cni_bin_dirs.first());
        Self { conf: conf.cloned().unwrap_or_else(|| CONF.into()), bin: bin.cloned().unwrap_or_else(|| BIN.into()) }
    }

    /// Those that are known before the runtime says anything.
    #[must_use]
    pub fn known(config: &Config) -> Option<Self> {
        let last = used(config).pop();
        let named = |name: Option<&PathBuf>, last: Option<&PathBuf>| name.or(last).cloned();
        Some(Self {
            conf: named(config.node.cni_conf_dir.as_ref(), last.as_ref().map(|last| &last.conf))?,
            bin: named(config.node.cni_bin_dir.as_ref(), last.as_ref().map(|last| &last.bin))?,
        })
    }

    /// Writes down that they are the present ones.
    pub(super) fn note(&self, config: &Config) {
        let mut all = used(config);
        if all.last() == Some(self) {
            return;
        }
        all.retain(|one| one != self);
        all.push(self.clone());
        let text = serde_json::to_vec(&all).unwrap_or_default();
        if let Err(error) = write_atomic(&config.layout.data_dir.join(FILE), &text, 0o644) {
            tracing::warn!(%error, "cannot write down where CNI plugins were put: leaving may not find them");
        }
    }

    /// All that something of ours may be in.
    pub(super) fn all(config: &Config) -> Vec<Self> {
        let mut all = used(config);
        all.push(Self::of(&config.node, &RuntimeInfo::default()));
        all
    }
}

fn used(config: &Config) -> Vec<Folders> {
    let text = std::fs::read(config.layout.data_dir.join(FILE)).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Layout;
    use crate::config::tests::minimal;

    fn folders(conf: &str, bin: &str) -> Folders {
        Folders { conf: conf.into(), bin: bin.into() }
    }

    #[test]
    fn what_is_named_counts_then_the_runtime_then_upstream() {
        let mut node = minimal().node;
        let runtime = RuntimeInfo { cni_bin_dirs: vec!["/usr/lib/cni".into(), "/x".into()], ..RuntimeInfo::default() };
        assert_eq!(Folders::of(&node, &runtime), folders("/n", "/b"));
        (node.cni_conf_dir, node.cni_bin_dir) = (None, None);
        assert_eq!(Folders::of(&node, &runtime), folders(CONF, "/usr/lib/cni"));
        assert_eq!(Folders::of(&node, &RuntimeInfo::default()), folders(CONF, BIN));
    }

    #[test]
    fn all_that_were_used_are_known_to_who_leaves() {
        let data = tempfile::tempdir().unwrap();
        let mut config = Config { layout: Layout::new("/c", data.path(), "/r"), ..minimal() };
        assert_eq!(Folders::known(&config), Some(folders("/n", "/b")));
        config.node.cni_bin_dir = None;
        assert_eq!(Folders::known(&config), None, "the runtime is to say it");
        for bin in ["/old", "/new", "/new"] {
            folders("/n", bin).note(&config);
        }
        assert_eq!(Folders::known(&config), Some(folders("/n", "/new")));
        assert_eq!(Folders::all(&config), [folders("/n", "/old"), folders("/n", "/new"), folders("/n", BIN)]);
        folders("/n", "/old").note(&config);
        assert_eq!((Folders::known(&config), used(&config).len()), (Some(folders("/n", "/old")), 2));
    }
}
