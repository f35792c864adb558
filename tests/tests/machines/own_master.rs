//! A machine that is master and node: what docs/operate.md tells people to do with a master, from the page itself, under a pod that goes on.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use keelson_tests::harness::images::BUSYBOX;
use keelson_tests::harness::kubectl::Kubectl;
use keelson_tests::harness::shell::wait_for;
use keelson_tests::pages::{Block, Place};

use super::Test;
use super::context::{Context, INSTALL};
use super::pages::{OPERATE, on_the_machine, page};

pub const TESTS: &[Test] = &[("docs/operate.md: a master", operate)];

/// The sections of the page that make and remove the cluster; a node lives in between.
const MAKING: &str = "Making one";
const REMOVING: &str = "Removing the master";
/// What `systemd-analyze security` may say of the service at most. docs/operate.md has what it does say.
const EXPOSURE: f64 = 2.2;
const CONF: &str = "/var/lib/keelson-master/admin.conf";
const PATIENCE: Duration = Duration::from_secs(240);

fn operate(context: &Context) -> Result<()> {
    let own = Own { context, kubectl: Kubectl { kubeconfig: context.cluster().layout.base.join("own.conf") } };
    context.provision()?;
    context.fetch("keelson-master.deb", "keelson-master_1_amd64.deb")?;
    let blocks: Vec<Block> = page(OPERATE)?.into_iter().filter(|block| block.place == Place::Master).collect();
    ensure!([MAKING, REMOVING].iter().all(|name| blocks.iter().any(|block| block.heading == *name)), "{blocks:?}");
    own.run(blocks.iter().filter(|block| block.heading == MAKING))?;
    let unit = context.guest().say("systemctl show master -p ActiveState,Type,UnitFileState")?;
    for expected in ["ActiveState=active", "Type=notify", "UnitFileState=enabled"] {
        ensure!(unit.lines().any(|line| line == expected), "{expected} is not in\n{unit}");
    }
    super::told::exposure(context, "master", EXPOSURE)?;
    own.join()?;
    let before = own.started()?;
    for block in blocks.iter().filter(|block| ![MAKING, REMOVING].contains(&block.heading.as_str())) {
        own.run([block])?;
        own.well(&before)?;
    }
    context.guest().say("agent leave --force")?;
    own.run(blocks.iter().filter(|block| block.heading == REMOVING))?;
    context.guest().say("dpkg --purge keelson-agent && rm /root/keelson-master_1_amd64.deb")?;
    let changes = context.changes_since_bare()?;
    ensure!(changes.is_empty(), "the packages left\n{}", changes.join("\n"));
    Ok(())
}

struct Own<'a> {
    context: &'a Context,
    kubectl: Kubectl,
}

impl Own<'_> {
    fn run<'b>(&self, blocks: impl IntoIterator<Item = &'b Block>) -> Result<()> {
        for block in blocks {
            on_the_machine(self.context, block).with_context(|| format!("docs/{OPERATE}:{}", block.line))?;
            if block.heading != REMOVING {
                fs::write(&self.kubectl.kubeconfig, self.context.guest().say(&format!("cat {CONF}"))?)?;
            }
        }
        Ok(())
    }

    /// The machine joins itself, and runs a pod.
    fn join(&self) -> Result<()> {
        let guest = self.context.guest();
        guest.say(INSTALL)?;
        let said = guest.say("$(master token create --print-join-command | grep '^agent join')")?;
        ensure!(said.contains("node v1 is Ready"), "{said}");
        self.kubectl.apply(&format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: stays}}, spec: {{terminationGracePeriodSeconds: 0, \
             containers: [{{name: c, image: {BUSYBOX}, command: [sleep, 1d]}}]}}}}"
        ))?;
        self.kubectl.say("wait pod/stays --for=condition=Ready --timeout=240s").map(drop)
    }

    /// Which container is the pod's, and since when.
    fn started(&self) -> Result<String> {
        let path = "jsonpath={.status.containerStatuses[0].containerID} {.status.containerStatuses[0].state.running.startedAt}";
        self.kubectl.run(&["get", "pod", "stays", "-o", path])
    }

    /// Node and pod have gone on, and the API server reaches them.
    fn well(&self, before: &str) -> Result<()> {
        wait_for("the node and its pod to be as before", PATIENCE, || {
            let ready = "jsonpath={.status.conditions[?(@.type==\"Ready\")].status}";
            let ready = self.kubectl.run(&["get", "node", "v1", "-o", ready])?;
            ensure!(ready == "True", "the node's Ready is {ready}");
            let now = self.started()?;
            ensure!(now == before, "{now} instead of {before}");
            let said = self.kubectl.say("exec stays -- echo here")?;
            ensure!(said == "here\n", "{said:?}");
            Ok(())
        })
        .with_context(|| self.context.journal())
    }
}
