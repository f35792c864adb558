//! What the machine says about itself as a whole.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use jiff::Timestamp;

/// When the machine was started.
pub(super) fn boot_time() -> Option<Timestamp> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let seconds = stat.lines().find_map(|line| line.strip_prefix("btime "))?;
    Timestamp::from_second(seconds.trim().parse().ok()?).ok()
}

/// The name of a block device, `/dev/sda`; its numbers where it has none here.
pub(super) fn device(major: u32, minor: u32) -> String {
    let link = fs::read_link(format!("/sys/dev/block/{major}:{minor}")).ok();
    let name = link.as_deref().and_then(|path| path.file_name()).map(|name| name.to_string_lossy().into_owned());
    name.map_or_else(|| format!("{major}:{minor}"), |name| format!("/dev/{name}"))
}

/// The block device of the filesystem that holds a path.
pub(super) fn device_of(path: &Path) -> Option<String> {
    let id = fs::metadata(path).ok()?.dev();
    let (major, minor) = (nix::sys::stat::major(id), nix::sys::stat::minor(id));
    Some(device(u32::try_from(major).ok()?, u32::try_from(minor).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_was_started_and_has_a_disk() {
        assert!(boot_time().unwrap() < Timestamp::now());
        assert!(device_of(Path::new("/")).is_some_and(|name| !name.is_empty()));
        assert_eq!(device(9999, 1), "9999:1");
    }
}
