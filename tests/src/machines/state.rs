//! What is on a machine, asked from within it: before it joins and after it has left there must be no difference.

use std::collections::BTreeSet;

use anyhow::Result;

use super::guest::Guest;

/// Prints a line for each thing that a node could leave behind. What changes by itself on an idle machine is left out: logs, caches,
/// counters, systemd's own state. Kernel modules stay loaded, as they do after anybody's use,
/// with their settings; containerd keeps the folders of its own that it once made.
const LOOK: &str = r#"
set -eu
ip -o link show | awk '{print "link: " $2}'
ip -o addr show | awk '{print "address: " $2 " " $4}'
ip -4 route show table all | sed 's/ *$//; s/^/route: /'
ip rule show | sed 's/^/rule: /'
nft list ruleset | sed 's/^/nft: /'
awk '{print "mount: " $5 " " $(NF-2)}' /proc/self/mountinfo
ls /run/netns 2>/dev/null | sed 's/^/network namespace: /'
find /sys/fs/cgroup -type d | grep -vE '/(user|system-modprobe).slice|\.service$|\.service/|\.scope$' | sed 's/^/cgroup: /'
systemctl list-unit-files --no-legend --plain | awk '{print "unit file: " $1 " " $2}'
systemctl list-units --all --no-legend --plain --type service,slice,mount,socket,timer |
    awk '{print "unit: " $1 " " $2 " " $3}' | grep -vE 'systemd-|modprobe@|getty|apt-|man-db|logrotate|e2scrub|initrd|rc-local|plymouth|fstrim|ldconfig' || true
cut -d: -f1 /etc/passwd /etc/group | sed 's/^/user or group: /'
ps -eo pid,ppid,args --no-headers | awk '$1 != 2 && $2 != 2 {$1=""; $2=""; print "process:" $0}' |
    grep -vE 'process:  (\(|/bin/sh -c|ps -eo|awk|grep|sed|sort|/usr/lib/systemd|/usr/sbin/qemu-ga|\[)' || true
find / -xdev \( -path /proc -o -path /sys -o -path /dev -o -path /tmp -o -path /var/log/journal -o -path /var/lib/systemd -o -path /var/lib/apt -o -path /var/log/apt -o -path /var/cache \
    -o -path /var/lib/containerd -o -path /var/tmp -o -path /root/.ash_history \) -prune -o -printf 'file: %p %M %u\n'
find /run -mindepth 1 \( -path /run/systemd -o -path /run/udev -o -path /run/user -o -path /run/credentials -o -path /run/log \) -prune -o -printf 'file: %p\n' |
    grep -vE '/run/(lock|mount|agetty|blkid|initramfs|containerd|netns)' || true
find /etc -type f -exec sha256sum {} + | grep -vE '/etc/(resolv.conf|machine-id)' | sed 's/^/content: /'
sysctl -a 2>/dev/null | grep -vE '^(kernel.random|kernel.ns_last_pid|kernel.pty.nr|fs.dentry-state|fs.inode|fs.file-nr|fs.aio-nr|kernel.sched_domain|net.netfilter.nf_conntrack_count|fs.quota|kernel.perf_event|vm.stat|kernel.tainted|debug|net.bridge|net.netfilter.nf_|net.nf_conntrack_max|net.ipv4.tcp_fastopen_key|vm.user_reserve_kbytes)' |
    sed 's/^/setting: /'
for kind in images containers tasks; do ctr -n k8s.io $kind ls -q | sed "s/^/containerd $kind: /"; done
ctr -n k8s.io snapshots ls | awk 'NR > 1 {print "containerd snapshot: " $1}'
"#;

/// Lines as [`LOOK`] prints them.
#[derive(Debug, Clone)]
pub struct State(BTreeSet<String>);

impl State {
    /// Looks at the machine.
    ///
    /// # Errors
    /// When something cannot be looked at.
    pub fn of(guest: &Guest) -> Result<Self> {
        let said = guest.say(LOOK)?;
        // Looking at all settings mounts it.
        let lines = said.lines().map(str::trim_end).filter(|line| !line.contains("binfmt_misc"));
        Ok(Self(lines.map(str::to_owned).collect()))
    }

    /// What was added (`+`) and what is missing (`-`) since `before`. Images that nobody uses may have gone: a disk that gets full is what they
    /// are removed for.
    #[must_use]
    pub fn changes(&self, before: &Self) -> Vec<String> {
        let added = self.0.difference(&before.0).map(|line| format!("+ {line}"));
        let missing = before.0.difference(&self.0).filter(|line| !line.starts_with("containerd images: "));
        added.chain(missing.map(|line| format!("- {line}"))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_have_a_direction() {
        let state = |lines: &[&str]| State(lines.iter().map(|l| (*l).to_owned()).collect());
        let image = "containerd images: x";
        assert_eq!(state(&["a", "b"]).changes(&state(&["a", "c", image])), ["+ b", "- c"]);
        assert_eq!(state(&["a", image]).changes(&state(&["a"])), [format!("+ {image}")]);
    }
}
