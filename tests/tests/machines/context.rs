//! What the tests share: a control plane on this machine and one virtual machine.

use std::fs;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keelson_tests::harness::Cluster;
use keelson_tests::harness::images::bin_dir;
use keelson_tests::harness::kubectl::Kubectl;
use keelson_tests::harness::shell::{output, wait_for};
use keelson_tests::machines::{Guest, Machine, Payload, State};

/// Installs our package; said again it is an upgrade.
pub const INSTALL: &str = "dpkg -i /root/keelson-agent.deb";
/// How long a pod or a node may take on an emulated machine.
const PATIENCE: Duration = Duration::from_secs(240);

pub struct Context {
    cluster: Mutex<Cluster>,
    pub kubectl: Kubectl,
    machine: Mutex<Machine>,
    /// The machine as it was before it joined.
    before: Mutex<Option<State>>,
    /// The machine as it was before anything of ours was installed.
    bare: Mutex<Option<State>>,
}

impl Context {
    pub fn new(cluster: Cluster, machine: Machine) -> Self {
        let kubectl = cluster.kubectl();
        let cluster = Mutex::new(cluster);
        Self { cluster, kubectl, machine: Mutex::new(machine), before: Mutex::new(None), bare: Mutex::new(None) }
    }

    pub fn cluster(&self) -> MutexGuard<'_, Cluster> {
        self.cluster.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn machine(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn guest(&self) -> Guest {
        self.machine().guest()
    }

    /// Brings programs and images onto the machine: what somebody has who has not joined yet. Remembers how it is then.
    pub fn provision(&self) -> Result<()> {
        let mut before = self.before.lock().unwrap_or_else(PoisonError::into_inner);
        if before.is_some() {
            return Ok(());
        }
        let guest = self.guest();
        let mount = Payload::MOUNT;
        guest.say(&format!("mount -o ro /dev/vdb {mount}"))?;
        guest.say(&format!("cp {mount}/keelson-agent.deb /root/ && ctr -n k8s.io images import {mount}/images.tar"))?;
        guest.say(&format!("umount {mount}"))?;
        *self.bare.lock().unwrap_or_else(PoisonError::into_inner) = Some(State::of(&guest)?);
        guest.say(INSTALL)?;
        *before = Some(State::of(&guest)?);
        Ok(())
    }

    /// A node with the pod that lives through all, as the tests before leave it; made here where they were not run.
    pub fn node(&self) -> Result<()> {
        if self.guest().run("test -e /etc/keelson/node.yaml", PATIENCE)?.code != 0 {
            self.provision()?;
            self.guest().say(&self.cluster().join_command()?)?;
        }
        super::pods::limits(self)
    }

    /// Copies a file of the payload to /root.
    pub fn fetch(&self, name: &str, to: &str) -> Result<()> {
        let mount = Payload::MOUNT;
        self.guest()
            .say(&format!("mount -o ro /dev/vdb {mount} && cp {mount}/{name} /root/{to} && umount {mount}"))
            .map(drop)
    }

    /// What is different on the machine since before it was installed.
    pub fn changes_since_bare(&self) -> Result<Vec<String>> {
        let bare = self.bare.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(State::of(&self.guest())?.changes(&bare.context("the machine was not provisioned")?))
    }

    /// What is different on the machine since [`Self::provision`].
    pub fn changes(&self) -> Result<Vec<String>> {
        let before = self.before.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(State::of(&self.guest())?.changes(&before.context("the machine was not provisioned")?))
    }

    pub fn until<T>(&self, what: &str, ask: impl FnMut() -> Result<T>) -> Result<T> {
        wait_for(what, PATIENCE, ask)
    }

    /// `master ARGS` on the master's machine.
    pub fn master(&self, line: &str) -> Result<String> {
        let program = bin_dir().join("master");
        let mut command = self.cluster().inside("m", &program.to_string_lossy());
        output(command.args(line.split_whitespace()).arg("--data-dir").arg(self.cluster().layout.master_dir()))
    }

    /// Writes a file onto the machine that only root may read.
    pub fn bring(&self, path: &str, content: &[u8]) -> Result<()> {
        let text = STANDARD.encode(content);
        self.guest().say(&format!("umask 077 && echo {text} | base64 -d > {path}")).map(drop)
    }

    /// Has the master make a join file and brings it onto the machine.
    pub fn invite(&self, path: &str) -> Result<()> {
        let file = self.cluster().layout.base.join("v1.join");
        self.master(&format!("token create --ttl 1h --description v1 --join-file {}", file.display()))?;
        let content = fs::read(&file).with_context(|| file.display().to_string())?;
        fs::remove_file(&file)?;
        self.bring(path, &content)
    }

    /// Waits until the node's Ready condition has a status, and its heartbeat is one of the agent that runs now.
    pub fn wait_node(&self, status: &str) -> Result<()> {
        let path = "jsonpath={.status.conditions[?(@.type==\"Ready\")].status}";
        self.until(&format!("the node's Ready to be {status}"), || {
            let said = self.kubectl.run(&["get", "node", "v1", "-o", path])?;
            ensure!(said == status, "it is {said:?}");
            Ok(())
        })
        .with_context(|| self.journal())
    }

    /// The last words of the agent, for errors.
    pub fn journal(&self) -> String {
        let said = self
            .guest()
            .say("systemctl status --no-pager --full -n 0 agent; journalctl --no-pager -o cat -u agent -n 40");
        said.unwrap_or_else(|error| format!("{error:#}"))
    }

    /// Waits until a pod is Ready.
    pub fn wait_pod(&self, name: &str) -> Result<()> {
        let path = "jsonpath={.status.conditions[?(@.type==\"Ready\")].status}";
        self.until(&format!("pod {name} to be Ready"), || {
            let said = self.kubectl.run(&["get", "pod", name, "-o", path])?;
            ensure!(said == "True", "Ready is {said:?}");
            Ok(())
        })
        .with_context(|| {
            let seen = self.kubectl.say(&format!("describe pod {name}")).unwrap_or_default();
            format!("{seen}\n{}", self.journal())
        })
    }

    /// A field of a pod, by JSON path.
    pub fn pod(&self, name: &str, path: &str) -> Result<String> {
        self.kubectl.run(&["get", "pod", name, "-o", &format!("jsonpath={path}")])
    }
}
