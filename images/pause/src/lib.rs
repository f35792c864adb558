//! The pause image: one static program of a few kilobytes that holds a pod's namespaces. Part of the agent, so that a node needs
//! no registry to start its first pod.

use std::io;

/// The program itself.
pub const PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/pause"));

/// The image's only layer: `/pause`, the same bytes whenever it is built.
///
/// # Errors
/// Never in practice: it writes to memory.
pub fn layer() -> io::Result<Vec<u8>> {
    let mut header = tar::Header::new_gnu();
    header.set_size(PROGRAM.len() as u64);
    header.set_mode(0o755);
    let mut tar = tar::Builder::new(Vec::new());
    tar.append_data(&mut header, "pause", PROGRAM)?;
    tar.into_inner()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;

    use super::*;

    #[test]
    fn is_a_few_kilobytes_and_ends_on_sigterm() {
        assert!(PROGRAM.len() < 16 * 1024, "{} bytes", PROGRAM.len());
        let path = std::env::temp_dir().join(format!("keelson-pause-{}", std::process::id()));
        std::fs::write(&path, PROGRAM).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let mut child = Command::new(&path).spawn().unwrap();
        // Until the program has blocked its signals SIGTERM would kill it: either way it must end, but only one way is ours.
        std::thread::sleep(std::time::Duration::from_millis(300));
        assert_eq!(child.try_wait().unwrap(), None);
        assert!(Command::new("kill").arg(child.id().to_string()).status().unwrap().success());
        let status = child.wait().unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!((status.code(), status.signal()), (Some(0), None));
    }

    #[test]
    fn layer_is_reproducible() {
        assert_eq!(layer().unwrap(), layer().unwrap());
    }
}
