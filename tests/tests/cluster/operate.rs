//! What an administrator does with a master that runs: look, back up, renew, restore.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use keelson_tests::harness::images::{self, BUSYBOX};
use keelson_tests::harness::shell::{output, wait_for};
use serde_json::{Value, json};

use crate::Test;
use crate::context::Context;
use crate::load::Load;

pub const TESTS: &[Test] = &[
    ("operate::status_and_tokens_are_as_kubectl_sees_them", status),
    ("operate::renewed_certificates_are_presented_without_a_restart", renewal),
    ("operate::tokens_of_an_earlier_key_are_valid_until_they_are_forgotten", token_keys),
    ("operate::a_backup_under_load_is_restored_and_clients_go_on", restore),
];

/// `master ARGS --data-dir …` on the master's machine.
fn master(context: &Context, line: &str) -> Result<String> {
    let cluster = context.cluster();
    let program = images::bin_dir().join("master");
    let mut command = cluster.inside("m", &program.to_string_lossy());
    output(command.args(line.split_whitespace()).arg("--data-dir").arg(cluster.layout.master_dir()))
}

fn status(context: &Context) -> Result<()> {
    let status: Value = serde_json::from_str(&master(context, "status --output json")?)?;
    ensure!(status["healthy"] == true && status["nodes"]["ready"] == status["nodes"]["total"], "{status}");
    let version = context.kubectl().json("version")?["serverVersion"]["gitVersion"].clone();
    ensure!(status["version"] == version, "{status} beside {version}");

    let token = master(context, "token create --ttl 1h")?;
    let id = token.trim().split('.').next().context("an id")?.to_owned();
    let secret = context.kubectl().json(&format!("get secret bootstrap-token-{id} -n kube-system"))?;
    ensure!(secret["type"] == "bootstrap.kubernetes.io/token", "{}", secret["type"]);
    ensure!(master(context, "token list")?.lines().any(|line| line.starts_with(&id)));
    master(context, &format!("token delete {id}"))?;
    ensure!(!master(context, "token list")?.contains(&id));
    Ok(())
}

/// The certificate that the API server shows to a new connection.
fn presented(context: &Context) -> Result<String> {
    let line =
        "openssl s_client -connect 127.0.0.1:6443 -showcerts </dev/null 2>/dev/null | openssl x509 -noout -serial";
    let mut shell = context.cluster().inside("m", "sh");
    output(shell.args(["-c", line]))
}

fn renewal(context: &Context) -> Result<()> {
    let before = presented(context)?;
    let pid = context.cluster().process("master")?.pid;
    master(context, "certs rotate")?;
    wait_for("the renewed certificate", Duration::from_secs(60), || {
        ensure!(presented(context)? != before, "still {before}");
        Ok(())
    })?;
    ensure!(context.cluster().process("master")?.pid == pid && context.cluster().process("master")?.alive());
    // Clients with old and new certificates are served, nodes are reached with the new one.
    context.kubectl().say("get --raw /readyz")?;
    let shown = master(context, "certs show --output json")?;
    let shown: Vec<Value> = serde_json::from_str(&shown)?;
    let files: Vec<&str> = shown.iter().filter_map(|one| one["file"].as_str()).collect();
    let servers = ["ca", "apiserver", "apiserver-kubelet-client", "front-proxy-ca", "front-proxy-client"];
    let pki: Vec<String> = servers.iter().map(|name| format!("pki/{name}.crt")).collect();
    let (of_servers, of_people) = files.split_at_checked(servers.len()).with_context(|| format!("{files:?}"))?;
    ensure!(of_servers == pki && of_people == ["admin.conf", "super-admin.conf"], "{files:?}");
    Ok(())
}

fn token_keys(context: &Context) -> Result<()> {
    let ns = context.namespace()?;
    let is_valid = |token: &str| -> Result<bool> {
        let spec = json!({ "token": token.trim() });
        let review = json!({ "kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1", "spec": spec });
        let answer = ns.fed(&["create", "-o", "json", "-f", "-"], &review.to_string())?;
        let answer: Value = serde_json::from_str(&answer)?;
        Ok(answer["status"]["authenticated"] == true)
    };
    let keys = |wanted: usize| {
        wait_for("the keys of tokens", Duration::from_secs(60), || {
            let known: Value = serde_json::from_str(&context.kubectl().say("get --raw /openid/v1/jwks")?)?;
            ensure!(known["keys"].as_array().is_some_and(|keys| keys.len() == wanted), "{known}");
            Ok(())
        })
    };
    let earlier = ns.say("create token default")?;
    master(context, "certs rotate-sa")?;
    keys(2)?;
    let later = ns.say("create token default")?;
    ensure!(is_valid(&earlier)? && is_valid(&later)?);
    master(context, "certs rotate-sa --forget")?;
    keys(1)?;
    ensure!(!is_valid(&earlier)? && is_valid(&later)?);
    Ok(())
}

fn restore(context: &Context) -> Result<()> {
    let ns = context.namespace()?;
    ns.run(&["run", "kept", "--image", BUSYBOX, "--", "sleep", "1d"])?;
    ns.wait("pod/kept", "condition=Ready")?;
    let before = ns.json("get pod kept")?;
    let file = context.cluster().layout.master_dir().with_extension("backup");
    let load = Load::start(&context.kubectl().kubeconfig, &ns.name);
    std::thread::sleep(Duration::from_secs(1));
    let said = master(context, &format!("backup {} --with-pki", file.display()))?;
    ensure!(load.end()? > 0, "nothing was written meanwhile");
    ns.say("create configmap later")?;
    let newest =
        ns.json("get configmap later")?["metadata"]["resourceVersion"].as_str().context("rv")?.parse::<u64>()?;

    let refused = master(context, &format!("restore {} --force", file.display())).err().context("a running master")?;
    ensure!(format!("{refused:#}").contains("a master runs on"), "{refused:#}");
    context.cluster().process("master")?.kill()?;
    let restored = master(context, &format!("restore {} --force", file.display()));
    context.cluster().run_master()?;
    wait_for("the API server", Duration::from_secs(30), || context.kubectl().say("get --raw /readyz").map(drop))?;
    ensure!(restored?.contains("are restored"), "{said}");

    ensure!(ns.refused(&["get", "configmap", "later"])?.contains("NotFound"));
    let after = ns.json("get pod kept")?;
    let version = after["metadata"]["resourceVersion"].as_str().context("rv")?.parse::<u64>()?;
    ensure!(version > newest, "{version} is not above {newest}, which clients have seen");
    let watch = format!("/api/v1/pods?watch=1&timeoutSeconds=5&resourceVersion={newest}");
    let expired = context.kubectl().run(&["get", "--raw", &watch])?;
    ensure!(expired.contains("ERROR") && expired.contains("too old resource version"), "{expired}");
    for node in ["n1", "n2", "n3"] {
        context.cluster().wait_ready(node)?;
    }
    // The node's agent was connected all the time: it goes on with what is there now, and its pods have not noticed.
    ns.run(&["run", "new", "--image", BUSYBOX, "--", "sleep", "1d"])?;
    ns.wait("pod/new", "condition=Ready")?;
    let after = ns.json("get pod kept")?;
    let id = |pod: &Value| pod["status"]["containerStatuses"][0]["containerID"].clone();
    ensure!(id(&after) == id(&before) && after["status"]["containerStatuses"][0]["restartCount"] == 0, "{after}");
    fs::remove_file(&file)?;
    Ok(())
}
