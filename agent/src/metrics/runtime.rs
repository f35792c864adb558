//! Calls of the container runtime.

use std::time::Duration;

use super::families::{RUNTIME_DURATION, RUNTIME_ERRORS, RUNTIME_OPERATIONS};

/// Counts what a client calls.
#[derive(Debug, Clone, Copy)]
pub struct RuntimeCalls;

impl cri::Observer for RuntimeCalls {
    fn called(&self, rpc: &'static str, took: Duration, failed: bool) {
        let operation = operation(rpc);
        if failed {
            RUNTIME_ERRORS.count([operation.into()]);
        }
        RUNTIME_OPERATIONS.count([operation.into()]);
        RUNTIME_DURATION.observe([operation.into()], took);
    }
}

/// As a kubelet names an rpc (`instrumented_services.go`).
fn operation(rpc: &'static str) -> &'static str {
    match rpc {
        "Version" => "version",
        "Status" => "status",
        "RuntimeConfig" => "runtime_config",
        "UpdateRuntimeConfig" => "update_runtime_config",
        "RunPodSandbox" => "run_podsandbox",
        "StopPodSandbox" => "stop_podsandbox",
        "RemovePodSandbox" => "remove_podsandbox",
        "PodSandboxStatus" => "podsandbox_status",
        "ListPodSandbox" => "list_podsandbox",
        "CreateContainer" => "create_container",
        "StartContainer" => "start_container",
        "StopContainer" => "stop_container",
        "RemoveContainer" => "remove_container",
        "ListContainers" => "list_containers",
        "ContainerStatus" => "container_status",
        "UpdateContainerResources" => "update_container",
        "UpdatePodSandboxResources" => "update_podsandbox_resources",
        "ReopenContainerLog" => "reopen_container_log",
        "ExecSync" => "exec_sync",
        "Exec" => "exec",
        "Attach" => "attach",
        "PortForward" => "port_forward",
        "ContainerStats" => "container_stats",
        "ListContainerStats" => "list_container_stats",
        "ListImages" => "list_images",
        "ImageStatus" => "image_status",
        "PullImage" => "pull_image",
        "RemoveImage" => "remove_image",
        "ImageFsInfo" => "image_fs_info",
        other => other,
    }
}
