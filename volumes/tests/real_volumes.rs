//! Volumes on the real file system, as root: tmpfs, bind mounts, ownership, teardown.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;

use jiff::{Timestamp, ToSpan};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{
    ConfigMap, ObjectFieldSelector, PersistentVolume, PersistentVolumeClaim, Pod, ResourceFieldSelector, Secret,
};
use volumes::{BoundToken, Downward, Layout, ObjectError, Objects, Plan, Prepared, SetUp, SetUpError, TokenAsk};
use volumes::{plan, setup, subpath, teardown};

#[derive(Default)]
struct Cluster {
    /// Nothing can be asked for.
    away: std::sync::atomic::AtomicBool,
    config_maps: Mutex<BTreeMap<String, ConfigMap>>,
    secrets: Mutex<BTreeMap<String, Secret>>,
    claims: BTreeMap<String, PersistentVolumeClaim>,
    volumes: BTreeMap<String, PersistentVolume>,
}

impl Cluster {
    fn set_config(&self, name: &str, data: &[(&str, &str)]) {
        let data = data.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        self.config_maps.lock().unwrap().insert(name.into(), ConfigMap { data: Some(data), ..ConfigMap::default() });
    }
}

impl Objects for Cluster {
    async fn config_map(&self, _: &str, name: &str) -> Result<ConfigMap, ObjectError> {
        if self.away.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(ObjectError::Unavailable("away".into()));
        }
        let missing = || ObjectError::NotFound { kind: "configmap", name: name.into() };
        self.config_maps.lock().unwrap().get(name).cloned().ok_or_else(missing)
    }

    async fn secret(&self, _: &str, name: &str) -> Result<Secret, ObjectError> {
        let missing = || ObjectError::NotFound { kind: "secret", name: name.into() };
        self.secrets.lock().unwrap().get(name).cloned().ok_or_else(missing)
    }

    async fn claim(&self, _: &str, name: &str) -> Result<PersistentVolumeClaim, ObjectError> {
        self.claims.get(name).cloned().ok_or(ObjectError::NotFound { kind: "persistentvolumeclaim", name: name.into() })
    }

    async fn volume(&self, name: &str) -> Result<PersistentVolume, ObjectError> {
        self.volumes.get(name).cloned().ok_or(ObjectError::NotFound { kind: "persistentvolume", name: name.into() })
    }

    async fn token(&self, ask: &TokenAsk) -> Result<BoundToken, ObjectError> {
        let token = format!("{}/{}/{}", ask.service_account, ask.pod_name, ask.audience);
        Ok(BoundToken { token, renew_at: now() + 1.hour() })
    }
}

struct Fields;

impl Downward for Fields {
    fn field(&self, selector: &ObjectFieldSelector) -> Result<String, String> {
        Ok(format!("<{}>", selector.field_path))
    }

    fn resource(&self, selector: &ResourceFieldSelector) -> Result<String, String> {
        Err(format!("no {}", selector.resource))
    }
}

fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

fn planned(volumes: serde_json::Value) -> Plan {
    let mounts: Vec<_> = volumes
        .as_array()
        .unwrap()
        .iter()
        .map(|v| serde_json::json!({"name": v["name"], "mountPath": format!("/{}", v["name"].as_str().unwrap())}))
        .collect();
    let pod: Pod = serde_json::from_value(serde_json::json!({
        "metadata": {"name": "p", "namespace": "n", "uid": "uid-1"},
        "spec": {
            "securityContext": {"fsGroup": 4711},
            "containers": [{"name": "c", "volumeMounts": mounts,
                "resources": {"requests": {"hugepages-2Mi": "2Mi"}}}],
            "volumes": volumes
        }
    }))
    .unwrap();
    plan(&pod)
}

async fn set_up(layout: &Layout, cluster: &Cluster, plan: &Plan) -> Result<Prepared, Vec<SetUpError>> {
    let with = SetUp { layout, objects: cluster, fields: &Fields, memory: None, now: now() };
    setup::set_up(plan, &with).await
}

fn read(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path.as_ref()).unwrap_or_else(|e| panic!("{}: {e}", path.as_ref().display()))
}

fn mounts_below(path: &Path) -> usize {
    read("/proc/self/mountinfo").lines().filter(|line| line.contains(path.to_str().unwrap())).count()
}

#[tokio::test]
async fn every_kind_is_made_refreshed_and_removed() {
    let root = tempfile::tempdir().unwrap();
    let layout = Layout::new(root.path());
    let cluster = Cluster::default();
    cluster.set_config("cm", &[("a", "1"), ("b", "2")]);
    let secret = Secret { data: Some([("s".to_owned(), ByteString(b"hidden".to_vec()))].into()), ..Secret::default() };
    cluster.secrets.lock().unwrap().insert("sec".into(), secret);
    let plan = planned(serde_json::json!([
        {"name": "disk", "emptyDir": {}},
        {"name": "mem", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
        {"name": "huge", "emptyDir": {"medium": "HugePages"}},
        {"name": "host", "hostPath": {"path": root.path().join("made"), "type": "DirectoryOrCreate"}},
        {"name": "config", "configMap": {"name": "cm", "items": [{"key": "a", "path": "deep/a", "mode": 0o400}]}},
        {"name": "sec", "secret": {"secretName": "sec", "defaultMode": 0o400}},
        {"name": "down", "downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
        {"name": "all", "projected": {"sources": [
            {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
            {"configMap": {"name": "cm", "optional": true}},
            {"configMap": {"name": "absent", "optional": true}},
            {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"fieldPath": "metadata.namespace"}}]}}
        ]}}
    ]));
    let prepared = set_up(&layout, &cluster, &plan).await.unwrap();
    assert_eq!(prepared.renew_at, Some(now() + 1.hour()));
    let at = |name: &str| prepared.paths[name].clone();
    assert_eq!(at("config"), layout.volume("uid-1", "configmap", "config"));
    assert_eq!(read(at("config").join("deep/a")), "1");
    assert_eq!(read(at("sec").join("s")), "hidden");
    assert_eq!(read(at("down").join("labels")), "<metadata.labels>");
    assert_eq!(read(at("all").join("token")), "default/p/");
    assert_eq!(read(at("all").join("b")), "2");
    let token = fs::metadata(at("all").join("token")).unwrap();
    assert_eq!((token.gid(), token.mode() & 0o777), (4711, 0o640));
    let disk = fs::metadata(at("disk")).unwrap();
    assert_eq!((disk.gid(), disk.mode() & 0o7777), (4711, 0o2777));
    assert_eq!(fs::metadata(at("mem")).unwrap().mode() & 0o7777, 0o3777, "a tmpfs is sticky");
    assert!(root.path().join("made").is_dir());
    let mounts = read("/proc/self/mountinfo");
    let huge = mounts.lines().find(|line| line.contains(at("huge").to_str().unwrap())).unwrap();
    assert!(huge.contains("hugetlbfs") && huge.contains("pagesize=2M"), "{huge}");
    // mem, huge, sec, down, all.
    assert_eq!(mounts_below(root.path()), 5);
    assert!(fs::write(at("mem").join("big"), vec![1; 2 << 20]).is_err());

    cluster.set_config("cm", &[("a", "changed"), ("c", "3")]);
    set_up(&layout, &cluster, &plan).await.unwrap();
    assert_eq!(read(at("config").join("deep/a")), "changed");
    assert_eq!(read(at("all").join("c")), "3");
    assert!(!at("all").join("b").exists());
    assert_eq!(mounts_below(root.path()), 5);

    assert_eq!(teardown::existing(&layout).unwrap(), ["uid-1"]);
    teardown::tear_down(&layout, "uid-1").unwrap();
    teardown::tear_down(&layout, "uid-1").unwrap();
    assert_eq!(mounts_below(root.path()), 0);
    assert_eq!(teardown::existing(&layout).unwrap(), Vec::<String>::new());
    assert!(root.path().join("made").is_dir());
}

/// `/var/lib/keelson` may be a link to a larger disk; the kernel names mounts by their real paths.
#[tokio::test]
async fn a_folder_behind_a_link_is_torn_down() {
    let root = tempfile::tempdir().unwrap();
    let (real, link) = (root.path().join("real"), root.path().join("link"));
    fs::create_dir(&real).unwrap();
    std::os::unix::fs::symlink(&real, &link).unwrap();
    let layout = Layout::new(&link);
    let plan = planned(serde_json::json!([{"name": "mem", "emptyDir": {"medium": "Memory"}}]));
    set_up(&layout, &Cluster::default(), &plan).await.unwrap();
    assert_eq!(mounts_below(&real), 1);
    teardown::tear_down(&layout, "uid-1").unwrap();
    assert_eq!(mounts_below(&real), 0);
    assert_eq!(teardown::existing(&layout).unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn errors_are_worded_as_upstream() {
    let root = tempfile::tempdir().unwrap();
    let layout = Layout::new(root.path());
    let cluster = Cluster::default();
    cluster.set_config("cm", &[("a", "1")]);
    let plan = planned(serde_json::json!([
        {"name": "x", "configMap": {"name": "y"}},
        {"name": "k", "configMap": {"name": "cm", "items": [{"key": "zz", "path": "zz"}]}},
        {"name": "s", "secret": {"secretName": "t"}},
        {"name": "h", "hostPath": {"path": "/nowhere/at/all", "type": "Directory"}},
        {"name": "fine", "emptyDir": {}}
    ]));
    let mut messages: Vec<_> =
        set_up(&layout, &cluster, &plan).await.unwrap_err().iter().map(ToString::to_string).collect();
    messages.sort();
    assert_eq!(
        messages,
        [
            r#"MountVolume.SetUp failed for volume "h" : hostPath type check failed: /nowhere/at/all is not a directory"#,
            r#"MountVolume.SetUp failed for volume "k" : configmap references non-existent config key: zz"#,
            r#"MountVolume.SetUp failed for volume "s" : secret "t" not found"#,
            r#"MountVolume.SetUp failed for volume "x" : configmap "y" not found"#,
        ]
    );
    assert!(layout.volume("uid-1", "empty-dir", "fine").is_dir());
    teardown::tear_down(&layout, "uid-1").unwrap();
}

/// An agent may be killed after the folder was made; a reboot leaves the folder of what was in memory.
#[tokio::test]
async fn an_empty_dir_is_given_to_the_group_whatever_comes_between() {
    let root = tempfile::tempdir().unwrap();
    let layout = Layout::new(root.path());
    let plan = planned(serde_json::json!([
        {"name": "disk", "emptyDir": {}},
        {"name": "mem", "emptyDir": {"medium": "Memory"}}
    ]));
    let at = |name: &str| layout.volume("uid-1", "empty-dir", name);
    let state = |path: &Path| fs::metadata(path).map(|m| (m.gid(), m.mode() & 0o7777)).unwrap();
    for name in ["disk", "mem"] {
        fs::create_dir_all(at(name)).unwrap();
    }
    set_up(&layout, &Cluster::default(), &plan).await.unwrap();
    assert_eq!((state(&at("disk")), state(&at("mem"))), ((4711, 0o2777), (4711, 0o3777)));

    // What the pod did since is its own, also where the word that all was done got lost.
    for name in ["disk", "mem"] {
        fs::write(at(name).join("private"), "").unwrap();
        fs::set_permissions(at(name).join("private"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    }
    fs::set_permissions(at("disk"), std::os::unix::fs::PermissionsExt::from_mode(0o2700)).unwrap();
    set_up(&layout, &Cluster::default(), &plan).await.unwrap();
    assert_eq!(state(&at("disk")).1, 0o2700, "a database shut its folder");
    let plugins = layout.pod("uid-1").join("plugins");
    for again in ["as it was", "without a marker"] {
        set_up(&layout, &Cluster::default(), &plan).await.unwrap();
        for name in ["disk", "mem"] {
            assert_eq!(state(&at(name).join("private")).1, 0o600, "{again}: {name}");
        }
        fs::remove_dir_all(&plugins).unwrap();
    }
    set_up(&layout, &Cluster::default(), &plan).await.unwrap();
    std::os::unix::fs::chown(at("disk"), None, Some(7)).unwrap();

    nix::mount::umount(&at("mem")).unwrap();
    assert_eq!(state(&at("mem")).0, 0);
    set_up(&layout, &Cluster::default(), &plan).await.unwrap();
    assert_eq!(state(&at("mem")), (4711, 0o3777));
    assert_eq!(state(&at("disk")).0, 7);
    teardown::tear_down(&layout, "uid-1").unwrap();
    assert_eq!(mounts_below(root.path()), 0);
}

/// A claim and the local volume that it has.
fn claimed(phase: &str, path: &Path) -> Cluster {
    let claim = serde_json::json!({
        "metadata": {"uid": "c"}, "spec": {"volumeName": "pv"}, "status": {"phase": phase}});
    let volume = serde_json::json!({
        "metadata": {"name": "pv"}, "spec": {"local": {"path": path}, "claimRef": {"uid": "c"}}});
    Cluster {
        claims: BTreeMap::from([("claim".to_owned(), serde_json::from_value(claim).unwrap())]),
        volumes: BTreeMap::from([("pv".to_owned(), serde_json::from_value(volume).unwrap())]),
        ..Cluster::default()
    }
}

#[tokio::test]
async fn a_claim_is_the_volume_that_it_has() {
    let root = tempfile::tempdir().unwrap();
    let layout = Layout::new(root.path());
    let data = root.path().join("data");
    fs::create_dir(&data).unwrap();
    fs::write(data.join("file"), "kept").unwrap();
    let plan = planned(serde_json::json!([{"name": "v", "persistentVolumeClaim": {"claimName": "claim"}}]));
    let prepared = set_up(&layout, &claimed("Bound", &data), &plan).await.unwrap();
    assert_eq!(prepared.paths["v"], data);
    assert_eq!(fs::metadata(data.join("file")).unwrap().gid(), 4711);
    teardown::tear_down(&layout, "uid-1").unwrap();
    assert_eq!(read(data.join("file")), "kept");

    let why = async |cluster: &Cluster| set_up(&layout, cluster, &plan).await.unwrap_err()[0].to_string();
    let text = "MountVolume.SetUp failed for volume \"v\" : error processing PVC n/claim: PVC is not bound";
    assert_eq!(why(&claimed("Pending", &data)).await, text);
    let gone = root.path().join("gone");
    let text = format!("MountVolume.NewMounter initialization failed for volume \"v\" : path {gone:?} does not exist");
    assert_eq!(why(&claimed("Bound", &gone)).await, text);
    let text = "failed to fetch PVC from API server: persistentvolumeclaim \"claim\" not found";
    assert!(why(&Cluster::default()).await.ends_with(text));
}

/// A loop device over a file, until it is dropped.
struct Loop(String);

impl Loop {
    fn new(file: &Path) -> Self {
        fs::File::create(file).unwrap().set_len(64 << 20).unwrap();
        let made = Command::new("losetup").args(["--find", "--show"]).arg(file).output().unwrap();
        assert!(made.status.success(), "{made:?}");
        Self(String::from_utf8(made.stdout).unwrap().trim().to_owned())
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["--detach", &self.0]).status();
    }
}

#[tokio::test]
async fn a_device_is_formatted_once_and_mounted_for_each_pod() {
    let root = tempfile::tempdir().unwrap();
    let layout = Layout::new(root.path());
    let device = Loop::new(&root.path().join("disk"));
    let cluster = claimed("Bound", Path::new(&device.0));
    let spec = |read_only: bool| serde_json::json!([{"name": "v", "persistentVolumeClaim": {"claimName": "claim", "readOnly": read_only}}]);
    let why = set_up(&layout, &cluster, &planned(spec(true))).await.unwrap_err()[0].to_string();
    assert!(
        why.starts_with("MountVolume.MountDevice failed for volume \"v\" : local: failed to mount device /dev/loop")
            && why.ends_with("as we are manipulating it in read-only mode"),
        "{why}"
    );
    let plan = planned(spec(false));
    let place = set_up(&layout, &cluster, &plan).await.unwrap().paths["v"].clone();
    assert_eq!(place, layout.volume("uid-1", "local-volume", "v"));
    assert_eq!(fs::metadata(&place).unwrap().gid(), 4711);
    fs::write(place.join("file"), "kept").unwrap();
    let again = set_up(&layout, &cluster, &plan).await.unwrap();
    assert_eq!((&again.paths["v"], mounts_below(root.path())), (&place, 1));
    // Another pod of the same node.
    let other = Plan { pod_uid: "uid-2".into(), ..planned(spec(true)) };
    let shared = set_up(&layout, &cluster, &other).await.unwrap();
    assert_eq!((read(shared.paths["v"].join("file")).as_str(), mounts_below(root.path())), ("kept", 2));
    for uid in ["uid-1", "uid-2"] {
        teardown::tear_down(&layout, uid).unwrap();
    }
    assert_eq!(mounts_below(root.path()), 0);
    let place = set_up(&layout, &cluster, &plan).await.unwrap().paths["v"].clone();
    assert_eq!(read(place.join("file")), "kept", "what is there is not formatted");
    teardown::tear_down(&layout, "uid-1").unwrap();
}

#[tokio::test]
async fn what_was_written_is_kept_while_nothing_can_be_asked() {
    let root = tempfile::tempdir().unwrap();
    let layout = Layout::new(root.path());
    let cluster = Cluster::default();
    cluster.set_config("cm", &[("a", "1")]);
    let plan = planned(serde_json::json!([{"name": "config", "configMap": {"name": "cm"}}]));
    cluster.away.store(true, std::sync::atomic::Ordering::Relaxed);
    assert!(set_up(&layout, &cluster, &plan).await.is_err(), "there is nothing to keep");
    cluster.away.store(false, std::sync::atomic::Ordering::Relaxed);
    set_up(&layout, &cluster, &plan).await.unwrap();
    cluster.away.store(true, std::sync::atomic::Ordering::Relaxed);
    let kept = set_up(&layout, &cluster, &plan).await.unwrap();
    assert_eq!(read(kept.paths["config"].join("a")), "1");
    assert!(kept.renew_at.is_some_and(|again| again > now()));
    teardown::tear_down(&layout, "uid-1").unwrap();
}

#[test]
fn sub_paths_stay_in_their_volume() {
    let root = tempfile::tempdir().unwrap();
    let layout = Layout::new(root.path());
    let volume = layout.volume("uid-2", "empty-dir", "v");
    fs::create_dir_all(volume.join("real")).unwrap();
    fs::write(volume.join("real/file"), "inside").unwrap();
    fs::write(root.path().join("outside"), "outside").unwrap();
    symlink("real", volume.join("good")).unwrap();
    symlink("../../../../../outside", volume.join("bad")).unwrap();
    symlink("/etc", volume.join("worse")).unwrap();
    symlink("/proc/self/root", volume.join("magic")).unwrap();
    let target = |index| layout.subpath("uid-2", "v", "c", index);

    subpath::bind(&volume, "good/file", &target(0)).unwrap();
    subpath::bind(&volume, "good/file", &target(0)).unwrap();
    assert_eq!(read(target(0)), "inside");
    subpath::bind(&volume, "made/here", &target(1)).unwrap();
    assert!(volume.join("made/here").is_dir());
    fs::write(target(1).join("seen"), "yes").unwrap();
    assert_eq!(read(volume.join("made/here/seen")), "yes");
    for bad in ["bad", "worse", "worse/passwd", "magic/etc", "../v", "/etc", "worse/new"] {
        let result = subpath::bind(&volume, bad, &target(2));
        assert!(result.is_err(), "{bad}");
    }
    assert_eq!(mounts_below(root.path()), 2);

    // A file that was replaced is found again by a container that restarts.
    fs::remove_file(volume.join("real/file")).unwrap();
    fs::write(volume.join("real/file"), "new").unwrap();
    subpath::bind(&volume, "good/file", &target(0)).unwrap();
    assert_eq!(read(target(0)), "new");
    teardown::tear_down(&layout, "uid-2").unwrap();
    assert_eq!(mounts_below(root.path()), 0);
}
