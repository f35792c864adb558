//! The commands of kubectl that people use. docs/kubectl.md says which test tried which.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use keelson_tests::harness::images::{BUSYBOX, HELLO, HELLO_2};
use keelson_tests::harness::shell::wait_for;

use crate::Test;
use crate::context::Context;

pub const TESTS: &[Test] = &[
    ("kubectl::objects_are_created_read_changed_and_deleted", objects),
    ("kubectl::pods_are_run_and_looked_into", pods),
    ("kubectl::deployments_are_rolled_out_and_back", rollout),
    ("kubectl::the_cluster_describes_itself", describes_itself),
    ("kubectl::nodes_are_cordoned_and_drained", drain),
    ("kubectl::ports_are_forwarded", port_forward),
];

fn objects(context: &Context) -> Result<()> {
    let ns = context.namespace()?;
    ns.say("create configmap c --from-literal=a=1")?;
    ns.say("create secret generic s --from-literal=password=hidden")?;
    ns.say("create serviceaccount robot")?;
    ns.say("create role r --verb=get,list --resource=pods")?;
    ns.say(&format!("create rolebinding rb --role=r --serviceaccount={}:robot", ns.name))?;
    ensure!(ns.say("get configmap c -o jsonpath={.data.a}")? == "1");
    ensure!(ns.say("get configmaps -o custom-columns=N:.metadata.name --no-headers")?.contains('c'));
    ns.say("label configmap c tier=x")?;
    ns.say("annotate configmap c note=y")?;
    ensure!(ns.say("get configmaps -l tier=x -o name")?.trim() == "configmap/c");
    ensure!(ns.say("get configmaps -l tier!=x -o name")?.contains("kube-root-ca.crt"));
    ensure!(ns.say("get configmaps --field-selector metadata.name=c -o name")?.trim() == "configmap/c");
    ns.run(&["patch", "configmap", "c", "-p", r#"{"data":{"b":"2"}}"#])?;
    ns.run(&["patch", "configmap", "c", "--type=json", "-p", r#"[{"op":"remove","path":"/data/a"}]"#])?;
    ensure!(ns.run(&["get", "configmap", "c", "-o", "jsonpath={.data}"])? == r#"{"b":"2"}"#);
    let yaml = ns.say("get configmap c -o yaml")?;
    ns.fed(&["replace", "-f", "-"], &yaml.replace("b: \"2\"", "b: \"3\""))?;
    ensure!(ns.say("get configmap c -o jsonpath={.data.b}")? == "3");
    let stale = yaml.replace("b: \"2\"", "b: \"4\"");
    let refused = ns.fed(&["replace", "-f", "-"], &stale).unwrap_err().to_string();
    ensure!(refused.contains("the object has been modified"), "{refused}");
    let editor = std::env::temp_dir().join(format!("keelson-editor-{}", std::process::id()));
    std::fs::write(&editor, "#!/bin/sh\nexec sed -i 's/^  b: .*/  b: \"5\"/' \"$1\"\n")?;
    std::fs::set_permissions(&editor, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let mut edit = ns.command();
    let edited = edit.args(["edit", "configmap", "c"]).env("KUBE_EDITOR", &editor).output()?;
    std::fs::remove_file(&editor)?;
    ensure!(edited.status.success(), "{}", String::from_utf8_lossy(&edited.stderr));
    ensure!(ns.say("get configmap c -o jsonpath={.data.b}")? == "5");
    ensure!(ns.say("auth can-i list pods")?.trim() == "yes");
    let robot = format!("--as=system:serviceaccount:{}:robot", ns.name);
    ensure!(ns.run(&["auth", "can-i", "list", "pods", &robot])?.trim() == "yes");
    ensure!(ns.refused(&["get", "secrets", &robot])?.contains("is forbidden: User \"system:serviceaccount:"));
    ensure!(ns.say("create token robot")?.matches('.').count() == 2);
    ensure!(ns.say("delete configmap c")?.contains("deleted"));
    ensure!(ns.refused(&["get", "configmap", "c"])?.contains("configmaps \"c\" not found"));
    Ok(())
}

fn pods(context: &Context) -> Result<()> {
    let ns = context.namespace()?;
    ns.run(&["run", "web", "--image", HELLO, "--port=8080"])?;
    ns.run(&["run", "shell", "--image", BUSYBOX, "--", "sh", "-c", "echo one; echo two >&2; exec sleep 1000"])?;
    ns.wait("pod/web pod/shell", "condition=Ready")?;
    ensure!(ns.say("logs shell")?.lines().count() == 2);
    ensure!(ns.say("logs shell --tail=1 --timestamps")?.contains("T"));
    ensure!(ns.run(&["exec", "shell", "--", "sh", "-c", "echo $((6*7))"])?.trim() == "42");
    let code = ns.command().args(["exec", "shell", "--", "sh", "-c", "exit 7"]).status()?.code();
    ensure!(code == Some(7), "exec ended with {code:?}");
    ensure!(ns.fed(&["exec", "-i", "shell", "--", "cat"], "through stdin")? == "through stdin");
    let file = std::env::temp_dir().join(format!("keelson-cp-{}", std::process::id()));
    std::fs::write(&file, "copied")?;
    ns.run(&["cp", &file.to_string_lossy(), "shell:/tmp/file"])?;
    std::fs::remove_file(&file)?;
    ensure!(ns.run(&["exec", "shell", "--", "cat", "/tmp/file"])? == "copied");
    ns.run(&["cp", "shell:/tmp/file", &file.to_string_lossy()])?;
    ensure!(std::fs::read_to_string(&file)? == "copied");
    std::fs::remove_file(&file)?;
    let described = ns.say("describe pod web")?;
    for part in ["Successfully assigned", "Started", "QoS Class", "kube-api-access-"] {
        ensure!(described.contains(part), "describe has no {part:?}:\n{described}");
    }
    ensure!(ns.say("get pods -o wide")?.contains("web"));
    ensure!(ns.say("get events")?.contains("Started"));
    ns.say("expose pod web --port=80 --target-port=8080")?;
    ensure!(ns.say("get service web -o jsonpath={.spec.ports[0].port}")? == "80");
    ns.say("delete pod web shell --grace-period=1")?;
    ensure!(ns.refused(&["get", "pod", "web"])?.contains("pods \"web\" not found"));
    Ok(())
}

fn rollout(context: &Context) -> Result<()> {
    let ns = context.namespace()?;
    ns.run(&["create", "deployment", "d", "--image", HELLO, "--replicas=2"])?;
    ns.say("rollout status deployment/d --timeout=60s")?;
    ns.say("scale deployment d --replicas=3")?;
    ns.say("rollout status deployment/d --timeout=60s")?;
    ns.say(&format!("set image deployment/d hello={HELLO_2}"))?;
    ns.say("rollout status deployment/d --timeout=60s")?;
    ensure!(ns.say("rollout history deployment/d")?.lines().filter(|l| l.starts_with(['1', '2'])).count() == 2);
    ns.say("rollout pause deployment/d")?;
    ns.say("set env deployment/d A=1")?;
    ensure!(ns.say("get replicasets -o name")?.lines().count() == 2);
    ns.say("rollout resume deployment/d")?;
    ns.say("rollout status deployment/d --timeout=60s")?;
    ensure!(ns.say("get replicasets -o name")?.lines().count() == 3);
    ns.say("rollout undo deployment/d --to-revision=1")?;
    ns.say("rollout status deployment/d --timeout=60s")?;
    let image = ns.run(&["get", "deployment", "d", "-o", "jsonpath={.spec.template.spec.containers[0].image}"])?;
    ensure!(image == HELLO, "{image}");
    ns.say("rollout restart deployment/d")?;
    ns.say("rollout status deployment/d --timeout=60s")?;
    ns.say("wait deployment/d --for=condition=Available --timeout=30s")?;
    Ok(())
}

fn describes_itself(context: &Context) -> Result<()> {
    let kubectl = context.kubectl();
    ensure!(kubectl.say("cluster-info")?.contains("is running at"));
    ensure!(kubectl.say("version")?.contains("Server Version: v1.36"));
    let resources = kubectl.say("api-resources")?;
    for resource in
        ["deployments", "endpointslices", "clusterrolebindings", "leases", "pods", "certificatesigningrequests"]
    {
        ensure!(resources.contains(resource), "api-resources has no {resource}");
    }
    ensure!(kubectl.say("api-versions")?.contains("apps/v1"));
    ensure!(kubectl.say("explain pod.spec.containers")?.contains("<[]Container>"));
    ensure!(kubectl.say("explain deployment --recursive")?.contains("maxSurge"));
    ensure!(kubectl.say("get nodes -o wide")?.lines().filter(|l| l.contains(" Ready ")).count() == 3);
    ensure!(kubectl.say("describe node n1")?.contains("kubelet is posting ready status"));
    ensure!(kubectl.say("config view --minify -o jsonpath={.clusters[0].name}")?.len() > 1);
    Ok(())
}

fn drain(context: &Context) -> Result<()> {
    let ns = context.namespace()?;
    ns.run(&["create", "deployment", "d", "--image", HELLO, "--replicas=4"])?;
    ns.say("rollout status deployment/d --timeout=60s")?;
    ns.say("cordon n2")?;
    ensure!(ns.say("get node n2")?.contains("SchedulingDisabled"));
    ns.say("drain n2 --ignore-daemonsets --delete-emptydir-data --force --timeout=60s")?;
    ns.say("rollout status deployment/d --timeout=60s")?;
    let on = ns.run(&["get", "pods", "-o", "jsonpath={.items[*].spec.nodeName}"])?;
    ns.say("uncordon n2")?;
    ensure!(!on.contains("n2"), "drained, and yet pods are on {on}");
    Ok(())
}

fn port_forward(context: &Context) -> Result<()> {
    let ns = context.namespace()?;
    ns.run(&["run", "web", "--image", HELLO])?;
    ns.wait("pod/web", "condition=Ready")?;
    let mut forward = ns.command().args(["port-forward", "pod/web", "39080:8080"]).stdout(Stdio::null()).spawn()?;
    let answer = wait_for("an answer through the forwarded port", Duration::from_secs(20), || {
        keelson_tests::harness::shell::run(
            "curl",
            ["-sS", "--noproxy", "*", "--max-time", "3", "http://127.0.0.1:39080/hostname"],
        )
    });
    forward.kill()?;
    forward.wait()?;
    ensure!(answer.context("port-forward")?.trim() == "web");
    Ok(())
}
