//! What a kubelet does.

use anyhow::{Context as _, Result, ensure};
use keelson_tests::harness::images::{BUSYBOX, HELLO};
use serde_json::Value;

use crate::Test;
use crate::context::{Context, Namespace};

pub const TESTS: &[Test] = &[
    ("node::init_containers_run_in_order", init_containers),
    ("node::containers_of_a_pod_share_localhost", shared_network),
    ("node::environment_comes_from_everywhere", environment),
    ("node::volumes_of_every_type", volumes),
    ("node::config_maps_follow_their_object", config_map_updates),
    ("node::probes_of_every_kind", probes),
    ("node::a_failing_liveness_probe_restarts", liveness),
    ("node::readiness_takes_a_pod_out_of_its_service", readiness),
    ("node::conditions_that_others_wrote_over_are_told_again", written_over),
    ("node::crashes_are_backed_off_and_reported", crash_loop),
    ("node::hooks_run_and_grace_is_kept", hooks),
    ("node::limits_are_cgroups_and_oom_is_reported", limits),
    ("node::missing_images_and_objects_are_named", missing),
    ("node::previous_and_bounded_logs", logs),
    ("node::the_node_describes_itself", describes_itself),
];

fn status(ns: &Namespace<'_>, pod: &str) -> Result<Value> {
    Ok(ns.json(&format!("get pod {pod}"))?["status"].clone())
}

fn init_containers(context: &Context) -> Result<()> {
    let ns = context.namespace()?;
    ns.apply(&format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: p}}
spec:
  volumes: [{{name: v, emptyDir: {{}}}}]
  restartPolicy: Never
  initContainers:
    - {{name: one, image: {BUSYBOX}, command: [sh, -c, "echo 1 >> /v/log"], volumeMounts: [{{name: v, mountPath: /v}}]}}
    - {{name: two, image: {BUSYBOX}, command: [sh, -c, "sleep 1; echo 2 >> /v/log"], volumeMounts: [{{name: v, mountPath: /v}}]}}
  containers:
    - {{name: app, image: {BUSYBOX}, command: [sh, -c, "echo 3 >> /v/log; cat /v/log"], volumeMounts: [{{name: v, mountPath: /v}}]}}
"#
    ))?;
    ns.wait("pod/p", "jsonpath={.status.phase}=Succeeded")?;
    ensure!(ns.say("logs p")? == "1\n2\n3\n");
    let status = status(&ns, "p")?;
    ensure!(status["initContainerStatuses"][1]["state"]["terminated"]["reason"] == "Completed");
    ensure!(status["qosClass"] == "BestEffort" && status["containerStatuses"][0]["ready"] == false);
    Ok(())
}

fn shared_network(context: &Context) -> Result<()> {
    let ns = context.namespace()?;
    ns.apply(&format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: p}}, spec: {{containers: [{{name: web, image: {HELLO}}}, \
         {{name: sh, image: {BUSYBOX}, command: [sleep, '1000']}}]}}}}"
    ))?;
    ns.wait("pod/p", "condition=Ready")?;
    let answer = ns.run(&["exec", "p", "-c", "sh", "--", "wget", "-q", "-O", "-", "http://127.0.0.1:8080/hostname"])?;
    ensure!(answer.trim() == "p");
    ensure!(ns.run(&["exec", "p", "-c", "sh", "--", "hostname"])?.trim() == "p");
    Ok(())
}

fn environment(context: &Context) -> Result<()> {
    let ns = context.namespace()?;
    ns.say("create configmap cm --from-literal=key=from-cm")?;
    ns.say("create secret generic se --from-literal=key=from-secret")?;
    ns.apply(&format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: p, labels: {{tier: x}}}}
spec:
  restartPolicy: Never
  containers:
    - name: c
      image: {BUSYBOX}
      command: [env]
      resources: {{limits: {{cpu: 250m, memory: 32Mi}}}}
      envFrom: [{{configMapRef: {{name: cm}}, prefix: CM_}}]
      env:
        - {{name: PLAIN, value: "a$(CM_key)"}}
        - {{name: SECRET, valueFrom: {{secretKeyRef: {{name: se, key: key}}}}}}
        - {{name: NAME, valueFrom: {{fieldRef: {{fieldPath: metadata.name}}}}}}
        - {{name: TIER, valueFrom: {{fieldRef: {{fieldPath: "metadata.labels['tier']"}}}}}}
        - {{name: IP, valueFrom: {{fieldRef: {{fieldPath: status.podIP}}}}}}
        - {{name: NODE, valueFrom: {{fieldRef: {{fieldPath: spec.nodeName}}}}}}
        - {{name: CPU, valueFrom: {{resourceFieldRef: {{resource: limits.cpu, divisor: 1m}}}}}}
        - {{name: MEMORY, valueFrom: {{resourceFieldRef: {{resource: limits.memory, divisor: 1Mi}}}}}}
"#
    ))?;
    ns.wait("pod/p", "jsonpath={.status.phase}=Succeeded")?;
    let logs = ns.say("logs p")?;
    let ip = ns.run(&["get", "pod", "p", "-o", "jsonpath={.status.podIP}"])?;
    let node = ns.run(&["get", "pod", "p", "-o", "jsonpath={.spec.nodeName}"])?;
    for line in [
        "CM_key=from-cm",
        "PLAIN=afrom-cm",
        "SECRET=from-secret",
        "NAME=p",
        "TIER=x",
        "CPU=250",
        "MEMORY=32",
        "KUBERNETES_SERVICE_HOST=10.96.0.1",
        "KUBERNETES_SERVICE_PORT=443",
        "HOSTNAME=p",
        &format!("IP={ip}"),
        &format!("NODE={node}"),
    ] {
        ensure!(logs.lines().any(|l| l == line), "no {line:?} in\n{logs}");
    }
    Ok(())
}

fn volumes(context: &Context) -> Result<()> {
    let ns = context.namespace()?;
    ns.say("create configmap cm --from-literal=a=1 --from-literal=b=2")?;
    ns.say("create secret generic se --from-literal=s=hidden")?;
    ns.apply(&format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: p, labels: {{tier: x}}}}
spec:
  securityContext: {{fsGroup: 4321}}
  volumes:
    - {{name: empty, emptyDir: {{}}}}
    - {{name: memory, emptyDir: {{medium: Memory, sizeLimit: 1Mi}}}}
    - {{name: host, hostPath: {{path: /etc, type: Directory}}}}
    - {{name: cm, configMap: {{name: cm, items: [{{key: a, path: sub/a}}], defaultMode: 0440}}}}
    - {{name: se, secret: {{secretName: se}}}}
    - {{name: down, downwardAPI: {{items: [{{path: labels, fieldRef: {{fieldPath: metadata.labels}}}}]}}}}
    - {{name: all, projected: {{sources: [{{configMap: {{name: cm}}}}, {{secret: {{name: se}}}}, {{serviceAccountToken: {{path: token, audience: me}}}}]}}}}
  containers:
    - name: c
      image: {BUSYBOX}
      command: [sleep, "1000"]
      volumeMounts:
        - {{name: empty, mountPath: /empty}}
        - {{name: memory, mountPath: /memory}}
        - {{name: host, mountPath: /host, readOnly: true}}
        - {{name: cm, mountPath: /cm}}
        - {{name: se, mountPath: /se}}
        - {{name: down, mountPath: /down}}
        - {{name: all, mountPath: /all}}
        - {{name: cm, mountPath: /one, subPath: sub/a}}
"#
    ))?;
    ns.wait("pod/p", "condition=Ready")?;
    let script = "cat /cm/sub/a /se/s /down/labels /one; echo; stat -c %g /empty; stat -L -c %a /cm/sub/a; df -k /memory | tail -n 1; \
        cat /host/hostname; touch /host/x 2>&1; ls /all; cut -d . -f 2 /all/token | wc -c";
    let said = ns.run(&["exec", "p", "--", "sh", "-c", script])?;
    for part in ["1hidden", "tier=\"x\"", "4321", "tmpfs", "1024", "Read-only file system", "token", "s\n"] {
        ensure!(said.contains(part), "no {part:?} in\n{said}");
    }
    Ok(())
}

fn config_map_updates(context: &Context) -> Result<()> {
    let ns = context.namespace()?;
    ns.say("create configmap cm --from-literal=a=old")?;
    ns.apply(&format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: p}}, spec: {{volumes: [{{name: v, configMap: {{name: cm}}}}], containers: \
         [{{name: c, image: {BUSYBOX}, command: [sleep, '1000'], volumeMounts: [{{name: v, mountPath: /v}}]}}]}}}}"
    ))?;
    ns.wait("pod/p", "condition=Ready")?;
    ns.run(&["patch", "configmap", "cm", "-p", r#"{"data":{"a":"new"}}"#])?;
    keelson_tests::harness::shell::wait_for("the new content", std::time::Duration::from_secs(10), || {
        ensure!(ns.run(&["exec", "p", "--", "cat", "/v/a"])? == "new");
        Ok(())
    })
}

fn probes(context: &Context) -> Result<()> {
    let ns = context.namespace()?;
    let manifest = |kind: &str, probe: &str| {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {kind}}}, spec: {{containers: [{{name: c, image: {HELLO}, \
             startupProbe: {{{probe}, periodSeconds: 1}}, readinessProbe: {{{probe}, periodSeconds: 1}}, livenessProbe: {{{probe}, periodSeconds: 1}}}}]}}}}"
        )
    };
    let kinds = [
        ("http", "httpGet: {path: /healthz, port: 8080}"),
        ("tcp", "tcpSocket: {port: 8080}"),
        ("grpc", "grpc: {port: 8080}"),
        ("exec", "exec: {command: [/hello, print, fine]}"),
    ];
    for (kind, probe) in kinds {
        ns.apply(&manifest(kind, probe))?;
    }
    ns.apply(&manifest("wrong", "httpGet: {path: /nothing, port: 8080}"))?;
    for (kind, _) in kinds {
        ns.wait(&format!("pod/{kind}"), "condition=Ready")?;
    }
    ns.until("the failing probe's event", || {
        ensure!(
            ns.say("get events --field-selector involvedObject.name=wrong")?
                .contains("Startup probe failed: HTTP probe failed with statuscode: 404")
        );
        Ok(())
    })?;
    ensure!(status(&ns, "wrong")?["containerStatuses"][0]["ready"] == false);
    Ok(())
}

fn liveness(context: &Context) -> Result<()> {
    let ns = context.namespace()?;
    ns.apply(&format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: p}}, spec: {{terminationGracePeriodSeconds: 1, containers: [{{name: c, image: {HELLO}, \
         livenessProbe: {{httpGet: {{path: /healthz, port: 8080}}, periodSeconds: 1, failureThreshold: 2}}}}]}}}}"
    ))?;
    ns.wait("pod/p", "condition=Ready")?;
    let ip = ns.run(&["get", "pod", "p", "-o", "jsonpath={.status.podIP}"])?;
    context.on("n1", &format!("curl -sS --max-time 3 -X POST http://{ip}:8080/bad"))?;
    ns.until("the restart", || {
        let status = status(&ns, "p")?;
        ensure!(
            status["containerStatuses"][0]["restartCount"] == 1 && status["containerStatuses"][0]["ready"] == true,
            "{status}"
        );
        Ok(())
    })?;
    let events = ns.say("get events")?;
    ensure!(events.contains("Liveness probe failed: HTTP probe failed with statuscode: 503"), "{events}");
    ensure!(events.contains("Container c failed liveness probe, will be restarted"), "{events}");
    Ok(())
}

fn readiness(context: &Context) -> Result<()> {
    let ns = context.namespace()?;
    ns.apply(&format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: p, labels: {{app: p}}}}, spec: {{containers: [{{name: c, image: {HELLO}, \
         readinessProbe: {{httpGet: {{path: /healthz, port: 8080}}, periodSeconds: 1, failureThreshold: 1}}}}]}}}}"
    ))?;
    ns.say("expose pod p --port=80 --target-port=8080")?;
    ns.wait("pod/p", "condition=Ready")?;
    let ip = ns.run(&["get", "pod", "p", "-o", "jsonpath={.status.podIP}"])?;
    for (path, expected) in [("bad", "false"), ("good", "true")] {
        context.on("n2", &format!("curl -sS --max-time 3 -X POST http://{ip}:8080/{path}"))?;
        ns.until("the slice to follow", || {
            let ready = ns.run(&[
                "get",
                "endpointslices",
                "-l",
                "kubernetes.io/service-name=p",
                "-o",
                "jsonpath={.items[*].endpoints[*].conditions.ready}",
            ])?;
            ensure!(ready == expected, "after {path}: {ready:?}");
            Ok(())
        })?;
    }
    ensure!(status(&ns, "p")?["containerStatuses"][0]["restartCount"] == 0);
    Ok(())
}

/// As the controller of nodes does it to pods of a node that was silent.
fn written_over(context: &Context) -> Result<()> {
    let ns = context.namespace()?;
    ns.run(&["run", "p", "--image", BUSYBOX, "--", "sleep", "1d"])?;
    ns.wait("pod/p", "condition=Ready")?;
    let patch = r#"{"status": {"conditions": [{"type": "Ready", "status": "False"}]}}"#;
    let answer = ns.run(&["patch", "pod", "p", "--subresource=status", "-p", patch, "-o", "json"])?;
    let changed: Value = serde_json::from_str(&answer)?;
    ensure!(changed["status"]["conditions"].to_string().contains(r#""status":"False""#), "{answer}");
    ns.wait("pod/p", "condition=Ready").map(drop)
}

fn crash_loop(context: &Context) -> Result<()> {
    let ns = context.namespace()?;
    ns.run(&["run", "loop", "--image", HELLO, "--", "exit", "3"])?;
    ns.run(&["run", "once", "--image", HELLO, "--restart=Never", "--", "exit", "4"])?;
    ns.run(&["run", "fine", "--image", HELLO, "--restart=OnFailure", "--", "exit", "0"])?;
    ns.until("CrashLoopBackOff", || {
        let status = status(&ns, "loop")?;
        let container = &status["containerStatuses"][0];
        ensure!(container["state"]["waiting"]["reason"] == "CrashLoopBackOff", "{container}");
        ensure!(
            container["lastState"]["terminated"]["exitCode"] == 3
                && container["lastState"]["terminated"]["reason"] == "Error"
        );
        ensure!(container["restartCount"].as_u64() >= Some(1));
        Ok(())
    })?;
    ns.wait("pod/once", "jsonpath={.status.phase}=Failed")?;
    ns.wait("pod/fine", "jsonpath={.status.phase}=Succeeded")?;
    ensure!(ns.say("get pods")?.contains("CrashLoopBackOff"));
    ensure!(ns.say("get events")?.contains("Back-off restarting failed container"));
    Ok(())
}

fn hooks(context: &Context) -> Result<()> {
    let ns = context.namespace()?;
    ns.apply(&format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: p}}
spec:
  nodeName: n1
  terminationGracePeriodSeconds: 30
  volumes: [{{name: v, hostPath: {{path: /tmp/keelson-hooks-{pid}, type: DirectoryOrCreate}}}}]
  containers:
    - name: c
      image: {BUSYBOX}
      command: [sh, -c, "trap 'echo term >> /v/log; exit 0' TERM; while true; do sleep 0.1; done"]
      volumeMounts: [{{name: v, mountPath: /v}}]
      lifecycle:
        postStart: {{exec: {{command: [sh, -c, "echo post >> /v/log"]}}}}
        preStop: {{exec: {{command: [sh, -c, "echo pre >> /v/log; sleep 1"]}}}}
"#,
        pid = std::process::id()
    ))?;
    ns.wait("pod/p", "condition=Ready")?;
    ns.say("delete pod p --timeout=25s")?;
    let dir = format!("/tmp/keelson-hooks-{}", std::process::id());
    let log = std::fs::read_to_string(format!("{dir}/log"))?;
    std::fs::remove_dir_all(dir)?;
    ensure!(log == "post\npre\nterm\n", "{log:?}");
    Ok(())
}

fn limits(context: &Context) -> Result<()> {
    let ns = context.namespace()?;
    ns.apply(&format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: p}}, spec: {{restartPolicy: Never, containers: [{{name: c, image: {HELLO}, \
         resources: {{requests: {{cpu: 100m, memory: 16Mi}}, limits: {{cpu: 200m, memory: 32Mi}}}}}}]}}}}"
    ))?;
    ns.wait("pod/p", "condition=Ready")?;
    let json = ns.json("get pod p")?;
    ensure!(json["status"]["qosClass"] == "Burstable");
    let ip = json["status"]["podIP"].as_str().context("podIP")?;
    // The answer never comes: the kernel kills the server over it.
    let _ = context.on("n1", &format!("curl -sS --max-time 10 -X POST http://{ip}:8080/memory?mib=200"));
    ns.until("the report", || {
        let state = status(&ns, "p")?["containerStatuses"][0]["state"].clone();
        ensure!(state["terminated"]["reason"] == "OOMKilled" && state["terminated"]["exitCode"] == 137, "{state}");
        Ok(())
    })?;
    ns.wait("pod/p", "jsonpath={.status.phase}=Failed")?;
    Ok(())
}

fn missing(context: &Context) -> Result<()> {
    let ns = context.namespace()?;
    ns.run(&["run", "image", "--image=docker.io/keelson/none:1", "--image-pull-policy=Never"])?;
    ns.apply("{apiVersion: v1, kind: Pod, metadata: {name: name}, spec: {containers: [{name: c, image: UPPER:1}]}}")?;
    ns.run(&["run", "config", "--image", HELLO, "--overrides",
        r#"{"spec":{"containers":[{"name":"config","image":"docker.io/keelson/hello:1","env":[{"name":"A","valueFrom":{"configMapKeyRef":{"name":"gone","key":"k"}}}]}]}}"#])?;
    ns.run(&["run", "volume", "--image", HELLO, "--overrides",
        r#"{"spec":{"volumes":[{"name":"v","secret":{"secretName":"gone"}}],"containers":[{"name":"volume","image":"docker.io/keelson/hello:1","volumeMounts":[{"name":"v","mountPath":"/v"}]}]}}"#])?;
    for (pod, reason, words) in [
        (
            "image",
            "ErrImageNeverPull",
            "Container image \"docker.io/keelson/none:1\" is not present with pull policy of Never",
        ),
        ("name", "InvalidImageName", "invalid reference format"),
        ("config", "CreateContainerConfigError", "configmap \"gone\" not found"),
    ] {
        ns.until(reason, || {
            let waiting = status(&ns, pod)?["containerStatuses"][0]["state"]["waiting"].clone();
            ensure!(
                waiting["reason"] == reason && waiting["message"].as_str().is_some_and(|m| m.contains(words)),
                "{pod}: {waiting}"
            );
            Ok(())
        })?;
    }
    ns.until("FailedMount", || {
        let events = ns.say("get events --field-selector involvedObject.name=volume")?;
        ensure!(events.contains("MountVolume.SetUp failed for volume \"v\" : secret \"gone\" not found"), "{events}");
        Ok(())
    })?;
    // What was missing appears: the pods go on by themselves.
    ns.say("create configmap gone --from-literal=k=v")?;
    ns.say("create secret generic gone --from-literal=k=v")?;
    ns.say("wait pod/config pod/volume --for=condition=Ready --timeout=150s")?;
    Ok(())
}

fn logs(context: &Context) -> Result<()> {
    let ns = context.namespace()?;
    ns.run(&[
        "run",
        "p",
        "--image",
        BUSYBOX,
        "--",
        "sh",
        "-c",
        "if [ -e /tmp/x ]; then sleep 1000; fi; for i in 1 2 3 4 5; do echo line $i; done; sleep 1; exit 1",
    ])?;
    ns.until("a restart", || {
        ensure!(status(&ns, "p")?["containerStatuses"][0]["restartCount"].as_u64() >= Some(1));
        Ok(())
    })?;
    ensure!(ns.say("logs p --previous")?.lines().count() == 5);
    ensure!(ns.say("logs p --previous --tail=2")? == "line 4\nline 5\n");
    ensure!(ns.say("logs p --previous --limit-bytes=6")? == "line 1");
    ensure!(ns.say("logs p --previous --since=1h")?.lines().count() == 5);
    ensure!(ns.refused(&["logs", "p", "-c", "other"])?.contains("container other is not valid for pod p"));
    Ok(())
}

fn describes_itself(context: &Context) -> Result<()> {
    let node = context.kubectl().json("get node n1")?;
    let info = &node["status"]["nodeInfo"];
    ensure!(info["containerRuntimeVersion"].as_str().is_some_and(|v| v.starts_with("containerd://")), "{info}");
    ensure!(info["kubeletVersion"].as_str().is_some_and(|v| v.starts_with("v1.36")), "{info}");
    for field in ["machineID", "bootID", "kernelVersion", "osImage", "architecture", "operatingSystem"] {
        ensure!(info[field].as_str().is_some_and(|v| !v.is_empty()), "{field}: {info}");
    }
    for resource in ["cpu", "memory", "pods", "ephemeral-storage"] {
        ensure!(node["status"]["allocatable"][resource].is_string(), "no allocatable {resource}");
    }
    ensure!(node["metadata"]["labels"]["kubernetes.io/hostname"] == "n1");
    ensure!(node["status"]["images"].as_array().is_some_and(|i| i.len() >= 3));
    let lease = context.kubectl().json("get lease n1 -n kube-node-lease")?;
    ensure!(lease["spec"]["holderIdentity"] == "n1" && lease["spec"]["leaseDurationSeconds"] == 40, "{lease}");
    Ok(())
}
