//! What the container runtime says about itself.

use std::path::PathBuf;
use std::time::Duration;

use cri::v1;
use k8s_openapi::api::core::v1::{ContainerImage, NodeFeatures, NodeRuntimeHandler, NodeRuntimeHandlerFeatures};
use tokio::time::Instant;

use crate::client::watch::describe;

/// One look at the runtime.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RuntimeState {
    /// Whether it answered this time.
    pub answers: bool,
    /// Why the node is not ready, in kubelet's words; empty when the runtime is.
    pub problems: Vec<String>,
    /// `status.runtimeHandlers`.
    pub handlers: Vec<NodeRuntimeHandler>,
    /// `status.features`.
    pub features: Option<NodeFeatures>,
}

/// How long a runtime may leave the question unanswered (`maxWaitForContainerRuntime`): one that is restarted is not down.
const TOLERATED: Duration = Duration::from_secs(30);

/// What the runtime said last.
#[derive(Debug, Default)]
pub struct LastSeen {
    state: RuntimeState,
    at: Option<Instant>,
}

impl LastSeen {
    /// Asks for conditions, handlers and features.
    pub async fn look(&mut self, runtime: &cri::Client) -> RuntimeState {
        let asked = tokio::time::timeout(TOLERATED, runtime.status(v1::StatusRequest { verbose: false })).await;
        let answer = match asked {
            Ok(Ok(answer)) => Some(answer),
            Ok(Err(error)) => {
                tracing::debug!(error = %describe(&error), "container runtime does not answer");
                None
            }
            Err(_) => {
                tracing::debug!("container runtime does not answer in time");
                None
            }
        };
        self.after(answer, Instant::now())
    }

    /// Without an answer that counts which was there last, but not for ever (`runtimeErrors`, `updateRuntimeUp`).
    fn after(&mut self, answer: Option<v1::StatusResponse>, now: Instant) -> RuntimeState {
        if let Some(answer) = answer {
            (self.state, self.at) = (state(answer), Some(now));
            return self.state.clone();
        }
        let mut state = RuntimeState { answers: false, ..self.state.clone() };
        if self.at.is_none_or(|at| now.saturating_duration_since(at) >= TOLERATED) {
            state.problems.insert(0, "container runtime is down".to_owned());
        }
        state
    }
}

fn state(answer: v1::StatusResponse) -> RuntimeState {
    let conditions = answer.status.map(|s| s.conditions).unwrap_or_default();
    let problem = |type_: &str, prefix: &str| {
        let condition = conditions.iter().find(|c| c.r#type == type_);
        match condition {
            Some(c) if c.status => None,
            Some(c) => Some(format!("{prefix}: {type_}=false reason:{} message:{}", c.reason, c.message)),
            None => Some(format!("{prefix}: {type_} condition is missing")),
        }
    };
    let problems = [
        problem("RuntimeReady", "container runtime not ready"),
        problem("NetworkReady", "container runtime network not ready"),
    ];
    let mut handlers: Vec<_> = answer.runtime_handlers.into_iter().map(handler).collect();
    // containerd has them in another order each time, which is no change.
    handlers.sort_by(|a, b| a.name.cmp(&b.name));
    RuntimeState {
        answers: true,
        problems: problems.into_iter().flatten().collect(),
        handlers,
        features: answer
            .features
            .map(|f| NodeFeatures { supplemental_groups_policy: Some(f.supplemental_groups_policy) }),
    }
}

fn handler(handler: v1::RuntimeHandler) -> NodeRuntimeHandler {
    NodeRuntimeHandler {
        name: Some(handler.name),
        features: handler.features.map(|f| NodeRuntimeHandlerFeatures {
            recursive_read_only_mounts: Some(f.recursive_read_only_mounts),
            user_namespaces: Some(f.user_namespaces),
        }),
    }
}

/// `containerd://1.7.2`: name and version as `status.nodeInfo` has them.
///
/// # Errors
/// The runtime does not answer.
pub async fn version(runtime: &cri::Client) -> Result<String, cri::CallError> {
    let answer = runtime.version(v1::VersionRequest { version: "v1".into() }).await?;
    Ok(format!("{}://{}", answer.runtime_name, answer.runtime_version.trim_start_matches('v')))
}

/// The folder that images lie in.
pub async fn image_folder(runtime: &cri::Client) -> Option<PathBuf> {
    let answer = runtime.image_fs_info(v1::ImageFsInfoRequest {}).await.ok()?;
    let first = answer.image_filesystems.into_iter().next()?;
    first.fs_id.map(|id| PathBuf::from(id.mountpoint)).filter(|path| path.is_absolute())
}

/// `status.images`: the largest first, at most `max` of them (all for -1), at most five names each
/// (`MaxNamesPerImageInNodeStatus`).
pub async fn images(runtime: &cri::Client, max: i32) -> Option<Vec<ContainerImage>> {
    let answer = runtime.list_images(v1::ListImagesRequest { filter: None }).await.ok()?;
    Some(image_list(answer.images, max))
}

fn image_list(mut images: Vec<v1::Image>, max: i32) -> Vec<ContainerImage> {
    images.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.id.cmp(&b.id)));
    if let Ok(max) = usize::try_from(max) {
        images.truncate(max);
    }
    images
        .into_iter()
        .map(|image| {
            let mut names = image.repo_digests;
            names.extend(image.repo_tags);
            names.truncate(5);
            ContainerImage { names: Some(names), size_bytes: i64::try_from(image.size).ok() }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn condition(type_: &str, status: bool) -> v1::RuntimeCondition {
        v1::RuntimeCondition {
            r#type: type_.into(),
            status,
            reason: "NetworkPluginNotReady".into(),
            message: "Network plugin returns error: cni plugin not initialized".into(),
        }
    }

    #[test]
    fn a_missing_network_is_told_in_kubelets_words() {
        let conditions = vec![condition("RuntimeReady", true), condition("NetworkReady", false)];
        let answer =
            v1::StatusResponse { status: Some(v1::RuntimeStatus { conditions }), ..v1::StatusResponse::default() };
        assert_eq!(
            state(answer).problems,
            ["container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady \
              message:Network plugin returns error: cni plugin not initialized"]
        );
    }

    #[test]
    fn a_runtime_is_down_when_it_was_silent_for_half_a_minute() {
        let answer = |network| v1::StatusResponse {
            status: Some(v1::RuntimeStatus {
                conditions: vec![condition("RuntimeReady", true), condition("NetworkReady", network)],
            }),
            runtime_handlers: ["b", "a"].map(|name| v1::RuntimeHandler { name: name.into(), features: None }).into(),
            ..v1::StatusResponse::default()
        };
        let (begun, mut last) = (Instant::now(), LastSeen::default());
        let mut after = |answer, seconds| last.after(answer, begun + Duration::from_secs(seconds));
        assert_eq!(after(None, 0).problems, ["container runtime is down"], "it never answered");
        let well = after(Some(answer(true)), 1);
        assert_eq!((well.problems.as_slice(), well.answers), ([].as_slice(), true));
        let silent = after(None, 30);
        assert_eq!((&silent.problems, &silent.handlers, silent.answers), (&well.problems, &well.handlers, false));
        assert_eq!(silent.handlers[0].name.as_deref(), Some("a"));
        assert_eq!(after(None, 31).problems, ["container runtime is down"]);
        // What it says of itself counts at once, and goes on to count.
        assert_eq!(after(Some(answer(false)), 32).problems.len(), 1);
        assert!(after(None, 40).problems[0].starts_with("container runtime network not ready"));
        assert_eq!(after(None, 70).problems.len(), 2);
    }

    #[test]
    fn images_are_sorted_and_cut() {
        let image = |id: &str, size| v1::Image {
            id: id.into(),
            size,
            repo_tags: vec![format!("{id}:1")],
            repo_digests: vec![format!("{id}@sha256:0")],
            ..v1::Image::default()
        };
        let list = image_list(vec![image("a", 1), image("b", 3), image("c", 2)], 2);
        assert_eq!(list.len(), 2);
        assert_eq!(list[0].names.as_deref().unwrap(), ["b@sha256:0", "b:1"]);
        assert_eq!(list[1].size_bytes, Some(2));
    }
}
