//! Against the kernel's own cgroups, as root, under a root of this process' own. Covers whichever version is mounted.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use cgroups::driver;
use cgroups::values::{self, Allocatable, ClassPolicy, HugePages, Limit, Requests, Values};
use cgroups::{Depth, Driver, Hierarchy, QosLevel, Tree, detect, open};

struct Machine {
    driver: Box<dyn Driver>,
    tree: Tree,
    v2: bool,
}

impl Machine {
    fn new(test: &str) -> Self {
        let hierarchy = detect::detect().expect("a machine with cgroups");
        let tree = Tree::new(&format!("keelson-test-{test}-{}", std::process::id()));
        let v2 = hierarchy.is_v2();
        Self { driver: open(hierarchy).expect("the controllers that Kubernetes needs"), tree, v2 }
    }

    fn read(&self, controller: &str, file: &str, name: &cgroups::name::CgroupName) -> String {
        let mount = match detect::detect().unwrap() {
            Hierarchy::V2 { mount } => mount,
            Hierarchy::V1 { controllers, .. } => controllers[controller].clone(),
        };
        let path = mount.join(self.driver.naming().relative(name)).join(file);
        std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).trim().to_owned()
    }

    /// Where the cgroup is: in each tree on v1, those without a controller as well.
    fn folders(&self, name: &cgroups::name::CgroupName) -> Vec<PathBuf> {
        let mounts = match detect::detect().unwrap() {
            Hierarchy::V2 { mount } => vec![mount],
            Hierarchy::V1 { controllers, others } => controllers.into_values().chain(others).collect(),
        };
        mounts.into_iter().map(|mount| mount.join(self.driver.naming().relative(name))).collect()
    }

    /// What of [`huge_pages`] the kernel limits.
    fn limited_pages(&self) -> Vec<HugePages> {
        let has = match detect::detect().unwrap() {
            Hierarchy::V2 { mount } => {
                std::fs::read_to_string(mount.join("cgroup.controllers")).unwrap().contains("hugetlb")
            }
            Hierarchy::V1 { controllers, .. } => controllers.contains_key("hugetlb"),
        };
        if has { huge_pages() } else { Vec::new() }
    }

    fn enter(&self, pid: u32, name: &cgroups::name::CgroupName) {
        for folder in self.folders(name) {
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join("cgroup.procs"), pid.to_string()).unwrap();
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.driver.destroy(self.tree.root()).expect("the test's cgroups are removed");
    }
}

/// One page of each size that the kernel has.
fn huge_pages() -> Vec<HugePages> {
    let entries = std::fs::read_dir("/sys/kernel/mm/hugepages").into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().into_string().unwrap());
    let size =
        |name: String| name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse::<u64>().ok().map(|kib| kib << 10);
    names.filter_map(size).map(|size| HugePages { size, limit: size }).collect()
}

fn sleeper() -> Child {
    Command::new("sleep").arg("1000").spawn().unwrap()
}

#[test]
fn tree_is_made_with_its_values_and_can_be_entered() {
    let machine = Machine::new("tree");
    let (driver, tree) = (&machine.driver, &machine.tree);
    let pods = tree.pods();
    let node = Allocatable { cpu: 2000, memory: Some(1 << 30), pids: Some(5000) };
    driver.ensure(&pods, &values::node(&node)).unwrap();
    for level in [QosLevel::Burstable, QosLevel::BestEffort] {
        let requests = Requests { burstable_cpu: 500, burstable_memory: 1 << 20, guaranteed_memory: 0 };
        let policy = ClassPolicy { protects_memory: Some(true), reserves: None };
        driver.ensure(&tree.qos(level), &values::class(level, &requests, &policy)).unwrap();
    }
    let pod = tree.pod(QosLevel::Burstable, "u1");
    let limits = Values {
        cpu_shares: Some(512),
        cpu_quota: Some(Limit::At(50_000)),
        cpu_period: Some(100_000),
        memory: Some(Limit::At(64 << 20)),
        pids: Some(Limit::At(100)),
        memory_min: Some(0),
        memory_low: Some(1 << 20),
        huge_pages: huge_pages(),
    };
    driver.ensure(&pod, &limits).unwrap();
    driver.ensure(&pod, &limits).unwrap();
    assert!(driver.exists(&pod));

    let memory = if machine.v2 { "memory.max" } else { "memory.limit_in_bytes" };
    assert_eq!(machine.read("memory", memory, &pods), (1_u64 << 30).to_string());
    assert_eq!(machine.read("memory", memory, &pod), (64_u64 << 20).to_string());
    assert_eq!(machine.read("pids", "pids.max", &pod), "100");
    if machine.v2 {
        assert_eq!(machine.read("memory", "memory.low", &pod), (1_u64 << 20).to_string());
        assert_eq!(machine.read("memory", "memory.low", &tree.qos(QosLevel::Burstable)), (1_u64 << 20).to_string());
        assert_eq!(machine.read("cpu", "cpu.max", &pod), "50000 100000");
    } else {
        assert_eq!(machine.read("cpu", "cpu.shares", &pod), "512");
        assert_eq!(machine.read("cpu", "cpu.cfs_quota_us", &pod), "50000");
        assert!(!machine.read("cpuset", "cpuset.cpus", &pod).is_empty());
        assert!(!machine.read("cpuset", "cpuset.mems", &pod).is_empty());
    }
    for pages in machine.limited_pages() {
        let file = if machine.v2 { "max" } else { "limit_in_bytes" };
        let file = format!("hugetlb.{}.{file}", values::page_size(pages.size));
        assert_eq!(machine.read("hugetlb", &file, &pod), pages.limit.to_string());
    }
    let raised = Values { memory: Some(Limit::At(128 << 20)), ..limits };
    driver.ensure(&pod, &raised).unwrap();
    assert_eq!(machine.read("memory", memory, &pod), (128_u64 << 20).to_string());
    assert_eq!(driver::pods(driver.as_ref(), tree).unwrap(), [(QosLevel::Burstable, "u1".to_owned())]);
}

#[test]
fn cgroups_of_others_are_updated_and_never_made() {
    let machine = Machine::new("others");
    let (driver, name) = (&machine.driver, machine.tree.root());
    let values = values::reserved(
        &values::Reservation { cpu: Some(500), memory: Some(64 << 20), pids: Some(100) },
        false,
        machine.v2,
    );
    let error = driver.update(name, &values).unwrap_err().to_string();
    assert!(error.contains("some missing paths: /sys/fs/cgroup/") || error.starts_with("could not read"), "{error}");
    assert!(machine.folders(name).iter().all(|folder| !folder.exists()));
    driver.ensure(name, &Values::default()).unwrap();
    driver.update(name, &values).unwrap();
    assert_eq!(machine.read("pids", "pids.max", name), "100");
    if machine.v2 {
        assert_eq!(machine.read("memory", "memory.min", name), (64_u64 << 20).to_string());
    }
}

#[test]
fn destroy_kills_what_is_left_and_can_be_repeated() {
    let machine = Machine::new("destroy");
    let (driver, tree) = (&machine.driver, &machine.tree);
    let pod = tree.pod(QosLevel::BestEffort, "u2");
    driver.ensure(&pod, &Values::default()).unwrap();
    // On v2 a cgroup with controllers enabled for its children takes no processes itself, as with a real container.
    let container = if machine.v2 { Tree::new(&format!("{pod}/c")).root().clone() } else { pod.clone() };
    let mut child = sleeper();
    machine.enter(child.id(), &container);
    let path = driver.naming().relative(&pod);
    assert_eq!(driver.pids(&path).unwrap(), [i32::try_from(child.id()).unwrap()]);
    let stats = driver.stats(&path, Depth::Full).unwrap();
    assert!(stats.memory.working_set <= stats.memory.usage, "{stats:?}");
    assert_eq!((stats.memory.oom_kills, stats.tasks.current), (0, 1));
    let whole = driver.stats(Path::new(""), Depth::Full).unwrap();
    assert!(whole.cpu.usage > stats.cpu.usage && whole.memory.usage > stats.memory.usage, "{whole:?}");

    // A killed process stays in its cgroup until it is reaped; containers are reaped by their shim, this one by us.
    let reaper = std::thread::spawn(move || child.wait().unwrap());
    driver.destroy(&pod).unwrap();
    assert!(!reaper.join().unwrap().success());
    assert!(!driver.exists(&pod));
    assert_eq!(machine.folders(&pod).into_iter().find(|folder| folder.exists()), None);
    driver.destroy(&pod).unwrap();
    assert_eq!(driver::pods(driver.as_ref(), tree).unwrap(), []);
}

#[test]
fn names_that_were_never_made_have_no_pids_and_no_stats() {
    let machine = Machine::new("absent");
    let pod = machine.tree.pod(QosLevel::Guaranteed, "u3");
    assert!(!machine.driver.exists(&pod));
    let path = machine.driver.naming().relative(&pod);
    assert!(machine.driver.pids(&path).unwrap().is_empty());
    let error = machine.driver.stats(&path, Depth::Brief).unwrap_err();
    assert!(error.is_gone(), "{error}");
}
