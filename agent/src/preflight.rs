//! Conditions of the machine that a configuration may forbid (kubelet's `validateSystemRequirements` and swap check).

use std::path::Path;

use crate::config::{KubeletConfiguration, reserved};
use crate::kernel_flags::{self, Flag};

/// Why this machine cannot be a node with this configuration.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Swap, and `failSwapOn`.
    #[error("running with swap on is not supported, please disable swap or set failSwapOn to false")]
    Swap,
    /// cgroup v1, and `failCgroupV1`.
    #[error("this machine uses cgroup v1, which failCgroupV1 forbids")]
    CgroupV1,
    /// cgroup v1, which kills one process at a time whatever is asked for, and `singleProcessOOMKill: false`.
    #[error("singleProcessOOMKill must not be explicitly set to false when using cgroup v1")]
    KillsOne,
    /// Another flag of the kernel than pods need, and `protectKernelDefaults`.
    #[error("invalid kernel flag: {}, expected value: {}, actual value: {}", .0.key, .0.expected, .0.actual)]
    KernelFlag(Flag),
    /// `reservedSystemCPUs` that the machine does not have.
    #[error("reserved-cpus: {reserved} is not a subset of online-cpus: {online}")]
    ReservedCpus {
        /// As configured.
        reserved: String,
        /// Those that there are.
        online: String,
    },
}

/// Looks below `root` (`/` but in tests).
///
/// # Errors
/// The first condition that is not met.
pub fn check(root: &Path, config: &KubeletConfiguration) -> Result<(), Refusal> {
    all(root, config).into_iter().next().map_or(Ok(()), Err)
}

/// Every condition that is not met.
#[must_use]
pub fn all(root: &Path, config: &KubeletConfiguration) -> Vec<Refusal> {
    // The first line is a heading.
    let swaps = std::fs::read(root.join("proc/swaps")).unwrap_or_default();
    let has_swap = swaps.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count() > 1;
    let is_v1 = !root.join("sys/fs/cgroup/cgroup.controllers").exists();
    let conditions = [
        (config.fail_swap_on && has_swap, Refusal::Swap),
        (config.fail_cgroup_v1 && is_v1, Refusal::CgroupV1),
        (is_v1 && config.single_process_oom_kill == Some(false), Refusal::KillsOne),
    ];
    let flags = if config.protect_kernel_defaults { kernel_flags::wrong(root) } else { Vec::new() };
    let unmet = conditions.into_iter().filter_map(|(is_unmet, refusal)| is_unmet.then_some(refusal));
    unmet.chain(reserved_cpus(root, config)).chain(flags.into_iter().map(Refusal::KernelFlag)).collect()
}

fn reserved_cpus(root: &Path, config: &KubeletConfiguration) -> Option<Refusal> {
    let reserved = &config.reserved_system_cpus;
    let wanted = reserved::cpus(reserved).ok().filter(|cpus| !cpus.is_empty())?;
    let online = std::fs::read_to_string(root.join("sys/devices/system/cpu/online")).ok()?.trim().to_owned();
    let has = reserved::cpus(&online).ok()?;
    (!wanted.is_subset(&has)).then(|| Refusal::ReservedCpus { reserved: reserved.clone(), online })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn swap_and_cgroup_v1_are_refused_where_forbidden() {
        let root = std::env::temp_dir().join(format!("keelson-preflight-{}", std::process::id()));
        std::fs::create_dir_all(root.join("proc")).unwrap();
        let swaps = root.join("proc/swaps");
        std::fs::write(&swaps, "Filename Type Size Used Priority\n").unwrap();
        let mut config = KubeletConfiguration::default();
        assert_eq!(check(&root, &config), Ok(()));
        config.fail_cgroup_v1 = true;
        assert_eq!(check(&root, &config), Err(Refusal::CgroupV1));
        std::fs::write(&swaps, "Filename Type Size Used Priority\n/dev/sda2 partition 1 0 -2\n").unwrap();
        assert_eq!(check(&root, &config), Err(Refusal::Swap));
        assert_eq!(all(&root, &config), [Refusal::Swap, Refusal::CgroupV1]);
        assert_eq!(all(&root, &config).len(), 2, "what cannot be read is in nobody's way");
        config.fail_swap_on = false;
        config.fail_cgroup_v1 = false;
        config.single_process_oom_kill = Some(false);
        assert_eq!(check(&root, &config), Err(Refusal::KillsOne));
        config.single_process_oom_kill = Some(true);
        assert_eq!(check(&root, &config), Ok(()));
        std::fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn flags_that_may_not_be_changed_and_cpus_that_are_not_there_are_refused() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("proc/sys/vm/overcommit_memory", "0\n");
        write("sys/devices/system/cpu/online", "0-1\n");
        let mut config = KubeletConfiguration { reserved_system_cpus: "0,1".into(), ..KubeletConfiguration::default() };
        let said = |config: &KubeletConfiguration| {
            all(root.path(), config).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(said(&config), [""; 0]);
        config.protect_kernel_defaults = true;
        config.reserved_system_cpus = "1-2".into();
        assert_eq!(
            said(&config),
            [
                "reserved-cpus: 1-2 is not a subset of online-cpus: 0-1",
                "invalid kernel flag: vm/overcommit_memory, expected value: 1, actual value: 0",
            ]
        );
    }
}
