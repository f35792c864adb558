//! Another program takes over.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::Test;
use super::context::Context;
use super::life::{replaced, starts};
use super::pods::LONG;

pub const TESTS: &[Test] = &[
    ("agent_upgrade_takes_over_what_runs_and_goes_back", upgrade),
    ("agent_upgrade_of_a_package_takes_over_what_runs", package),
    ("an_agent_that_does_not_work_gives_way_to_the_one_before", fallback),
];

const NEW: &str = "/root/new/agent";

fn hash(context: &Context) -> Result<String> {
    context.guest().say("sha256sum < /usr/bin/agent")
}

fn upgrade(context: &Context) -> Result<()> {
    let guest = context.guest();
    let old = hash(context)?;
    // Another file, and the same program.
    guest.say(&format!("mkdir -p /root/new && cp /usr/bin/agent {NEW} && echo >> {NEW}"))?;
    let said = guest.say(&format!("agent upgrade {NEW} --dry-run"))?;
    ensure!(said.contains("nothing is in the way") && hash(context)? == old, "{said}");
    replaced(context, &format!("agent upgrade {NEW}"))?;
    let new = hash(context)?;
    ensure!(new != old && new == guest.say(&format!("sha256sum < {NEW}"))?, "the program is not the new one");
    replaced(context, "agent upgrade --back")?;
    ensure!(hash(context)? == old, "the program is not the one before");
    guest.say("rm -r /root/new && grep -q '\"format\":1' /var/lib/keelson/format.json")?;
    Ok(())
}

fn package(context: &Context) -> Result<()> {
    replaced(context, "agent upgrade /root/keelson-agent.deb")?;
    let kept = context
        .guest()
        .say("ls -A /usr/bin | grep '^\\.agent' ; ls /var/lib/keelson/upgrade; dpkg --verify keelson-agent")?;
    ensure!(kept == "previous\n", "{kept}");
    Ok(())
}

fn fallback(context: &Context) -> Result<()> {
    let guest = context.guest();
    let (before, old) = (starts(context)?, hash(context)?);
    let script = |version: &str, format: u32| {
        let about = format!(r#"{{"version":"{version}","stateFormat":{format},"oldestReadableState":{format}}}"#);
        format!("#!/bin/sh\ncase $1 in version) echo '{about}' ;; config) ;; *) exit 1 ;; esac\n")
    };
    let attempt = |text: String| {
        context.bring("/root/bad", text.as_bytes())?;
        guest.run("chmod 755 /root/bad; agent upgrade /root/bad", Duration::from_secs(400))
    };
    for (text, refusal) in [
        (script("v1.99.0", 1), "is newer than the API server"),
        (script("v1.30.0", 1), "is more than 3 minor versions older"),
        (script("v1.36.99", 7), "cannot go on with the state of agent"),
        ("#!/bin/sh\necho 5\n".to_owned(), "is no agent that runs here"),
    ] {
        let said = attempt(text)?;
        ensure!(said.code != 0 && said.stderr.contains(refusal), "{refusal} is not in {said:?}");
    }
    let pid = guest.say("systemctl show agent -p MainPID --value")?;
    let said = attempt(script("v1.36.99", 1))?;
    ensure!(said.code != 0 && said.stderr.contains("v1.36.99 did not come to be Ready"), "{said:?}");
    ensure!(guest.say("systemctl show agent -p MainPID --value")? != pid, "it was not tried");
    ensure!(hash(context)? == old, "the program is not the one before");
    context.wait_node("True")?;
    context.wait_pod(LONG)?;
    ensure!(starts(context)? == before, "containers were restarted");
    guest.say("rm /root/bad; systemctl is-active agent").map(drop)
}
