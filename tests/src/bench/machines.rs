//! A virtual Debian machine as a node: the agent beside kubeadm and the kubelet. The machine is emulated, so that only ratios say something.
//!
//! Each side joins its own control plane, which runs on this machine and is no part of what is measured. All images are on the machine before
//! it joins, both sides use containerd's systemd driver, and the kubelet's pod network is a file that is there before it joins.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::Side;
use crate::harness::cluster::Silent;
use crate::harness::images::BUSYBOX;
use crate::harness::kubectl::Kubectl;
use crate::harness::shell::{output, wait_for};
use crate::harness::upstream::Upstream;
use crate::harness::{Cluster, Layout, Options, Part};
use crate::machines::{Assets, Frame, Guest, Machine, Payload, SYSTEMD_CGROUP};

/// Pods that have to be Ready after the machine was switched on.
pub const PODS: u32 = 30;
/// How long anything may take on an emulated machine.
const PATIENCE: Duration = Duration::from_secs(900);
/// How long wakeups are counted, and how long the node rests before that.
const IDLE: Duration = Duration::from_secs(60);
const NODE: &str = "v1";
/// kubeadm's package brings this.
const KUBELET_UNIT: &str = "[Unit]\nDescription=kubelet\nWants=network-online.target\nAfter=network-online.target\n[Service]\n\
    Environment=\"KUBELET_KUBECONFIG_ARGS=--bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf --kubeconfig=/etc/kubernetes/kubelet.conf\"\n\
    Environment=\"KUBELET_CONFIG_ARGS=--config=/var/lib/kubelet/config.yaml\"\n\
    EnvironmentFile=-/var/lib/kubelet/kubeadm-flags.env\n\
    ExecStart=/usr/bin/kubelet $KUBELET_KUBECONFIG_ARGS $KUBELET_CONFIG_ARGS $KUBELET_KUBEADM_ARGS\n\
    Restart=always\nStartLimitInterval=0\nRestartSec=10\n[Install]\nWantedBy=multi-user.target\n";
/// The podCIDR of a cluster's first node.
const CONFLIST: &str = r#"{"cniVersion": "1.0.0", "name": "stock", "plugins": [{"type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true,
  "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.244.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}"#;

/// What was measured of a side.
#[derive(Debug, Clone, Copy)]
pub struct Measured {
    /// From the command until the node is Ready.
    pub join: Duration,
    /// From `systemctl restart` until the node says anew that it is Ready.
    pub restart: Duration,
    /// From power on until all pods are Ready again.
    pub boot: Duration,
    /// How often a second a thread of agent or kubelet was given a processor, with the pods idle.
    pub wakeups: f64,
}

/// Measures a side, in a cluster and on a machine of its own.
///
/// # Errors
/// When a step fails; the cluster is ended then, too.
pub fn measure(side: Side) -> Result<Measured> {
    let number = std::process::id() % 10_000;
    let layout = Layout::new(format!("b{number}"), std::env::temp_dir().join(format!("keelson-bench-vm-{number}")));
    let mut options = Options::nodes(0);
    if side == Side::Stock {
        (options.control_plane, options.workers) = (Part::Stock, Part::Stock);
        options.upstream = Some(Upstream::build()?);
    }
    let cluster = Cluster::up(layout, options, &mut Silent)?;
    let measured = on_a_machine(&cluster, side);
    let left = cluster.down(&mut Silent)?;
    ensure!(left.is_empty(), "left behind: {left:?}");
    measured
}

fn on_a_machine(cluster: &Cluster, side: Side) -> Result<Measured> {
    let assets = Assets::build()?;
    let payload = match side {
        Side::Ours => Payload::make(&cluster.layout.base, &assets)?,
        Side::Stock => Payload::stock(&cluster.layout.base, cluster.upstream()?)?,
    };
    let mut machine = Machine::install(cluster, &assets, &payload, Frame::small(1))?;
    let node = Node { guest: machine.guest(), kubectl: cluster.kubectl(), side };
    let join = node.provision(cluster)?;
    let begun = Instant::now();
    node.guest.say_within(&join, PATIENCE).with_context(|| node.journal())?;
    node.wait_ready().with_context(|| node.journal())?;
    let join = begun.elapsed();
    node.run_pods()?;
    let (restart, wakeups) = (node.restart()?, node.wakeups()?);
    machine.guest().say("sync")?;
    machine.power_cut()?;
    let before = node.containers()?;
    let begun = Instant::now();
    machine.power_on()?;
    node.wait_pods(&before)?;
    Ok(Measured { join, restart, boot: begun.elapsed(), wakeups })
}

struct Node {
    guest: Guest,
    kubectl: Kubectl,
    side: Side,
}

impl Node {
    fn unit(&self) -> &'static str {
        match self.side {
            Side::Ours => "agent",
            Side::Stock => "kubelet",
        }
    }

    /// The last words of agent or kubelet, for errors.
    fn journal(&self) -> String {
        let said = self.guest.say(&format!("journalctl --no-pager -o cat -u {} -n 40", self.unit()));
        said.unwrap_or_else(|error| format!("{error:#}"))
    }

    /// Makes the machine what somebody has who is about to join; answers the command.
    fn provision(&self, cluster: &Cluster) -> Result<String> {
        let mount = Payload::MOUNT;
        self.guest.say(&format!("mount -o ro /dev/vdb {mount} && ctr -n k8s.io images import {mount}/images.tar"))?;
        self.guest.say(&format!(
            "cat >> /etc/containerd/config.toml <<'EOF'{SYSTEMD_CGROUP}EOF\nsystemctl restart containerd"
        ))?;
        let command = match self.side {
            Side::Ours => {
                self.guest.say(&format!("dpkg -i {mount}/keelson-agent.deb"))?;
                cluster.join_command()?
            }
            Side::Stock => {
                self.install_kubelet(mount)?;
                publish_kubeadm_config(cluster)?;
                // What the preflight would say is that there is no registry, and that conntrack and crictl are missing.
                let words = cluster.join_command()?.replace("agent join", "kubeadm join");
                let words = words.replace("--ca-cert-hash", "--discovery-token-ca-cert-hash");
                format!("{} --node-name {NODE} --ignore-preflight-errors=all", words.trim())
            }
        };
        self.guest.say(&format!("umount {mount}"))?;
        Ok(command)
    }

    fn install_kubelet(&self, mount: &str) -> Result<()> {
        let guest = &self.guest;
        guest.say(&format!(
            "cp {mount}/kubelet {mount}/kubeadm /usr/bin/ && mkdir -p /usr/lib/cni && cp {mount}/cni/* /usr/lib/cni/"
        ))?;
        guest.say(&format!(
            "mkdir -p /etc/cni/net.d && cat > /etc/cni/net.d/10-stock.conflist <<'EOF'\n{CONFLIST}\nEOF"
        ))?;
        guest.say(&format!("cat > /etc/systemd/system/kubelet.service <<'EOF'\n{KUBELET_UNIT}EOF\nsystemctl daemon-reload && systemctl enable kubelet"))?;
        guest.say("printf 'net.ipv4.ip_forward = 1\\n' > /etc/sysctl.d/10-kubelet.conf && sysctl -q --system")?;
        guest.say(&format!("ctr -n k8s.io images import {mount}/pause.tar"))?;
        // Under the name that this containerd has for it.
        let pause = "name=$(containerd config dump | sed -n 's/ *sandbox_image = .\\(.*\\).$/\\1/p') && \
                     for image in $(ctr -n k8s.io images ls -q | grep pause:); do ctr -n k8s.io images tag --force $image $name; done";
        guest.say(pause).map(drop)
    }

    fn wait_ready(&self) -> Result<()> {
        self.wait_condition("status", |status| status == "True").map(drop)
    }

    /// A field of the node's Ready condition, once it is as wanted.
    fn wait_condition(&self, field: &str, wanted: impl Fn(&str) -> bool) -> Result<String> {
        let path = format!("jsonpath={{.status.conditions[?(@.type==\"Ready\")].{field}}}");
        wait_for(&format!("Ready.{field} of the node"), PATIENCE, || {
            let said = self.kubectl.run(&["get", "node", NODE, "-o", &path])?;
            ensure!(wanted(&said), "it is {said:?}");
            Ok(said)
        })
    }

    fn run_pods(&self) -> Result<()> {
        self.kubectl.apply(&format!(
            "{{apiVersion: apps/v1, kind: Deployment, metadata: {{name: many}}, spec: {{replicas: {PODS}, selector: {{matchLabels: {{app: many}}}}, \
             template: {{metadata: {{labels: {{app: many}}}}, spec: {{terminationGracePeriodSeconds: 0, automountServiceAccountToken: false, \
             containers: [{{name: c, image: {BUSYBOX}, command: [sleep, 1d]}}]}}}}}}}}"
        ))?;
        self.kubectl.say(&format!("rollout status deployment/many --timeout={}s", PATIENCE.as_secs())).map(drop)
    }

    /// The containers of all Ready pods.
    fn containers(&self) -> Result<Vec<String>> {
        let path = "jsonpath={range .items[*].status.containerStatuses[?(@.ready==true)]}{.containerID}\n{end}";
        let said = self.kubectl.run(&["get", "pods", "-l", "app=many", "-o", path])?;
        Ok(said.lines().map(str::to_owned).collect())
    }

    /// Waits until all pods are Ready in other containers.
    fn wait_pods(&self, before: &[String]) -> Result<()> {
        wait_for("all pods to be Ready again", PATIENCE, || {
            let now = self.containers()?;
            let anew = now.iter().filter(|id| !before.contains(id)).count();
            ensure!(anew == PODS as usize, "{anew} of {PODS}");
            Ok(())
        })
    }

    /// Heartbeats have seconds: the new one has to be of a later one than any before the restart.
    fn restart(&self) -> Result<Duration> {
        let before = self.guest.say("date -u +%Y-%m-%dT%H:%M:%SZ && sleep 1")?;
        let begun = Instant::now();
        self.guest.say(&format!("systemctl restart {}", self.unit()))?;
        self.wait_condition("lastHeartbeatTime", |beat| beat > before.trim())?;
        self.wait_ready()?;
        Ok(begun.elapsed())
    }

    fn wakeups(&self) -> Result<f64> {
        std::thread::sleep(IDLE);
        let count = || -> Result<f64> {
            let line = format!(
                "pid=$(systemctl show {} -p MainPID --value); cat /proc/$pid/task/*/status | awk '/ctxt_switches/ {{n += $2}} END {{print n}}'",
                self.unit()
            );
            self.guest.say(&line)?.trim().parse().context("switches")
        };
        let (before, begun) = (count()?, Instant::now());
        std::thread::sleep(IDLE);
        Ok((count()? - before) / begun.elapsed().as_secs_f64())
    }
}

/// `kubeadm join` wants to know the cluster's configuration.
fn publish_kubeadm_config(cluster: &Cluster) -> Result<()> {
    let mut kubeadm = Command::new(cluster.upstream()?.program("kubeadm"));
    kubeadm
        .args(["init", "phase", "upload-config", "kubeadm", "--config"])
        .arg(cluster.layout.master_dir().join("kubeadm.yaml"));
    output(kubeadm.arg("--kubeconfig").arg(cluster.layout.admin_conf()))?;
    // The control plane keeps its keys in a folder of its own; nodes have theirs where kubeadm puts them.
    let kubectl = cluster.kubectl();
    let kubelet = kubectl.say("-n kube-system get configmap kubelet-config -o json")?;
    let keys = cluster.layout.master_dir().join("pki");
    kubectl.apply(&kubelet.replace(&*keys.to_string_lossy(), "/etc/kubernetes/pki")).map(drop)
}

/// The section of docs/benchmarks.md, over all rounds: the middle of each.
#[must_use]
pub fn table(rounds: &[(Measured, Measured)]) -> String {
    let seconds = |of: fn(&Measured) -> Duration| move |one: &Measured| of(one).as_secs_f64();
    let mut out = String::from("| | stock | ours | ours ÷ stock |\n|---|---|---|---|\n");
    let mut row = |name: &str, unit: &str, of: &dyn Fn(&Measured) -> f64| {
        let (stock, ours) =
            (middle(rounds.iter().map(|(stock, _)| of(stock))), middle(rounds.iter().map(|(_, ours)| of(ours))));
        out += &format!("| {name} | {stock:.1} {unit} | {ours:.1} {unit} | {:.2} × |\n", ours / stock);
    };
    row("join → Ready (images are there)", "s", &seconds(|one| one.join));
    row("restart of agent or kubelet → Ready", "s", &seconds(|one| one.restart));
    row(&format!("power on → {PODS} pods Ready"), "s", &seconds(|one| one.boot));
    row(&format!("wakeups with {PODS} idle pods"), "/s", &|one| one.wakeups);
    out
}

fn middle(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_rounds_is_compared() {
        let round = |seconds| Measured {
            join: Duration::from_secs(seconds),
            restart: Duration::from_secs(seconds),
            boot: Duration::from_secs(seconds),
            wakeups: 8.0,
        };
        let table = table(&[(round(40), round(10)), (round(44), round(11)), (round(400), round(110))]);
        assert!(table.contains("| join → Ready (images are there) | 44.0 s | 11.0 s | 0.25 × |"), "{table}");
        assert!(table.contains("| wakeups with 30 idle pods | 8.0 /s | 8.0 /s | 1.00 × |"), "{table}");
    }
}
