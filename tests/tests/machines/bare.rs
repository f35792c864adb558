//! A machine that has nothing to run containers with.

use std::time::Duration;

use anyhow::{Result, ensure};
use keelson_tests::machines::Payload;

use super::Test;
use super::context::Context;

/// Last of all: what it installs stays.
pub const TESTS: &[Test] = &[("a_machine_without_containerd_gets_it_by_joining", bare)];

/// As on machines that were just made, there are no lists of packages.
fn bare(context: &Context) -> Result<()> {
    context.provision()?;
    let (guest, mount) = (context.guest(), Payload::MOUNT);
    context.fetch("keelson-1-linux-amd64.tar.gz", "keelson.tar.gz")?;
    guest.say(
        "dpkg --purge keelson-agent; cd /root && tar -xzf keelson.tar.gz && keelson-*-linux-amd64/install.sh agent",
    )?;
    guest.say(
        "systemctl stop containerd; dpkg --purge containerd runc && rm -rf /var/lib/apt/lists/* /etc/apt/sources.list*",
    )?;
    let join = context.cluster().join_command()?.replace("agent join", "/usr/local/bin/agent join");
    let refused = guest.run(&join, Duration::from_secs(60))?;
    ensure!(refused.code != 0 && refused.stderr.contains("no container runtime answers"), "{refused:?}");
    guest.say(&format!(
        "mount -o ro /dev/vdb {mount} && echo 'deb [trusted=yes] file:{mount}/{} ./' > /etc/apt/sources.list",
        Payload::REPOSITORY
    ))?;
    let said = guest.say(&format!("{join} --install-containerd"))?;
    ensure!(said.contains("installing containerd") && said.contains("node v1 is Ready"), "{said}");
    guest.say(&format!("ctr -n k8s.io images import {mount}/images.tar && umount {mount}"))?;
    super::pods::limits(context)
}
