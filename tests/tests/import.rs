//! Images go into a real containerd without a registry, and a pod runs from them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test fails by them

use keelson_tests::harness::containerd;
use keelson_tests::harness::host::{Lan, make_bridge, make_host};
use keelson_tests::harness::{Layout, images, sweep};

use cri::v1;

#[test]
fn imported_images_run_and_importing_again_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout::new(format!("i{}", std::process::id() % 10_000), dir.path());
    let lan = Lan::free().unwrap();
    let host = layout.host("n1");
    make_bridge(&layout, lan).unwrap();
    make_host(&layout, &host, lan, lan.worker(1)).unwrap();
    let process = containerd::start(&layout, &host, None).unwrap();
    let result = std::panic::catch_unwind(|| {
        let all = images::all().unwrap();
        let mut imported = 0;
        images::import(&host, &all, |_| imported += 1).unwrap();
        images::import(&host, &all, |_| imported += 1).unwrap();
        assert_eq!(imported, 2 * all.len());
        containerd::call(&host, async |client| {
            Box::pin(run_busybox(&client, &host.cgroup_root())).await;
            Ok(())
        })
        .unwrap();
    });
    process.stop(std::time::Duration::from_secs(10)).unwrap();
    sweep::sweep(&layout).unwrap();
    result.unwrap();
}

async fn run_busybox(client: &cri::Client, cgroup: &str) {
    let listed = client.list_images(v1::ListImagesRequest::default()).await.unwrap().images;
    let tags: Vec<_> = listed.iter().flat_map(|i| i.repo_tags.clone()).collect();
    assert!(tags.contains(&images::HELLO.to_owned()) && tags.contains(&images::BUSYBOX.to_owned()), "{tags:?}");

    // What the agent does on every start: the pause image under the name that this containerd has for it.
    let status = client.status(v1::StatusRequest { verbose: true }).await.unwrap();
    let info: serde_json::Value = serde_json::from_str(&status.info["config"]).unwrap();
    let name = info["sandboxImage"]
        .as_str()
        .or_else(|| info["pinnedImages"]["sandbox"].as_str())
        .unwrap_or("registry.k8s.io/pause:3.10");
    let config = cri::import::ImageConfig { entrypoint: vec!["/pause".into()], ..Default::default() };
    let pause = cri::import::Image::from_layer(name, &config, pause::layer().unwrap()).pinned();
    cri::import::import(client, &pause).await.unwrap();

    let sandbox_config = v1::PodSandboxConfig {
        metadata: Some(v1::PodSandboxMetadata { name: "p".into(), uid: "u".into(), namespace: "n".into(), attempt: 0 }),
        log_directory: "/tmp".into(),
        linux: Some(v1::LinuxPodSandboxConfig {
            cgroup_parent: cgroup.into(),
            security_context: Some(v1::LinuxSandboxSecurityContext {
                namespace_options: Some(v1::NamespaceOption {
                    network: v1::NamespaceMode::Node.into(),
                    pid: v1::NamespaceMode::Container.into(),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    };
    let request = v1::RunPodSandboxRequest { config: Some(sandbox_config.clone()), runtime_handler: String::new() };
    let sandbox = client.run_pod_sandbox(request).await.unwrap().pod_sandbox_id;
    let request = v1::CreateContainerRequest {
        pod_sandbox_id: sandbox.clone(),
        config: Some(v1::ContainerConfig {
            metadata: Some(v1::ContainerMetadata { name: "c".into(), attempt: 0 }),
            image: Some(v1::ImageSpec { image: images::BUSYBOX.into(), ..Default::default() }),
            command: ["sleep", "100"].map(Into::into).to_vec(),
            linux: Some(v1::LinuxContainerConfig::default()),
            ..Default::default()
        }),
        sandbox_config: Some(sandbox_config),
    };
    let container = Box::pin(client.create_container(request)).await.unwrap().container_id;
    client.start_container(v1::StartContainerRequest { container_id: container.clone() }).await.unwrap();
    let command = ["sh", "-c", "echo $((6*7))"].map(String::from).to_vec();
    let out = client.exec_sync(&container, command, std::time::Duration::from_secs(10)).await.unwrap();
    assert_eq!((out.exit_code, String::from_utf8_lossy(&out.stdout).trim()), (0, "42"));
    client.stop_container(&container, 0).await.unwrap();
    client.stop_pod_sandbox(v1::StopPodSandboxRequest { pod_sandbox_id: sandbox.clone() }).await.unwrap();
    client.remove_pod_sandbox(v1::RemovePodSandboxRequest { pod_sandbox_id: sandbox }).await.unwrap();
}
