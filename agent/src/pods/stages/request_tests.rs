use std::fmt::Write;

use cgroups::values::Policy;
use k8s_openapi::api::core::v1::VolumeMount;
use pod::Role;

use super::*;
use crate::pods::stages::security::ImageUser;
use crate::pods::userns;

fn web() -> Pod {
    serde_json::from_value(serde_json::json!({
        "metadata": {
            "name": "web-1", "namespace": "shop", "uid": "1c6b", "labels": {"app": "web"}, "annotations": {"note": "x"},
            "creationTimestamp": "2026-11-21T07:00:00Z"
        },
        "spec": {
            "terminationGracePeriodSeconds": 20,
            "securityContext": {"sysctls": [{"name": "net.core.somaxconn", "value": "1024"}]},
            "containers": [{
                "name": "c", "image": "shop/web:1", "command": ["/web", "$(PORT)", "$$(PORT)"], "args": ["--x=$(NONE)"],
                "workingDir": "/srv", "tty": true,
                "ports": [{"containerPort": 80, "hostPort": 8080}, {"containerPort": 53, "protocol": "UDP"}],
                "resources": {"limits": {"cpu": "200m", "memory": "32Mi"}, "requests": {"cpu": "100m", "memory": "32Mi"}}
            }]
        }
    }))
    .unwrap()
}

fn machine() -> Machine {
    Machine { policy: Policy::default(), memory: 8 << 30, ..Machine::default() }
}

/// Every field that is set, a line each, maps sorted.
fn lines(map: &HashMap<String, String>) -> String {
    let sorted: BTreeMap<_, _> = map.iter().collect();
    sorted.into_iter().fold(String::new(), |mut out, (key, value)| {
        writeln!(out, "{key}={value}").unwrap();
        out
    })
}

fn own_users() -> UserNamespace {
    let ids = cri::v1::IdMapping { host_id: 131_072, container_id: 0, length: 65_536 };
    UserNamespace { mode: cri::v1::NamespaceMode::Pod.into(), uids: vec![ids], gids: vec![ids] }
}

#[test]
fn sandbox_golden() {
    let parts = SandboxParts {
        attempt: 2,
        hostname: "web-1".into(),
        log_directory: log_directory(Path::new("/var/log/pods"), &web()),
        dns: Dns { servers: vec!["10.96.0.10".into()], ..Dns::default() },
        cgroup_parent: "/kubepods/burstable/pod1c6b".into(),
        seccomp: "/data/pause.json".into(),
        users: own_users(),
    };
    let config = sandbox(&web(), &parts, &machine());
    assert_eq!(config.log_directory, "/var/log/pods/shop_web-1_1c6b");
    assert_eq!(config.hostname, "web-1");
    assert_eq!(config.metadata.as_ref().unwrap().attempt, 2);
    assert_eq!(
        lines(&config.labels),
        "app=web\nio.kubernetes.pod.name=web-1\nio.kubernetes.pod.namespace=shop\nio.kubernetes.pod.uid=1c6b\n"
    );
    assert_eq!(
        lines(&config.annotations),
        "kubernetes.io/config.seen=2026-11-21T07:00:00Z\nkubernetes.io/config.source=api\nnote=x\n"
    );
    let mapping = PortMapping { protocol: 0, container_port: 80, host_port: 8080, host_ip: String::new() };
    assert_eq!(config.port_mappings, [mapping]);
    let linux = config.linux.unwrap();
    assert_eq!(linux.cgroup_parent, "/kubepods/burstable/pod1c6b");
    assert_eq!(lines(&linux.sysctls), "net.core.somaxconn=1024\n");
    let resources = linux.resources.unwrap();
    assert_eq!((resources.cpu_shares, resources.cpu_quota, resources.memory_limit_in_bytes), (102, 20_000, 32 << 20));
    let namespaces = linux.security_context.unwrap().namespace_options.unwrap();
    assert_eq!(namespaces.userns_options, Some(own_users()));
}

#[test]
fn container_golden() {
    let pod = web();
    let container = &pod.spec.as_ref().unwrap().containers[0];
    let start = StartContainer {
        name: "c".into(),
        role: Role::App,
        sandbox: "s1".into(),
        attempt: 3,
        backoff: 1,
        spec_hash: "abc".into(),
    };
    let (user, users) = (ImageUser::default(), own_users());
    let given = Given { image_user: &user, seccomp_default: false, data_dir: "/d", users: &users, target: None };
    let parts = ContainerParts {
        start: &start,
        image: "sha256:1".into(),
        env: [("PORT".into(), "80".into())].into(),
        mounts: vec![file_mount("/etc/hosts", Path::new("/d/hosts"), false)],
        devices: Vec::new(),
        machine: machine(),
        given,
    };
    let config = super::container(&pod, container, parts).unwrap();
    assert_eq!(config.command, ["/web", "80", "$(PORT)"]);
    assert_eq!(config.args, ["--x=$(NONE)"]);
    assert_eq!(config.log_path, "c/3.log");
    assert_eq!(config.image.as_ref().unwrap().image, "sha256:1");
    assert_eq!(config.image.as_ref().unwrap().user_specified_image, "shop/web:1");
    assert!(config.tty && !config.stdin);
    assert_eq!(
        lines(&config.labels),
        "io.kubernetes.container.name=c\nio.kubernetes.pod.name=web-1\nio.kubernetes.pod.namespace=shop\n\
         io.kubernetes.pod.uid=1c6b\n"
    );
    assert_eq!(
        lines(&config.annotations),
        "io.kubernetes.container.hash=abc\n\
         io.kubernetes.container.ports=[{\"containerPort\":80,\"hostPort\":8080},{\"containerPort\":53,\"protocol\":\"UDP\"}]\n\
         io.kubernetes.container.restartCount=3\n\
         io.kubernetes.container.terminationMessagePath=/dev/termination-log\n\
         io.kubernetes.container.terminationMessagePolicy=File\n\
         io.kubernetes.pod.terminationGracePeriod=20\n\
         keelson.dev/backoff=1\n\
         keelson.dev/resources={\"limits\":{\"cpu\":\"200m\",\"memory\":\"32Mi\"},\"requests\":{\"cpu\":\"100m\",\"memory\":\"32Mi\"}}\n"
    );
    let [mount] = config.mounts.as_slice() else { panic!("{:?}", config.mounts) };
    assert_eq!(
        (&mount.uid_mappings, &mount.gid_mappings),
        (&users.uids, &users.gids),
        "mounts are mapped as users are"
    );
    let linux = config.linux.unwrap();
    let resources = linux.resources.unwrap();
    assert_eq!((resources.cpu_shares, resources.cpu_quota, resources.oom_score_adj), (102, 20_000, 997));
    assert_eq!(linux.security_context.unwrap().namespace_options.unwrap().userns_options, Some(own_users()));
}

#[test]
fn host_network_pods_have_no_name_and_no_mappings() {
    let mut pod = web();
    pod.spec.as_mut().unwrap().host_network = Some(true);
    let parts = SandboxParts {
        attempt: 0,
        hostname: "web-1".into(),
        log_directory: PathBuf::new(),
        dns: Dns::default(),
        cgroup_parent: String::new(),
        seccomp: String::new(),
        users: userns::of_node(),
    };
    let config = sandbox(&pod, &parts, &machine());
    assert!(config.hostname.is_empty() && config.port_mappings.is_empty());
}

#[test]
fn mounts_pass_their_options_on() {
    let mounts: Vec<VolumeMount> = serde_json::from_value(serde_json::json!([
        {"name": "v", "mountPath": "/v", "readOnly": true, "recursiveReadOnly": "Enabled"},
        {"name": "v", "mountPath": "/w", "mountPropagation": "HostToContainer"}
    ]))
    .unwrap();
    let plans = volumes::plan::container_mounts(&mounts);
    let first = mount(&plans[0], Path::new("/host"), MountOptions { recursive: true, relabel: false });
    assert!(first.readonly && first.recursive_read_only && !first.selinux_relabel);
    assert_eq!((first.container_path.as_str(), first.host_path.as_str()), ("/v", "/host"));
    let second = mount(&plans[1], Path::new("/host"), MountOptions::default());
    assert_eq!(second.propagation(), MountPropagation::PropagationHostToContainer);
}
