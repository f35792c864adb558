//! Claims and persistent volumes, and resources that change while a pod runs.

use anyhow::{Result, ensure};
use keelson_tests::harness::images::BUSYBOX;

use crate::Test;
use crate::context::{Context, Namespace};

pub const TESTS: &[Test] = &[
    ("storage::a_claim_waits_for_its_pod_and_the_pod_goes_where_the_volume_is", local),
    ("storage::a_claim_gets_a_volume_and_its_policy_says_what_becomes_of_that", reclaimed),
    ("storage::pods_are_resized_in_place", resized),
];

/// A pod `p` that has the claim `c` at /data.
fn user(ns: &Namespace<'_>) -> Result<String> {
    ns.apply(&format!(
        "---\n{{apiVersion: v1, kind: Pod, metadata: {{name: p}}, spec: {{terminationGracePeriodSeconds: 1, \
         securityContext: {{fsGroup: 4321}}, \
         volumes: [{{name: v, persistentVolumeClaim: {{claimName: c}}}}], containers: [{{name: c, image: {BUSYBOX}, \
         command: [sleep, '1000'], volumeMounts: [{{name: v, mountPath: /data}}]}}]}}}}"
    ))
}

/// The claim `c` of a class.
fn claim(ns: &Namespace<'_>, class: &str) -> Result<String> {
    ns.apply(&format!(
        "---\n{{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {{name: c}}, spec: {{storageClassName: '{class}', \
         accessModes: [ReadWriteOnce], resources: {{requests: {{storage: 1Gi}}}}}}}}"
    ))
}

fn phase(ns: &Namespace<'_>, object: &str, phase: &str) -> Result<()> {
    ns.wait(object, &format!("jsonpath={{.status.phase}}={phase}")).map(drop)
}

fn local(context: &Context) -> Result<()> {
    let ns = context.namespace()?;
    let folder = tempfile::tempdir()?;
    std::fs::write(folder.path().join("file"), "from before")?;
    let node = ns.say("get nodes -o jsonpath={.items[-1:].metadata.name}")?;
    let name = format!("local-{}", std::process::id());
    ns.apply(&format!(
        r#"
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {{name: {name}}}
provisioner: kubernetes.io/no-provisioner
volumeBindingMode: WaitForFirstConsumer
---
apiVersion: v1
kind: PersistentVolume
metadata: {{name: {name}}}
spec:
  capacity: {{storage: 2Gi}}
  accessModes: [ReadWriteOnce]
  storageClassName: {name}
  local: {{path: {}}}
  nodeAffinity: {{required: {{nodeSelectorTerms: [{{matchExpressions: [{{key: kubernetes.io/hostname, operator: In, values: [{node}]}}]}}]}}}}
"#,
        folder.path().display()
    ))?;
    let done = (|| {
        phase(&ns, &format!("pv/{name}"), "Available")?;
        claim(&ns, &name)?;
        ns.until("the claim says what it waits for", || {
            ensure!(ns.say("get events")?.contains("waiting for first consumer to be created before binding"));
            Ok(())
        })?;
        user(&ns)?;
        ns.wait("pod/p", "condition=Ready")?;
        ensure!(ns.say("get pod p -o jsonpath={.spec.nodeName}")? == node);
        ensure!(ns.say("get pvc c -o jsonpath={.status.phase}/{.status.capacity.storage}")? == "Bound/2Gi");
        let said =
            ns.run(&["exec", "p", "--", "sh", "-c", "cat /data/file; stat -c %g /data; echo more > /data/new"])?;
        ensure!(said.contains("from before") && said.contains("4321"), "{said}");
        ensure!(std::fs::read_to_string(folder.path().join("new"))? == "more\n");
        // A claim that is used stays, and what it has stays when it goes.
        ns.say("delete pvc c --wait=false")?;
        ensure!(ns.say("get pvc c")?.contains("Terminating"));
        ns.say("delete pod p")?;
        ns.wait("pvc/c", "delete")?;
        phase(&ns, &format!("pv/{name}"), "Released")?;
        ensure!(folder.path().join("new").exists());
        Ok(())
    })();
    ns.say(&format!("delete pv/{name} storageclass/{name}"))?;
    done
}

fn reclaimed(context: &Context) -> Result<()> {
    let ns = context.namespace()?;
    let folder = tempfile::Builder::new().prefix("keelson-").tempdir_in("/tmp")?;
    let data = folder.path().join("data");
    let name = format!("deleted-{}", std::process::id());
    claim(&ns, &name)?;
    ns.until("nothing provisions it", || {
        ensure!(ns.say("get events")?.contains(&format!("storageclass.storage.k8s.io \"{name}\" not found")));
        Ok(())
    })?;
    ns.apply(&format!(
        "---\n{{apiVersion: v1, kind: PersistentVolume, metadata: {{name: {name}}}, spec: {{capacity: {{storage: 1Gi}}, accessModes: \
         [ReadWriteOnce], storageClassName: {name}, persistentVolumeReclaimPolicy: Delete, \
         hostPath: {{path: {}, type: DirectoryOrCreate}}}}}}",
        data.display()
    ))?;
    phase(&ns, "pvc/c", "Bound")?;
    phase(&ns, &format!("pv/{name}"), "Bound")?;
    user(&ns)?;
    ns.wait("pod/p", "condition=Ready")?;
    ns.run(&["exec", "p", "--", "touch", "/data/file"])?;
    ensure!(data.join("file").exists());
    ns.say("delete pod/p pvc/c")?;
    ns.wait(&format!("pv/{name}"), "delete")?;
    ensure!(!data.exists(), "what was asked to be deleted is there");
    Ok(())
}

fn resized(context: &Context) -> Result<()> {
    let ns = context.namespace()?;
    ns.apply(&format!(
        "---\n{{apiVersion: v1, kind: Pod, metadata: {{name: p}}, spec: {{terminationGracePeriodSeconds: 1, containers: \
         [{{name: c, image: {BUSYBOX}, command: [sleep, '1000'], resources: {{requests: {{cpu: 10m, memory: 32Mi}}, \
         limits: {{cpu: 100m, memory: 64Mi}}}}}}]}}}}"
    ))?;
    ns.wait("pod/p", "condition=Ready")?;
    let patch = |cpu: &str, memory: &str| {
        format!(
            r#"{{"spec":{{"containers":[{{"name":"c","resources":{{"limits":{{"cpu":"{cpu}","memory":"{memory}"}}}}}}]}}}}"#
        )
    };
    ns.run(&["patch", "pod", "p", "--subresource", "resize", "--patch", &patch("200m", "128Mi")])?;
    ns.wait("pod/p", "jsonpath={.status.containerStatuses[0].resources.limits.cpu}=200m")?;
    ns.until("the resize is done", || {
        let status = ns.json("get pod p")?["status"].clone();
        let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
        ensure!(!conditions.iter().any(|condition| condition["type"] == "PodResizeInProgress"));
        ensure!(status["containerStatuses"][0]["restartCount"] == 0 && status["observedGeneration"] == 2);
        Ok(())
    })?;
    ns.until("it is told", || {
        ensure!(ns.say("get events")?.contains("Pod resize completed: {"));
        Ok(())
    })?;
    let refused = ns.refused(&["patch", "pod", "p", "--subresource", "resize", "--patch", &patch("200m", "0")])?;
    ensure!(refused.contains("must be less than or equal to memory limit of 0"), "{refused}");
    let refused = ns.refused(&["patch", "pod", "p", "--patch", &patch("300m", "128Mi")])?;
    ensure!(refused.contains("pod updates may not change fields other than"), "{refused}");
    Ok(())
}
