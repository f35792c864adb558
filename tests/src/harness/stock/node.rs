//! A stock node: kubelet, kube-proxy and the reference CNI plugins on a worker machine of the harness. It joins either control plane
//! by a bootstrap token, as `kubeadm join` does it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::harness::cluster::{Cluster, Part};
use crate::harness::host::inside;
use crate::harness::layout::HostPaths;
use crate::harness::shell::{output, wait_for};

const CGROUPS: &str = "/sys/fs/cgroup";

impl Cluster {
    /// Starts a kubelet and, when it has registered its node, kube-proxy and the pod network.
    pub(in crate::harness) fn join_stock_node(&mut self, number: u8) -> Result<()> {
        let host = self.layout.host(&format!("n{number}"));
        for dir in ["manifests", "kubelet", "kubelet-pki", "pod-logs"] {
            fs::create_dir_all(host.dir().join(dir))?;
        }
        self.install_plugins(&host)?;
        prepare_cgroups(&host)?;
        for setting in ["net.ipv4.ip_forward=1", "net.ipv4.conf.all.route_localnet=1"] {
            output(inside(&host, Path::new("sysctl")).args(["-qw", setting]))?;
        }
        self.start_kubelet(number, &host)?;
        self.start_kube_proxy(number, &host)?;
        let range = self.pod_range(&host.name)?;
        let conflist = serde_json::to_vec_pretty(&conflist(&host, &range))?;
        fs::write(host.cni_conf().join("10-stock.conflist"), conflist).context("write the conflist")
    }

    /// The node's podCIDR, once the control plane has given it one.
    pub(in crate::harness) fn pod_range(&self, node: &str) -> Result<String> {
        let kubectl = self.kubectl();
        wait_for(&format!("a podCIDR of node {node}"), Duration::from_secs(60), || {
            let range = kubectl.run(&["get", "node", node, "-o", "jsonpath={.spec.podCIDR}"])?;
            ensure!(!range.is_empty(), "it has none");
            Ok(range)
        })
    }

    fn install_plugins(&self, host: &HostPaths) -> Result<()> {
        let from = self.upstream()?.program("cni");
        for plugin in fs::read_dir(&from).with_context(|| format!("list {}", from.display()))? {
            let plugin = plugin?;
            fs::copy(plugin.path(), host.cni_bin().join(plugin.file_name())).context("copy a CNI plugin")?;
        }
        Ok(())
    }

    fn start_kubelet(&mut self, number: u8, host: &HostPaths) -> Result<()> {
        let bootstrap = host.dir().join("bootstrap-kubelet.conf");
        self.write_kubeconfig(&bootstrap, &self.bootstrap_token()?)?;
        let config = host.dir().join("kubelet.json");
        let mut kubelet_config = self.kubelet_config(host);
        if let Some(fields) = kubelet_config.as_object_mut() {
            fields.extend(self.kubelet_fields().clone());
        }
        let text = serde_json::to_vec_pretty(&kubelet_config)?;
        fs::write(&config, text).with_context(|| format!("write {}", config.display()))?;
        let mut kubelet = inside(host, &self.upstream()?.program("kubelet"));
        kubelet.arg("--config").arg(config);
        kubelet.arg("--bootstrap-kubeconfig").arg(bootstrap);
        kubelet.arg("--kubeconfig").arg(host.dir().join("kubelet.conf"));
        kubelet.arg("--cert-dir").arg(host.dir().join("kubelet-pki"));
        kubelet.arg("--root-dir").arg(host.dir().join("kubelet"));
        kubelet.args(["--hostname-override", &host.name, "--node-ip", &self.lan.worker(number).to_string()]);
        self.start(&format!("kubelet-{}", host.name), &mut kubelet)
    }

    fn bootstrap_token(&self) -> Result<String> {
        let said = self.join_command()?;
        let mut words = said.split_whitespace().skip_while(|w| *w != "--token");
        Ok(words.nth(1).context("the join command has no token")?.to_owned())
    }

    /// The CA that nodes trust: both control planes keep it in the same place.
    fn ca(&self) -> PathBuf {
        self.layout.master_dir().join("pki/ca.crt")
    }

    fn write_kubeconfig(&self, path: &Path, token: &str) -> Result<()> {
        let server = format!("https://{}:6443", self.lan.master());
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": server, "certificate-authority": self.ca()}}],
            "users": [{"name": "u", "user": {"token": token}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        });
        fs::write(path, serde_json::to_vec_pretty(&config)?).with_context(|| format!("write {}", path.display()))
    }

    /// kubeadm's settings for kubelets, and what two kubelets on one machine need of their own.
    fn kubelet_config(&self, host: &HostPaths) -> Value {
        json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
            "authentication": {
                "anonymous": {"enabled": false}, "webhook": {"enabled": true}, "x509": {"clientCAFile": self.ca()},
            },
            "authorization": {"mode": "Webhook"},
            "clusterDNS": ["10.96.0.10"], "clusterDomain": "cluster.local",
            "rotateCertificates": true,
            // Our master approves nodes' own serving certificates; kube-controller-manager leaves that to administrators.
            "serverTLSBootstrap": self.control_plane() == Part::Ours,
            "staticPodPath": host.dir().join("manifests"),
            "containerRuntimeEndpoint": host.endpoint(),
            "cgroupDriver": "cgroupfs", "cgroupRoot": host.cgroup_root(),
            "podLogsDir": host.dir().join("pod-logs"),
            "failCgroupV1": false, "failSwapOn": false,
            "serializeImagePulls": false,
            "imageGCHighThresholdPercent": 100,
            // This machine's disk is shared by everything: a node that evicts because of others' files tests nothing.
            "evictionHard": {
                "memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%", "nodefs.inodesFree": "1%",
            },
        })
    }

    /// kube-proxy with the ServiceAccount that kubeadm makes for it.
    fn start_kube_proxy(&mut self, number: u8, host: &HostPaths) -> Result<()> {
        let kubectl = self.kubectl();
        if number == 1 {
            kubectl.say("create serviceaccount kube-proxy -n kube-system")?;
            kubectl.say("create clusterrolebinding kubeadm:node-proxier --clusterrole=system:node-proxier --serviceaccount=kube-system:kube-proxy")?;
        }
        let token = kubectl.say("create token kube-proxy -n kube-system --duration=24h")?;
        let kubeconfig = host.dir().join("kube-proxy.conf");
        self.write_kubeconfig(&kubeconfig, token.trim())?;
        let config = json!({
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration",
            "mode": "nftables", "clusterCIDR": "10.244.0.0/16",
            "hostnameOverride": host.name, "bindAddress": self.lan.worker(number).to_string(),
            "clientConnection": {"kubeconfig": kubeconfig},
            // Sizes of the kernel's table are the machine's, not the namespace's.
            "conntrack": {"maxPerCore": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        });
        let path = host.dir().join("kube-proxy.json");
        fs::write(&path, serde_json::to_vec_pretty(&config)?)?;
        self.run_kube_proxy(&host.name)
    }

    /// Starts kube-proxy, at first and after a test ended it.
    ///
    /// # Errors
    /// When it does not start.
    pub fn run_kube_proxy(&mut self, node: &str) -> Result<()> {
        let host = self.layout.host(node);
        let mut proxy = inside(&host, &self.upstream()?.program("kube-proxy"));
        proxy.arg("--config").arg(host.dir().join("kube-proxy.json"));
        self.start(&format!("kube-proxy-{node}"), &mut proxy)
    }
}

fn conflist(host: &HostPaths, range: &str) -> Value {
    json!({
        "cniVersion": "1.0.0", "name": "stock", "plugins": [
            {
                "type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true, "hairpinMode": true,
                "ipam": {
                    "type": "host-local", "dataDir": host.dir().join("ipam"),
                    "ranges": [[{"subnet": range}]], "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    })
}

/// The kubelet makes its pods' cgroups below `cgroupRoot`, which must exist; on v1 a new cpuset is empty until it is written.
fn prepare_cgroups(host: &HostPaths) -> Result<()> {
    let root = Path::new(CGROUPS);
    let name = host.cgroup_root();
    let name = name.trim_start_matches('/');
    if root.join("cgroup.controllers").exists() {
        return fs::create_dir_all(root.join(name)).context("make the node's cgroup");
    }
    let hierarchies = fs::read_dir(root)?.flatten().map(|e| e.path()).filter(|p| !p.is_symlink());
    for hierarchy in hierarchies.filter(|p| p.join("cgroup.procs").exists()) {
        let group: PathBuf = hierarchy.join(name);
        fs::create_dir_all(&group).with_context(|| format!("make {}", group.display()))?;
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if hierarchy.join(file).exists() {
                // Not fs::copy: the kernel's files have no size.
                let value = fs::read_to_string(hierarchy.join(file))?;
                fs::write(group.join(file), value).with_context(|| format!("write {file} of {}", group.display()))?;
            }
        }
    }
    Ok(())
}
