//! The systemd driver on cgroup v2: each cgroup is a transient slice, so that systemd, which owns the tree, keeps what it was told.
//!
//! As libcontainer does it for kubelets: the slice is started with what systemd has properties for, then the values are written
//! to the files too, exactly, with those that systemd does not know.

use std::path::{Path, PathBuf};

use systemd::slices::{Property, Slices};

use crate::driver::Driver;
use crate::name::{CgroupName, Naming};
use crate::stats::{Depth, Stats};
use crate::values::{DEFAULT_PERIOD, Limit, Values, weight};
use crate::{Error, v2};

/// systemd keeps quotas in whole percents of a CPU: a quota is rounded up to them, or containers could not get theirs.
const QUOTA_STEP: u64 = 10_000;

/// Slices, and the folders below the cgroup2 mount point.
pub struct Systemd {
    slices: Slices,
    files: v2::Cgroupfs,
}

impl Systemd {
    /// A driver over the cgroup2 mount point.
    ///
    /// # Errors
    /// When a controller that is needed is missing.
    pub fn new(mount: PathBuf, slices: Slices) -> Result<Self, Error> {
        Ok(Self { slices, files: v2::Cgroupfs::named(mount, Naming::Systemd)? })
    }
}

/// The slice's unit: the last part of its path. `None` for the top, which is systemd's own.
fn unit(name: &CgroupName) -> Option<String> {
    let path = Naming::Systemd.relative(name);
    path.file_name().map(|unit| unit.to_string_lossy().into_owned())
}

/// What systemd is told of values.
fn properties(values: &Values) -> Vec<Property> {
    let number = |limit: Limit| match limit {
        Limit::Unlimited => u64::MAX,
        Limit::At(value) => value,
    };
    let mut out = Vec::new();
    out.extend(values.cpu_shares.map(|shares| Property::CpuWeight(weight(shares))));
    out.extend(values.cpu_period.map(Property::CpuQuotaPeriod));
    out.extend(values.cpu_quota.map(|quota| {
        Property::CpuQuotaPerSecond(match quota {
            Limit::Unlimited => u64::MAX,
            Limit::At(quota) => per_second(quota, values.cpu_period.unwrap_or(DEFAULT_PERIOD)),
        })
    }));
    out.extend(values.memory.map(|limit| Property::MemoryMax(number(limit))));
    out.extend(values.memory_min.map(Property::MemoryMin));
    out.extend(values.memory_low.map(Property::MemoryLow));
    out.extend(values.pids.map(|limit| Property::TasksMax(number(limit))));
    out
}

/// A quota a period as microseconds a second.
fn per_second(quota: u64, period: u64) -> u64 {
    let exact = quota.saturating_mul(1_000_000).checked_div(period).unwrap_or(u64::MAX);
    exact.div_ceil(QUOTA_STEP).saturating_mul(QUOTA_STEP)
}

impl Driver for Systemd {
    fn naming(&self) -> Naming {
        Naming::Systemd
    }

    fn ensure(&self, name: &CgroupName, values: &Values) -> Result<(), Error> {
        if let Some(unit) = unit(name) {
            let made = self.slices.ensure(&unit, &properties(values));
            made.map_err(|source| Error::Slice { name: name.to_string(), source })?;
        }
        self.files.ensure(name, values)
    }

    fn update(&self, name: &CgroupName, values: &Values) -> Result<(), Error> {
        self.files.check(name)?;
        if let Some(unit) = unit(name) {
            let set = self.slices.set(&unit, &properties(values));
            set.map_err(|source| Error::Slice { name: name.to_string(), source })?;
        }
        self.files.update(name, values)
    }

    fn exists(&self, name: &CgroupName) -> bool {
        self.files.exists(name)
    }

    fn destroy(&self, name: &CgroupName) -> Result<(), Error> {
        // Most names are asked for on levels where the pod never was.
        if !self.exists(name) {
            return Ok(());
        }
        self.files.kill(name)?;
        if let Some(unit) = unit(name) {
            self.slices.stop(&unit).map_err(|source| Error::Slice { name: name.to_string(), source })?;
        }
        self.files.destroy(name)
    }

    fn pids(&self, cgroup: &Path) -> Result<Vec<i32>, Error> {
        self.files.pids(cgroup)
    }

    fn stats(&self, cgroup: &Path, depth: Depth) -> Result<Stats, Error> {
        self.files.stats(cgroup, depth)
    }

    fn children(&self, name: &CgroupName) -> Result<Vec<String>, Error> {
        self.files.children(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::{QosLevel, Tree};
    use crate::values::HugePages;

    #[test]
    fn a_cgroup_is_the_last_slice_of_its_path() {
        let tree = Tree::new("");
        assert_eq!(unit(&tree.pod(QosLevel::Burstable, "a-b")).as_deref(), Some("kubepods-burstable-poda_b.slice"));
        assert_eq!(unit(&tree.pods()).as_deref(), Some("kubepods.slice"));
        assert_eq!(unit(tree.root()), None);
    }

    #[test]
    fn quotas_are_whole_percents_and_never_less() {
        assert_eq!(per_second(50_000, 100_000), 500_000);
        assert_eq!(per_second(1_000, 100_000), 10_000);
        assert_eq!(per_second(12_345, 100_000), 130_000);
        assert_eq!(per_second(15_000, 10_000), 1_500_000);
        assert_eq!(per_second(1, 0), u64::MAX);
    }

    #[test]
    fn values_are_properties() {
        let values = Values {
            cpu_shares: Some(512),
            cpu_quota: Some(Limit::At(50_000)),
            cpu_period: Some(100_000),
            memory: Some(Limit::At(4096)),
            memory_min: Some(1024),
            memory_low: Some(0),
            pids: Some(Limit::Unlimited),
            huge_pages: vec![HugePages { size: 2 << 20, limit: 0 }],
        };
        let expected = [
            Property::CpuWeight(59),
            Property::CpuQuotaPeriod(100_000),
            Property::CpuQuotaPerSecond(500_000),
            Property::MemoryMax(4096),
            Property::MemoryMin(1024),
            Property::MemoryLow(0),
            Property::TasksMax(u64::MAX),
        ];
        assert_eq!(properties(&values), expected);
        assert_eq!(properties(&Values::default()), []);
        let off = Values { cpu_quota: Some(Limit::Unlimited), ..Values::default() };
        assert_eq!(properties(&off), [Property::CpuQuotaPerSecond(u64::MAX)]);
    }
}
