//! The probers of one pod: started and ended as the plan says, each on one container instance.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use api::ContainerId;
use futures::StreamExt;
use k8s_openapi::api::core::v1::{Container as Spec, PodStatus, Probe as ProbeSpec};
use pod::{Container, ProbeResults, ProbeTarget};
use probes::{Asked, Exec, ExecError, ExecOutput, Handler, Kind, Probe, Prober, Scheme, Start, Verdict};
use tokio_stream::StreamMap;
use tokio_stream::wrappers::WatchStream;

type Key = (ContainerId, Kind);

/// The probers that run.
#[derive(Default)]
pub struct ProbeSet {
    running: HashMap<Key, Prober>,
    changes: StreamMap<Key, WatchStream<Verdict>>,
}

/// What a prober is made from.
pub struct Subject<'a> {
    pub spec: &'a Spec,
    pub container: &'a Container,
    /// Where the pod answers: its own address, or the node's.
    pub ip: Option<IpAddr>,
    /// What the pod's status said last: a container that was ready stays so until it fails again.
    pub status: Option<&'a PodStatus>,
    /// Whether the container was started by an agent that has ended since.
    pub resumed: bool,
}

impl ProbeSet {
    /// Ends the probers of containers that are gone.
    pub fn keep(&mut self, targets: &[ProbeTarget]) {
        let wanted = |(id, kind): &Key| {
            targets.iter().any(|target| {
                target.id == *id
                    && match kind {
                        Kind::Startup => target.startup,
                        Kind::Liveness => target.liveness,
                        Kind::Readiness => target.readiness,
                    }
            })
        };
        let dropped: Vec<_> = self.running.keys().filter(|key| !wanted(key)).cloned().collect();
        for key in dropped {
            self.running.remove(&key);
            self.changes.remove(&key);
        }
    }

    /// Starts the probers of one container that do not run yet.
    pub fn start<E: Exec>(
        &mut self,
        target: &ProbeTarget,
        subject: &Subject<'_>,
        exec: &Arc<E>,
        asked: &(impl Fn(Kind, Asked) + Clone + Send + Sync + 'static),
    ) {
        let spec = subject.spec;
        let kinds = [
            (Kind::Startup, target.startup, &spec.startup_probe),
            (Kind::Liveness, target.liveness, &spec.liveness_probe),
            (Kind::Readiness, target.readiness, &spec.readiness_probe),
        ];
        for (kind, wanted, probe) in kinds {
            let key = (target.id.clone(), kind);
            let Some(probe) = probe.as_ref().filter(|_| wanted && !self.running.contains_key(&key)) else { continue };
            let Some(probe) = resolve(probe, spec, subject.ip) else { continue };
            let start = Start {
                initial: initial(kind, subject),
                age: age(subject.container),
                resumed: subject.resumed,
                gate: None,
            };
            let told = asked.clone();
            let prober = Prober::spawn(kind, probe, start, Arc::clone(exec), move |asked| told(kind, asked));
            self.changes.insert(key.clone(), WatchStream::from_changes(prober.watch()));
            self.running.insert(key, prober);
        }
    }

    /// What is known of each container that is probed.
    #[must_use]
    pub fn results(&self) -> BTreeMap<ContainerId, ProbeResults> {
        let mut out: BTreeMap<ContainerId, ProbeResults> = BTreeMap::new();
        for ((id, kind), prober) in &self.running {
            let results = out.entry(id.clone()).or_default();
            let slot = match kind {
                Kind::Startup => &mut results.startup,
                Kind::Liveness => &mut results.liveness,
                Kind::Readiness => &mut results.readiness,
            };
            *slot = match prober.verdict() {
                Verdict::Unknown => None,
                Verdict::Success => Some(pod::Verdict::Success),
                Verdict::Failure => Some(pod::Verdict::Failure),
            };
        }
        out
    }

    /// Waits for the next change of any verdict. Cancel-safe.
    pub async fn changed(&mut self) {
        if self.changes.next().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}

fn age(container: &Container) -> Duration {
    let now = i64::try_from(jiff::Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX);
    Duration::from_nanos(u64::try_from(now.saturating_sub(container.started_at)).unwrap_or(0))
}

/// A container that the API knows as ready or started is taken at that word until it has been asked.
fn initial(kind: Kind, subject: &Subject<'_>) -> Verdict {
    if !subject.resumed {
        return Verdict::Unknown;
    }
    let statuses = subject.status.into_iter().flat_map(|status| {
        status.container_statuses.iter().flatten().chain(status.init_container_statuses.iter().flatten())
    });
    let is = |id: &Option<String>| id.as_deref().is_some_and(|id| id.ends_with(subject.container.id.as_str()));
    let known = statuses.into_iter().find(|status| is(&status.container_id));
    match (kind, known) {
        (Kind::Readiness, Some(status)) if status.ready => Verdict::Success,
        _ => Verdict::Unknown,
    }
}

/// A probe with its defaults, numbers and addresses filled in; `None` while the pod has no address.
fn resolve(probe: &ProbeSpec, spec: &Spec, ip: Option<IpAddr>) -> Option<Probe> {
    let seconds = |value: Option<i32>, default: u64| {
        Duration::from_secs(value.and_then(|v| u64::try_from(v).ok()).unwrap_or(default))
    };
    let count = |value: Option<i32>, default: u32| value.and_then(|v| u32::try_from(v).ok()).unwrap_or(default);
    Some(Probe {
        handler: handler(probe, spec, ip)?,
        initial_delay: seconds(probe.initial_delay_seconds, 0),
        period: seconds(probe.period_seconds, 10),
        timeout: seconds(probe.timeout_seconds, 1),
        success_threshold: count(probe.success_threshold, 1),
        failure_threshold: count(probe.failure_threshold, 3),
    })
}

fn handler(probe: &ProbeSpec, spec: &Spec, ip: Option<IpAddr>) -> Option<Handler> {
    let port = |port| api::pod::container_port(spec, port).and_then(|port| u16::try_from(port).ok());
    let own = |host: &Option<String>| host.clone().filter(|h| !h.is_empty()).or_else(|| ip.map(|ip| ip.to_string()));
    if let Some(exec) = &probe.exec {
        return Some(Handler::Exec { command: exec.command.clone().unwrap_or_default() });
    }
    if let Some(get) = &probe.http_get {
        let scheme = if get.scheme.as_deref() == Some("HTTPS") { Scheme::Https } else { Scheme::Http };
        let headers = get.http_headers.iter().flatten().map(|h| (h.name.clone(), h.value.clone())).collect();
        let path = get.path.clone().unwrap_or_default();
        return Some(Handler::Http { scheme, host: own(&get.host)?, port: port(&get.port)?, path, headers });
    }
    if let Some(tcp) = &probe.tcp_socket {
        return Some(Handler::Tcp { host: own(&tcp.host)?, port: port(&tcp.port)? });
    }
    let grpc = probe.grpc.as_ref()?;
    let service = grpc.service.clone().unwrap_or_default();
    Some(Handler::Grpc { host: ip?, port: u16::try_from(grpc.port).ok()?, service })
}

/// Commands in one container, through the runtime.
pub struct RuntimeExec {
    pub runtime: cri::Client,
    pub id: ContainerId,
}

impl Exec for RuntimeExec {
    async fn exec(&self, command: &[String], timeout: Duration) -> Result<ExecOutput, ExecError> {
        match self.runtime.exec_sync(self.id.as_str(), command.to_vec(), timeout).await {
            Ok(answer) => {
                Ok(ExecOutput { exit_code: answer.exit_code, output: [answer.stdout, answer.stderr].concat() })
            }
            Err(error) if error.is_timed_out() => Err(ExecError::TimedOut),
            Err(error) => Err(ExecError::Other(error.rpc_text())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_are_resolved() {
        let spec: Spec = serde_json::from_value(serde_json::json!({
            "name": "c", "ports": [{"name": "web", "containerPort": 8080}],
            "readinessProbe": {"httpGet": {"port": "web", "path": "/x", "scheme": "HTTPS"}, "periodSeconds": 3},
            "livenessProbe": {"tcpSocket": {"port": 9, "host": "1.2.3.4"}, "failureThreshold": 5}
        }))
        .unwrap();
        let ready = resolve(spec.readiness_probe.as_ref().unwrap(), &spec, "10.0.0.1".parse().ok()).unwrap();
        assert_eq!(ready.period, Duration::from_secs(3));
        assert_eq!((ready.failure_threshold, ready.timeout), (3, Duration::from_secs(1)));
        let Handler::Http { scheme, host, port, path, .. } = ready.handler else { panic!("http") };
        assert_eq!((scheme, host.as_str(), port, path.as_str()), (Scheme::Https, "10.0.0.1", 8080, "/x"));
        let live = resolve(spec.liveness_probe.as_ref().unwrap(), &spec, None).unwrap();
        assert_eq!(live.handler, Handler::Tcp { host: "1.2.3.4".into(), port: 9 });
        assert!(resolve(spec.readiness_probe.as_ref().unwrap(), &spec, None).is_none());
    }
}
