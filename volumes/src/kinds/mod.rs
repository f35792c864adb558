//! One module a volume type. Each says what the volume must hold; [`crate::setup`] makes it so.

pub mod claim;
pub mod config_map;
mod device;
pub mod downward_api;
pub mod empty_dir;
pub mod host_path;
pub mod local;
pub mod projected;
pub mod secret;

use k8s_openapi::api::core::v1::{
    ConfigMapVolumeSource, DownwardAPIVolumeSource, KeyToPath, PodSpec, ProjectedVolumeSource, SecretVolumeSource,
    Volume, VolumeProjection,
};

use crate::atomic::{File, Payload};
use crate::{Error, Reference};
pub use empty_dir::PagesError;

/// Permission bits where neither the item nor the volume says any.
const DEFAULT_MODE: i32 = 0o644;

/// A volume's type with what it was given.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    EmptyDir {
        medium: Medium,
        size_limit: Option<String>,
    },
    HostPath {
        path: String,
        check: String,
    },
    ConfigMap(ConfigMapVolumeSource),
    Secret(SecretVolumeSource),
    DownwardApi(DownwardAPIVolumeSource),
    Projected(ProjectedVolumeSource),
    /// The claim of this name.
    Claim {
        name: String,
        read_only: bool,
    },
    /// A type that Keelson does not have, by its field name.
    Unsupported(&'static str),
}

/// Where an emptyDir lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Medium {
    Disk,
    Memory,
    /// Pages of so many bytes.
    HugePages(u64),
    /// Pages of which the pod asks for no size, or for several.
    NoPages(PagesError),
    Unknown(String),
}

impl Kind {
    /// A volume's type. A volume without any is an emptyDir (the API server's default).
    #[must_use]
    pub fn of(volume: &Volume, spec: &PodSpec) -> Self {
        if let Some(source) = &volume.host_path {
            return Self::HostPath { path: source.path.clone(), check: source.type_.clone().unwrap_or_default() };
        }
        if let Some(source) = &volume.config_map {
            return Self::ConfigMap(source.clone());
        }
        if let Some(source) = &volume.secret {
            return Self::Secret(source.clone());
        }
        if let Some(source) = &volume.downward_api {
            return Self::DownwardApi(source.clone());
        }
        if let Some(source) = &volume.projected {
            return Self::Projected(source.clone());
        }
        if let Some(source) = &volume.persistent_volume_claim {
            return Self::Claim { name: source.claim_name.clone(), read_only: source.read_only.unwrap_or(false) };
        }
        match unsupported(volume) {
            Some(name) => Self::Unsupported(name),
            None => empty_dir::of(volume.empty_dir.as_ref(), spec),
        }
    }

    /// The plugin's name after `kubernetes.io/`, which names its folder.
    #[must_use]
    pub fn plugin(&self) -> &'static str {
        match self {
            Self::EmptyDir { .. } => "empty-dir",
            Self::HostPath { .. } => "host-path",
            Self::ConfigMap(_) => "configmap",
            Self::Secret(_) => "secret",
            Self::DownwardApi(_) => "downward-api",
            Self::Projected(_) => "projected",
            Self::Claim { .. } => local::PLUGIN,
            Self::Unsupported(name) => name,
        }
    }

    /// The objects that the volume is made from.
    pub(crate) fn references(&self) -> Vec<Reference> {
        let projected = |projection: &VolumeProjection| {
            let map = projection.config_map.as_ref().map(|source| Reference::ConfigMap(source.name.clone()));
            map.or_else(|| projection.secret.as_ref().map(|source| Reference::Secret(source.name.clone())))
        };
        match self {
            Self::ConfigMap(source) => vec![Reference::ConfigMap(source.name.clone())],
            Self::Secret(source) => vec![Reference::Secret(source.secret_name.clone().unwrap_or_default())],
            Self::Projected(source) => source.sources.iter().flatten().filter_map(projected).collect(),
            _ => Vec::new(),
        }
    }
}

fn unsupported(volume: &Volume) -> Option<&'static str> {
    [
        (volume.ephemeral.is_some(), "ephemeral"),
        (volume.csi.is_some(), "csi"),
        (volume.nfs.is_some(), "nfs"),
        (volume.iscsi.is_some(), "iscsi"),
        (volume.fc.is_some(), "fc"),
        (volume.git_repo.is_some(), "gitRepo"),
        (volume.flex_volume.is_some(), "flexVolume"),
        (volume.cephfs.is_some(), "cephfs"),
        (volume.rbd.is_some(), "rbd"),
        (volume.glusterfs.is_some(), "glusterfs"),
        (volume.aws_elastic_block_store.is_some(), "awsElasticBlockStore"),
        (volume.gce_persistent_disk.is_some(), "gcePersistentDisk"),
        (volume.azure_disk.is_some(), "azureDisk"),
        (volume.azure_file.is_some(), "azureFile"),
        (volume.cinder.is_some(), "cinder"),
        (volume.vsphere_volume.is_some(), "vsphereVolume"),
        (volume.portworx_volume.is_some(), "portworxVolume"),
        (volume.photon_persistent_disk.is_some(), "photonPersistentDisk"),
        (volume.quobyte.is_some(), "quobyte"),
        (volume.scale_io.is_some(), "scaleIO"),
        (volume.storageos.is_some(), "storageos"),
        (volume.flocker.is_some(), "flocker"),
    ]
    .into_iter()
    .find_map(|(set, name)| set.then_some(name))
}

/// The bits of the first mode that is set.
fn mode(item: Option<i32>, volume: Option<i32>) -> u32 {
    // Negative modes do not pass the API's validation.
    u32::try_from(item.or(volume).unwrap_or(DEFAULT_MODE)).unwrap_or(0o644) & 0o7777
}

/// Files for the keys that `items` picks, or for all keys under their own name.
fn pick(
    keys: impl Iterator<Item = (String, Vec<u8>)>,
    items: Option<&[KeyToPath]>,
    default_mode: Option<i32>,
    optional: bool,
    missing: impl Fn(String) -> Error,
) -> Result<Payload, Error> {
    let mut keys: std::collections::BTreeMap<_, _> = keys.collect();
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        let bits = mode(None, default_mode);
        return Ok(keys.into_iter().map(|(key, data)| (key, File { data, mode: bits, owner: None })).collect());
    };
    let mut payload = Payload::new();
    for item in items {
        match keys.get_mut(&item.key) {
            Some(data) => {
                let file = File { data: data.clone(), mode: mode(item.mode, default_mode), owner: None };
                payload.insert(item.path.clone(), file);
            }
            None if optional => {}
            None => return Err(missing(item.key.clone())),
        }
    }
    Ok(payload)
}
