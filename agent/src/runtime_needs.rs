//! What the runtime expects on this machine by its own configuration: the pause image under its name, CNI plugins and configuration in its
//! folders. Another version of it, or another configuration, expects other ones; so it is asked again whenever it comes back.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};

use crate::client::backoff::Backoff;
use crate::client::watch::describe;
use crate::config::Config;
use crate::network::Folders;
use crate::{pause_image, runtime_info};

/// Sees to it for as long as the agent runs. `back` is told when the runtime may be another one.
pub async fn keep(
    runtime: cri::Client,
    config: Arc<Config>,
    back: Arc<Notify>,
    folders: watch::Sender<Option<Folders>>,
) {
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(30));
    loop {
        match look(&runtime, &config, &folders).await {
            Ok(()) => {
                backoff.reset();
                back.notified().await;
            }
            Err(error) => {
                tracing::warn!(error = %describe(&error), "the runtime has not all that it needs for pods, will retry");
                // Cancel-safe: a pause, and a notification that comes while nobody waits is a permit.
                tokio::select! {
                    () = back.notified() => {}
                    () = backoff.wait() => {}
                }
            }
        }
    }
}

async fn look(
    runtime: &cri::Client,
    config: &Config,
    folders: &watch::Sender<Option<Folders>>,
) -> Result<(), pause_image::Error> {
    let info = runtime_info::configured(runtime).await?;
    let now = Folders::of(&config.node, &info);
    folders.send_if_modified(|known| {
        let is_new = known.as_ref() != Some(&now);
        if is_new {
            tracing::info!(conf = %now.conf.display(), bin = %now.bin.display(), "where CNI configuration and plugins belong");
            *known = Some(now);
        }
        is_new
    });
    pause_image::place(runtime, info, &config.layout.data_dir).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::minimal;

    #[tokio::test(start_paused = true)]
    async fn a_runtime_that_comes_back_as_another_is_served_as_that() {
        let fake = cri::fake::Fake::default();
        let is = |pause: &str, bin: &str| {
            fake.add_image(pause);
            fake.configure(&format!(r#"{{"sandboxImage":"{pause}","cni":{{"binDir":"{bin}","confDir":"/c"}}}}"#));
        };
        let mut config = minimal();
        (config.node.cni_bin_dir, config.node.cni_conf_dir) = (None, None);
        let (back, (folders, mut seen)) = (Arc::new(Notify::new()), watch::channel(None));
        is("pause:3.6", "/usr/lib/cni");
        let task = tokio::spawn(keep(fake.client(), Arc::new(config), Arc::clone(&back), folders));
        let asked = |pause: &str| fake.calls().iter().any(|call| call.rpc == "ImageStatus" && call.id == pause);
        for (pause, bin) in [("pause:3.6", "/usr/lib/cni"), ("pause:3.8", "/opt/cni/bin")] {
            is(pause, bin);
            back.notify_one();
            let is_there =
                |known: &Option<Folders>| known.as_ref().is_some_and(|now| now.bin == std::path::Path::new(bin));
            seen.wait_for(is_there).await.unwrap();
            while !asked(pause) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        task.abort();
    }
}
