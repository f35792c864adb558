//! Deleting a link without waiting for the kernel to free it.
//!
//! The kernel takes both ends of a pair out of their namespaces within a millisecond or two, and answers some 15 ms later,
//! when nothing refers to them any more (`netdev_run_todo`). A thread that waits for that answer would keep this process
//! from ending. So a second process asks, and this one ends as soon as the link is gone.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use netns::Netlink;

use crate::error::Result;

/// What the second process is called with, before the link's name.
pub const COMMAND: &str = "delete-link";

const POLL: Duration = Duration::from_millis(1);

/// Deletes the link `name` of this process' namespace; a link that is gone is no error. Returns whether there was one.
pub async fn delete(host: &Netlink, name: &str) -> Result<bool> {
    if host.link(name).await?.is_none() {
        return Ok(false);
    }
    if let Ok(mut child) = spawn(name) {
        while child.try_wait().is_ok_and(|ended| ended.is_none()) {
            if host.link(name).await?.is_none() {
                return Ok(true);
            }
            tokio::time::sleep(POLL).await;
        }
    }
    // The second process has done its work already, or could not: then this one learns why.
    host.delete_link(name).await?;
    Ok(true)
}

/// Runs in the second process.
pub async fn run(name: &str) -> Result<()> {
    Netlink::open_current()?.delete_link(name).await?;
    Ok(())
}

/// It must not hold the caller's pipes: a runtime reads them until they are closed.
fn spawn(name: &str) -> std::io::Result<Child> {
    let mut command = Command::new("/proc/self/exe");
    command.arg0("cni-plugins").args([COMMAND, name]).env_clear();
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()
}
