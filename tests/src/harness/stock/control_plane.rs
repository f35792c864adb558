//! A stock control plane on the host `m`, set up as `kubeadm init` sets it up, but for running as processes instead of static pods.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::harness::cluster::Cluster;
use crate::harness::host::inside;
use crate::harness::shell::{output, wait_for};

pub(super) const SERVICES: &str = "10.96.0.0/16";
const PODS: &str = "10.244.0.0/16";
const ETCD: &str = "http://127.0.0.1:2379";

impl Cluster {
    /// Makes certificates, starts the components, and publishes what nodes need to join.
    pub(in crate::harness) fn start_stock_control_plane(&mut self) -> Result<()> {
        let dir = self.layout.master_dir();
        fs::create_dir_all(dir.join("pki"))?;
        let config = dir.join("kubeadm.yaml");
        fs::write(&config, self.kubeadm_config()?).with_context(|| format!("write {}", config.display()))?;
        self.kubeadm(&["init", "phase", "certs", "all"])?;
        for user in ["admin", "super-admin", "controller-manager", "scheduler"] {
            self.kubeadm(&["init", "phase", "kubeconfig", user, "--kubeconfig-dir", &dir.to_string_lossy()])?;
        }
        fs::copy(dir.join("super-admin.conf"), self.layout.admin_conf()).context("super-admin.conf")?;

        self.component("etcd", &etcd(&dir))?;
        self.component("kube-apiserver", &self.apiserver(&dir))?;
        let kubectl = self.kubectl();
        wait_for("the stock API server", Duration::from_secs(90), || kubectl.say("get --raw /readyz").map(drop))?;
        self.component("kube-controller-manager", &controller_manager(&dir))?;
        self.component("kube-scheduler", &scheduler(&dir))?;

        // The rights that kubeadm gives to its administrators and to the API server as a client of kubelets.
        kubectl.say("create clusterrolebinding kubeadm:cluster-admins --clusterrole=cluster-admin --group=kubeadm:cluster-admins")?;
        kubectl.say("create clusterrolebinding keelson:kubelet-client --clusterrole=system:kubelet-api-admin --user=kube-apiserver-kubelet-client")?;
        let admin = self.layout.admin_conf();
        let admin = admin.to_string_lossy();
        self.kubeadm(&["init", "phase", "upload-config", "kubelet", "--kubeconfig", &admin])?;
        self.kubeadm(&["init", "phase", "bootstrap-token", "--kubeconfig", &admin]).map(drop)
    }

    /// What an administrator of a stock cluster does for our nodes: they are their own kube-proxy, with the identity of the node, and
    /// kube-controller-manager approves no serving certificates.
    pub(in crate::harness) fn admit_our_nodes(&self) -> Result<()> {
        let kubectl = self.kubectl();
        kubectl
            .say("create clusterrolebinding keelson:nodes --clusterrole=system:node-proxier --group=system:nodes")?;
        let wanted = usize::from(self.nodes());
        let requests = wait_for("the nodes' requests for serving certificates", Duration::from_secs(60), || {
            let said = kubectl.say(
                "get csr --field-selector=spec.signerName=kubernetes.io/kubelet-serving -o jsonpath={.items[*].metadata.name}",
            )?;
            let names: Vec<String> = said.split_whitespace().map(str::to_owned).collect();
            ensure!(names.len() >= wanted, "{} of {wanted} are there", names.len());
            Ok(names)
        })?;
        let mut approve = vec!["certificate", "approve"];
        approve.extend(requests.iter().map(String::as_str));
        kubectl.run(&approve).map(drop)
    }

    /// `IP:PORT`, token and CA hash as `kubeadm token create --print-join-command` has them.
    pub(in crate::harness) fn stock_join_command(&self) -> Result<String> {
        let admin = self.layout.admin_conf();
        let mut kubeadm = Command::new(self.upstream()?.program("kubeadm"));
        kubeadm.args(["token", "create", "--print-join-command", "--kubeconfig"]).arg(admin);
        Ok(output(&mut kubeadm)?
            .replace("kubeadm join", "agent join")
            .replace("--discovery-token-ca-cert-hash", "--ca-cert-hash"))
    }

    fn kubeadm(&self, args: &[&str]) -> Result<String> {
        let mut kubeadm = Command::new(self.upstream()?.program("kubeadm"));
        kubeadm.args(args).arg("--config").arg(self.layout.master_dir().join("kubeadm.yaml"));
        output(&mut kubeadm)
    }

    fn component(&mut self, name: &str, args: &[String]) -> Result<()> {
        let mut command = inside(&self.layout.host("m"), &self.upstream()?.program(name));
        command.args(args);
        self.start(name, &mut command)
    }

    fn kubeadm_config(&self) -> Result<String> {
        let address = self.lan.master();
        let version = output(Command::new(self.upstream()?.program("kubeadm")).args(["version", "-o", "short"]))?;
        Ok(format!(
            "apiVersion: kubeadm.k8s.io/v1beta4\nkind: ClusterConfiguration\nkubernetesVersion: {}\n\
             controlPlaneEndpoint: {address}:6443\ncertificatesDir: {}\n\
             networking: {{serviceSubnet: {SERVICES}, podSubnet: {PODS}}}\n\
             ---\napiVersion: kubeadm.k8s.io/v1beta4\nkind: InitConfiguration\n\
             localAPIEndpoint: {{advertiseAddress: {address}, bindPort: 6443}}\nnodeRegistration: {{name: m}}\n",
            version.trim(),
            self.layout.master_dir().join("pki").display(),
        ))
    }

    /// As kubeadm's static pod has it. Webhooks and aggregated API servers are asked at their endpoints: no kube-proxy runs on `m`.
    fn apiserver(&self, dir: &Path) -> Vec<String> {
        let pki = Pki(dir.join("pki"));
        vec![
            format!("--etcd-servers={ETCD}"),
            format!("--advertise-address={}", self.lan.master()),
            "--secure-port=6443".into(),
            format!("--service-cluster-ip-range={SERVICES}"),
            "--allow-privileged=true".into(),
            "--authorization-mode=Node,RBAC".into(),
            "--enable-admission-plugins=NodeRestriction".into(),
            "--enable-bootstrap-token-auth=true".into(),
            "--enable-aggregator-routing=true".into(),
            pki.flag("client-ca-file", "ca.crt"),
            pki.flag("tls-cert-file", "apiserver.crt"),
            pki.flag("tls-private-key-file", "apiserver.key"),
            pki.flag("kubelet-client-certificate", "apiserver-kubelet-client.crt"),
            pki.flag("kubelet-client-key", "apiserver-kubelet-client.key"),
            "--kubelet-preferred-address-types=InternalIP,ExternalIP,Hostname".into(),
            "--service-account-issuer=https://kubernetes.default.svc.cluster.local".into(),
            pki.flag("service-account-key-file", "sa.pub"),
            pki.flag("service-account-signing-key-file", "sa.key"),
            pki.flag("requestheader-client-ca-file", "front-proxy-ca.crt"),
            "--requestheader-allowed-names=front-proxy-client".into(),
            "--requestheader-username-headers=X-Remote-User".into(),
            "--requestheader-group-headers=X-Remote-Group".into(),
            "--requestheader-extra-headers-prefix=X-Remote-Extra-".into(),
            pki.flag("proxy-client-cert-file", "front-proxy-client.crt"),
            pki.flag("proxy-client-key-file", "front-proxy-client.key"),
        ]
    }
}

struct Pki(PathBuf);

impl Pki {
    fn flag(&self, name: &str, file: &str) -> String {
        format!("--{name}={}", self.0.join(file).display())
    }
}

fn etcd(dir: &Path) -> Vec<String> {
    vec![
        format!("--data-dir={}", dir.join("etcd").display()),
        format!("--listen-client-urls={ETCD}"),
        format!("--advertise-client-urls={ETCD}"),
        "--listen-peer-urls=http://127.0.0.1:2380".into(),
    ]
}

/// The rate limits are raised: with the defaults the suite in parallel measures them rather than the controllers.
fn controller_manager(dir: &Path) -> Vec<String> {
    let pki = Pki(dir.join("pki"));
    let conf = dir.join("controller-manager.conf");
    let conf = conf.display();
    vec![
        format!("--kubeconfig={conf}"),
        format!("--authentication-kubeconfig={conf}"),
        format!("--authorization-kubeconfig={conf}"),
        "--leader-elect=false".into(),
        "--use-service-account-credentials=true".into(),
        "--controllers=*,bootstrapsigner,tokencleaner".into(),
        pki.flag("root-ca-file", "ca.crt"),
        pki.flag("service-account-private-key-file", "sa.key"),
        pki.flag("cluster-signing-cert-file", "ca.crt"),
        pki.flag("cluster-signing-key-file", "ca.key"),
        "--allocate-node-cidrs=true".into(),
        format!("--cluster-cidr={PODS}"),
        format!("--service-cluster-ip-range={SERVICES}"),
        "--kube-api-qps=500".into(),
        "--kube-api-burst=1000".into(),
    ]
}

fn scheduler(dir: &Path) -> Vec<String> {
    let conf = dir.join("scheduler.conf");
    let conf = conf.display();
    vec![
        format!("--kubeconfig={conf}"),
        format!("--authentication-kubeconfig={conf}"),
        format!("--authorization-kubeconfig={conf}"),
        "--leader-elect=false".into(),
        "--kube-api-qps=5000".into(),
        "--kube-api-burst=5000".into(),
    ]
}
