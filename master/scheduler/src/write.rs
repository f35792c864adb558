//! What the scheduler writes: bindings, the PodScheduled condition, events.

use std::time::Duration;

use api::volumes::{BIND_COMPLETED, BOUND_BY_CONTROLLER, SELECTED_NODE, claim_ref, has_annotation, is_bound_to};
use k8s_openapi::api::core::v1::{Binding, ObjectReference, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client, ResourceExt};
use machinery::{EventType, Recorder, reference};
use serde_json::{Value, json};

use crate::decide::Decision;
use crate::pod::{DISRUPTION_TARGET, PREEMPTED, PodInfo};
use crate::preemption::Preemption;
use crate::volumes::Choice;

/// How long the volumes of a pod may take (`bindTimeoutSeconds`).
const BIND_TIMEOUT: Duration = Duration::from_secs(600);
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Writes on behalf of the scheduler. Cloning is cheap.
#[derive(Clone)]
pub struct Writer {
    client: Client,
    recorder: Recorder,
    scheduler_name: &'static str,
}

impl Writer {
    /// A writer with this identity.
    pub fn new(client: Client, recorder: Recorder, scheduler_name: &'static str) -> Self {
        Self { client, recorder, scheduler_name }
    }

    /// Binds what the pod's claims get, and then the pod.
    ///
    /// # Errors
    /// Why it is not bound, for people.
    pub async fn place(&self, pod: &PodInfo, decision: &Decision) -> Result<(), String> {
        for choice in &decision.volumes {
            self.choose(choice, &decision.node).await.map_err(|error| format!("binding volumes: {error}"))?;
        }
        for choice in &decision.volumes {
            self.bound(&choice.claim).await.map_err(|error| format!("binding volumes: {error}"))?;
        }
        self.bind(pod, &decision.node).await.map_err(|error| error.to_string())
    }

    /// Tells the binder of volumes what was chosen for a claim: the volume, or the node that a driver makes one for.
    async fn choose(&self, choice: &Choice, node: &str) -> Result<(), String> {
        let told = |error: kube::Error| error.to_string();
        let (claims, name) = self.claims(&choice.claim);
        let mut claim = claims.get(name).await.map_err(told)?;
        let Some(volume) = &choice.volume else {
            claim.annotations_mut().insert(SELECTED_NODE.to_owned(), node.to_owned());
            return claims.replace(name, &PostParams::default(), &claim).await.map(drop).map_err(told);
        };
        let volumes = Api::<PersistentVolume>::all(self.client.clone());
        let mut bound = volumes.get(volume).await.map_err(told)?;
        if !is_bound_to(&bound, &claim) {
            if claim_ref(&bound).is_some() {
                return Err(format!("volume {volume:?} already bound to a different claim."));
            }
            bound.annotations_mut().insert(BOUND_BY_CONTROLLER.to_owned(), "yes".to_owned());
        }
        bound.spec.get_or_insert_default().claim_ref = Some(reference(&claim));
        // Whoever came first has it: what was read is what is replaced.
        volumes.replace(volume, &PostParams::default(), &bound).await.map(drop).map_err(told)
    }

    /// Waits until a claim is bound.
    async fn bound(&self, claim: &str) -> Result<(), String> {
        let (claims, name) = self.claims(claim);
        let bound = async {
            loop {
                let claim = claims.get(name).await.map_err(|error| error.to_string())?;
                let phase = claim.status.as_ref().and_then(|status| status.phase.as_deref());
                if has_annotation(claim.metadata.annotations.as_ref(), BIND_COMPLETED) && phase == Some("Bound") {
                    return Ok(());
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        let late = |_| "timed out waiting for the condition".to_owned();
        tokio::time::timeout(BIND_TIMEOUT, bound).await.map_err(late)?
    }

    fn claims<'a>(&self, key: &'a str) -> (Api<PersistentVolumeClaim>, &'a str) {
        let (namespace, name) = machinery::split_key(key);
        (Api::namespaced(self.client.clone(), namespace), name)
    }

    /// Binds the pod to the node.
    async fn bind(&self, pod: &PodInfo, node: &str) -> Result<(), kube::Error> {
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

    /// Makes the victims of a pod leave, each with a note in its status why.
    ///
    /// # Errors
    /// Why one of them stays, for people.
    pub async fn preempt(&self, pod: &PodInfo, preemption: &Preemption) -> Result<(), String> {
        let each = preemption.victims.iter().map(|victim| self.evict(pod, victim, &preemption.node));
        futures::future::try_join_all(each).await.map(drop).map_err(|error| error.to_string())
    }

    async fn evict(&self, pod: &PodInfo, victim: &PodInfo, node: &str) -> Result<(), kube::Error> {
        let api = Api::<Pod>::namespaced(self.client.clone(), &victim.namespace);
        let gone = |error: &kube::Error| machinery::is_not_found(error) || machinery::is_conflict(error);
        let condition = json!({
            "type": DISRUPTION_TARGET,
            "status": "True",
            "reason": PREEMPTED,
            "message": format!("{}: preempting to accommodate a higher priority pod", self.scheduler_name),
            "lastProbeTime": null,
            "lastTransitionTime": Time(jiff::Timestamp::now()),
            "observedGeneration": victim.generation,
        });
        let status = json!({"conditions": [condition]});
        match self.patch_status(victim, status).await {
            Err(error) if gone(&error) => return Ok(()),
            patched => patched?,
        }
        let only_this = Preconditions { uid: Some(victim.uid.clone()), resource_version: None };
        match api.delete(&victim.name, &DeleteParams::default().preconditions(only_this)).await {
            Err(error) if gone(&error) => return Ok(()),
            deleted => deleted.map(drop)?,
        }
        let message = format!("Preempted by pod {} on node {node}", pod.uid);
        self.recorder.event_with_action(victim.reference(), EventType::Normal, ("Preempted", "Preempting"), message);
        Ok(())
    }

    /// Says in the pod's status which node room is made on, or that none is any more.
    pub async fn nominate(&self, pod: &PodInfo, node: Option<&str>) {
        if let Err(error) = self.patch_status(pod, json!({"nominatedNodeName": node})).await
            && !machinery::is_not_found(&error)
        {
            tracing::warn!(pod = pod.name, namespace = pod.namespace, %error, "could not write the nominated node");
        }
    }

    async fn patch_status(&self, pod: &PodInfo, status: Value) -> Result<(), kube::Error> {
        let patch = json!({"metadata": {"uid": pod.uid}, "status": status});
        let api = Api::<Pod>::namespaced(self.client.clone(), &pod.namespace);
        api.patch_status(&pod.name, &PatchParams::default(), &Patch::Strategic(patch)).await.map(drop)
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
            "observedGeneration": pod.generation,
        });
        if let Err(error) = self.patch_status(pod, json!({"conditions": [condition]})).await
            && !machinery::is_not_found(&error)
        {
            tracing::warn!(pod = pod.name, namespace = pod.namespace, %error, "could not write the PodScheduled condition");
        }
    }
}
