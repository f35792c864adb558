//! Labels and annotations that the kubelet puts on sandboxes and containers (pkg/kubelet/types/labels.go,
//! pkg/kubelet/kuberuntime/labels.go), and our own. A pod is found again by them after a restart.

pub const POD_NAME: &str = "io.kubernetes.pod.name";
pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
pub const POD_UID: &str = "io.kubernetes.pod.uid";
pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";

pub const HASH: &str = "io.kubernetes.container.hash";
pub const RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
pub const MESSAGE_PATH: &str = "io.kubernetes.container.terminationMessagePath";
pub const MESSAGE_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
pub const PORTS: &str = "io.kubernetes.container.ports";
pub const POD_GRACE: &str = "io.kubernetes.pod.terminationGracePeriod";

/// `StartContainer::backoff` of the container's start.
pub const BACKOFF: &str = "keelson.dev/backoff";
/// The resources that the container was created with, as JSON.
pub const RESOURCES: &str = "keelson.dev/resources";

/// The seconds since 1970 at which the pod was seen first, and where it comes from: annotations of the sandbox.
pub const CONFIG_SEEN: &str = "kubernetes.io/config.seen";
pub const CONFIG_SOURCE: &str = "kubernetes.io/config.source";
