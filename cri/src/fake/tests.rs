#![allow(clippy::large_futures)] // CRI's requests are large, tests are short

use std::time::Duration;

use super::*;
use crate::events::{Event, follow};

fn sandbox() -> v1::RunPodSandboxRequest {
    let metadata = v1::PodSandboxMetadata { name: "p".into(), uid: "u-1".into(), namespace: "n".into(), attempt: 0 };
    let config = v1::PodSandboxConfig { metadata: Some(metadata), ..Default::default() };
    v1::RunPodSandboxRequest { config: Some(config), runtime_handler: String::new() }
}

async fn container(client: &Client, sandbox_id: &str, name: &str) -> String {
    let config = v1::ContainerConfig {
        metadata: Some(v1::ContainerMetadata { name: name.into(), attempt: 0 }),
        image: Some(v1::ImageSpec { image: "i".into(), ..Default::default() }),
        ..Default::default()
    };
    let request =
        v1::CreateContainerRequest { pod_sandbox_id: sandbox_id.into(), config: Some(config), sandbox_config: None };
    client.create_container(request).await.unwrap().container_id
}

#[tokio::test(start_paused = true)]
async fn containers_live_as_they_are_told() {
    let fake = Fake::default();
    fake.add_image("i");
    fake.program("short", Program { ends: Some((Duration::from_secs(60), 3)), ..Program::default() });
    fake.program("deaf", Program { on_term: None, ..Program::default() });
    let client = fake.client();
    let pod = client.run_pod_sandbox(sandbox()).await.unwrap().pod_sandbox_id;
    let (short, deaf) = (container(&client, &pod, "short").await, container(&client, &pod, "deaf").await);
    for id in [&short, &deaf] {
        client.start_container(v1::StartContainerRequest { container_id: id.clone() }).await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(61)).await;
    let status = client.container(&short).await.unwrap().status.unwrap();
    assert_eq!(
        (status.state(), status.exit_code, status.reason.as_str()),
        (v1::ContainerState::ContainerExited, 3, "Error")
    );
    assert_eq!(status.finished_at - status.started_at, 60_000_000_000);
    client.stop_container(&deaf, 30).await.unwrap();
    assert_eq!(client.container(&deaf).await.unwrap().status.unwrap().exit_code, 137);

    client.stop_pod_sandbox(v1::StopPodSandboxRequest { pod_sandbox_id: pod.clone() }).await.unwrap();
    client.remove_pod_sandbox(v1::RemovePodSandboxRequest { pod_sandbox_id: pod.clone() }).await.unwrap();
    assert!(client.sandbox(&pod).await.unwrap_err().is_not_found());
    assert!(client.container(&deaf).await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn a_failure_comes_before_or_after_the_effect() {
    let fake = Fake::default();
    let client = fake.client();
    for after in [false, true] {
        let status = Status::unavailable("as asked");
        fake.fail(Failure { effect: 0, after, status });
        let error = client.run_pod_sandbox(sandbox()).await.unwrap_err();
        assert!(error.is_unavailable());
        assert_eq!(error.to_string(), "RunPodSandbox: Unavailable: as asked");
        assert_eq!(fake.sandboxes().len(), usize::from(after));
    }
    assert_eq!(fake.count("RunPodSandbox"), 2);
}

#[tokio::test(start_paused = true)]
async fn pulls_and_commands_without_a_timeout_take_as_long_as_they_take() {
    let fake = Fake::default();
    fake.add_image("i");
    let day = Duration::from_secs(24 * 3600);
    fake.program("slow", Program { exec_takes: day, ..Program::default() });
    let client = fake.client();
    let pod = client.run_pod_sandbox(sandbox()).await.unwrap().pod_sandbox_id;
    let slow = container(&client, &pod, "slow").await;
    client.start_container(v1::StartContainerRequest { container_id: slow.clone() }).await.unwrap();
    assert_eq!(client.exec_sync(&slow, vec!["true".into()], Duration::ZERO).await.unwrap().exit_code, 0);
    assert!(client.exec_sync(&slow, vec!["true".into()], Duration::from_secs(1)).await.is_err());
    // A pull that hangs is still waited for.
    drop(fake.hang(0, false));
    let image = Some(v1::ImageSpec { image: "other".into(), ..Default::default() });
    let pull = client.pull_image(v1::PullImageRequest { image, ..Default::default() });
    assert!(tokio::time::timeout(day, pull).await.is_err());
}

#[tokio::test]
async fn events_say_which_pod() {
    let fake = Fake::default();
    fake.add_image("i");
    let client = fake.client();
    let mut events = follow(client.clone());
    assert_eq!(events.recv().await.unwrap(), Event::Resync);
    let pod = client.run_pod_sandbox(sandbox()).await.unwrap().pod_sandbox_id;
    assert_eq!(events.recv().await.unwrap(), Event::Unsettled);
    client.stop_pod_sandbox(v1::StopPodSandboxRequest { pod_sandbox_id: pod.clone() }).await.unwrap();
    assert_eq!(events.recv().await.unwrap(), Event::Ended { id: pod, pod_uid: Some("u-1".into()) });
}

#[tokio::test(start_paused = true)]
async fn a_runtime_that_does_not_answer_is_given_up_within_the_time_it_was_given() {
    let fake = Fake::default();
    let client = fake.client().within(Duration::from_secs(5));
    let pod = client.run_pod_sandbox(sandbox()).await.unwrap().pod_sandbox_id;
    let (_first, _second) = (fake.hang(0, false), fake.hang(1, false));
    let begun = tokio::time::Instant::now();
    let remove = v1::RemoveContainerRequest { container_id: "c".into() };
    assert!(client.remove_container(remove).await.unwrap_err().is_unavailable());
    assert_eq!(begun.elapsed().as_secs(), 5);
    let stop = v1::StopPodSandboxRequest { pod_sandbox_id: pod };
    assert!(client.stop_pod_sandbox(stop).await.unwrap_err().is_unavailable());
    assert_eq!(begun.elapsed().as_secs(), 15);
}

#[tokio::test]
async fn images_may_be_the_affair_of_another_program() {
    let folder = std::env::temp_dir().join(format!("keelson-cri-images-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let socket = folder.join("images.sock");
    let (runtime, images) = (Fake::default(), Fake::default());
    images.add_image("theirs");
    let listening = {
        let images = images.clone();
        let socket = socket.clone();
        tokio::spawn(async move { images.listen(&socket).await })
    };
    while !socket.exists() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let client = runtime.client().with_images_at(socket.to_str().unwrap()).unwrap();
    assert_eq!(client.list_images(v1::ListImagesRequest::default()).await.unwrap().images.len(), 1);
    client.run_pod_sandbox(sandbox()).await.unwrap();
    assert_eq!((runtime.count("ListImages"), runtime.sandboxes().len(), images.sandboxes().len()), (0, 1, 0));
    assert!(runtime.client().with_images_at("tcp://a").is_err());
    listening.abort();
    std::fs::remove_dir_all(&folder).unwrap();
}
