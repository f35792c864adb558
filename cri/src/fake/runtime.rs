//! The runtime service of the runtime in memory. Calls that are not here answer Unimplemented.

use std::time::Duration;

use tokio_stream::StreamExt;
use tokio_stream::wrappers::BroadcastStream;
use tonic::{Request, Response, Status};

use super::state::{State, Verdict, container_status, missing, sandbox_status};
use super::{Fake, Program};
use crate::v1::runtime_service_server::RuntimeService;
use crate::v1::{self, ContainerEventType as Kind, ContainerState};

type Answer<T> = Result<Response<T>, Status>;

impl Fake {
    /// Logs a call that changes something, and makes the change unless the call is to fail before it.
    async fn change<T: Default>(
        &self,
        rpc: &'static str,
        id: &str,
        change: impl FnOnce(&mut State) -> Result<T, Status>,
    ) -> Result<T, Status> {
        let (verdict, answer) = {
            let mut state = self.lock();
            state.log(rpc, id);
            let verdict = state.effect();
            let answer = if verdict.prevents() { Ok(T::default()) } else { change(&mut state) };
            (verdict, answer)
        };
        verdict.seen(answer).await
    }

    /// Logs a call that changes something, and says what is to become of it.
    fn asked(&self, rpc: &'static str, id: &str) -> Verdict {
        let mut state = self.lock();
        state.log(rpc, id);
        state.effect()
    }

    fn ends_by_itself(&self, id: String, program: &Program) {
        let Some((after, code)) = program.ends else { return };
        let fake = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            fake.exit(&id, code);
        });
    }

    /// SIGTERM, the grace, SIGKILL: as long as its program takes.
    async fn terminate(&self, id: &str, grace: Duration) {
        let program = self.lock().program_of(id);
        match program.on_term.filter(|takes| *takes <= grace && !grace.is_zero()) {
            Some(takes) => {
                tokio::time::sleep(takes).await;
                self.finish(id, 0, "Completed");
            }
            None => {
                tokio::time::sleep(grace).await;
                self.finish(id, 137, "Error");
            }
        }
    }
}

#[tonic::async_trait]
impl RuntimeService for Fake {
    async fn version(&self, _: Request<v1::VersionRequest>) -> Answer<v1::VersionResponse> {
        Ok(Response::new(v1::VersionResponse {
            version: "0.1.0".into(),
            runtime_name: "fake".into(),
            runtime_version: "1.0.0".into(),
            runtime_api_version: "v1".into(),
        }))
    }

    async fn status(&self, _: Request<v1::StatusRequest>) -> Answer<v1::StatusResponse> {
        let condition =
            |r#type: &str| v1::RuntimeCondition { r#type: r#type.into(), status: true, ..Default::default() };
        let conditions = ["RuntimeReady", "NetworkReady"].map(condition).to_vec();
        let info = self.lock().config.iter().map(|text| ("config".to_owned(), text.clone())).collect();
        let status = Some(v1::RuntimeStatus { conditions });
        Ok(Response::new(v1::StatusResponse { status, info, ..Default::default() }))
    }

    async fn run_pod_sandbox(&self, request: Request<v1::RunPodSandboxRequest>) -> Answer<v1::RunPodSandboxResponse> {
        let config = request.into_inner().config.ok_or_else(|| Status::invalid_argument("sandbox config is nil"))?;
        let name = config.metadata.as_ref().map_or(String::new(), |m| format!("{}/{}", m.namespace, m.name));
        let pod_sandbox_id = self.change("RunPodSandbox", &name, |state| Ok(state.add_sandbox(config))).await?;
        self.tell(&pod_sandbox_id, Kind::ContainerStartedEvent);
        Ok(Response::new(v1::RunPodSandboxResponse { pod_sandbox_id }))
    }

    async fn stop_pod_sandbox(
        &self,
        request: Request<v1::StopPodSandboxRequest>,
    ) -> Answer<v1::StopPodSandboxResponse> {
        let id = request.into_inner().pod_sandbox_id;
        let verdict = self.asked("StopPodSandbox", &id);
        let known = self.lock().sandboxes.contains_key(&id);
        if known && !verdict.prevents() {
            self.lose_sandbox(&id);
        }
        verdict.seen(Ok(Response::new(v1::StopPodSandboxResponse {}))).await
    }

    async fn remove_pod_sandbox(
        &self,
        request: Request<v1::RemovePodSandboxRequest>,
    ) -> Answer<v1::RemovePodSandboxResponse> {
        let id = request.into_inner().pod_sandbox_id;
        self.change("RemovePodSandbox", &id, |state| {
            if state.sandboxes.get(&id).is_some_and(|s| s.ready) {
                return Err(Status::unknown(format!("sandbox container {id:?} is not fully stopped")));
            }
            state.sandboxes.remove(&id);
            state.containers.retain(|_, c| c.sandbox_id != id);
            Ok(())
        })
        .await?;
        self.tell(&id, Kind::ContainerDeletedEvent);
        Ok(Response::new(v1::RemovePodSandboxResponse {}))
    }

    async fn pod_sandbox_status(
        &self,
        request: Request<v1::PodSandboxStatusRequest>,
    ) -> Answer<v1::PodSandboxStatusResponse> {
        let id = request.into_inner().pod_sandbox_id;
        let mut state = self.lock();
        state.log("PodSandboxStatus", &id);
        let status = state.sandboxes.get(&id).map(sandbox_status).ok_or_else(|| missing("sandbox", &id))?;
        Ok(Response::new(v1::PodSandboxStatusResponse { status: Some(status), ..Default::default() }))
    }

    async fn list_pod_sandbox(
        &self,
        request: Request<v1::ListPodSandboxRequest>,
    ) -> Answer<v1::ListPodSandboxResponse> {
        let filter = request.into_inner().filter.unwrap_or_default();
        let mut state = self.lock();
        state.log("ListPodSandbox", "");
        let wanted = state.sandboxes.values().map(sandbox_status).filter(|s| {
            (filter.id.is_empty() || filter.id == s.id)
                && filter.state.as_ref().is_none_or(|f| f.state == s.state)
                && selected(&filter.label_selector, &s.labels)
        });
        let items = wanted.map(|s| v1::PodSandbox {
            id: s.id,
            metadata: s.metadata,
            state: s.state,
            created_at: s.created_at,
            labels: s.labels,
            annotations: s.annotations,
            runtime_handler: String::new(),
        });
        let items = items.collect();
        Ok(Response::new(v1::ListPodSandboxResponse { items }))
    }

    async fn create_container(
        &self,
        request: Request<v1::CreateContainerRequest>,
    ) -> Answer<v1::CreateContainerResponse> {
        let request = request.into_inner();
        let config = request.config.ok_or_else(|| Status::invalid_argument("container config is nil"))?;
        let name = config.metadata.as_ref().map_or(String::new(), |m| m.name.clone());
        let container_id =
            self.change("CreateContainer", &name, |state| state.add_container(&request.pod_sandbox_id, config)).await?;
        self.tell(&container_id, Kind::ContainerCreatedEvent);
        Ok(Response::new(v1::CreateContainerResponse { container_id }))
    }

    async fn start_container(&self, request: Request<v1::StartContainerRequest>) -> Answer<v1::StartContainerResponse> {
        let id = request.into_inner().container_id;
        let verdict = self.asked("StartContainer", &id);
        let result = if verdict.prevents() { Ok(()) } else { self.lock().start(&id) };
        let running = self.lock().containers.get(&id).is_some_and(|c| c.state == ContainerState::ContainerRunning);
        if running {
            let program = self.lock().program_of(&id);
            self.ends_by_itself(id.clone(), &program);
            self.tell(&id, Kind::ContainerStartedEvent);
        }
        verdict.seen(result.map(|()| Response::new(v1::StartContainerResponse {}))).await
    }

    async fn stop_container(&self, request: Request<v1::StopContainerRequest>) -> Answer<v1::StopContainerResponse> {
        let v1::StopContainerRequest { container_id, timeout } = request.into_inner();
        let verdict = self.asked("StopContainer", &container_id);
        let known = self.lock().containers.contains_key(&container_id);
        if known && !verdict.prevents() {
            self.terminate(&container_id, Duration::from_secs(u64::try_from(timeout).unwrap_or(0))).await;
        }
        verdict.seen(Ok(Response::new(v1::StopContainerResponse {}))).await
    }

    async fn remove_container(
        &self,
        request: Request<v1::RemoveContainerRequest>,
    ) -> Answer<v1::RemoveContainerResponse> {
        let id = request.into_inner().container_id;
        self.change("RemoveContainer", &id, |state| {
            state.containers.remove(&id);
            Ok(())
        })
        .await?;
        self.tell(&id, Kind::ContainerDeletedEvent);
        Ok(Response::new(v1::RemoveContainerResponse {}))
    }

    async fn list_containers(&self, request: Request<v1::ListContainersRequest>) -> Answer<v1::ListContainersResponse> {
        let filter = request.into_inner().filter.unwrap_or_default();
        let mut state = self.lock();
        state.log("ListContainers", "");
        let wanted = state.containers.values().filter(|c| {
            (filter.id.is_empty() || filter.id == c.id)
                && (filter.pod_sandbox_id.is_empty() || filter.pod_sandbox_id == c.sandbox_id)
                && filter.state.as_ref().is_none_or(|f| f.state() == c.state)
                && selected(&filter.label_selector, &c.config.labels)
        });
        let containers = wanted.map(|c| v1::Container {
            id: c.id.clone(),
            pod_sandbox_id: c.sandbox_id.clone(),
            metadata: c.config.metadata.clone(),
            image: c.config.image.clone(),
            state: c.state.into(),
            created_at: c.created_at,
            labels: c.config.labels.clone(),
            annotations: c.config.annotations.clone(),
            ..v1::Container::default()
        });
        let containers = containers.collect();
        Ok(Response::new(v1::ListContainersResponse { containers }))
    }

    async fn container_status(
        &self,
        request: Request<v1::ContainerStatusRequest>,
    ) -> Answer<v1::ContainerStatusResponse> {
        let id = request.into_inner().container_id;
        let mut state = self.lock();
        state.log("ContainerStatus", &id);
        let status = Some(container_status(state.container(&id)?));
        Ok(Response::new(v1::ContainerStatusResponse { status, ..Default::default() }))
    }

    async fn update_container_resources(
        &self,
        request: Request<v1::UpdateContainerResourcesRequest>,
    ) -> Answer<v1::UpdateContainerResourcesResponse> {
        let request = request.into_inner();
        self.change("UpdateContainerResources", &request.container_id, |state| {
            let container = state.container(&request.container_id)?;
            if let Some(linux) = &mut container.config.linux {
                linux.resources = request.linux;
            }
            Ok(())
        })
        .await?;
        Ok(Response::new(v1::UpdateContainerResourcesResponse {}))
    }

    async fn update_pod_sandbox_resources(
        &self,
        request: Request<v1::UpdatePodSandboxResourcesRequest>,
    ) -> Answer<v1::UpdatePodSandboxResourcesResponse> {
        let request = request.into_inner();
        self.change("UpdatePodSandboxResources", &request.pod_sandbox_id, |state| {
            let id = &request.pod_sandbox_id;
            let sandbox = state.sandboxes.get_mut(id).ok_or_else(|| missing("sandbox", id))?;
            if let Some(linux) = &mut sandbox.config.linux {
                linux.resources = request.resources;
                linux.overhead = request.overhead;
            }
            Ok(())
        })
        .await?;
        Ok(Response::new(v1::UpdatePodSandboxResourcesResponse {}))
    }

    async fn reopen_container_log(
        &self,
        request: Request<v1::ReopenContainerLogRequest>,
    ) -> Answer<v1::ReopenContainerLogResponse> {
        let id = request.into_inner().container_id;
        self.change("ReopenContainerLog", &id, |state| state.container(&id).map(drop)).await?;
        Ok(Response::new(v1::ReopenContainerLogResponse {}))
    }

    async fn exec_sync(&self, request: Request<v1::ExecSyncRequest>) -> Answer<v1::ExecSyncResponse> {
        let id = request.into_inner().container_id;
        let program = {
            let mut state = self.lock();
            state.log("ExecSync", &id);
            let container = state.container(&id)?;
            if container.state != ContainerState::ContainerRunning {
                return Err(Status::unknown(format!("container {id:?} is in {} state", container.state.as_str_name())));
            }
            state.program_of(&id)
        };
        tokio::time::sleep(program.exec_takes).await;
        let (exit_code, stdout) = program.exec;
        Ok(Response::new(v1::ExecSyncResponse { stdout, stderr: Vec::new(), exit_code }))
    }

    async fn get_container_events(
        &self,
        _: Request<v1::GetEventsRequest>,
    ) -> Answer<tonic::codegen::BoxStream<v1::ContainerEventResponse>> {
        // A reader that is 1,024 events behind loses some, as with a real runtime.
        let stream = BroadcastStream::new(self.events.subscribe()).filter_map(Result::ok).map(Ok);
        Ok(Response::new(Box::pin(stream)))
    }
}

fn selected(
    wanted: &std::collections::HashMap<String, String>,
    labels: &std::collections::HashMap<String, String>,
) -> bool {
    wanted.iter().all(|(k, v)| labels.get(k) == Some(v))
}
