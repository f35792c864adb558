//! Joining in a hurry, in a bad place, and once more.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::Test;
use super::context::Context;

pub const TESTS: &[Test] = &[
    ("what_is_in_the_way_is_told_and_mended", preflight),
    ("a_join_that_was_interrupted_at_any_step_is_finished_by_the_next", interrupted),
];

const FILE: &str = "/root/v1.join";
/// What a join says, step by step; in between is everything that it does.
const STEPS: [&str; 6] = [
    "container runtime",
    "looking for the API server",
    "its CA is the pinned one",
    "asking for a certificate",
    "configuration and keys are in",
    "agent.service is enabled",
];

fn preflight(context: &Context) -> Result<()> {
    context.provision()?;
    context.invite(FILE)?;
    let guest = context.guest();
    let join = format!("agent join --join-file {FILE}");
    let patience = Duration::from_secs(120);
    guest.say(&format!("chmod 644 {FILE}"))?;
    let open = guest.run(&join, patience)?;
    ensure!(open.code != 0 && open.stderr.contains("others may read it"), "{open:?}");
    guest.say(&format!("chmod 600 {FILE} && echo 'colour: blue' >> {FILE}"))?;
    let wrong = guest.run(&join, patience)?;
    ensure!(wrong.code != 0 && wrong.stderr.contains("colour: unknown field"), "{wrong:?}");
    // Another agent, and its network.
    let had_folder = guest.run("test -d /etc/cni/net.d", patience)?.code == 0;
    let unit = "[Service]\\nExecStart=sleep infinity\\n";
    guest.say(&format!(
        "sed -i /colour/d {FILE}; printf '{unit}' > /run/systemd/system/kubelet.service && systemctl daemon-reload && \
         systemctl start kubelet && mkdir -p /etc/cni/net.d && echo '{{}}' > /etc/cni/net.d/05-old.conflist"
    ))?;
    let told = guest.run(&format!("{join} --dry-run --output json"), patience)?;
    for expected in
        ["kubelet.service runs here", "05-old.conflist comes before", r#""event":"failed""#, "--fix does it"]
    {
        ensure!(told.stdout.contains(expected), "{expected} is not in {told:?}");
    }
    ensure!(told.code != 0, "{told:?}");
    // Nothing is mended where that would not do.
    let refused = guest.run(&format!("{join} --fix --node-name localhost"), patience)?;
    ensure!(refused.code != 0 && refused.stderr.contains("every machine is called localhost"), "{refused:?}");
    guest.say("systemctl is-active kubelet && test -e /etc/cni/net.d/05-old.conflist")?;
    // Mended, and ended before anything else is done.
    let mended = until(context, &format!("{join} --fix"), "05-old.conflist.before-keelson")?;
    ensure!(mended.contains("fixed by: systemctl disable --now kubelet.service"), "{mended}");
    let left = guest.run("systemctl is-active kubelet; ls /etc/cni/net.d", patience)?;
    ensure!(left.stdout.contains("inactive") && left.stdout.contains("05-old.conflist.before-keelson"), "{left:?}");
    guest.say(
        "rm -r /run/systemd/system/kubelet.service /etc/cni/net.d/05-old.conflist.before-keelson && systemctl daemon-reload",
    )?;
    if !had_folder {
        guest.say("rmdir --parents --ignore-fail-on-non-empty /etc/cni/net.d")?;
    }
    away(context)
}

fn interrupted(context: &Context) -> Result<()> {
    context.provision()?;
    context.invite(FILE)?;
    let guest = context.guest();
    let join = format!("agent join --join-file {FILE}");
    for step in STEPS {
        let said = until(context, &join, step)?;
        ensure!(said.contains(step), "{step} is not in {said}");
        // It is the keys that it was for.
        let was_used = guest.say(&format!("test -e {FILE} || echo gone"))? == "gone\n";
        ensure!(
            !was_used || said.contains("configuration and keys are in") || said.contains("was used"),
            "{step}: {said}"
        );
    }
    let said = guest.say(&join)?;
    ensure!(said.contains("node v1 is Ready"), "{said}");
    ensure!(said.contains("its join file was used"), "{said}");
    guest.say(&format!("test ! -e {FILE} && systemctl is-enabled agent"))?;
    context.wait_node("True")?;
    // And once more, as a script does that wants it to be so.
    ensure!(guest.say(&join)?.contains("node v1 is Ready"));
    // What is said then counts.
    guest.say(&format!(
        "{join} --node-labels example.com/once=more && grep -q example.com/once /etc/keelson/node.yaml"
    ))?;
    away(context)
}

/// Kills a command as soon as it has said something, and answers what it said.
fn until(context: &Context, command: &str, said: &str) -> Result<String> {
    context.guest().say(&format!(
        "rm -f /run/said; ({command} > /run/said 2>&1 & echo $! > /run/pid); pid=$(cat /run/pid); \
         while kill -0 $pid 2>/dev/null; do if grep -q '{said}' /run/said; then kill -9 $pid; fi; sleep 0.02; done; \
         cat /run/said; rm /run/said /run/pid"
    ))
}

/// The machine leaves, whatever it was by now, and is as before.
fn away(context: &Context) -> Result<()> {
    let guest = context.guest();
    guest.say(&format!("rm -f {FILE}; test ! -e /etc/keelson || agent leave --force"))?;
    context.kubectl.say("delete node v1 --ignore-not-found")?;
    guest.say("agent doctor --leftovers")?;
    let changes = context.changes()?;
    ensure!(changes.is_empty(), "leave left\n{}", changes.join("\n"));
    Ok(())
}
