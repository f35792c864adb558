//! The seam between the agent and the kernel's cgroups.

use std::path::Path;

use systemd::slices::Slices;

use crate::detect::Hierarchy;
use crate::name::{CgroupName, Naming, QosLevel, Tree};
use crate::stats::{Depth, Stats};
use crate::values::Values;
use crate::{Error, v1, v2};

/// What is done to cgroups. Every operation can be repeated, and blocks.
pub trait Driver: Send + Sync {
    /// How names are spelled, for CRI's `cgroup_parent`.
    fn naming(&self) -> Naming;

    /// Creates the cgroup and those above it where they are missing, and sets `values`.
    ///
    /// # Errors
    /// When a folder cannot be made or a value not written.
    fn ensure(&self, name: &CgroupName, values: &Values) -> Result<(), Error>;

    /// Sets `values` on a cgroup that others have made, and that may hold processes: nothing is created.
    ///
    /// # Errors
    /// [`Error::MissingPaths`] or [`Error::LacksControllers`] where it is not there as it must be, or when a value cannot be written.
    fn update(&self, name: &CgroupName, values: &Values) -> Result<(), Error>;

    /// Whether the cgroup is there in every hierarchy that it should be in.
    fn exists(&self, name: &CgroupName) -> bool;

    /// Kills what still runs in the cgroup and below, then removes it bottom up. One that is not there is removed.
    ///
    /// # Errors
    /// When a process outlives SIGKILL or a folder cannot be removed.
    fn destroy(&self, name: &CgroupName) -> Result<(), Error>;

    /// Processes in a cgroup and below. `cgroup` is as in [`Self::stats`].
    ///
    /// # Errors
    /// When they cannot be read.
    fn pids(&self, cgroup: &Path) -> Result<Vec<i32>, Error>;

    /// What a cgroup uses, everything below it included. `cgroup` is a path below the mount points, as
    /// [`Naming::relative`] spells names; containers' cgroups, which runtimes name, lie below those of their pods.
    ///
    /// # Errors
    /// When the cgroup is not there or its files are not understood.
    fn stats(&self, cgroup: &Path, depth: Depth) -> Result<Stats, Error>;

    /// Names of the folders directly below a cgroup, in any hierarchy; none when it is not there.
    ///
    /// # Errors
    /// When they cannot be read.
    fn children(&self, name: &CgroupName) -> Result<Vec<String>, Error>;
}

/// The cgroupfs driver for what is mounted.
///
/// # Errors
/// When controllers that Kubernetes needs are missing.
pub fn open(hierarchy: Hierarchy) -> Result<Box<dyn Driver>, Error> {
    Ok(match hierarchy {
        Hierarchy::V2 { mount } => Box::new(v2::Cgroupfs::new(mount)?),
        Hierarchy::V1 { controllers, others } => Box::new(v1::Cgroupfs::new(controllers, others)?),
    })
}

/// The systemd driver for what is mounted; pods are slices of `slices`.
///
/// # Errors
/// When controllers that Kubernetes needs are missing, or cgroups are of version 1: its machines keep to cgroupfs.
pub fn open_systemd(hierarchy: Hierarchy, slices: Slices) -> Result<Box<dyn Driver>, Error> {
    match hierarchy {
        Hierarchy::V2 { mount } => Ok(Box::new(crate::systemd::Systemd::new(mount, slices)?)),
        Hierarchy::V1 { .. } => Err(Error::SystemdOnV1),
    }
}

/// Pods that have a cgroup, on whatever level: after a restart, those of pods that are gone are orphans.
///
/// # Errors
/// When the tree cannot be read.
pub fn pods(driver: &dyn Driver, tree: &Tree) -> Result<Vec<(QosLevel, String)>, Error> {
    let mut found = Vec::new();
    for level in QosLevel::ALL {
        for child in driver.children(&tree.qos(level))? {
            found.extend(driver.naming().pod_uid(&child).map(|uid| (level, uid)));
        }
    }
    Ok(found)
}
