//! The workers of a node of these tests: how they are configured and started.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use agent::config::KubeletConfiguration;
use agent::events::Recorder;
use agent::node::facts::Facts;
use agent::node::own;
use agent::pods::manifests::Manifests;
use agent::pods::stages::limits::Machine;
use agent::pods::{Deps, PodsConfig, PodsHandle};
use cgroups::values::{Allocatable, ClassPolicy, Policy};
use tokio::sync::watch;

/// Everything below `folder`, and below the cgroup `cgroup_root`.
pub fn config(folder: &Path, cgroup_root: &str) -> PodsConfig {
    PodsConfig {
        node_name: "node".into(),
        node_labels: BTreeMap::new(),
        data_dir: folder.join("data"),
        logs_dir: folder.join("logs"),
        cgroup_root: cgroup_root.to_owned(),
        machine: Machine { policy: Policy::default(), memory: 8 << 30, ..Machine::default() },
        enforced: Allocatable { cpu: 2000, memory: None, pids: None },
        classes: ClassPolicy::default(),
        allocatable: [("pods".to_owned(), "10".parse().unwrap())].into(),
        dns: agent::pods::resolv_conf::Settings::default(),
        allowed_unsafe_sysctls: Vec::new(),
        app_armor: false,
        selinux: false,
        seccomp_default: false,
        images: agent::images::Settings::new(&KubeletConfiguration::default(), folder.join("data")),
        backoff_max: Duration::from_secs(300),
        manifests: Manifests {
            path: Some((folder.join("manifests"), Duration::from_secs(20))),
            ..Manifests::default()
        },
        logs: agent::pods::logs::Settings {
            interval: Duration::from_secs(10),
            max_size: 1 << 20,
            max_files: 3,
            workers: 1,
        },
        volume_stats_period: Duration::from_secs(60),
        eviction: agent::eviction::Settings {
            thresholds: Vec::new(),
            transition: Duration::ZERO,
            max_grace: 0,
            isolation: false,
        },
        user_namespaces: agent::pods::userns::Settings { ids_per_pod: 65_536, max_pods: 110 },
        shutdown: Vec::new(),
    }
}

/// Starts them.
pub fn start(config: PodsConfig, client: kube::Client, runtime: cri::Client) -> PodsHandle {
    let (_, addresses) = watch::channel(vec!["127.0.0.1".parse().unwrap()]);
    let recorder = Recorder::start(client.clone(), "node", 0, 0);
    // It ends with the test's runtime.
    let (node, _) = own::follow(client.clone(), &config.node_name, &config.node_labels);
    agent::pods::start(Deps {
        cgroups: agent::pods::open_cgroups(cgroups::Naming::Cgroupfs, &config).unwrap(),
        config,
        client,
        runtime,
        recorder,
        addresses,
        runtime_back: Arc::default(),
        node,
        facts: Facts::default(),
        pressures: watch::Sender::default(),
        shutting_down: watch::Sender::default(),
    })
    .unwrap()
}
