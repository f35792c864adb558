//! What a machine that leaves has of a node: read from its configuration, also where that is broken or not there yet.

use super::{LeaveOptions, say};
use crate::client::watch::describe;
use crate::config::Config;
use crate::config::rescue::{Rescued, rescue};
use crate::{config, own_files};

/// What is taken apart.
pub(super) struct Place {
    pub(super) config: Config,
    /// Whether it is known which node this is: else no cluster is asked.
    pub(super) is_known: bool,
    /// Whether an agent has run here. Where none has, pods and what goes with them are somebody else's.
    pub(super) has_run: bool,
}

/// Looks for it.
///
/// # Errors
/// `node.yaml` is missing or broken, unless by force.
pub(super) fn find(options: &LeaveOptions) -> anyhow::Result<Place> {
    let folder = std::path::absolute(&options.config_dir)?;
    let found = rescue(&folder, options.force).map_err(config::told)?;
    let Rescued { config, is_known, trouble } = found;
    for error in trouble {
        say(&format!("leaving in spite of this: {}", describe(&error)));
    }
    let has_run = is_known || own_files::has_run(&config.layout.data_dir);
    Ok(Place { config, is_known, has_run })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_that_has_not_joined_is_told_so_and_no_pod_of_its_is_touched() {
        let folder = tempfile::tempdir().unwrap();
        let mut options =
            LeaveOptions { config_dir: folder.path().into(), kubeconfig: None, drain_timeout: None, force: false };
        let error = format!("{:#}", find(&options).err().unwrap());
        assert!(error.starts_with("this machine has not joined a cluster"), "{error}");
        options.force = true;
        let data = folder.path().join("data");
        std::fs::write(folder.path().join("node.yaml"), format!("dataDir: {}\n", data.display())).unwrap();
        let place = find(&options).unwrap();
        assert!(!place.is_known && !place.has_run);
        std::fs::create_dir_all(data.join("pods")).unwrap();
        assert!(find(&options).unwrap().has_run);
    }
}
