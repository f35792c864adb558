//! What docs/install.md, docs/join.md and docs/operate.md tell people to do, from the pages themselves, on a machine that is no node yet.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use keelson_tests::harness::images::{bin_dir, checkout};
use keelson_tests::harness::kubectl;
use keelson_tests::harness::shell::output;
use keelson_tests::pages::{Block, Place, blocks, filled};

use super::Test;
use super::context::Context;
use super::pods::LONG;

pub const TESTS: &[Test] =
    &[("docs/install.md", install), ("docs/join.md", join), ("docs/operate.md: a node", operate)];

pub const OPERATE: &str = "operate.md";
/// The package by the name that it is shipped under.
const DEB: &str = "/root/keelson-agent_1_amd64.deb";
const ARCHIVE: &str = "keelson-1-linux-amd64.tar.gz";
/// A drain is among what is run.
const PATIENCE: Duration = Duration::from_secs(600);

fn install(context: &Context) -> Result<()> {
    context.provision()?;
    context.fetch(ARCHIVE, ARCHIVE)?;
    context.guest().say(&format!("cp /root/keelson-agent.deb {DEB}"))?;
    run(context, "install.md")?;
    context.guest().say(&format!("rm /root/{ARCHIVE} {DEB}"))?;
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
    context.node()?;
    context.guest().say(&format!("cp /root/keelson-agent.deb {DEB}"))?;
    run(context, OPERATE)?;
    context.kubectl.say(&format!("delete pod {LONG} --force --grace-period=0 --ignore-not-found"))?;
    context.guest().say(&format!("rm {DEB} /root/keelson-support-*.tar.gz"))?;
    let changes = context.changes()?;
    ensure!(changes.is_empty(), "the page left\n{}", changes.join("\n"));
    Ok(())
}

fn run(context: &Context, name: &str) -> Result<()> {
    context.provision()?;
    for block in page(name)? {
        // Masters of their own are for `own_master`.
        if name != OPERATE || block.place != Place::Master {
            block_of(context, &block).with_context(|| format!("docs/{name}:{}", block.line))?;
        }
    }
    Ok(())
}

/// The blocks of a page, with values in the places of words that readers replace.
pub fn page(name: &str) -> Result<Vec<Block>> {
    let page = fs::read_to_string(checkout().join("docs").join(name)).with_context(|| name.to_owned())?;
    let values = [("NODE", "v1"), ("VERSION", "1"), ("NAMESPACE", "default"), ("NAME", LONG)];
    let mut blocks = blocks(&page)?;
    blocks.iter_mut().for_each(|block| block.script = filled(&block.script, &values));
    Ok(blocks)
}

/// Runs a block as root on the virtual machine.
pub fn on_the_machine(context: &Context, block: &Block) -> Result<()> {
    context.guest().say_within(&format!("set -e; cd /root\n{}", block.script), PATIENCE).map(drop)
}

fn block_of(context: &Context, block: &Block) -> Result<()> {
    if block.place == Place::Node {
        return on_the_machine(context, block);
    }
    let folder = context.cluster().layout.base.join("admin");
    fs::create_dir_all(&folder)?;
    let mut shell = match block.place {
        Place::Master => context.cluster().inside("m", "sh"),
        _ => Command::new("sh"),
    };
    // What is copied to the node lies in a folder until the block has ended; a master in a namespace has its own data folder.
    let functions = format!(
        "scp() {{ mkdir -p outgoing && cp \"$1\" \"outgoing/${{2##*:/root/}}\"; }}\n\
         master() {{ {}/master \"$@\" --data-dir {}; }}\nkubectl() {{ {} \"$@\"; }}\n",
        bin_dir().display(),
        context.cluster().layout.master_dir().display(),
        kubectl::program().display()
    );
    shell.args(["-ec", &format!("{functions}{}", block.script)]).current_dir(&folder);
    output(shell.env("KUBECONFIG", &context.kubectl.kubeconfig))?;
    for file in fs::read_dir(folder.join("outgoing")).into_iter().flatten() {
        let path = file?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        context.bring(&format!("/root/{name}"), &fs::read(&path)?)?;
        fs::remove_file(&path)?;
    }
    Ok(())
}
