//! What our client encodes means the same to another implementation: the k8s-cri crate, made from an older release of the same
//! interface, decodes our bytes and encodes them again without a difference. Fields that it does not know yet are left out here.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test fails by them

use cri::v1 as ours;
use k8s_cri::v1 as theirs;
use prost::Message;

/// Decoded by the other side and encoded again, nothing has changed and nothing was dropped.
fn same<Theirs: Message + Default + std::fmt::Debug>(message: &(impl Message + std::fmt::Debug)) {
    let bytes = message.encode_to_vec();
    assert!(!bytes.is_empty(), "an empty message compares nothing");
    let decoded = Theirs::decode(bytes.as_slice()).expect("k8s-cri decodes it");
    assert_eq!(decoded.encode_to_vec(), bytes, "{message:?}\nbecame\n{decoded:?}");
}

/// Maps of one entry: their order on the wire is not defined.
fn map(key: &str) -> std::collections::HashMap<String, String> {
    [(key.to_owned(), "value".to_owned())].into()
}

fn sandbox_config() -> ours::PodSandboxConfig {
    ours::PodSandboxConfig {
        metadata: Some(ours::PodSandboxMetadata {
            name: "p".into(),
            uid: "u".into(),
            namespace: "n".into(),
            attempt: 2,
        }),
        hostname: "h".into(),
        log_directory: "/var/log/pods/x".into(),
        dns_config: Some(ours::DnsConfig {
            servers: vec!["10.96.0.10".into()],
            searches: vec!["s".into()],
            options: vec!["ndots:5".into()],
        }),
        port_mappings: vec![ours::PortMapping {
            protocol: ours::Protocol::Udp.into(),
            container_port: 53,
            host_port: 5353,
            host_ip: "127.0.0.1".into(),
        }],
        labels: map("io.kubernetes.pod.uid"),
        annotations: map("a"),
        linux: Some(ours::LinuxPodSandboxConfig {
            cgroup_parent: "/kubepods/pod1".into(),
            security_context: Some(ours::LinuxSandboxSecurityContext {
                namespace_options: Some(ours::NamespaceOption {
                    pid: ours::NamespaceMode::Container.into(),
                    ..Default::default()
                }),
                run_as_user: Some(ours::Int64Value { value: 1000 }),
                supplemental_groups: vec![1, 2],
                privileged: true,
                ..Default::default()
            }),
            sysctls: map("net.ipv4.tcp_syncookies"),
            resources: Some(resources()),
            ..Default::default()
        }),
        windows: None,
    }
}

fn resources() -> ours::LinuxContainerResources {
    ours::LinuxContainerResources {
        cpu_period: 100_000,
        cpu_quota: 20_000,
        cpu_shares: 102,
        memory_limit_in_bytes: 1 << 26,
        oom_score_adj: 999,
        unified: map("memory.high"),
        hugepage_limits: vec![ours::HugepageLimit { page_size: "2MB".into(), limit: 4 }],
        ..Default::default()
    }
}

fn container_config() -> ours::ContainerConfig {
    ours::ContainerConfig {
        metadata: Some(ours::ContainerMetadata { name: "c".into(), attempt: 3 }),
        image: Some(ours::ImageSpec {
            image: "sha256:1".into(),
            user_specified_image: "i:1".into(),
            ..Default::default()
        }),
        command: vec!["/bin/sh".into()],
        args: vec!["-c".into(), "true".into()],
        working_dir: "/w".into(),
        envs: vec![ours::KeyValue { key: "A".into(), value: "b".into() }],
        mounts: vec![ours::Mount {
            container_path: "/c".into(),
            host_path: "/h".into(),
            readonly: true,
            propagation: ours::MountPropagation::PropagationHostToContainer.into(),
            ..Default::default()
        }],
        labels: map("l"),
        annotations: map("a"),
        log_path: "c/0.log".into(),
        stdin: true,
        tty: true,
        linux: Some(ours::LinuxContainerConfig {
            resources: Some(resources()),
            security_context: Some(ours::LinuxContainerSecurityContext {
                capabilities: Some(ours::Capability {
                    add_capabilities: vec!["NET_ADMIN".into()],
                    ..Default::default()
                }),
                no_new_privs: true,
                masked_paths: vec!["/proc/kcore".into()],
                seccomp: Some(ours::SecurityProfile { localhost_ref: "x".into(), ..Default::default() }),
                ..Default::default()
            }),
        }),
        ..Default::default()
    }
}

#[test]
fn what_the_agent_asks_is_understood() {
    let config = sandbox_config();
    same::<theirs::RunPodSandboxRequest>(&ours::RunPodSandboxRequest {
        config: Some(config.clone()),
        runtime_handler: "r".into(),
    });
    same::<theirs::CreateContainerRequest>(&ours::CreateContainerRequest {
        pod_sandbox_id: "s".into(),
        config: Some(container_config()),
        sandbox_config: Some(config.clone()),
    });
    same::<theirs::StopContainerRequest>(&ours::StopContainerRequest { container_id: "c".into(), timeout: 30 });
    same::<theirs::ExecSyncRequest>(&ours::ExecSyncRequest {
        container_id: "c".into(),
        cmd: vec!["x".into()],
        timeout: 1,
    });
    same::<theirs::ExecRequest>(&ours::ExecRequest {
        container_id: "c".into(),
        cmd: vec!["x".into()],
        tty: true,
        stdin: true,
        stdout: true,
        stderr: false,
    });
    same::<theirs::AttachRequest>(&ours::AttachRequest {
        container_id: "c".into(),
        stdin: true,
        stdout: true,
        ..Default::default()
    });
    same::<theirs::PortForwardRequest>(&ours::PortForwardRequest { pod_sandbox_id: "s".into(), port: vec![80, 8080] });
    same::<theirs::PullImageRequest>(&ours::PullImageRequest {
        image: Some(ours::ImageSpec { image: "i".into(), ..Default::default() }),
        auth: Some(ours::AuthConfig { username: "u".into(), password: "p".into(), ..Default::default() }),
        sandbox_config: Some(config),
    });
    same::<theirs::ListContainersRequest>(&ours::ListContainersRequest {
        filter: Some(ours::ContainerFilter {
            id: "c".into(),
            state: Some(ours::ContainerStateValue { state: ours::ContainerState::ContainerRunning.into() }),
            pod_sandbox_id: "s".into(),
            label_selector: map("l"),
        }),
    });
    same::<theirs::UpdateContainerResourcesRequest>(&ours::UpdateContainerResourcesRequest {
        container_id: "c".into(),
        linux: Some(resources()),
        annotations: map("a"),
        ..Default::default()
    });
}

#[test]
fn what_the_runtime_answers_is_understood() {
    same::<theirs::ContainerStatusResponse>(&ours::ContainerStatusResponse {
        status: Some(ours::ContainerStatus {
            id: "c".into(),
            metadata: Some(ours::ContainerMetadata { name: "c".into(), attempt: 1 }),
            state: ours::ContainerState::ContainerExited.into(),
            created_at: 1,
            started_at: 2,
            finished_at: 3,
            exit_code: 137,
            image_ref: "sha256:1".into(),
            reason: "OOMKilled".into(),
            message: "m".into(),
            log_path: "/l".into(),
            ..Default::default()
        }),
        info: map("info"),
    });
    same::<theirs::PodSandboxStatusResponse>(&ours::PodSandboxStatusResponse {
        status: Some(ours::PodSandboxStatus {
            id: "s".into(),
            state: ours::PodSandboxState::SandboxNotready.into(),
            created_at: 1,
            network: Some(ours::PodSandboxNetworkStatus {
                ip: "10.0.0.1".into(),
                additional_ips: vec![ours::PodIp { ip: "fd00::1".into() }],
            }),
            ..Default::default()
        }),
        ..Default::default()
    });
    same::<theirs::StatusResponse>(&ours::StatusResponse {
        status: Some(ours::RuntimeStatus {
            conditions: vec![ours::RuntimeCondition {
                r#type: "RuntimeReady".into(),
                status: true,
                reason: "r".into(),
                message: "m".into(),
            }],
        }),
        info: map("config"),
        ..Default::default()
    });
    same::<theirs::ContainerEventResponse>(&ours::ContainerEventResponse {
        container_id: "c".into(),
        container_event_type: ours::ContainerEventType::ContainerStoppedEvent.into(),
        created_at: 5,
        ..Default::default()
    });
    same::<theirs::ListImagesResponse>(&ours::ListImagesResponse {
        images: vec![ours::Image {
            id: "sha256:1".into(),
            repo_tags: vec!["i:1".into()],
            repo_digests: vec!["i@sha256:1".into()],
            size: 7,
            pinned: true,
            ..Default::default()
        }],
    });
}
