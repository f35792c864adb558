//! Operations on cgroups.

use std::path::Path;
use std::time::Instant;

use cgroups::name::CgroupName;
use cgroups::{Depth, Driver, Error, Naming, Stats, Values};

use super::families::CGROUPS;

/// A driver whose changes are timed.
pub struct TimedCgroups(pub Box<dyn Driver>);

fn timed<T>(operation: &'static str, work: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let result = work();
    CGROUPS.observe([operation.into()], begun.elapsed());
    result
}

impl Driver for TimedCgroups {
    fn naming(&self) -> Naming {
        self.0.naming()
    }

    fn ensure(&self, name: &CgroupName, values: &Values) -> Result<(), Error> {
        let operation = if self.0.exists(name) { "update" } else { "create" };
        timed(operation, || self.0.ensure(name, values))
    }

    fn update(&self, name: &CgroupName, values: &Values) -> Result<(), Error> {
        timed("update", || self.0.update(name, values))
    }

    fn exists(&self, name: &CgroupName) -> bool {
        self.0.exists(name)
    }

    fn destroy(&self, name: &CgroupName) -> Result<(), Error> {
        timed("destroy", || self.0.destroy(name))
    }

    fn pids(&self, cgroup: &Path) -> Result<Vec<i32>, Error> {
        timed("pids", || self.0.pids(cgroup))
    }

    fn stats(&self, cgroup: &Path, depth: Depth) -> Result<Stats, Error> {
        self.0.stats(cgroup, depth)
    }

    fn children(&self, name: &CgroupName) -> Result<Vec<String>, Error> {
        self.0.children(name)
    }
}
