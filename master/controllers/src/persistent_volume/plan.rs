//! What to do about a claim or a volume. Pure.

use api::volumes::{self, BIND_COMPLETED, BOUND_BY_CONTROLLER, Place};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use machinery::EventType;

/// On a claim: who is to make its volume.
const PROVISIONER: &str = "volume.kubernetes.io/storage-provisioner";
/// What older provisioners read.
const BETA_PROVISIONER: &str = "volume.beta.kubernetes.io/storage-provisioner";
/// On a volume: who made it.
const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// On a volume of a type that Kubernetes once served by itself: the driver that does now.
const MIGRATED_TO: &str = "pv.kubernetes.io/migrated-to";

/// What a claim is in for.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum ClaimStep<'a> {
    /// Both sides are to name each other.
    Bind(&'a PersistentVolume),
    /// `status.phase`, with nothing bound.
    Phase(&'static str),
    /// Who is to make a volume for it: external provisioners begin when the claim says so.
    Provisioner(String),
    /// Something to say: reason and message.
    Say(EventType, &'static str, String),
}

/// What is known beside the claim.
pub(super) struct Facts<'a> {
    pub(super) volumes: &'a [&'a PersistentVolume],
    pub(super) class: Option<&'a StorageClass>,
    /// Pods that use the claim and have no node yet.
    pub(super) waiting: &'a [String],
}

/// The steps for a claim.
pub(super) fn claim<'a>(claim: &PersistentVolumeClaim, facts: &Facts<'a>) -> Vec<ClaimStep<'a>> {
    let named = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()).unwrap_or_default();
    let volume = facts.volumes.iter().copied().find(|volume| volume.metadata.name.as_deref() == Some(named));
    let completed = volumes::has_annotation(claim.metadata.annotations.as_ref(), BIND_COMPLETED);
    match (completed, named.is_empty()) {
        (true, _) => bound(claim, named, volume),
        (false, true) => unbound(claim, facts),
        (false, false) => asked_for(claim, volume),
    }
}

/// A claim that was bound before: all is well, or it is lost for good.
fn bound<'a>(claim: &PersistentVolumeClaim, named: &str, volume: Option<&'a PersistentVolume>) -> Vec<ClaimStep<'a>> {
    let lost = |reason, text: &str| {
        let was_lost = phase_of(claim) == Some("Lost");
        let said = ClaimStep::Say(EventType::Warning, reason, text.to_owned());
        if was_lost { Vec::new() } else { vec![ClaimStep::Phase("Lost"), said] }
    };
    let Some(volume) = volume else {
        let text = match named {
            "" => "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!",
            _ => "Bound claim has lost its PersistentVolume. Data on the volume is lost!",
        };
        return lost("ClaimLost", text);
    };
    let owner = volumes::claim_ref(volume);
    if owner.is_none_or(|owner| owner.uid == claim.metadata.uid) {
        return vec![ClaimStep::Bind(volume)];
    }
    lost("ClaimMisbound", "Two claims are bound to the same volume, this one is bound incorrectly")
}

/// A claim that takes any volume that fits.
fn unbound<'a>(claim: &PersistentVolumeClaim, facts: &Facts<'a>) -> Vec<ClaimStep<'a>> {
    let delayed = facts.class.is_some_and(waits_for_consumer);
    if let Some(volume) = volumes::find(claim, facts.volumes.iter().copied(), Place::Anywhere { delayed }) {
        return vec![ClaimStep::Bind(volume)];
    }
    let selected = volumes::has_annotation(claim.metadata.annotations.as_ref(), volumes::SELECTED_NODE);
    let class = volumes::claim_class(claim);
    let mut steps = vec![ClaimStep::Phase("Pending")];
    if delayed && !selected {
        steps.push(wait(facts.waiting));
    } else if class.is_empty() {
        let text = "no persistent volumes available for this claim and no storage class is set";
        steps.push(ClaimStep::Say(EventType::Normal, "FailedBinding", text.to_owned()));
    } else {
        steps.extend(provision(claim, class, facts.class));
    }
    steps
}

/// Whether volumes of a class are chosen together with the node.
pub(super) fn waits_for_consumer(class: &StorageClass) -> bool {
    class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer")
}

fn wait(pods: &[String]) -> ClaimStep<'static> {
    let (reason, text) = match pods {
        [] => ("WaitForFirstConsumer", "waiting for first consumer to be created before binding".to_owned()),
        [one] => ("WaitForPodScheduled", format!("waiting for pod {one} to be scheduled")),
        many => ("WaitForPodScheduled", format!("waiting for pods {} to be scheduled", many.join(","))),
    };
    ClaimStep::Say(EventType::Normal, reason, text)
}

/// Nothing is provisioned here: that is for drivers beside this controller (`provisionClaimOperationExternal`).
fn provision(claim: &PersistentVolumeClaim, name: &str, class: Option<&StorageClass>) -> Vec<ClaimStep<'static>> {
    let failed = |text: String| vec![ClaimStep::Say(EventType::Warning, "ProvisioningFailed", text)];
    let Some(class) = class else {
        return failed(format!("storageclass.storage.k8s.io {name:?} not found"));
    };
    let provisioner = &class.provisioner;
    if provisioner.starts_with("kubernetes.io/") {
        return failed("no volume plugin matched".to_owned());
    }
    let text = format!(
        "Waiting for a volume to be created either by the external provisioner '{provisioner}' or manually by the system \
         administrator. If volume creation is delayed, please verify that the provisioner is running and correctly registered."
    );
    let said = claim.metadata.annotations.as_ref().and_then(|all| all.get(PROVISIONER));
    let tell = (said != Some(provisioner)).then(|| ClaimStep::Provisioner(provisioner.clone()));
    tell.into_iter().chain([ClaimStep::Say(EventType::Normal, "ExternalProvisioning", text)]).collect()
}

/// A claim that says who is to make its volume (`setClaimProvisioner`).
pub(super) fn with_provisioner(claim: &PersistentVolumeClaim, provisioner: &str) -> PersistentVolumeClaim {
    let mut told = claim.clone();
    let annotations = told.metadata.annotations.get_or_insert_default();
    for key in [PROVISIONER, BETA_PROVISIONER] {
        annotations.insert(key.to_owned(), provisioner.to_owned());
    }
    told
}

/// A claim that names its volume.
fn asked_for<'a>(claim: &PersistentVolumeClaim, volume: Option<&'a PersistentVolume>) -> Vec<ClaimStep<'a>> {
    let pending =
        |said: Option<ClaimStep<'a>>| [Some(ClaimStep::Phase("Pending")), said].into_iter().flatten().collect();
    let Some(volume) = volume else { return pending(None) };
    let name = volume.metadata.name.as_deref().unwrap_or_default();
    if volumes::is_bound_to(volume, claim) {
        return vec![ClaimStep::Bind(volume)];
    }
    if volumes::claim_ref(volume).is_some() {
        let text = format!("volume {name:?} already bound to a different claim.");
        return pending(Some(ClaimStep::Say(EventType::Warning, "FailedBinding", text)));
    }
    match volumes::mismatch(volume, claim) {
        None => vec![ClaimStep::Bind(volume)],
        Some(why) => {
            let text = format!("Cannot bind to requested volume {name:?}: {why}");
            pending(Some(ClaimStep::Say(EventType::Warning, "VolumeMismatch", text)))
        }
    }
}

/// `status.phase` of a claim.
pub(super) fn phase_of(claim: &PersistentVolumeClaim) -> Option<&str> {
    claim.status.as_ref()?.phase.as_deref()
}

/// What a volume is in for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum VolumeStep {
    /// `status.phase`.
    Phase(&'static str),
    /// Its claim is gone: keep, delete or complain, as its policy says.
    Reclaim,
    /// Its claim has another volume: it is free again.
    Unbind,
    /// The claim decides.
    AskClaim,
    /// What is wrong with it: said of the volume and of the claim.
    Mismatch { of_volume: String, of_claim: String },
}

/// The steps for a volume. `claim`: the one that it names, if that is still the same.
pub(super) fn volume(volume: &PersistentVolume, claim: Option<&PersistentVolumeClaim>) -> Vec<VolumeStep> {
    let Some(owner) = volumes::claim_ref(volume) else { return vec![VolumeStep::Phase("Available")] };
    if owner.uid.as_deref().unwrap_or_default().is_empty() {
        return vec![VolumeStep::Phase("Available"), VolumeStep::AskClaim];
    }
    let Some(claim) = claim else {
        let was = volume.status.as_ref().and_then(|status| status.phase.as_deref());
        let told = matches!(was, Some("Released" | "Failed"));
        let release = (!told).then_some(VolumeStep::Phase("Released"));
        return release.into_iter().chain([VolumeStep::Reclaim]).collect();
    };
    let has = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()).unwrap_or_default();
    let name = volume.metadata.name.as_deref().unwrap_or_default();
    if has == name {
        return vec![VolumeStep::Phase("Bound")];
    }
    if !has.is_empty() {
        return vec![VolumeStep::Unbind];
    }
    let mode = |mode: Option<&String>| mode.map_or("Filesystem", |mode| mode.as_str()).to_owned();
    let of_volume = mode(volume.spec.as_ref().and_then(|spec| spec.volume_mode.as_ref()));
    let of_claim = mode(claim.spec.as_ref().and_then(|spec| spec.volume_mode.as_ref()));
    if of_volume == of_claim {
        return vec![VolumeStep::AskClaim];
    }
    let claim = claim.metadata.name.as_deref().unwrap_or_default();
    vec![VolumeStep::Mismatch {
        of_volume: format!(
            "Cannot bind PersistentVolume to requested PersistentVolumeClaim {claim:?} due to incompatible volumeMode."
        ),
        of_claim: format!(
            "Cannot bind PersistentVolume {name:?} to requested PersistentVolumeClaim due to incompatible volumeMode."
        ),
    }]
}

/// Whether a driver of its own deletes what a volume stands for, which this controller then leaves alone
/// (`reclaimVolume`, `findDeletablePlugin`).
pub(super) fn is_deleted_elsewhere(volume: &PersistentVolume) -> bool {
    let says = |key: &str| {
        let value = volume.metadata.annotations.as_ref().and_then(|all| all.get(key));
        value.map(String::as_str).filter(|value| !value.is_empty())
    };
    if says(MIGRATED_TO).is_some() {
        return true;
    }
    match says(PROVISIONED_BY) {
        Some(provisioner) => !provisioner.starts_with("kubernetes.io/"),
        None => volume.spec.as_ref().is_some_and(|spec| spec.csi.is_some()),
    }
}

/// A volume as it must be to be the claim's; `None` when it is.
pub(super) fn bound_volume(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Option<PersistentVolume> {
    let owner = volumes::claim_ref(volume);
    let meta = &claim.metadata;
    let same = owner.is_some_and(|o| o.name == meta.name && o.namespace == meta.namespace && o.uid == meta.uid);
    let mark = !volumes::is_bound_to(volume, claim)
        && !volumes::has_annotation(volume.metadata.annotations.as_ref(), BOUND_BY_CONTROLLER);
    if same && !mark {
        return None;
    }
    let mut bound = volume.clone();
    bound.spec.get_or_insert_default().claim_ref = Some(machinery::reference(claim));
    if mark {
        annotate(&mut bound.metadata, BOUND_BY_CONTROLLER);
    }
    Some(bound)
}

/// A claim as it must be to have the volume; `None` when it is.
pub(super) fn bound_claim(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Option<PersistentVolumeClaim> {
    let name = volume.metadata.name.clone();
    let has = claim.spec.as_ref().and_then(|spec| spec.volume_name.clone()).filter(|name| !name.is_empty());
    let completed = volumes::has_annotation(claim.metadata.annotations.as_ref(), BIND_COMPLETED);
    if has == name && completed {
        return None;
    }
    let mut bound = claim.clone();
    if has != name {
        bound.spec.get_or_insert_default().volume_name = name;
        annotate(&mut bound.metadata, BOUND_BY_CONTROLLER);
    }
    annotate(&mut bound.metadata, BIND_COMPLETED);
    Some(bound)
}

/// The volume of a claim that has another: free, or kept for the claim where a person had said so.
pub(super) fn unbound_volume(volume: &PersistentVolume) -> PersistentVolume {
    let mut free = volume.clone();
    let annotations = free.metadata.annotations.as_mut();
    let by_controller = annotations.is_some_and(|all| all.remove(BOUND_BY_CONTROLLER).is_some());
    let spec = free.spec.get_or_insert_default();
    if by_controller {
        spec.claim_ref = None;
    } else if let Some(owner) = &mut spec.claim_ref {
        owner.uid = None;
        owner.resource_version = None;
    }
    free
}

fn annotate(meta: &mut k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta, key: &str) {
    meta.annotations.get_or_insert_default().insert(key.to_owned(), "yes".to_owned());
}
