//! What a pod may ask of a newer runtime: images as volumes, users of its own, mounts that are read-only all the way down, and only the groups that it
//! names. One of the nodes has containerd 2; the others say what they cannot do.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use keelson_tests::harness::images::{BUSYBOX, HELLO};
use keelson_tests::harness::shell::{output, run};

use crate::Test;
use crate::context::{Context, Namespace};

/// The worker machine with containerd 2.
pub const NODE: u8 = 3;

pub const TESTS: &[Test] = &[
    ("runtime::the_node_says_what_its_runtime_can", features),
    ("runtime::an_image_is_a_volume", image),
    ("runtime::an_image_that_cannot_be_a_volume_is_named", refused_images),
    ("runtime::pods_have_users_of_their_own", users),
    ("runtime::volumes_belong_to_the_pods_users", users_volumes),
    ("runtime::a_mount_is_read_only_with_all_below_it", recursive_read_only),
    ("runtime::groups_of_the_image_are_taken_or_left", groups),
    ("runtime::nodes_refuse_what_their_runtime_cannot", refused),
];

/// A pod on one node, with more of its spec and of its container `c`, which runs until it is told to end.
fn pod(name: &str, node: u8, spec: &str, container: &str) -> String {
    format!(
        "---\n{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{nodeName: n{node}, terminationGracePeriodSeconds: 1, {spec} \
         containers: [{{name: c, image: {BUSYBOX}, command: [sh, -c, 'trap exit TERM; while true; do sleep 0.1; done'], {container}}}]}}}}\n"
    )
}

fn ready(ns: &Namespace<'_>, manifest: &str, name: &str) -> Result<()> {
    ns.apply(manifest)?;
    ns.wait(&format!("pod/{name}"), "condition=Ready").map(drop)
}

fn sh(ns: &Namespace<'_>, pod: &str, script: &str) -> Result<String> {
    ns.run(&["exec", pod, "-c", "c", "--", "sh", "-c", script])
}

/// Why the first container of a pod waits, in both forms that people see.
fn waits(ns: &Namespace<'_>, pod: &str, reasons: &[&str], text: &str) -> Result<()> {
    ns.until(&format!("{pod} says {reasons:?} and {text:?}"), || {
        let waiting = ns.json(&format!("get pod {pod}"))?["status"]["containerStatuses"][0]["state"]["waiting"].take();
        ensure!(waiting["reason"].as_str().is_some_and(|reason| reasons.contains(&reason)), "{waiting}");
        let events = ns.say(&format!("events --for pod/{pod}"))?;
        ensure!(
            waiting["message"].as_str().is_some_and(|m| m.contains(text)) || events.contains(text),
            "{waiting} {events}"
        );
        Ok(())
    })
}

/// Whether a node has a containerd that can do none of this, as those have that have the machine's, unless one is given.
fn is_older(context: &Context, number: u8) -> Result<bool> {
    let path = "jsonpath={.status.nodeInfo.containerRuntimeVersion}";
    Ok(context.kubectl().run(&["get", "node", &format!("n{number}"), "-o", path])?.starts_with("containerd://1."))
}

fn features(context: &Context) -> Result<()> {
    let status =
        |number: u8| -> Result<_> { Ok(context.kubectl().json(&format!("get node n{number}"))?["status"].take()) };
    let (newer, older) = (status(NODE)?, status(1)?);
    ensure!(newer["nodeInfo"]["containerRuntimeVersion"].as_str().is_some_and(|v| v.starts_with("containerd://2.")));
    ensure!(newer["features"]["supplementalGroupsPolicy"] == true, "{newer}");
    let handlers = newer["runtimeHandlers"].as_array().context("handlers")?;
    for name in ["", "runc"] {
        let features = handlers.iter().find(|h| h["name"].as_str().unwrap_or_default() == name).map(|h| &h["features"]);
        let features = features.with_context(|| format!("no handler {name:?} in {handlers:?}"))?;
        ensure!(
            features["recursiveReadOnlyMounts"] == true && features["userNamespaces"] == true,
            "{name:?}: {features}"
        );
    }
    let says_nothing = older["features"].is_null() && older["runtimeHandlers"].is_null();
    ensure!(says_nothing || !is_older(context, 1)?, "{older}");
    Ok(())
}

fn image(context: &Context) -> Result<()> {
    let ns = context.namespace()?;
    let volumes = format!(
        "volumes: [{{name: v, image: {{reference: '{BUSYBOX}', pullPolicy: IfNotPresent}}}}, \
         {{name: h, image: {{reference: '{HELLO}', pullPolicy: Never}}}}, \
         {{name: unused, image: {{reference: 'example.com/there-is-none:1', pullPolicy: Never}}}}],"
    );
    // Of an image a part alone is mounted since containerd 2.2; 2.1 mounts all of it whatever one asks for.
    let mounts = "volumeMounts: [{name: v, mountPath: /image}, {name: h, mountPath: /hello}]";
    ready(&ns, &pod("p", NODE, &volumes, mounts), "p")?;
    let said = sh(
        &ns,
        "p",
        "ls /image/bin /hello; cat /image/etc/group; \
         for dir in /image /hello; do touch $dir/new 2>/dev/null || echo refused $dir; done",
    )?;
    for part in ["busybox\n", "hello\n", "of-image:x:50000:alice"] {
        ensure!(said.contains(part), "no {part:?} in\n{said}");
    }
    ensure!(said.matches("refused").count() == 2, "{said}");
    // Another pod has the same image as a volume, and both go without a trace.
    ready(&ns, &pod("q", NODE, &volumes, mounts), "q")?;
    ns.say("delete pod p q")?;
    let left = std::fs::read_to_string("/proc/self/mountinfo")?;
    let id = context.cluster().layout.base.display().to_string();
    let left: Vec<&str> = left.lines().filter(|l| l.contains(&id) && l.contains("image-volumes")).collect();
    ensure!(left.is_empty(), "{left:?}");
    Ok(())
}

fn refused_images(context: &Context) -> Result<()> {
    let ns = context.namespace()?;
    let volume = |reference: &str, policy: &str| {
        format!("volumes: [{{name: v, image: {{reference: '{reference}', pullPolicy: {policy}}}}}],")
    };
    let whole = "volumeMounts: [{name: v, mountPath: /image}]";
    let none = "127.0.0.1:1/there-is-none:1";
    ns.apply(&pod("never", NODE, &volume(none, "Never"), whole))?;
    ns.apply(&pod("always", NODE, &volume(none, "Always"), whole))?;
    ns.apply(&pod(
        "escapes",
        NODE,
        &volume(BUSYBOX, "IfNotPresent"),
        "env: [{name: UP, value: ../..}], volumeMounts: [{name: v, mountPath: /image, subPathExpr: $(UP)}]",
    ))?;
    waits(
        &ns,
        "never",
        &["ErrImageNeverPull"],
        "Container image \"127.0.0.1:1/there-is-none:1\" is not present with pull policy of Never",
    )?;
    waits(
        &ns,
        "always",
        &["ErrImagePull", "ImagePullBackOff"],
        "Failed to pull image \"127.0.0.1:1/there-is-none:1\"",
    )?;
    waits(&ns, "escapes", &["CreateContainerConfigError"], "must not contain '..'")?;
    let up =
        pod("up", NODE, &volume(BUSYBOX, "IfNotPresent"), "volumeMounts: [{name: v, mountPath: /v, subPath: ../up}]");
    let said = ns.apply(&up).err().context("a path that leads out of an image is taken")?.to_string();
    ensure!(said.contains("must not contain '..'"), "{said}");
    Ok(())
}

/// The first host id of a container's root, and how many ids it has.
fn range(ns: &Namespace<'_>, pod: &str) -> Result<(u32, u32)> {
    let map = sh(ns, pod, "cat /proc/self/uid_map /proc/self/gid_map")?;
    let lines: Vec<Vec<u32>> =
        map.lines().map(|l| l.split_whitespace().filter_map(|w| w.parse().ok()).collect()).collect();
    let [uids, gids] = lines.as_slice() else { anyhow::bail!("{map}") };
    ensure!(uids == gids && uids.len() == 3 && uids[0] == 0, "{map}");
    Ok((uids[1], uids[2]))
}

fn users(context: &Context) -> Result<()> {
    let ns = context.namespace()?;
    let sidecar = format!(
        "hostUsers: false, initContainers: [{{name: i, image: {BUSYBOX}, command: [sh, -c, 'test $(id -u) = 0 && chown 7:7 /etc/passwd'], \
         }}, {{name: s, image: {HELLO}, restartPolicy: Always, startupProbe: {{httpGet: {{path: /healthz, port: 8080}}, periodSeconds: 1}}}}],"
    );
    let probed = "readinessProbe: {exec: {command: [cat, /etc/hostname]}, periodSeconds: 1}, \
         lifecycle: {postStart: {exec: {command: [touch, /started]}}}, securityContext: {capabilities: {add: [SYS_ADMIN]}}";
    for name in ["p", "q"] {
        ns.apply(&pod(name, NODE, &sidecar, probed))?;
    }
    ns.wait("pod/p", "condition=Ready")?;
    ns.wait("pod/q", "condition=Ready")?;
    let (p, q) = (range(&ns, "p")?, range(&ns, "q")?);
    ensure!(p.1 == 65_536 && q.1 == 65_536 && p.0 != q.0, "{p:?} {q:?}");
    ensure!([p, q].iter().all(|range| range.0 >= 65_536 && range.0.is_multiple_of(65_536)), "{p:?} {q:?}");
    // Root inside, nobody's root outside; what it may do counts inside only.
    ensure!(sh(&ns, "p", "id -u; stat -c %u /started")? == "0\n0\n");
    let id = ns.say("get pod p -o jsonpath={.status.containerStatuses[0].containerID}")?;
    let id = id.trim_start_matches("containerd://").to_owned();
    let outside = owners(&id)?;
    ensure!(!outside.is_empty() && outside.iter().all(|uid| *uid == p.0), "{outside:?} of {p:?}");
    let said = sh(
        &ns,
        "p",
        "mount -t tmpfs none /tmp && echo mounted; hostname; cat /etc/hosts; echo said > /dev/termination-log; \
         echo 1 > /proc/sys/kernel/panic || echo kept",
    )?;
    for part in ["mounted\n", "p\n", "127.0.0.1", "kept\n"] {
        ensure!(said.contains(part), "no {part:?} in\n{said}");
    }
    ensure!(ns.say("get pod p -o jsonpath={.status.containerStatuses[0].user.linux.uid}")? == "0");
    let both = pod("both", NODE, "hostUsers: false, hostNetwork: true,", "env: []");
    let said = ns.apply(&both).err().context("users of one's own in the machine's network are taken")?.to_string();
    ensure!(said.contains("hostNetwork"), "{said}");
    Ok(())
}

/// The users, as the machine knows them, of a container's processes.
fn owners(container: &str) -> Result<Vec<u32>> {
    let mut found = Vec::new();
    for process in std::fs::read_dir("/proc")?.flatten() {
        let path = process.path();
        let Ok(groups) = std::fs::read_to_string(path.join("cgroup")) else { continue };
        if groups.contains(container) {
            let status = std::fs::read_to_string(path.join("status"))?;
            let uid = status.lines().find_map(|l| l.strip_prefix("Uid:")?.split_whitespace().next()?.parse().ok());
            found.push(uid.context("Uid")?);
        }
    }
    Ok(found)
}

fn users_volumes(context: &Context) -> Result<()> {
    let ns = context.namespace()?;
    ns.say("create configmap cm --from-literal=key=1")?;
    ns.say("create secret generic se --from-literal=key=hidden")?;
    let folder = tempfile::Builder::new().prefix("kl-users").tempdir()?;
    let host = folder.path().display();
    let spec = format!(
        "hostUsers: false, securityContext: {{runAsUser: 1000, runAsGroup: 1000, fsGroup: 4321}}, volumes: [{{name: e, emptyDir: {{}}}}, \
         {{name: m, emptyDir: {{medium: Memory}}}}, {{name: h, hostPath: {{path: {host}}}}}, {{name: i, image: {{reference: '{BUSYBOX}'}}}}, \
         {{name: all, projected: {{defaultMode: 0400, sources: [{{configMap: {{name: cm}}}}, {{serviceAccountToken: {{path: token}}}}]}}}}, \
         {{name: s, secret: {{secretName: se, defaultMode: 0440}}}}],"
    );
    run("chown", ["1000:1000", &host.to_string()])?;
    let mounts = "volumeMounts: [{name: e, mountPath: /e}, {name: e, mountPath: /sub, subPath: deep/er}, {name: m, mountPath: /m}, {name: h, mountPath: /h}, \
         {name: i, mountPath: /i}, {name: all, mountPath: /all}, {name: s, mountPath: /s}]";
    ready(&ns, &pod("p", NODE, &spec, mounts), "p")?;
    let said = sh(
        &ns,
        "p",
        "set -e; id -u; cat /all/key /s/key; test -s /all/token; stat -c %u /i/bin/busybox; \
         for dir in /e /m; do touch $dir/new; stat -c %u:%g $dir/new; done; echo own > /h/new; touch /sub/new; stat -c %g /e /m /s/key",
    )?;
    ensure!(said == "1000\n1hidden0\n1000:4321\n1000:4321\n4321\n4321\n4321\n", "{said}");
    // Outside the files are those of the same numbers, not of the range.
    ensure!(run("stat", ["-c", "%u:%g", &format!("{host}/new")])?.trim() == "1000:1000");
    ns.say("patch configmap cm -p {\"data\":{\"key\":\"2\"}}")?;
    ns.until("the volume follows its object", || {
        ensure!(sh(&ns, "p", "cat /all/key")? == "2");
        Ok(())
    })?;
    Ok(())
}

/// With the others that end programs: `disruption.rs`.
pub fn users_stay(context: &Context) -> Result<()> {
    let ns = context.namespace()?;
    ready(&ns, &pod("p", NODE, "hostUsers: false,", "env: []"), "p")?;
    let container = || {
        ns.say("get pod p -o jsonpath={.status.containerStatuses[0].containerID}/{.status.containerStatuses[0].restartCount}")
    };
    let (before, had) = (container()?, range(&ns, "p")?);
    {
        let mut cluster = context.cluster();
        cluster.process(&format!("agent-n{NODE}"))?.kill()?;
        cluster.run_agent(&format!("n{NODE}"))?;
    }
    // The new agent gives others away, and not this one.
    ready(&ns, &pod("q", NODE, "hostUsers: false,", "env: []"), "q")?;
    ensure!(range(&ns, "p")? == had && range(&ns, "q")? != had && container()? == before);
    // A container that starts again has the same users.
    drop(sh(&ns, "p", "kill -TERM 1"));
    ns.until("the container was started again", || {
        ensure!(container()?.ends_with("/1") && range(&ns, "p")? == had);
        Ok(())
    })?;
    ns.say("delete pod p q")?;
    // What a pod had is free again, lowest first.
    ready(&ns, &pod("r", NODE, "hostUsers: false,", "env: []"), "r")?;
    let has = range(&ns, "r")?;
    ensure!(has.0 <= had.0, "{has:?} after {had:?}");
    Ok(())
}

/// A folder with a tmpfs mounted in it, at `below`; both go with it.
struct Mounted(tempfile::TempDir);

impl Mounted {
    fn new() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("kl-rro").tempdir()?;
        let below = folder.path().join("below");
        std::fs::create_dir(&below)?;
        output(std::process::Command::new("mount").args(["-t", "tmpfs", "kl-rro"]).arg(&below))?;
        Ok(Self(folder))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Err(error) = output(std::process::Command::new("umount").arg(self.path().join("below"))) {
            eprintln!("{error:#}");
        }
    }
}

fn recursive_read_only(context: &Context) -> Result<()> {
    let ns = context.namespace()?;
    let mounted = Mounted::new()?;
    let volume = format!("volumes: [{{name: v, hostPath: {{path: {}}}}}],", mounted.path().display());
    let mounts = "volumeMounts: [{name: v, mountPath: /rro, readOnly: true, recursiveReadOnly: Enabled}, \
         {name: v, mountPath: /possible, readOnly: true, recursiveReadOnly: IfPossible}, \
         {name: v, mountPath: /ro, readOnly: true, recursiveReadOnly: Disabled}, {name: v, mountPath: /plain, readOnly: true}, {name: v, mountPath: /rw}]";
    ready(&ns, &pod("p", NODE, &volume, mounts), "p")?;
    let said = sh(
        &ns,
        "p",
        "for dir in /rro /possible /ro /plain /rw; do for path in $dir $dir/below; do touch $path/new 2>/dev/null && echo $path; done; done; true",
    )?;
    ensure!(said == "/ro/below\n/plain/below\n/rw\n/rw/below\n", "{said}");
    let status = ns.json("get pod p")?["status"]["containerStatuses"][0]["volumeMounts"].take();
    let mode = |path: &str| {
        let mounts = status.as_array().into_iter().flatten();
        mounts.filter(|m| m["mountPath"] == path).map(|m| m["recursiveReadOnly"].as_str().unwrap_or("none")).next()
    };
    let modes = ["/rro", "/possible", "/ro", "/plain", "/rw"].map(mode);
    ensure!(modes == ["Enabled", "Enabled", "Disabled", "Disabled", "none"].map(Some), "{status}");
    if !is_older(context, 1)? {
        return Ok(());
    }
    // Where the runtime cannot, it is refused or left, as one asks.
    ns.apply(&pod(
        "refused",
        1,
        &volume,
        "volumeMounts: [{name: v, mountPath: /v, readOnly: true, recursiveReadOnly: Enabled}]",
    ))?;
    waits(
        &ns,
        "refused",
        &["CreateContainerConfigError"],
        "requested recursive read-only mode, but it is not supported by the runtime",
    )?;
    ready(
        &ns,
        &pod(
            "left",
            1,
            &volume,
            "volumeMounts: [{name: v, mountPath: /v, readOnly: true, recursiveReadOnly: IfPossible}]",
        ),
        "left",
    )?;
    sh(&ns, "left", "touch /v/below/new")?;
    ensure!(
        ns.say("get pod left -o jsonpath={.status.containerStatuses[0].volumeMounts[0].recursiveReadOnly}")?
            == "Disabled"
    );
    ns.say("delete pod --all")?;
    Ok(())
}

fn groups(context: &Context) -> Result<()> {
    let ns = context.namespace()?;
    for (name, policy) in [("strict", "Strict"), ("merge", "Merge")] {
        let spec = format!(
            "securityContext: {{runAsUser: 1000, runAsGroup: 3000, supplementalGroups: [4000], supplementalGroupsPolicy: {policy}}},"
        );
        ns.apply(&pod(name, NODE, &spec, "env: []"))?;
    }
    for (name, groups) in [("strict", "3000 4000"), ("merge", "3000 4000 50000")] {
        ns.wait(&format!("pod/{name}"), "condition=Ready")?;
        let said = sh(&ns, name, "id -G")?;
        let mut said: Vec<&str> = said.split_whitespace().collect();
        said.sort_unstable();
        ensure!(said.join(" ") == groups, "{name}: {said:?}");
        let user = ns.json(&format!("get pod {name}"))?["status"]["containerStatuses"][0]["user"]["linux"].take();
        let mut told: Vec<i64> =
            user["supplementalGroups"].as_array().into_iter().flatten().filter_map(serde_json::Value::as_i64).collect();
        told.sort_unstable();
        ensure!(user["uid"] == 1000 && user["gid"] == 3000, "{user}");
        let told: Vec<String> = told.iter().map(i64::to_string).collect();
        ensure!(told.join(" ") == groups, "{name}: {user}");
    }
    Ok(())
}

fn refused(context: &Context) -> Result<()> {
    if !is_older(context, 1)? {
        return Ok(());
    }
    let ns = context.namespace()?;
    ns.apply(&pod("strict", 1, "securityContext: {supplementalGroupsPolicy: Strict},", "env: []"))?;
    ns.wait("pod/strict", "jsonpath={.status.phase}=Failed")?;
    let status = ns.json("get pod strict")?["status"].take();
    ensure!(status["reason"] == "SupplementalGroupsPolicyNotSupported", "{status}");
    ns.apply(&pod("users", 1, "hostUsers: false,", "env: []"))?;
    ns.until("the pod says why it has no sandbox", || {
        let events = ns.say("events --for pod/users")?;
        ensure!(
            events.contains("FailedCreatePodSandBox") && events.contains("does not support user namespaces"),
            "{events}"
        );
        Ok(())
    })?;
    let volume = format!("volumes: [{{name: v, image: {{reference: '{BUSYBOX}', pullPolicy: IfNotPresent}}}}],");
    ns.apply(&pod("image", 1, &volume, "volumeMounts: [{name: v, mountPath: /image}]"))?;
    waits(&ns, "image", &["CreateContainerError"], "")?;
    Ok(())
}
