//! Conditions of the machine that a configuration may forbid (kubelet's `validateSystemRequirements` and swap check).

use std::path::Path;

use crate::config::KubeletConfiguration;

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
    conditions.into_iter().filter_map(|(is_unmet, refusal)| is_unmet.then_some(refusal)).collect()
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
        config.fail_swap_on = false;
        config.fail_cgroup_v1 = false;
        config.single_process_oom_kill = Some(false);
        assert_eq!(check(&root, &config), Err(Refusal::KillsOne));
        config.single_process_oom_kill = Some(true);
        assert_eq!(check(&root, &config), Ok(()));
        std::fs::remove_dir_all(&root).unwrap();
    }
}
