//! Who may use an image that is there (KEP-2535): what was pulled by whom is written down, so that a pod without the
//! credentials that an image was pulled with must show that it has others. The files are a kubelet's
//! (`image_manager/pulling` and `/pulled`, `kubelet.config.k8s.io/v1beta1`).

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use api::image::Reference;
use base16ct::lower::encode_string;
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::sync::Mutex;

use super::keyring::{Credential, SecretRef};
use crate::config::kubelet::API_VERSION;
use crate::config::write_private;

/// A record is not made longer by merely looking at it when it has this many secrets (`writeRecordWhileMatchingLimit`).
const MANY: usize = 100;

/// `imagePullCredentialsVerificationPolicy`
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Policy {
    /// An image that is there is for everybody.
    NeverVerify,
    /// Images that the agent did not pull are for everybody.
    NeverVerifyPreloadedImages,
    /// Images of these names are for everybody. A pattern that ends in `/*` is a prefix.
    NeverVerifyAllowlistedImages(Vec<String>),
    /// No image is for everybody.
    AlwaysVerify,
}

impl Policy {
    /// From the configuration, which was validated.
    #[must_use]
    pub fn new(name: &str, allowlist: &[String]) -> Self {
        match name {
            "NeverVerify" => Self::NeverVerify,
            "NeverVerifyAllowlistedImages" => Self::NeverVerifyAllowlistedImages(allowlist.to_vec()),
            "AlwaysVerify" => Self::AlwaysVerify,
            _ => Self::NeverVerifyPreloadedImages,
        }
    }

    /// Whether credentials count for an image, which the agent has pulled or not.
    fn verifies(&self, image: &str, pulled_by_us: bool) -> bool {
        match self {
            Self::NeverVerify => false,
            Self::NeverVerifyPreloadedImages => pulled_by_us,
            Self::AlwaysVerify => true,
            Self::NeverVerifyAllowlistedImages(patterns) => {
                let name = untagged(image);
                !patterns.iter().any(|pattern| match pattern.strip_suffix('*') {
                    Some(prefix) => name.starts_with(prefix),
                    None => name == *pattern,
                })
            }
        }
    }
}

/// What is wrong with a pattern of `preloadedImagesVerificationAllowlist`, in upstream's words.
#[must_use]
pub fn check_pattern(pattern: &str) -> Option<String> {
    if pattern != pattern.trim() {
        return Some(format!("leading/trailing spaces are not allowed: {pattern}"));
    }
    let prefix = pattern.strip_suffix("/*");
    let name = prefix.unwrap_or(pattern);
    if pattern.is_empty() {
        return Some(format!("the supplied pattern is too short: {pattern}"));
    }
    if name.contains('*') {
        return Some(format!("not a valid wildcard pattern, only patterns ending with '/*' are allowed: {pattern}"));
    }
    if prefix.is_some() {
        return name.is_empty().then(|| "at least registry hostname is required".to_owned());
    }
    match Reference::parse(name) {
        Err(error) => Some(format!("failed to parse as an image name: {error}")),
        Ok(reference) if reference.tag.is_some() || reference.digest.is_some() => {
            Some(format!("neither tag nor digest is accepted in an image reference: {pattern}"))
        }
        Ok(_) => None,
    }
}

/// A name as it was given, without tag and digest.
fn untagged(image: &str) -> String {
    let Ok(reference) = Reference::parse(image) else { return image.to_owned() };
    let mut name = image;
    if let Some(digest) = &reference.digest {
        name = name.strip_suffix(&format!("@{digest}")).unwrap_or(name);
    }
    if let Some(tag) = &reference.tag {
        name = name.strip_suffix(&format!(":{tag}")).unwrap_or(name);
    }
    name.to_owned()
}

/// `ImagePullIntent`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Intent {
    kind: String,
    api_version: String,
    image: String,
}

/// `ImagePulledRecord`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pulled {
    kind: String,
    api_version: String,
    last_updated_time: Timestamp,
    image_ref: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    credential_mapping: BTreeMap<String, Access>,
}

/// `ImagePullCredentials`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Access {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    kubernetes_secrets: Vec<UsedSecret>,
    /// Without secrets, or with the node's own.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    node_pods_accessible: bool,
}

/// `ImagePullSecret`
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct UsedSecret {
    #[serde(flatten)]
    of: SecretRef,
    credential_hash: String,
}

impl UsedSecret {
    fn new(credential: &Credential) -> Option<Self> {
        let of = credential.secret.clone()?;
        Some(Self { of, credential_hash: credential.hash() })
    }
}

impl Access {
    /// What a pull with these credentials proves.
    fn by(credential: Option<&Credential>) -> Self {
        match credential.and_then(UsedSecret::new) {
            Some(secret) => Self { kubernetes_secrets: vec![secret], node_pods_accessible: false },
            None => Self { kubernetes_secrets: Vec::new(), node_pods_accessible: true },
        }
    }

    /// Adds what another pull has proved. Whether that changed anything.
    fn merge(&mut self, other: &Self) -> bool {
        if self.node_pods_accessible {
            return false;
        }
        let before = self.clone();
        if other.node_pods_accessible {
            *self = other.clone();
        }
        for secret in &other.kubernetes_secrets {
            self.kubernetes_secrets.retain(|known| known.of != secret.of);
            self.kubernetes_secrets.push(secret.clone());
        }
        self.kubernetes_secrets.sort();
        *self != before
    }
}

/// Whether a pod may use an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It may, whoever it is.
    Allowed,
    /// It must pull.
    MustPull,
    /// That depends on its credentials: [`Records::judge`].
    Depends(Pulled),
}

/// What the record of an image says about a pod's credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    /// The pod may use the image.
    Allowed,
    /// It may, and the record should know its secret as well.
    AllowedBy(UsedSecret),
    /// It must pull.
    MustPull,
}

fn decide(record: Option<Pulled>, image: &str) -> Answer {
    let name = untagged(image);
    let Some(record) = record.filter(|record| record.credential_mapping.contains_key(&name)) else {
        return Answer::MustPull;
    };
    match record.credential_mapping.get(&name) {
        Some(access) if access.node_pods_accessible => Answer::Allowed,
        Some(access) if !access.kubernetes_secrets.is_empty() => Answer::Depends(record),
        _ => Answer::MustPull,
    }
}

/// With the pod's credentials: the same ones in whatever secret, or the same secret with others.
fn decide_with(record: &Pulled, image: &str, credentials: &[Credential]) -> Verdict {
    let Some(access) = record.credential_mapping.get(&untagged(image)) else { return Verdict::MustPull };
    let room = access.kubernetes_secrets.len() < MANY;
    for own in credentials.iter().filter_map(UsedSecret::new) {
        for known in &access.kubernetes_secrets {
            let (same_hash, same_secret) = (known.credential_hash == own.credential_hash, known.of == own.of);
            match (same_hash, same_secret) {
                (true, true) => return Verdict::Allowed,
                (true, false) => return if room { Verdict::AllowedBy(own) } else { Verdict::Allowed },
                (false, true) if room => return Verdict::AllowedBy(own),
                _ => {}
            }
        }
    }
    Verdict::MustPull
}

/// The records on the disk.
pub struct Records {
    policy: Policy,
    pulling: PathBuf,
    pulled: PathBuf,
    /// Pulls that are under way, by image; also makes writers take turns.
    under_way: Mutex<BTreeMap<String, usize>>,
}

impl Records {
    /// Records below the agent's folder.
    #[must_use]
    pub fn new(data_dir: &Path, policy: Policy) -> Self {
        let folder = data_dir.join("image_manager");
        Self { policy, pulling: folder.join("pulling"), pulled: folder.join("pulled"), under_way: Mutex::default() }
    }

    /// Whether a pod may use an image that is there, as far as that can be told without its credentials.
    pub async fn look(&self, image: &str, image_ref: &str) -> Answer {
        if self.policy == Policy::NeverVerify {
            return Answer::Allowed;
        }
        let record = match read::<Pulled>(&self.pulled_path(image_ref)).await {
            Ok(record) => record,
            Err(error) => {
                tracing::warn!(%error, image, "the record of an image cannot be read, it is pulled again");
                return Answer::MustPull;
            }
        };
        let ours = record.is_some() || tokio::fs::try_exists(file(&self.pulling, image)).await.unwrap_or(true);
        if self.policy.verifies(image, ours) { decide(record, image) } else { Answer::Allowed }
    }

    /// The same, once the pod's credentials are known: whether it must pull.
    pub async fn judge(&self, image: &str, record: &Pulled, credentials: &[Credential]) -> bool {
        match decide_with(record, image, credentials) {
            Verdict::Allowed => false,
            Verdict::MustPull => true,
            Verdict::AllowedBy(secret) => {
                let access = Access { kubernetes_secrets: vec![secret], node_pods_accessible: false };
                self.write(image, &record.image_ref, Some(&access)).await;
                false
            }
        }
    }

    /// A pull is about to begin: written down first, so that the image counts as pulled whatever comes.
    ///
    /// # Errors
    /// The folder cannot be written to.
    pub async fn intend(&self, image: &str) -> io::Result<()> {
        let mut under_way = self.under_way.lock().await;
        let intent =
            Intent { kind: "ImagePullIntent".into(), api_version: API_VERSION.into(), image: image.to_owned() };
        save(&file(&self.pulling, image), &intent).await?;
        *under_way.entry(image.to_owned()).or_default() += 1;
        Ok(())
    }

    /// The pull failed.
    pub async fn failed(&self, image: &str) {
        let mut under_way = self.under_way.lock().await;
        let left = under_way.get(image).copied().unwrap_or(1).saturating_sub(1);
        if left > 0 {
            under_way.insert(image.to_owned(), left);
            return;
        }
        under_way.remove(image);
        remove(&file(&self.pulling, image)).await;
    }

    /// The pull succeeded with these credentials, or without any.
    pub async fn succeeded(&self, image: &str, image_ref: &str, credential: Option<&Credential>) {
        if self.write(image, image_ref, Some(&Access::by(credential))).await {
            self.failed(image).await;
        }
    }

    /// Pulls that an earlier agent did not see the end of: what is there now counts as pulled, by nobody in particular.
    pub async fn recover(&self, images: &[cri::v1::Image]) {
        for intent in list::<Intent>(&self.pulling).await {
            let named = |image: &&cri::v1::Image| {
                image.repo_tags.iter().chain(&image.repo_digests).any(|name| *name == intent.image)
                    || api::image::normalise(&intent.image).is_ok_and(|name| image.repo_tags.contains(&name))
            };
            if let Some(image) = images.iter().find(named)
                && !self.write(&intent.image, &image.id, None).await
            {
                continue;
            }
            remove(&file(&self.pulling, &intent.image)).await;
        }
    }

    /// Forgets images that are not there any more, unless they were pulled after `begun`.
    pub async fn prune(&self, images: &[String], begun: Timestamp) {
        let _turn = self.under_way.lock().await;
        for record in list::<Pulled>(&self.pulled).await {
            if record.last_updated_time < begun && !images.contains(&record.image_ref) {
                remove(&self.pulled_path(&record.image_ref)).await;
            }
        }
    }

    fn pulled_path(&self, image_ref: &str) -> PathBuf {
        file(&self.pulled, image_ref)
    }

    /// Adds what is known now to a record. Whether it is on the disk.
    async fn write(&self, image: &str, image_ref: &str, access: Option<&Access>) -> bool {
        let _turn = self.under_way.lock().await;
        let path = self.pulled_path(image_ref);
        let mut record = read::<Pulled>(&path).await.ok().flatten();
        if !update(&mut record, image, image_ref, access) {
            return true;
        }
        let saved = match &record {
            Some(record) => save(&path, record).await,
            None => Ok(()),
        };
        saved.inspect_err(|error| tracing::warn!(%error, image, "the record of an image cannot be written")).is_ok()
    }
}

/// Brings a record up to date; whether it changed.
fn update(record: &mut Option<Pulled>, image: &str, image_ref: &str, access: Option<&Access>) -> bool {
    let is_new = record.is_none();
    let record = record.get_or_insert_with(|| Pulled {
        kind: "ImagePulledRecord".into(),
        api_version: API_VERSION.into(),
        last_updated_time: Timestamp::now(),
        image_ref: image_ref.to_owned(),
        credential_mapping: BTreeMap::new(),
    });
    let changed = access.is_some_and(|access| match record.credential_mapping.get_mut(&untagged(image)) {
        Some(known) => known.merge(access),
        None => record.credential_mapping.insert(untagged(image), access.clone()).is_none(),
    });
    if changed {
        record.last_updated_time = Timestamp::now();
    }
    changed || is_new
}

fn file(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("sha256-{}", encode_string(&Sha256::digest(name))))
}

async fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match tokio::fs::read(path).await {
        Ok(content) => Ok(Some(serde_json::from_slice(&content)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

async fn list<T: DeserializeOwned>(folder: &Path) -> Vec<T> {
    let mut found = Vec::new();
    let Ok(mut entries) = tokio::fs::read_dir(folder).await else { return found };
    while let Ok(Some(entry)) = entries.next_entry().await {
        if entry.file_name().to_string_lossy().starts_with("sha256-") {
            found.extend(read(&entry.path()).await.ok().flatten());
        }
    }
    found
}

async fn save(path: &Path, value: &impl Serialize) -> io::Result<()> {
    let content = serde_json::to_vec(value)?;
    let path = path.to_owned();
    let write = move || {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        write_private(&path, &content)
    };
    tokio::task::spawn_blocking(write).await?
}

async fn remove(path: &Path) {
    if let Err(error) = tokio::fs::remove_file(path).await
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(%error, path = %path.display(), "the record of an image cannot be removed");
    }
}

#[cfg(test)]
mod tests;
