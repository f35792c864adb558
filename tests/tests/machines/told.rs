//! What a machine tells: the journal with fields, a bundle for who helps, and how the service is confined.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::Test;
use super::context::Context;

pub const TESTS: &[Test] = &[
    ("the_journal_has_fields", journal),
    ("a_support_bundle_has_what_is_asked_for_and_no_secret", bundle),
    ("the_service_is_confined", confined),
];

/// What `systemd-analyze security` may say at most; lower is better. docs/operate.md has what it does say.
const EXPOSURE: f64 = 6.6;
const SECRET: &str = "hush-9f31c0de";

fn journal(context: &Context) -> Result<()> {
    context.kubectl.say("run missing --image=127.0.0.1:1/none:1 --restart=Never")?;
    let found = context.until("an entry about the container", || {
        let said =
            context.guest().say("journalctl -u agent -o json --no-pager POD=default/missing CONTAINER=missing -n 1")?;
        serde_json::from_str::<Value>(&said).with_context(|| said.clone())
    })?;
    context.kubectl.say("delete pod missing --force --grace-period=0")?;
    for (field, value) in [("SYSLOG_IDENTIFIER", "agent"), ("_SYSTEMD_UNIT", "agent.service"), ("PRIORITY", "6")] {
        ensure!(found[field] == value, "{field} is not {value} in {found}");
    }
    let message = found["MESSAGE"].as_str().unwrap_or_default();
    ensure!(message.starts_with("step failed") && found["UID"].as_str().is_some_and(|uid| uid.len() == 36), "{found}");
    Ok(())
}

fn bundle(context: &Context) -> Result<()> {
    let guest = context.guest();
    context.kubectl.say(&format!("create secret generic hush --from-literal=word={SECRET}"))?;
    context.kubectl.apply(&format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: hushed, annotations: {{note: {SECRET}}}}}, spec: {{terminationGracePeriodSeconds: 1, \
         containers: [{{name: main, image: {}, command: [sleep, 1d], \
           env: [{{name: WORD, valueFrom: {{secretKeyRef: {{name: hush, key: word}}}}}}, {{name: PLAIN_PASSWORD, value: {SECRET}}}], \
           volumeMounts: [{{name: hush, mountPath: /hush}}]}}], volumes: [{{name: hush, secret: {{secretName: hush}}}}]}}}}",
        keelson_tests::harness::images::BUSYBOX
    ))?;
    context.wait_pod("hushed")?;
    guest.say("cd /root && agent support-bundle --output b.tar.gz && tar -xzf b.tar.gz")?;
    let mode = guest.say("stat -c %a /root/b.tar.gz")?;
    ensure!(mode == "600\n", "{mode}");
    for (file, text) in [
        ("about.json", "stateFormat"),
        ("doctor.json", "severity"),
        ("state.json", "oldestReader"),
        ("config/agent.yaml", "KubeletConfiguration"),
        ("config/node.yaml", "nodeName"),
        ("certificates.txt", "system:node:v1"),
        ("runtime.txt", "default/hushed"),
        ("pods.json", "hushed"),
        ("explain/default_long.json", "history"),
        ("metrics.txt", "# TYPE"),
        ("logs/agent.log", "agent is running"),
        ("network/nft.txt", "table inet keelson"),
        ("network/routes.txt", "default via"),
        ("machine/services.txt", "agent.service"),
    ] {
        guest
            .say(&format!("grep -q '{text}' /root/keelson-support/{file}"))
            .with_context(|| format!("{text} in {file}"))?;
    }
    // Values as they are and as Secrets have them, tokens of pods, and the bodies of keys.
    let words = format!(
        "(echo {SECRET}; printf %s {SECRET} | base64; for token in /var/lib/keelson/pods/*/volumes/kubernetes.io~projected/*/token; do \
         cat $token; echo; done; sed -n '/PRIVATE KEY/,/PRIVATE KEY/{{/-----/!p}}' /etc/keelson/pki/*.pem; echo 'PRIVATE KEY') | sed '/^$/d' > /root/words"
    );
    guest.say(&format!("{words} && test $(wc -l < /root/words) -ge 7"))?;
    let found = guest.say("cd /root && grep -rlF -f words keelson-support; grep -rlE '(^|[^a-z0-9.])[a-z0-9]{6}\\.[a-z0-9]{16}([^a-z0-9]|$)' keelson-support; true")?;
    ensure!(found.is_empty(), "secrets are in\n{found}");
    guest.say("cd /root && rm -r keelson-support b.tar.gz words")?;
    context.kubectl.say("delete pod hushed --force --grace-period=0")?;
    context.kubectl.say("delete secret hush").map(drop)
}

fn confined(context: &Context) -> Result<()> {
    exposure(context, "agent", EXPOSURE)
}

/// A unit's exposure, of which there is to be no more than `most`.
pub fn exposure(context: &Context, unit: &str, most: f64) -> Result<()> {
    let said = context.guest().say(&format!("systemd-analyze security --no-pager {unit}"))?;
    let overall =
        said.lines().find(|line| line.contains("Overall exposure level")).context("no overall exposure level")?;
    eprintln!("{overall}");
    let score = overall.split_whitespace().find_map(|word| word.parse::<f64>().ok()).context("no figure")?;
    ensure!(score <= most, "{said}");
    Ok(())
}
