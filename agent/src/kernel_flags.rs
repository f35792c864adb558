//! Flags of the kernel that pods rely on (pkg/kubelet/cm/container_manager_linux.go, `setupKernelTunables`): memory may be promised that is not
//! there, and a kernel that has lost its way starts the machine anew.

use std::fs;
use std::path::Path;

use crate::config::Config;
use crate::network;

/// Path below /proc/sys, and the value (k8s.io/component-helpers/node/util/sysctl).
const FLAGS: [(&str, i64); 6] = [
    ("vm/overcommit_memory", 1),
    ("vm/panic_on_oom", 0),
    ("kernel/panic", 10),
    ("kernel/panic_on_oops", 1),
    ("kernel/keys/root_maxkeys", 1_000_000),
    ("kernel/keys/root_maxbytes", 25_000_000),
];

/// A flag that is not as it is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flag {
    /// Path below /proc/sys.
    pub key: &'static str,
    /// What it is to be.
    pub expected: i64,
    /// What it is.
    pub actual: i64,
}

/// Those that are not as they are to be, below `root` (`/` but in tests). What a kernel does not have is in nobody's way.
#[must_use]
pub fn wrong(root: &Path) -> Vec<Flag> {
    let look = |(key, expected): (&'static str, i64)| {
        let text = fs::read_to_string(root.join("proc/sys").join(key)).ok()?;
        let actual = text.trim().parse().ok()?;
        (actual != expected).then_some(Flag { key, expected, actual })
    };
    FLAGS.into_iter().filter_map(look).collect()
}

/// Sets them, unless the configuration forbids it (`protectKernelDefaults`), and remembers how they were. An agent that has no machine of its own, but
/// a network of its own only, leaves the machine's kernel alone.
pub fn set(config: &Config) {
    if config.kubelet.protect_kernel_defaults || !is_the_machines("self") {
        return;
    }
    set_below(Path::new("/"), &config.layout.data_dir);
}

/// Whether a process, by its name in /proc, has the network of the first one. Tests run several nodes on a machine, each in a network of its own.
fn is_the_machines(process: &str) -> bool {
    let namespace = |process: &str| fs::read_link(format!("/proc/{process}/ns/net")).ok();
    namespace("1").is_some_and(|first| namespace(process).is_some_and(|own| own == first))
}

fn set_below(root: &Path, data_dir: &Path) {
    let wrong = wrong(root);
    if wrong.is_empty() {
        return;
    }
    let keys: Vec<_> = wrong.iter().map(|flag| flag.key).collect();
    if let Err(error) = network::remember_settings(data_dir, &keys) {
        tracing::warn!(%error, "cannot write down how the kernel's flags were: leaving will not reset them");
    }
    for Flag { key, expected, actual } in wrong {
        match fs::write(root.join("proc/sys").join(key), expected.to_string()) {
            Ok(()) => tracing::info!(key, before = actual, now = expected, "a flag of the kernel was set"),
            // As in a container, where others have to do it.
            Err(error) => tracing::warn!(key, actual, expected, %error, "a flag of the kernel is not as pods need it"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_set_and_remembered() {
        let root = tempfile::tempdir().unwrap();
        let file = |key: &str| root.path().join("proc/sys").join(key);
        for (key, value) in [("vm/overcommit_memory", "0\n"), ("vm/panic_on_oom", "0\n"), ("kernel/panic", "0\n")] {
            fs::create_dir_all(file(key).parent().unwrap()).unwrap();
            fs::write(file(key), value).unwrap();
        }
        let before = wrong(root.path());
        let expected = Flag { key: "vm/overcommit_memory", expected: 1, actual: 0 };
        assert_eq!((before.len(), before[0]), (2, expected), "what this kernel does not have is not missed");
        let data = root.path().join("data");
        fs::create_dir(&data).unwrap();
        set_below(root.path(), &data);
        assert_eq!(wrong(root.path()), []);
        assert_eq!(fs::read_to_string(file("kernel/panic")).unwrap(), "10");
        // How they were is read of the machine's own kernel.
        let kept = fs::read_to_string(data.join("sysctls-before.json")).unwrap();
        assert!(kept.contains("kernel/panic") && !kept.contains("panic_on_oom"), "{kept}");
    }

    #[test]
    fn a_network_of_its_own_is_no_machine() {
        let elsewhere = std::thread::spawn(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            is_the_machines("thread-self")
        });
        assert!(!elsewhere.join().unwrap());
        // The first process need not be anybody's to look at.
        assert_eq!(is_the_machines("1"), fs::read_link("/proc/1/ns/net").is_ok());
    }
}
