//! One async method an rpc. A call that fails says which rpc it was; a runtime that restarts is reconnected to by the next call.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};

use crate::error::{CallError, EndpointError};
use crate::v1::image_service_client::ImageServiceClient;
use crate::v1::runtime_service_client::RuntimeServiceClient;
use crate::v1::{self, ContainerStatusResponse, PodSandboxStatusResponse};

/// Lists of a full node exceed gRPC's 4 MiB default; kubelets allow 16 MiB.
const MAX_MESSAGE: usize = 16 * 1024 * 1024;
/// kubelet's `runtimeRequestTimeout` default.
const CALL: Duration = Duration::from_secs(120);
/// Ten years. Neither pulls, which the runtime ends when they make no progress, nor hooks have a deadline in a kubelet.
const FOREVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// How long a call may take.
#[derive(Clone, Copy)]
enum Limit {
    Call,
    /// kubelet doubles the timeout for sandboxes, whose network may be slow to set up.
    Sandbox,
    None,
}

/// What came of a call within its time.
type Outcome<T> = Result<Result<tonic::Response<T>, tonic::Status>, tokio::time::error::Elapsed>;

/// A handle on one runtime. Cheap to clone; all clones share one connection.
#[derive(Clone)]
pub struct Client {
    runtime: RuntimeServiceClient<Channel>,
    images: ImageServiceClient<Channel>,
    channel: Channel,
    socket: PathBuf,
    call: Duration,
    observer: Option<Arc<dyn Observer>>,
}

/// Is told of every call.
pub trait Observer: Send + Sync {
    /// A call has ended; `failed`: the runtime refused, or did not answer.
    fn called(&self, rpc: &'static str, took: Duration, failed: bool);
}

macro_rules! calls {
    ($($(#[$doc:meta])* $service:ident.$name:ident($request:ident) -> $response:ident, $rpc:literal, $limit:ident;)*) => {
        impl Client {
            $(
                $(#[$doc])*
                ///
                /// # Errors
                /// What the runtime answered, with the rpc's name.
                pub async fn $name(&self, request: v1::$request) -> Result<v1::$response, CallError> {
                    let mut client = self.$service.clone();
                    let (begun, limit) = (Instant::now(), self.limit(Limit::$limit));
                    let call = client.$name(with_timeout(request, limit));
                    // Not by `bounded`: a future that is handed over is held twice.
                    let outcome = tokio::time::timeout(limit, call).await;
                    self.ended($rpc, begun, outcome)
                }
            )*
        }
    };
}

calls! {
    /// Name and version of the runtime.
    runtime.version(VersionRequest) -> VersionResponse, "Version", Call;
    /// RuntimeReady and NetworkReady, runtime handlers and features.
    runtime.status(StatusRequest) -> StatusResponse, "Status", Call;
    /// The cgroup driver (containerd 2.0 and later).
    runtime.runtime_config(RuntimeConfigRequest) -> RuntimeConfigResponse, "RuntimeConfig", Call;
    /// The pod CIDR, for runtimes that template their CNI configuration.
    runtime.update_runtime_config(UpdateRuntimeConfigRequest) -> UpdateRuntimeConfigResponse, "UpdateRuntimeConfig", Call;
    /// Creates and starts a sandbox, its network included.
    runtime.run_pod_sandbox(RunPodSandboxRequest) -> RunPodSandboxResponse, "RunPodSandbox", Sandbox;
    /// Stops a sandbox and everything in it; idempotent.
    runtime.stop_pod_sandbox(StopPodSandboxRequest) -> StopPodSandboxResponse, "StopPodSandbox", Sandbox;
    /// Removes a stopped sandbox; idempotent.
    runtime.remove_pod_sandbox(RemovePodSandboxRequest) -> RemovePodSandboxResponse, "RemovePodSandbox", Sandbox;
    /// One sandbox, with its addresses.
    runtime.pod_sandbox_status(PodSandboxStatusRequest) -> PodSandboxStatusResponse, "PodSandboxStatus", Call;
    /// All sandboxes that a filter lets through.
    runtime.list_pod_sandbox(ListPodSandboxRequest) -> ListPodSandboxResponse, "ListPodSandbox", Call;
    /// Creates a container in a sandbox.
    runtime.create_container(CreateContainerRequest) -> CreateContainerResponse, "CreateContainer", Call;
    /// Starts a created container.
    runtime.start_container(StartContainerRequest) -> StartContainerResponse, "StartContainer", Call;
    /// Removes a container; idempotent.
    runtime.remove_container(RemoveContainerRequest) -> RemoveContainerResponse, "RemoveContainer", Call;
    /// All containers that a filter lets through.
    runtime.list_containers(ListContainersRequest) -> ListContainersResponse, "ListContainers", Call;
    /// One container.
    runtime.container_status(ContainerStatusRequest) -> ContainerStatusResponse, "ContainerStatus", Call;
    /// Changes the cgroup limits of a running container.
    runtime.update_container_resources(UpdateContainerResourcesRequest) -> UpdateContainerResourcesResponse, "UpdateContainerResources", Call;
    /// Tells of the resources of a pod whose cgroup is about to change (containerd 2.2 and later know the call).
    runtime.update_pod_sandbox_resources(UpdatePodSandboxResourcesRequest) -> UpdatePodSandboxResourcesResponse, "UpdatePodSandboxResources", Call;
    /// Makes the runtime reopen a log file that was rotated away.
    runtime.reopen_container_log(ReopenContainerLogRequest) -> ReopenContainerLogResponse, "ReopenContainerLog", Call;
    /// The URL at which the runtime streams an exec session.
    runtime.exec(ExecRequest) -> ExecResponse, "Exec", Call;
    /// The URL at which the runtime streams an attach session.
    runtime.attach(AttachRequest) -> AttachResponse, "Attach", Call;
    /// The URL at which the runtime streams a port-forward session.
    runtime.port_forward(PortForwardRequest) -> PortForwardResponse, "PortForward", Call;
    /// CPU, memory and disk use of one container.
    runtime.container_stats(ContainerStatsRequest) -> ContainerStatsResponse, "ContainerStats", Call;
    /// CPU, memory and disk use of containers.
    runtime.list_container_stats(ListContainerStatsRequest) -> ListContainerStatsResponse, "ListContainerStats", Call;
    /// All images.
    images.list_images(ListImagesRequest) -> ListImagesResponse, "ListImages", Call;
    /// One image; `image` is unset where there is none.
    images.image_status(ImageStatusRequest) -> ImageStatusResponse, "ImageStatus", Call;
    /// Pulls an image and answers its reference.
    images.pull_image(PullImageRequest) -> PullImageResponse, "PullImage", None;
    /// Removes an image; idempotent.
    images.remove_image(RemoveImageRequest) -> RemoveImageResponse, "RemoveImage", Call;
    /// Where images lie and how much they take.
    images.image_fs_info(ImageFsInfoRequest) -> ImageFsInfoResponse, "ImageFsInfo", Call;
}

impl Client {
    /// A client of the runtime at `unix:///path` (a bare absolute path is accepted too). Connects at the first call.
    ///
    /// # Errors
    /// When the endpoint is not a unix socket's.
    pub fn new(endpoint: &str) -> Result<Self, EndpointError> {
        let socket = self::endpoint(endpoint)?;
        Ok(Self::over(channel(&socket), socket))
    }

    /// The same client, for which images are the affair of another program.
    ///
    /// # Errors
    /// When the endpoint is not a unix socket's.
    pub fn with_images_at(self, endpoint: &str) -> Result<Self, EndpointError> {
        let images = ImageServiceClient::new(channel(&self::endpoint(endpoint)?));
        Ok(Self { images: images.max_decoding_message_size(MAX_MESSAGE), ..self })
    }

    /// The same client, which gives up after so long: pulls later, sandboxes after twice that.
    #[must_use]
    pub fn within(self, call: Duration) -> Self {
        Self { call, ..self }
    }

    fn limit(&self, limit: Limit) -> Duration {
        match limit {
            Limit::Call => self.call,
            Limit::Sandbox => self.call * 2,
            Limit::None => FOREVER,
        }
    }

    /// A client over a channel of the caller's (a fake runtime in the same process).
    #[must_use]
    pub fn over(channel: Channel, socket: PathBuf) -> Self {
        let runtime = RuntimeServiceClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE);
        let images = ImageServiceClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE);
        Self { runtime, images, channel, socket, call: CALL, observer: None }
    }

    /// The same client, whose calls somebody is told of.
    #[must_use]
    pub fn observed(self, observer: impl Observer + 'static) -> Self {
        Self { observer: Some(Arc::new(observer)), ..self }
    }

    /// The socket this client talks to.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The connection itself, for containerd's own services beside CRI ([`crate::import`], [`crate::events`]).
    #[must_use]
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    pub(crate) fn runtime(&self) -> RuntimeServiceClient<Channel> {
        self.runtime.clone()
    }

    /// Stops a container: SIGTERM (or its stop signal), then SIGKILL after `grace_seconds`. The call lasts as long.
    ///
    /// # Errors
    /// What the runtime answered.
    pub async fn stop_container(&self, container_id: &str, grace_seconds: i64) -> Result<(), CallError> {
        const RPC: &str = "StopContainer";
        let timeout = self.call + Duration::from_secs(u64::try_from(grace_seconds).unwrap_or(0));
        let request = v1::StopContainerRequest { container_id: container_id.to_owned(), timeout: grace_seconds };
        let mut client = self.runtime.clone();
        self.bounded(RPC, timeout, client.stop_container(with_timeout(request, timeout))).await.map(drop)
    }

    /// Runs a command in a container and waits for it. `timeout` of zero means none; when it passes, the runtime kills the
    /// command and answers `DeadlineExceeded`.
    ///
    /// # Errors
    /// What the runtime answered; a command that fails is no error but an exit code.
    pub async fn exec_sync(
        &self,
        container_id: &str,
        cmd: Vec<String>,
        timeout: Duration,
    ) -> Result<v1::ExecSyncResponse, CallError> {
        const RPC: &str = "ExecSync";
        let seconds = i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX);
        let request = v1::ExecSyncRequest { container_id: container_id.to_owned(), cmd, timeout: seconds };
        let mut client = self.runtime.clone();
        // The runtime keeps the deadline; ours is later by enough for its answer to arrive.
        let ours = if timeout.is_zero() { FOREVER } else { timeout + Duration::from_secs(10) };
        self.bounded(RPC, ours, client.exec_sync(with_timeout(request, ours))).await
    }

    /// Status of one sandbox by id.
    ///
    /// # Errors
    /// What the runtime answered.
    pub async fn sandbox(&self, id: &str) -> Result<PodSandboxStatusResponse, CallError> {
        self.pod_sandbox_status(v1::PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: false }).await
    }

    /// Status of one container by id.
    ///
    /// # Errors
    /// What the runtime answered.
    pub async fn container(&self, id: &str) -> Result<ContainerStatusResponse, CallError> {
        self.container_status(v1::ContainerStatusRequest { container_id: id.to_owned(), verbose: false }).await
    }

    async fn bounded<T>(
        &self,
        rpc: &'static str,
        timeout: Duration,
        call: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    ) -> Result<T, CallError> {
        let begun = Instant::now();
        let outcome = tokio::time::timeout(timeout, call).await;
        self.ended(rpc, begun, outcome)
    }

    fn ended<T>(&self, rpc: &'static str, begun: Instant, outcome: Outcome<T>) -> Result<T, CallError> {
        let too_late = |_| Err(tonic::Status::deadline_exceeded("context deadline exceeded"));
        let result = outcome.unwrap_or_else(too_late).map(tonic::Response::into_inner);
        if let Some(observer) = &self.observer {
            observer.called(rpc, begun.elapsed(), result.is_err());
        }
        result.map_err(|status| CallError::new(rpc, status))
    }
}

/// The socket that an endpoint names, `unix:///path` or a bare absolute path.
///
/// # Errors
/// When it is not a unix socket's.
pub fn endpoint(text: &str) -> Result<PathBuf, EndpointError> {
    let path = text.strip_prefix("unix://").unwrap_or(text);
    if path.starts_with('/') { Ok(PathBuf::from(path)) } else { Err(EndpointError::NotUnix(text.to_owned())) }
}

/// The runtime learns the deadline too and gives up with us.
fn with_timeout<T>(message: T, timeout: Duration) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(timeout);
    request
}

fn channel(socket: &Path) -> Channel {
    let socket = socket.to_owned();
    // The authority is never resolved: the connector opens the socket. containerd wants a valid one all the same.
    Endpoint::from_static("http://localhost").connect_with_connector_lazy(tower::service_fn(move |_: http::Uri| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    }))
}
