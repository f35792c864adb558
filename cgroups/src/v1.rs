//! cgroupfs on cgroup v1: one folder in each controller's hierarchy.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::driver::Driver;
use crate::name::{CgroupName, Naming};
use crate::stats::{self, Depth, Stats};
use crate::values::{Values, files_v1};
use crate::{Error, fs};

/// Controllers without which limits cannot be kept (the kubelet's list, less `hugetlb` and `cpuset`, which it may miss).
const REQUIRED: [&str; 4] = ["cpu", "cpuacct", "memory", "pids"];

/// Where a cgroup of others' must be, as far as there are such hierarchies.
const EXPECTED: [&str; 6] = ["cpu", "cpuacct", "cpuset", "memory", "pids", "hugetlb"];

/// The hierarchies of a cgroup v1 machine.
#[derive(Debug)]
pub struct Cgroupfs {
    controllers: BTreeMap<String, PathBuf>,
    /// Hierarchies without a controller: runtimes put containers there too, so that they are cleaned but not filled.
    others: Vec<PathBuf>,
}

impl Cgroupfs {
    /// A driver over mount points by controller.
    ///
    /// # Errors
    /// When one that is needed is missing.
    pub fn new(controllers: BTreeMap<String, PathBuf>, others: Vec<PathBuf>) -> Result<Self, Error> {
        let missing: Vec<_> = REQUIRED.into_iter().filter(|name| !controllers.contains_key(*name)).collect();
        if missing.is_empty() { Ok(Self { controllers, others }) } else { Err(Error::MissingControllers { missing }) }
    }

    /// Mount points, each once: cpu and cpuacct often share theirs.
    fn mounts(&self) -> BTreeSet<&Path> {
        self.controllers.values().map(PathBuf::as_path).collect()
    }

    fn folder(&self, controller: &str, name: &CgroupName) -> Option<PathBuf> {
        self.controllers.get(controller).map(|mount| mount.join(Naming::Cgroupfs.relative(name)))
    }

    fn set(&self, name: &CgroupName, values: &Values) -> Result<(), Error> {
        for setting in files_v1(values) {
            let path = match self.folder(setting.controller, name) {
                Some(folder) => folder.join(&*setting.file),
                None if setting.optional => continue,
                None => return Err(Error::MissingControllers { missing: vec![setting.controller] }),
            };
            if !setting.optional || path.exists() {
                fs::write(&path, &setting.value)?;
            }
        }
        Ok(())
    }

    fn create(mount: &Path, name: &CgroupName, cpuset: bool) -> Result<(), Error> {
        let mut folder = mount.to_path_buf();
        for part in name.parts() {
            folder.push(part);
            fs::create(&folder)?;
            if cpuset {
                inherit(&folder, "cpuset.cpus")?;
                inherit(&folder, "cpuset.mems")?;
            }
        }
        Ok(())
    }
}

/// A new cpuset is empty, and no process can enter it until it has CPUs and memory nodes.
fn inherit(folder: &Path, file: &str) -> Result<(), Error> {
    let own = folder.join(file);
    if !fs::read(&own)?.trim().is_empty() {
        return Ok(());
    }
    match folder.parent() {
        Some(parent) => fs::write(&own, fs::read(&parent.join(file))?.trim()),
        None => Ok(()),
    }
}

impl Driver for Cgroupfs {
    fn naming(&self) -> Naming {
        Naming::Cgroupfs
    }

    fn ensure(&self, name: &CgroupName, values: &Values) -> Result<(), Error> {
        let cpuset = self.controllers.get("cpuset").map(PathBuf::as_path);
        for mount in self.mounts() {
            Self::create(mount, name, cpuset == Some(mount))?;
        }
        self.set(name, values)
    }

    fn update(&self, name: &CgroupName, values: &Values) -> Result<(), Error> {
        let folders: BTreeSet<_> = EXPECTED.iter().filter_map(|controller| self.folder(controller, name)).collect();
        let paths: Vec<_> =
            folders.iter().filter(|path| !path.is_dir()).map(|path| path.display().to_string()).collect();
        if paths.is_empty() {
            self.set(name, values)
        } else {
            Err(Error::MissingPaths { name: name.to_string(), paths })
        }
    }

    fn exists(&self, name: &CgroupName) -> bool {
        self.mounts().iter().all(|mount| mount.join(Naming::Cgroupfs.relative(name)).is_dir())
    }

    fn destroy(&self, name: &CgroupName) -> Result<(), Error> {
        let relative = Naming::Cgroupfs.relative(name);
        let folders: Vec<_> = self
            .mounts()
            .into_iter()
            .chain(self.others.iter().map(PathBuf::as_path))
            .map(|mount| mount.join(&relative))
            .collect();
        for folder in &folders {
            fs::kill_all(folder)?;
        }
        folders.iter().try_for_each(|folder| fs::remove(folder))
    }

    fn pids(&self, cgroup: &Path) -> Result<Vec<i32>, Error> {
        let mount = self.controllers.get("memory").ok_or(Error::MissingControllers { missing: vec!["memory"] })?;
        fs::pids(&mount.join(cgroup))
    }

    fn stats(&self, cgroup: &Path, depth: Depth) -> Result<Stats, Error> {
        stats::read_v1(|controller| self.controllers.get(controller).map(|mount| mount.join(cgroup)), depth)
    }

    fn children(&self, name: &CgroupName) -> Result<Vec<String>, Error> {
        let mut found = BTreeSet::new();
        for mount in self.mounts() {
            let folders = fs::children(&mount.join(Naming::Cgroupfs.relative(name)))?;
            found.extend(folders.iter().filter_map(|f| Some(f.file_name()?.to_string_lossy().into_owned())));
        }
        Ok(found.into_iter().collect())
    }
}
