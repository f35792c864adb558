//! `bridge`: connects containers to a bridge of the host, each by a veth pair.

mod check;
mod config;
mod setup;
pub mod unlink;

use netns::Netlink;

use crate::delegate;
use crate::error::{Code, Error, Result};
use crate::request::{Command, Request};
use crate::rules::Rules;
use crate::types::Success;
use config::Config;

/// Runs the command. Only ADD has a result.
pub async fn run(request: &Request) -> Result<Option<Success>> {
    let config = Config::read(request)?;
    match request.command {
        Command::Add => setup::add(request, &config).await.map(Some),
        Command::Del => delete(request, &config).await.map(|()| None),
        Command::Check => check::run(request, &config).await.map(|()| None),
        Command::Status => status(request, &config).await.map(|()| None),
        Command::Gc => collect_garbage(request, &config).await.map(|()| None),
    }
}

/// Removes everything of the attachment. Its addresses last, and only when nothing answers at them any longer: somebody else has them next.
async fn delete(request: &Request, config: &Config) -> Result<()> {
    let link = delete_link(request).await;
    let masquerading = if config.ip_masq { Rules::open()?.remove(request).await } else { Ok(()) };
    link.and(masquerading)?;
    match delegate::ipam_type(request)? {
        Some(plugin) => delegate::ipam(request, plugin).map(drop),
        None => Ok(()),
    }
}

/// The host's end is found without the container's namespace, which may be gone; both ends go together.
async fn delete_link(request: &Request) -> Result<()> {
    let host = Netlink::open_current()?;
    if unlink::delete(&host, &request.attachment.host_link()).await? || request.netns.is_none() {
        return Ok(());
    }
    // A pair that another bridge plugin made, before this one took over.
    match request.open_netns() {
        Ok(namespace) => {
            let inside = Netlink::open_visiting(&namespace)?;
            inside.delete_link(&request.attachment.interface).await?;
            Ok(())
        }
        Err(_gone) => Ok(()),
    }
}

async fn status(request: &Request, config: &Config) -> Result<()> {
    if let Some(plugin) = delegate::ipam_type(request)? {
        delegate::ipam(request, plugin)?;
    }
    match Netlink::open_current()?.link(&config.bridge).await? {
        Some(link) if link.kind != netns::LinkKind::Bridge => {
            Err(Error::new(Code::NotAvailable, format!("{:?} exists but is not a bridge", config.bridge)))
        }
        _ => Ok(()),
    }
}

async fn collect_garbage(request: &Request, config: &Config) -> Result<()> {
    let released = match delegate::ipam_type(request)? {
        Some(plugin) => delegate::ipam(request, plugin).map(drop),
        None => Ok(()),
    };
    let masquerading = if config.ip_masq { Rules::open()?.retain(request).await } else { Ok(()) };
    released.and(masquerading)
}
