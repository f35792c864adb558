//! What docs/install.md, docs/join.md and docs/operate.md tell people to do, from the pages themselves, on a machine that is no node yet.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use keelson_tests::harness::images::{bin_dir, checkout};
use keelson_tests::harness::kubectl;
use keelson_tests::harness::shell::output;
use keelson_tests::machines::Payload;
use keelson_tests::pages::{Block, Place, blocks, filled};

use super::Test;
use super::context::Context;
use super::pods::{LONG, limits};

pub const TESTS: &[Test] = &[("docs/install.md", install), ("docs/join.md", join), ("docs/operate.md", operate)];

/// The package by the name that it is shipped under.
const DEB: &str = "/root/keelson-agent_1_amd64.deb";
/// A drain is among what is run.
const PATIENCE: Duration = Duration::from_secs(600);

fn install(context: &Context) -> Result<()> {
    context.provision()?;
    let (guest, mount) = (context.guest(), Payload::MOUNT);
    let archive = "keelson-1-linux-amd64.tar.gz";
    guest.say(&format!("mount -o ro /dev/vdb {mount} && cp {mount}/{archive} /root/ && umount {mount} && cp /root/keelson-agent.deb {DEB}"))?;
    run(context, "install.md")?;
    guest.say(&format!("rm /root/{archive} {DEB}"))?;
    let changes = context.changes()?;
    ensure!(changes.is_empty(), "the page left\n{}", changes.join("\n"));
    Ok(())
}

fn join(context: &Context) -> Result<()> {
    run(context, "join.md")?;
    context.wait_node("True")
}

/// Of a node with a pod; in the end it has left.
fn operate(context: &Context) -> Result<()> {
    limits(context)?;
    context.guest().say(&format!("cp /root/keelson-agent.deb {DEB}"))?;
    run(context, "operate.md")?;
    context.kubectl.say(&format!("delete pod {LONG} --force --grace-period=0 --ignore-not-found"))?;
    context.guest().say(&format!("rm {DEB} /root/keelson-support-*.tar.gz"))?;
    let changes = context.changes()?;
    ensure!(changes.is_empty(), "the page left\n{}", changes.join("\n"));
    Ok(())
}

fn run(context: &Context, name: &str) -> Result<()> {
    context.provision()?;
    let page = fs::read_to_string(checkout().join("docs").join(name)).with_context(|| name.to_owned())?;
    let master = context.cluster.lan.master().to_string();
    let values = [("NODE", "v1"), ("MASTER", &master), ("VERSION", "1"), ("NAMESPACE", "default"), ("NAME", LONG)];
    for block in blocks(&page)? {
        let script = filled(&block.script, &values);
        block_of(context, &block, &script).with_context(|| format!("docs/{name}:{}", block.line))?;
    }
    Ok(())
}

fn block_of(context: &Context, block: &Block, script: &str) -> Result<()> {
    if block.place == Place::Node {
        return context.guest().say_within(&format!("set -e; cd /root\n{script}"), PATIENCE).map(drop);
    }
    let folder = context.cluster.layout.base.join("admin");
    fs::create_dir_all(&folder)?;
    let mut shell = match block.place {
        Place::Master => context.cluster.inside("m", "sh"),
        _ => Command::new("sh"),
    };
    // What is copied to the node lies in a folder until the block has ended; a master in a namespace has its own data folder.
    let functions = format!(
        "scp() {{ mkdir -p outgoing && cp \"$1\" \"outgoing/${{2##*:/root/}}\"; }}\n\
         master() {{ {}/master \"$@\" --data-dir {}; }}\nkubectl() {{ {} \"$@\"; }}\n",
        bin_dir().display(),
        context.cluster.layout.master_dir().display(),
        kubectl::program().display()
    );
    shell.args(["-ec", &format!("{functions}{script}")]).current_dir(&folder);
    output(shell.env("KUBECONFIG", &context.kubectl.kubeconfig))?;
    for file in fs::read_dir(folder.join("outgoing")).into_iter().flatten() {
        let path = file?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        context.bring(&format!("/root/{name}"), &fs::read(&path)?)?;
        fs::remove_file(&path)?;
    }
    Ok(())
}
