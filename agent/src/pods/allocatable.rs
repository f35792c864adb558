//! Node allocatable (pkg/kubelet/cm/node_container_manager_linux.go): what pods may use together, and the cgroups of the system and of Kubernetes'
//! own parts, which others make.

use std::sync::Arc;
use std::time::Duration;

use api::quantity::Quantity;
use cgroups::values::{self, Allocatable, HugePages, Reservation};
use cgroups::{Driver, Values};

use super::Context;
use crate::client::watch::describe;
use crate::config::KubeletConfiguration;
use crate::config::kubelet::MEMORY_QOS;
use crate::events::{Kind, Recorder, node_reference};
use crate::node::facts::Facts;

const ENFORCED: &str = "NodeAllocatableEnforced";
const FAILED: &str = "FailedNodeAllocatableEnforcement";
/// How long a limit that pods exceed waits for evictions.
const PAUSE: Duration = Duration::from_secs(60);

/// A reservation that is enforced on a cgroup of others'.
#[derive(Debug, Clone, PartialEq)]
pub struct Enforcement {
    /// `System Reserved`, `Kube Reserved Compressible`: as messages have it.
    what: &'static str,
    /// `system` or `kube`.
    part: &'static str,
    /// As the configuration spells it.
    cgroup: String,
    /// `None` where nothing is reserved.
    values: Option<Values>,
}

/// A reservation that could not be enforced.
#[derive(Debug, thiserror::Error)]
#[error("Failed to enforce {what} Cgroup Limits on {cgroup:?}: {why}")]
pub struct EnforceError {
    what: &'static str,
    cgroup: String,
    why: String,
}

/// What all pods may use: all that there is, where their part is not enforced. `pids`: how many tasks there may be.
#[must_use]
pub fn of_pods(kubelet: &KubeletConfiguration, facts: &Facts, pids: Option<u64>) -> Allocatable {
    let kept = |name: &str, scale: fn(&Quantity) -> i64| match kubelet.enforces("pods") {
        true => u64::try_from(scale(&kubelet.reserved(name))).unwrap_or(0),
        false => 0,
    };
    Allocatable {
        cpu: facts.cpus.saturating_mul(1000).saturating_sub(kept("cpu", Quantity::milli_value)),
        memory: Some(facts.memory.saturating_sub(kept("memory", Quantity::value))),
        pids: pids.map(|pids| pids.saturating_sub(kept("pid", Quantity::value))),
    }
}

/// What of the system and of Kubernetes' own parts is enforced, in upstream's order.
#[must_use]
pub fn enforcements(kubelet: &KubeletConfiguration, facts: &Facts) -> Vec<Enforcement> {
    let (system, kube) = ("system", "kube");
    let all = [
        ("system-reserved", "System Reserved", system, false),
        ("kube-reserved", "Kube Reserved", kube, false),
        ("system-reserved-compressible", "System Reserved Compressible", system, true),
        ("kube-reserved-compressible", "Kube Reserved Compressible", kube, true),
    ];
    let wanted = all.into_iter().filter(|(name, ..)| kubelet.enforces(name));
    let made = wanted.map(|(_, what, part, compressible)| {
        let is_system = part == system;
        let cgroup = if is_system { &kubelet.system_reserved_cgroup } else { &kubelet.kube_reserved_cgroup };
        let amount = |name: &str| if is_system { kubelet.system_reserved(name) } else { kubelet.kube_reserved(name) };
        let whole = |name: &str, scale: fn(&Quantity) -> i64| Some(u64::try_from(scale(&amount(name)?)).unwrap_or(0));
        let reservation = Reservation {
            cpu: whole("cpu", Quantity::milli_value),
            memory: whole("memory", Quantity::value),
            pids: whole("pid", Quantity::value),
        };
        let list = if is_system { &kubelet.system_reserved } else { &kubelet.kube_reserved };
        let values = (!list.is_empty()).then(|| {
            let values = values::reserved(&reservation, compressible, kubelet.gate(MEMORY_QOS));
            let sizes = facts.hugepages.iter().filter(|_| !compressible).map(|(kib, _)| kib.saturating_mul(1024));
            // Huge pages cannot be reserved, so that there are none.
            Values { huge_pages: sizes.map(|size| HugePages { size, limit: 0 }).collect(), ..values }
        });
        Enforcement { what, part, cgroup: cgroup.clone(), values }
    });
    made.collect()
}

/// Enforces them, and says so as events of the node. Blocks.
///
/// # Errors
/// The first that could not be: a node does not start so.
pub fn enforce(
    driver: &dyn Driver,
    enforcements: &[Enforcement],
    recorder: &Recorder,
    node: &str,
) -> Result<(), EnforceError> {
    let node = node_reference(node);
    for &Enforcement { what, part, ref cgroup, ref values } in enforcements {
        let name = driver.naming().parse(cgroup);
        let done = match values {
            None => Err(format!("{name} cgroup is not configured properly")),
            Some(values) => driver.update(&name, values).map_err(|error| describe(&error)),
        };
        if let Err(why) = done {
            let error = EnforceError { what, cgroup: cgroup.clone(), why };
            recorder.event(&node, Kind::Warning, FAILED, &error.to_string());
            return Err(error);
        }
        let message = format!("Updated limits on {part} reserved cgroup {cgroup}");
        recorder.event(&node, Kind::Normal, ENFORCED, &message);
    }
    Ok(())
}

/// Limits all pods together. A limit below what they use, as after a change of the configuration, comes to hold once evictions have made room.
pub(super) async fn keep(context: Arc<Context>) {
    let node = node_reference(&context.config.node_name);
    loop {
        let own = Arc::clone(&context);
        let written = tokio::task::spawn_blocking(move || {
            own.cgroups.ensure(&own.tree.pods(), &values::node(&own.config.enforced))
        });
        let message = match written.await {
            Ok(Ok(())) => {
                let message = "Updated Node Allocatable limit across pods";
                context.recorder.event(&node, Kind::Normal, ENFORCED, message);
                return;
            }
            Ok(Err(error)) => describe(&error),
            Err(error) => error.to_string(),
        };
        let message = format!("Failed to update Node Allocatable Limits \"{}\": {message}", context.tree.pods());
        context.recorder.event(&node, Kind::Warning, FAILED, &message);
        tokio::time::sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Mutex;

    use cgroups::name::CgroupName;
    use cgroups::values::files_v2;
    use cgroups::{Depth, Error, Naming, Stats};

    use super::*;

    fn facts() -> Facts {
        Facts { cpus: 2, memory: 4 << 30, hugepages: vec![(2048, 0)], ..Facts::default() }
    }

    fn kubelet(enforced: &[&str]) -> KubeletConfiguration {
        let list = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        KubeletConfiguration {
            enforce_node_allocatable: enforced.iter().map(|what| (*what).to_owned()).collect(),
            system_reserved: list(&[("cpu", "500m"), ("memory", "1Gi"), ("pid", "1000")]),
            kube_reserved: list(&[("cpu", "250m")]),
            system_reserved_cgroup: "/system.slice".into(),
            kube_reserved_cgroup: "/kube".into(),
            ..KubeletConfiguration::default()
        }
    }

    #[test]
    fn pods_have_what_is_left_where_that_is_enforced() {
        let left = of_pods(&kubelet(&["pods"]), &facts(), Some(32_768));
        assert_eq!(left, Allocatable { cpu: 1250, memory: Some(3 << 30), pids: Some(31_768) });
        let all = of_pods(&kubelet(&["none"]), &facts(), None);
        assert_eq!(all, Allocatable { cpu: 2000, memory: Some(4 << 30), pids: None });
    }

    /// A driver of which one cgroup is there, and that writes down what it is told.
    #[derive(Default)]
    struct Fake(Mutex<Vec<String>>);

    impl Driver for Fake {
        fn naming(&self) -> Naming {
            Naming::Cgroupfs
        }
        fn update(&self, name: &CgroupName, values: &Values) -> Result<(), Error> {
            if name.to_string() != "/system.slice" {
                return Err(Error::LacksControllers { name: name.to_string(), missing: vec!["cpu"] });
            }
            let files: Vec<_> = files_v2(values).iter().map(|f| format!("{}={}", f.file, f.value)).collect();
            self.0.lock().unwrap().push(files.join(" "));
            Ok(())
        }
        fn ensure(&self, _: &CgroupName, _: &Values) -> Result<(), Error> {
            panic!("cgroups of others are never made")
        }
        fn exists(&self, _: &CgroupName) -> bool {
            true
        }
        fn destroy(&self, _: &CgroupName) -> Result<(), Error> {
            panic!("or removed")
        }
        fn pids(&self, _: &Path) -> Result<Vec<i32>, Error> {
            Ok(Vec::new())
        }
        fn stats(&self, _: &Path, _: Depth) -> Result<Stats, Error> {
            panic!("or looked at")
        }
        fn children(&self, _: &CgroupName) -> Result<Vec<String>, Error> {
            Ok(Vec::new())
        }
    }

    /// What came of it, what was written and what was said.
    fn enforced(kubelet: &KubeletConfiguration) -> (Option<String>, Vec<String>, Vec<String>) {
        let (recorder, mut said) = Recorder::channel();
        let driver = Fake::default();
        let error = enforce(&driver, &enforcements(kubelet, &facts()), &recorder, "n1").err();
        let mut events = Vec::new();
        while let Ok(event) = said.try_recv() {
            events.push(format!("{:?} {} {}", event.kind, event.reason, event.message));
        }
        (error.map(|error| error.to_string()), driver.0.into_inner().unwrap(), events)
    }

    #[test]
    fn reservations_are_written_to_cgroups_that_are_there() {
        let (error, written, said) = enforced(&kubelet(&["pods", "system-reserved"]));
        assert_eq!(error, None);
        assert_eq!(
            written,
            [
                "cpu.weight=59 memory.max=1073741824 memory.oom.group=0 pids.max=1000 hugetlb.2MB.max=0 hugetlb.2MB.rsvd.max=0"
            ]
        );
        assert_eq!(said, ["Normal NodeAllocatableEnforced Updated limits on system reserved cgroup /system.slice"]);
        let (_, written, _) = enforced(&kubelet(&["system-reserved-compressible"]));
        assert_eq!(written, ["cpu.weight=59"]);
        let gate = [("MemoryQoS".to_owned(), true)].into();
        let (_, written, _) = enforced(&KubeletConfiguration { feature_gates: gate, ..kubelet(&["system-reserved"]) });
        assert!(written[0].contains("memory.min=1073741824"), "{written:?}");
        assert_eq!(enforced(&kubelet(&["pods"])), (None, vec![], vec![]));
    }

    #[test]
    fn a_cgroup_that_is_not_there_stops_the_start_and_is_named() {
        let (error, written, said) = enforced(&kubelet(&["kube-reserved", "system-reserved"]));
        let expected = "Failed to enforce Kube Reserved Cgroup Limits on \"/kube\": cgroup /kube has some missing controllers: cpu";
        assert_eq!((error.as_deref(), written.len()), (Some(expected), 1));
        assert_eq!(said[1], format!("Warning FailedNodeAllocatableEnforcement {expected}"));
        let nothing = KubeletConfiguration { system_reserved: [].into(), ..kubelet(&["system-reserved"]) };
        let expected = "Failed to enforce System Reserved Cgroup Limits on \"/system.slice\": /system.slice cgroup is not configured properly";
        assert_eq!(enforced(&nothing).0.as_deref(), Some(expected));
    }
}
