//! Binds claims and persistent volumes to each other, and says what becomes of volumes whose claims are gone
//! (`pkg/controller/volume/persistentvolume`). Volumes are made by people, or by drivers beside this controller.

mod plan;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use api::volumes;
use k8s_openapi::api::core::v1::{
    ObjectReference, PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimStatus, PersistentVolumeStatus,
};
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client, ResourceExt};
use machinery::{EventType, Outcome, Recorder, Retry, WorkQueue, is_not_found, key_of, reference, split_key};

use crate::context::{Caches, Context};
use crate::pods;
use plan::{ClaimStep, Facts, VolumeStep};

const NAME: &str = "persistent-volume-binder";
const COMPONENT: &str = "persistentvolume-controller";
/// One: two claims must not be given the same volume.
const WORKERS: usize = 1;
/// How often what waits is told of again (upstream's resync).
const AGAIN: Duration = Duration::from_secs(15);
/// Keys of volumes begin so; those of claims have a slash in the middle.
const VOLUME: &str = "/";

type Pass<T> = Result<T, Retry<kube::Error>>;

struct Controller {
    client: Client,
    caches: Caches,
    recorder: Recorder,
    queue: Arc<WorkQueue>,
}

pub(crate) fn start(context: &mut Context) {
    let queue = WorkQueue::new();
    let caches = context.caches.clone();
    observe(&caches, &queue);
    let recorder = context.recorder(NAME, COMPONENT);
    let client = context.client(NAME);
    let controller = Controller { client, caches, recorder, queue: queue.clone() };
    context.spawn_workers(NAME, queue, WORKERS, controller, |it, key| async move {
        match key.strip_prefix(VOLUME) {
            Some(name) => it.volume(name).await,
            None => Box::pin(it.claim(&key)).await,
        }
    });
}

fn observe(caches: &Caches, queue: &Arc<WorkQueue>) {
    let (to, volumes) = (queue.clone(), caches.volumes.clone());
    caches.claims.on_change(move |change| {
        let claim = change.object();
        to.add(key_of(&claim.metadata));
        let owned = volumes.all().into_iter().filter(|volume| volumes::is_bound_to(volume, claim));
        owned.for_each(|volume| to.add(format!("{VOLUME}{}", volume.name_any())));
    });
    let (to, claims) = (queue.clone(), caches.claims.clone());
    caches.volumes.on_change(move |change| {
        let volume = change.object();
        to.add(format!("{VOLUME}{}", volume.name_any()));
        let name = volume.metadata.name.as_deref();
        let named = |claim: &PersistentVolumeClaim| {
            let has = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()).filter(|has| !has.is_empty());
            has == name || (has.is_none() && volumes::claim_class(claim) == volumes::volume_class(volume))
        };
        claims.all().iter().filter(|claim| named(claim)).for_each(|claim| to.add(key_of(&claim.metadata)));
    });
    let (to, claims) = (queue.clone(), caches.claims.clone());
    caches.storage_classes.on_change(move |change| {
        let class = change.object().name_any();
        let of_class = claims.all().into_iter().filter(|claim| volumes::claim_class(claim) == class);
        of_class.for_each(|claim| to.add(key_of(&claim.metadata)));
    });
}

impl Controller {
    async fn claim(&self, key: &str) -> Pass<Outcome> {
        let Some(claim) = self.caches.claims.get(key) else { return Ok(Outcome::Done) };
        let known = self.caches.volumes.all();
        let all: Vec<&PersistentVolume> = known.iter().map(AsRef::as_ref).collect();
        let class = self.caches.storage_classes.get(volumes::claim_class(&claim));
        let waiting = self.waiting(&claim);
        let facts = Facts { volumes: &all, class: class.as_deref(), waiting: &waiting };
        let mut outcome = Outcome::Done;
        let mut claim = PersistentVolumeClaim::clone(&claim);
        for step in plan::claim(&claim.clone(), &facts) {
            match step {
                ClaimStep::Bind(volume) => Box::pin(self.bind(volume, &claim)).await?,
                ClaimStep::Phase(phase) => claim = self.claim_status(&claim, phase, None).await?,
                ClaimStep::Provisioner(provisioner) => {
                    let told = plan::with_provisioner(&claim, &provisioner);
                    claim = self.claims(&claim).replace(&told.name_any(), &PostParams::default(), &told).await?;
                }
                ClaimStep::Say(kind, reason, text) => {
                    self.recorder.event(reference(&claim), kind, reason, text);
                    outcome = Outcome::After(AGAIN);
                }
            }
        }
        Ok(outcome)
    }

    /// Pods that use the claim and have no node yet.
    fn waiting(&self, claim: &PersistentVolumeClaim) -> Vec<String> {
        let users = self.caches.pods.indexed(&format!("claim/{}", key_of(&claim.metadata)));
        let waiting = users.iter().filter(|pod| pods::node_name(pod).is_none() && pods::is_active(pod));
        waiting.map(|pod| pod.name_any()).collect()
    }

    /// First the volume, then the claim: a crash in between is made good, as nobody else takes a volume that is taken.
    async fn bind(&self, volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Pass<()> {
        let all = Api::<PersistentVolume>::all(self.client.clone());
        let mut volume = volume.clone();
        if let Some(bound) = plan::bound_volume(&volume, claim) {
            volume = all.replace(&bound.name_any(), &PostParams::default(), &bound).await?;
        }
        let volume = self.volume_status(&volume, "Bound", None).await?;
        let own = self.claims(claim);
        let mut claim = claim.clone();
        if let Some(bound) = plan::bound_claim(&claim, &volume) {
            claim = own.replace(&bound.name_any(), &PostParams::default(), &bound).await?;
        }
        self.claim_status(&claim, "Bound", Some(&volume)).await?;
        Ok(())
    }

    fn claims(&self, claim: &PersistentVolumeClaim) -> Api<PersistentVolumeClaim> {
        Api::namespaced(self.client.clone(), claim.metadata.namespace.as_deref().unwrap_or_default())
    }

    async fn claim_status(
        &self,
        claim: &PersistentVolumeClaim,
        phase: &str,
        volume: Option<&PersistentVolume>,
    ) -> Pass<PersistentVolumeClaim> {
        let before = claim.status.clone().unwrap_or_default();
        let spec = volume.and_then(|volume| volume.spec.as_ref());
        // What a claim has was fixed when it was bound: a volume that grows is told by who lets it grow.
        let keeps = before.phase.as_deref() == Some("Bound") && volume.is_some();
        let capacity = if keeps { before.capacity.clone() } else { spec.and_then(|spec| spec.capacity.clone()) };
        let status = PersistentVolumeClaimStatus {
            phase: Some(phase.to_owned()),
            access_modes: spec.and_then(|spec| spec.access_modes.clone()),
            capacity,
            current_volume_attributes_class_name: spec.and_then(|spec| spec.volume_attributes_class_name.clone()),
            ..before.clone()
        };
        if status == before {
            return Ok(claim.clone());
        }
        let next = PersistentVolumeClaim { status: Some(status), ..claim.clone() };
        Ok(self.claims(claim).replace_status(&next.name_any(), &PostParams::default(), &next).await?)
    }

    async fn volume(&self, name: &str) -> Pass<Outcome> {
        let Some(volume) = self.caches.volumes.get(name) else { return Ok(Outcome::Done) };
        let mut volume = PersistentVolume::clone(&volume);
        let owner = volumes::claim_ref(&volume).cloned();
        let claim = match &owner {
            Some(owner) => self.owner(owner).await?,
            None => None,
        };
        let mut outcome = Outcome::Done;
        for step in plan::volume(&volume, claim.as_ref()) {
            match step {
                VolumeStep::Phase(phase) => volume = self.volume_status(&volume, phase, None).await?,
                VolumeStep::Reclaim => outcome = self.reclaim(&volume).await?,
                VolumeStep::Unbind => {
                    let free = plan::unbound_volume(&volume);
                    let all = Api::<PersistentVolume>::all(self.client.clone());
                    volume = all.replace(name, &PostParams::default(), &free).await?;
                    volume = self.volume_status(&volume, "Available", None).await?;
                }
                VolumeStep::AskClaim => self.queue.add(owner.as_ref().map(key_of_reference).unwrap_or_default()),
                VolumeStep::Mismatch { of_volume, of_claim } => {
                    self.recorder.event(reference(&volume), EventType::Warning, "VolumeMismatch", of_volume);
                    if let Some(claim) = &claim {
                        self.recorder.event(reference(claim), EventType::Warning, "VolumeMismatch", of_claim);
                    }
                }
            }
        }
        Ok(outcome)
    }

    /// The claim that a volume names, while it is the same one. Before a volume counts as left, the server is asked.
    async fn owner(&self, owner: &ObjectReference) -> Pass<Option<PersistentVolumeClaim>> {
        let key = key_of_reference(owner);
        let is_same = |claim: &PersistentVolumeClaim| claim.metadata.uid == owner.uid;
        if let Some(known) = self.caches.claims.get(&key).filter(|claim| is_same(claim)) {
            return Ok(Some(PersistentVolumeClaim::clone(&known)));
        }
        if owner.uid.as_deref().unwrap_or_default().is_empty() {
            return Ok(None);
        }
        let (namespace, name) = split_key(&key);
        let api = Api::<PersistentVolumeClaim>::namespaced(self.client.clone(), namespace);
        Ok(api.get_opt(name).await?.filter(is_same))
    }

    async fn volume_status(&self, volume: &PersistentVolume, phase: &str, why: Option<&str>) -> Pass<PersistentVolume> {
        let before = volume.status.clone().unwrap_or_default();
        if before.phase.as_deref() == Some(phase) && before.message.as_deref() == why {
            return Ok(volume.clone());
        }
        let changed = before.phase.as_deref() != Some(phase);
        let now = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::now());
        let status = PersistentVolumeStatus {
            phase: Some(phase.to_owned()),
            message: why.map(str::to_owned),
            last_phase_transition_time: if changed { Some(now) } else { before.last_phase_transition_time },
            ..PersistentVolumeStatus::default()
        };
        let next = PersistentVolume { status: Some(status), ..volume.clone() };
        let all = Api::<PersistentVolume>::all(self.client.clone());
        Ok(all.replace_status(&next.name_any(), &PostParams::default(), &next).await?)
    }

    /// What the policy says about a volume whose claim is gone.
    async fn reclaim(&self, volume: &PersistentVolume) -> Pass<Outcome> {
        let Some(spec) = &volume.spec else { return Ok(Outcome::Done) };
        let failed = match spec.persistent_volume_reclaim_policy.as_deref() {
            None | Some("Retain") => return Ok(Outcome::Done),
            Some("Delete") if plan::is_deleted_elsewhere(volume) => return Ok(Outcome::Done),
            Some("Delete") => match &spec.host_path {
                Some(source) => match delete_folder(source.path.clone()).await {
                    Ok(()) => return self.delete(volume).await,
                    Err(why) => ("VolumeFailedDelete", why),
                },
                None => ("VolumeFailedDelete", "no deletable volume plugin matched".to_owned()),
            },
            Some("Recycle") => ("VolumeFailedRecycle", "no recyclable volume plugin matched".to_owned()),
            Some(_) => {
                ("VolumeUnknownReclaimPolicy", "Volume has unrecognized PersistentVolumeReclaimPolicy".to_owned())
            }
        };
        let (reason, why) = failed;
        let told = volume.status.as_ref().is_some_and(|status| status.message.as_deref() == Some(&why));
        self.volume_status(volume, "Failed", Some(&why)).await?;
        if !told {
            self.recorder.event(reference(volume), EventType::Warning, reason, why);
        }
        Ok(Outcome::After(AGAIN))
    }

    async fn delete(&self, volume: &PersistentVolume) -> Pass<Outcome> {
        let all = Api::<PersistentVolume>::all(self.client.clone());
        match all.delete(&volume.name_any(), &DeleteParams::default()).await {
            Err(error) if !is_not_found(&error) => Err(Retry::from(error)),
            _ => Ok(Outcome::Done),
        }
    }
}

fn key_of_reference(claim: &ObjectReference) -> String {
    format!("{}/{}", claim.namespace.as_deref().unwrap_or_default(), claim.name.as_deref().unwrap_or_default())
}

/// Removes a hostPath of this machine, as the hostPath plugin of a kube-controller-manager does: for clusters of one
/// machine, and nothing but what lies below /tmp.
async fn delete_folder(path: String) -> Result<(), String> {
    let below = path.strip_prefix("/tmp/").is_some_and(|below| !below.is_empty());
    let climbs = Path::new(&path).components().any(|part| part == std::path::Component::ParentDir);
    if !below || climbs {
        return Err(format!("host_path deleter only supports /tmp/.+ but received provided {path}"));
    }
    let removed = tokio::task::spawn_blocking(move || match std::fs::remove_dir_all(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.to_string()),
        _ => Ok(()),
    });
    removed.await.unwrap_or_else(|error| Err(error.to_string()))
}
