//! Lifecycle hooks: exec, httpGet, sleep (pkg/kubelet/lifecycle/handlers.go).

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use api::ContainerId;
use k8s_openapi::api::core::v1::{Container, HTTPGetAction, LifecycleHandler, Pod};
use pod::Event;
use probes::Scheme;

use super::Context;
use super::stages::Say;
use crate::metrics::families::{HTTP_FALLBACKS, SLEEPS_ENDED_EARLY};

/// Runs a hook of a running container to its end.
///
/// # Errors
/// Why it failed, as a sentence.
pub async fn run(
    context: &Arc<Context>,
    pod: &Pod,
    container: &Container,
    id: &ContainerId,
    hook: &LifecycleHandler,
    pod_ip: Option<IpAddr>,
) -> Result<(), String> {
    let of = format!("for Container {:?} in Pod {:?}", container.name, api::pod::full_name(pod));
    if let Some(exec) = &hook.exec {
        let command = exec.command.clone().unwrap_or_default();
        let shown = command.join(" ");
        let answer = context.runtime.exec_sync(id.as_str(), command, Duration::ZERO).await;
        let (error, output) = match answer {
            Ok(answer) if answer.exit_code == 0 => return Ok(()),
            Ok(answer) => {
                let output = [answer.stdout, answer.stderr].concat();
                (format!("command '{shown}' exited with {}", answer.exit_code), output)
            }
            Err(error) => (error.message().to_owned(), Vec::new()),
        };
        let output = String::from_utf8_lossy(&output).into_owned();
        return Err(format!("Exec lifecycle hook ([{shown}]) {of} failed - error: {error}, message: {output:?}"));
    }
    if let Some(get) = &hook.http_get {
        return http(context, pod, container, get, pod_ip).await.map_err(|error| {
            format!("HTTP lifecycle hook ({}) {of} failed - error: {error}", get.path.as_deref().unwrap_or("/"))
        });
    }
    if let Some(sleep) = &hook.sleep {
        let mut asleep = Asleep { is_done: false };
        tokio::time::sleep(Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or(0))).await;
        asleep.is_done = true;
        return Ok(());
    }
    Err("handler: not implemented".to_owned())
}

/// A hook that sleeps. Who gives up on it drops it.
struct Asleep {
    is_done: bool,
}

impl Drop for Asleep {
    fn drop(&mut self) {
        if !self.is_done {
            SLEEPS_ENDED_EARLY.count([]);
        }
    }
}

/// Any answer will do: a hook is news, not a question. As upstream, it may take as long as the caller allows.
async fn http(
    context: &Context,
    pod: &Pod,
    container: &Container,
    get: &HTTPGetAction,
    pod_ip: Option<IpAddr>,
) -> Result<(), String> {
    let host = get.host.clone().filter(|host| !host.is_empty()).or_else(|| pod_ip.map(|ip| ip.to_string()));
    let host = host.ok_or("failed to find networking container")?;
    let port = api::pod::container_port(container, &get.port).and_then(|port| u16::try_from(port).ok());
    let port = port.ok_or_else(|| "invalid port number: 0".to_owned())?;
    let scheme = if get.scheme.as_deref() == Some("HTTPS") { Scheme::Https } else { Scheme::Http };
    let mut headers: Vec<_> = get.http_headers.iter().flatten().map(|h| (h.name.clone(), h.value.clone())).collect();
    let path = get.path.as_deref().unwrap_or("/");
    let target = probes::kinds::http::Target { scheme, host: &host, port, path, headers: &headers };
    let plain = match probes::kinds::http::get_once(&target).await {
        Err(error) if scheme == Scheme::Https && error.ends_with(probes::kinds::http::PLAIN_ANSWER) => error,
        answer => return answer.map(drop),
    };
    // Hooks were sent by http whatever they said (KEP-3140), and servers rely on it. What is secret stays here.
    headers.retain(|(name, _)| !name.eq_ignore_ascii_case("Authorization"));
    let target = probes::kinds::http::Target { scheme: Scheme::Http, host: &host, port, path, headers: &headers };
    if probes::kinds::http::get_once(&target).await.is_err() {
        return Err(plain);
    }
    HTTP_FALLBACKS.count([]);
    let at = target.authority();
    let message = format!("request to HTTPS lifecycle hook {at} got HTTP response, retry with HTTP succeeded");
    Say::new(&context.recorder, Some(pod)).event(Event::warning("LifecycleHTTPFallback", &message));
    Ok(())
}
