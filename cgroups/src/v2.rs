//! cgroupfs on cgroup v2: one folder, whose parents must hand controllers down. The systemd driver ([`crate::systemd`]) writes through
//! it too, with its own naming.

use std::path::{Path, PathBuf};

use crate::driver::Driver;
use crate::name::{CgroupName, Naming};
use crate::stats::{self, Depth, Stats};
use crate::values::{Values, files_v2};
use crate::{Error, fs};

/// Controllers without which limits cannot be kept.
const REQUIRED: [&str; 3] = ["cpu", "memory", "pids"];
/// All that are handed down to pods where the kernel has them.
const WANTED: [&str; 6] = ["cpu", "cpuset", "memory", "io", "pids", "hugetlb"];

/// Those of [`WANTED`] that a cgroup of others' must have, too.
const EXPECTED: [&str; 5] = ["cpu", "cpuset", "memory", "pids", "hugetlb"];

/// The unified hierarchy.
#[derive(Debug)]
pub struct Cgroupfs {
    mount: PathBuf,
    naming: Naming,
    wanted: Vec<&'static str>,
}

impl Cgroupfs {
    /// A driver over the cgroup2 mount point.
    ///
    /// # Errors
    /// When a controller that is needed is missing.
    pub fn new(mount: PathBuf) -> Result<Self, Error> {
        Self::named(mount, Naming::Cgroupfs)
    }

    /// The same for folders that are spelled as `naming` does.
    ///
    /// # Errors
    /// When a controller that is needed is missing.
    pub fn named(mount: PathBuf, naming: Naming) -> Result<Self, Error> {
        let available = fs::read(&mount.join("cgroup.controllers"))?;
        let has = |name: &&'static str| available.split_whitespace().any(|word| word == *name);
        let missing: Vec<_> = REQUIRED.into_iter().filter(|name| !has(name)).collect();
        if missing.is_empty() {
            Ok(Self { mount, naming, wanted: WANTED.into_iter().filter(has).collect() })
        } else {
            Err(Error::MissingControllers { missing })
        }
    }

    fn folder(&self, name: &CgroupName) -> PathBuf {
        self.mount.join(self.naming.relative(name))
    }

    /// Kills what runs in the cgroup and below.
    pub(crate) fn kill(&self, name: &CgroupName) -> Result<(), Error> {
        let folder = self.folder(name);
        let kill = folder.join("cgroup.kill");
        if kill.exists() {
            // One write kills the whole tree without racing against forks (Linux 5.14); the loop then waits.
            fs::write(&kill, "1")?;
        }
        fs::kill_all(&folder)
    }

    fn set(folder: &Path, values: &Values) -> Result<(), Error> {
        for setting in files_v2(values) {
            let path = folder.join(&*setting.file);
            if !setting.optional || path.exists() {
                fs::write(&path, &setting.value)?;
            }
        }
        Ok(())
    }

    /// Whether a cgroup of others' is there, with all controllers of those that kernel and Kubernetes know.
    pub(crate) fn check(&self, name: &CgroupName) -> Result<(), Error> {
        let path = self.folder(name).join("cgroup.controllers");
        let has =
            std::fs::read_to_string(path).map_err(|source| Error::Controllers { name: name.to_string(), source })?;
        let mut missing: Vec<_> = EXPECTED.into_iter().filter(|controller| self.wanted.contains(controller)).collect();
        missing.retain(|controller| !has.split_whitespace().any(|word| word == *controller));
        missing.sort_unstable();
        if missing.is_empty() { Ok(()) } else { Err(Error::LacksControllers { name: name.to_string(), missing }) }
    }

    /// Gives children of `folder` the controllers they lack.
    fn delegate(&self, folder: &Path) -> Result<(), Error> {
        let control = folder.join("cgroup.subtree_control");
        let enabled = fs::read(&control)?;
        let missing: Vec<_> =
            self.wanted.iter().filter(|name| !enabled.split_whitespace().any(|word| word == **name)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let value = missing.iter().map(|name| format!("+{name}")).collect::<Vec<_>>().join(" ");
        fs::write(&control, &value)
    }
}

impl Driver for Cgroupfs {
    fn naming(&self) -> Naming {
        self.naming
    }

    fn ensure(&self, name: &CgroupName, values: &Values) -> Result<(), Error> {
        let mut folder = self.mount.clone();
        for part in &self.naming.relative(name) {
            self.delegate(&folder)?;
            folder.push(part);
            fs::create(&folder)?;
        }
        // Runtimes make a cgroup for each container below, which needs the controllers too.
        self.delegate(&folder)?;
        Self::set(&folder, values)
    }

    fn update(&self, name: &CgroupName, values: &Values) -> Result<(), Error> {
        self.check(name)?;
        Self::set(&self.folder(name), values)
    }

    fn exists(&self, name: &CgroupName) -> bool {
        self.folder(name).is_dir()
    }

    fn destroy(&self, name: &CgroupName) -> Result<(), Error> {
        self.kill(name)?;
        fs::remove(&self.folder(name))
    }

    fn pids(&self, cgroup: &Path) -> Result<Vec<i32>, Error> {
        fs::pids(&self.mount.join(cgroup))
    }

    fn stats(&self, cgroup: &Path, depth: Depth) -> Result<Stats, Error> {
        stats::read_v2(&self.mount.join(cgroup), depth)
    }

    fn children(&self, name: &CgroupName) -> Result<Vec<String>, Error> {
        let mut names: Vec<_> = fs::children(&self.folder(name))?
            .iter()
            .filter_map(|folder| Some(folder.file_name()?.to_string_lossy().into_owned()))
            .collect();
        names.sort();
        Ok(names)
    }
}

#[cfg(test)]
mod tests {
    use std::fs as std_fs;

    use super::*;
    use crate::name::{QosLevel, Tree};
    use crate::values::{HugePages, Limit};

    /// A plain folder behaves as the cgroup2 file system does for what is written, but has no control files of its own.
    fn fake(controllers: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std_fs::write(folder.path().join("cgroup.controllers"), controllers).unwrap();
        folder
    }

    #[test]
    fn missing_controllers_are_named() {
        let folder = fake("cpu io");
        let error = Cgroupfs::new(folder.path().into()).unwrap_err();
        assert!(matches!(error, Error::MissingControllers { missing } if missing == ["memory", "pids"]));
    }

    #[test]
    fn writes_what_the_conversion_says_and_delegates_what_the_kernel_has() {
        let folder = fake("cpu memory pids io");
        let tree = Tree::new("");
        let name = tree.pod(QosLevel::Burstable, "u1");
        let leaf = folder.path().join("kubepods/burstable/podu1");
        std_fs::create_dir_all(&leaf).unwrap();
        for path in ["", "kubepods", "kubepods/burstable", "kubepods/burstable/podu1"] {
            std_fs::write(folder.path().join(path).join("cgroup.subtree_control"), "cpu\n").unwrap();
        }
        let driver = Cgroupfs::new(folder.path().into()).unwrap();
        driver.ensure(&name, &Values { memory: Some(Limit::At(4096)), ..Values::default() }).unwrap();
        assert_eq!(std_fs::read_to_string(leaf.join("memory.max")).unwrap(), "4096");
        assert_eq!(std_fs::read_to_string(leaf.join("cgroup.subtree_control")).unwrap(), "+memory +io +pids");
        // Huge pages only where the kernel has the files.
        std_fs::write(leaf.join("hugetlb.2MB.max"), "").unwrap();
        let huge_pages = vec![HugePages { size: 2 << 20, limit: 0 }];
        driver.ensure(&name, &Values { huge_pages, ..Values::default() }).unwrap();
        assert_eq!(std_fs::read_to_string(leaf.join("hugetlb.2MB.max")).unwrap(), "0");
        assert!(!leaf.join("hugetlb.2MB.rsvd.max").exists());
        assert_eq!(driver.children(&tree.qos(QosLevel::Burstable)).unwrap(), ["podu1"]);
        assert_eq!(driver.children(&tree.qos(QosLevel::BestEffort)).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn cgroups_of_others_are_set_and_never_made() {
        let folder = fake("cpu cpuset memory pids io");
        let driver = Cgroupfs::new(folder.path().into()).unwrap();
        let name = Naming::Cgroupfs.parse("/system.slice");
        let values = Values { memory: Some(Limit::At(4096)), ..Values::default() };
        let said = || driver.update(&name, &values).unwrap_err().to_string();
        assert_eq!(said(), "could not read controllers for cgroup /system.slice");
        assert!(!folder.path().join("system.slice").exists());
        let own = folder.path().join("system.slice");
        std_fs::create_dir(&own).unwrap();
        std_fs::write(own.join("cgroup.controllers"), "memory\n").unwrap();
        assert_eq!(said(), "cgroup /system.slice has some missing controllers: cpu, cpuset, pids");
        std_fs::write(own.join("cgroup.controllers"), "cpuset cpu memory pids\n").unwrap();
        driver.update(&name, &values).unwrap();
        assert_eq!(std_fs::read_to_string(own.join("memory.max")).unwrap(), "4096");
        assert!(
            !own.join("cgroup.subtree_control").exists(),
            "it may hold processes, and keeps its controllers to itself"
        );
    }
}
