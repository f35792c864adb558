//! Limits of the kernel's that nodes run into: each is there by default, and too low for many pods.

use super::Finding;

/// A setting below `/proc/sys`, and the least that it should be.
const LEAST: [(&str, u64); 4] = [
    // Each container's log follower, kubelet and many programs have one.
    ("fs/inotify/max_user_instances", 128),
    ("fs/inotify/max_user_watches", 8_192),
    ("fs/file-max", 100_000),
    ("kernel/pid_max", 32_768),
];
/// Connections that the kernel tracks, and how many it can.
const TRACKED: (&str, &str) = ("net/netfilter/nf_conntrack_count", "net/netfilter/nf_conntrack_max");
/// Percent of it that is a warning.
const NEARLY_FULL: u64 = 90;

/// Looks at all of them.
pub(super) fn look() -> Finding {
    judge(&|name| std::fs::read_to_string(format!("/proc/sys/{name}")).ok()?.trim().parse().ok())
}

/// `read` answers with a setting's value, where there is one.
fn judge(read: &dyn Fn(&str) -> Option<u64>) -> Finding {
    let sysctl = |name: &str| name.replace('/', ".");
    let mut low: Vec<String> = LEAST
        .iter()
        .filter_map(|(name, least)| Some((*name, read(name)?, *least)))
        .filter(|(_, value, least)| value < least)
        .map(|(name, value, least)| format!("{} = {value}, better {least}", sysctl(name)))
        .collect();
    if let (Some(count), Some(most)) = (read(TRACKED.0), read(TRACKED.1))
        && count.saturating_mul(100) > most.saturating_mul(NEARLY_FULL)
    {
        low.push(format!("{count} of {most} connections are tracked: {} is too low", sysctl(TRACKED.1)));
    }
    if low.is_empty() {
        return Finding::ok("kernel limits", "enough");
    }
    Finding::warning("kernel limits", low.join("; "), "set them in a file below /etc/sysctl.d, then sysctl --system")
}

#[cfg(test)]
mod tests {
    use super::super::Severity;
    use super::*;

    #[test]
    fn only_what_is_known_and_low_is_named() {
        assert_eq!(judge(&|_| None).severity, Severity::Ok);
        let found = judge(&|name| match name {
            "kernel/pid_max" => Some(4_096),
            "net/netfilter/nf_conntrack_count" => Some(95),
            "net/netfilter/nf_conntrack_max" => Some(100),
            _ => Some(u64::MAX),
        });
        assert_eq!(found.severity, Severity::Warning);
        assert_eq!(
            found.message,
            "kernel.pid_max = 4096, better 32768; 95 of 100 connections are tracked: net.netfilter.nf_conntrack_max is too low"
        );
    }
}
