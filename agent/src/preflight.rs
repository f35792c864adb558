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
}

/// Looks below `root` (`/` but in tests).
///
/// # Errors
/// The first condition that is not met.
pub fn check(root: &Path, config: &KubeletConfiguration) -> Result<(), Refusal> {
    // The first line is a heading.
    let swaps = std::fs::read(root.join("proc/swaps")).unwrap_or_default();
    if config.fail_swap_on && swaps.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count() > 1 {
        return Err(Refusal::Swap);
    }
    if config.fail_cgroup_v1 && !root.join("sys/fs/cgroup/cgroup.controllers").exists() {
        return Err(Refusal::CgroupV1);
    }
    Ok(())
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
        config.fail_swap_on = false;
        config.fail_cgroup_v1 = false;
        assert_eq!(check(&root, &config), Ok(()));
        std::fs::remove_dir_all(&root).unwrap();
    }
}
