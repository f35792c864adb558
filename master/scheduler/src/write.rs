//! What the scheduler writes: bindings, the PodScheduled condition, events.

use k8s_openapi::api::core::v1::{Binding, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use machinery::{EventType, Recorder};
use serde_json::{Value, json};

use crate::pod::PodInfo;

/// Writes on behalf of the scheduler. Cloning is cheap.
#[derive(Clone)]
pub struct Writer {
    client: Client,
    recorder: Recorder,
}

impl Writer {
    /// A writer with this identity.
    pub fn new(client: Client, recorder: Recorder) -> Self {
        Self { client, recorder }
    }

    /// Binds the pod to the node.
    pub async fn bind(&self, pod: &PodInfo, node: &str) -> Result<(), kube::Error> {
        let binding = Binding {
            metadata: ObjectMeta {
                name: Some(pod.name.clone()),
                namespace: Some(pod.namespace.clone()),
                uid: Some(pod.uid.clone()),
                ..ObjectMeta::default()
            },
            target: ObjectReference {
                kind: Some("Node".into()),
                name: Some(node.to_owned()),
                ..ObjectReference::default()
            },
        };
        let api = Api::<Pod>::namespaced(self.client.clone(), &pod.namespace);
        api.create_subresource::<_, Value>("binding", &pod.name, &PostParams::default(), &binding).await?;
        let message = format!("Successfully assigned {}/{} to {node}", pod.namespace, pod.name);
        self.recorder.event_with_action(pod.reference(), EventType::Normal, ("Scheduled", "Binding"), message);
        Ok(())
    }

    /// Says in the pod's status and in an event why it has no node.
    pub async fn report_failure(&self, pod: &PodInfo, reason: &str, message: String) {
        self.recorder.event_with_action(
            pod.reference(),
            EventType::Warning,
            ("FailedScheduling", "Scheduling"),
            message.clone(),
        );
        if pod.unschedulable_message.as_ref() == Some(&message) {
            return;
        }
        let condition = json!({
            "type": "PodScheduled",
            "status": "False",
            "reason": reason,
            "message": message,
            "lastProbeTime": null,
            "lastTransitionTime": Time(jiff::Timestamp::now()),
        });
        let patch = json!({"metadata": {"uid": pod.uid}, "status": {"conditions": [condition]}});
        let api = Api::<Pod>::namespaced(self.client.clone(), &pod.namespace);
        if let Err(error) = api.patch_status(&pod.name, &PatchParams::default(), &Patch::Strategic(patch)).await
            && !machinery::is_not_found(&error)
        {
            tracing::warn!(pod = pod.name, namespace = pod.namespace, %error, "could not write the PodScheduled condition");
        }
    }
}
