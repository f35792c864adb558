//! The row of a pod: upstream's `printPod`.

use api::pod::is_terminal_phase;
use jiff::Timestamp;
use serde_json::Value;

use crate::table::{self, or_none};
use crate::value::Fields;

pub(crate) fn pod(pod: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (pod.at("spec"), pod.at("status"));
    let summary = Summary::of(pod);
    let restarts = match summary.last_restart {
        Some(time) if summary.restarts > 0 => {
            let ago = table::human_duration(now.as_second().saturating_sub(time.as_second()));
            format!("{} ({ago} ago)", summary.restarts)
        }
        _ => summary.restarts.to_string(),
    };
    let ip = status.list("podIPs").first().map_or("", |ip| ip.text("ip"));
    vec![
        table::name(pod),
        format!("{}/{}", summary.ready, summary.total).into(),
        summary.reason.into(),
        restarts.into(),
        table::age(pod, now),
        or_none(ip),
        or_none(spec.text("nodeName")),
        or_none(status.text("nominatedNodeName")),
        readiness_gates(spec, status),
    ]
}

fn readiness_gates(spec: &Value, status: &Value) -> Value {
    let gates = spec.list("readinessGates");
    if gates.is_empty() {
        return "<none>".into();
    }
    let holds = |gate: &&Value| {
        table::condition(status, gate.text("conditionType")).is_some_and(|c| c.text("status") == "True")
    };
    format!("{}/{}", gates.iter().filter(holds).count(), gates.len()).into()
}

/// What the first columns say.
#[derive(Default)]
struct Summary {
    reason: String,
    ready: usize,
    total: usize,
    restarts: i64,
    last_restart: Option<Timestamp>,
}

impl Summary {
    fn of(pod: &Value) -> Self {
        let (spec, status) = (pod.at("spec"), pod.at("status"));
        let phase = status.text("phase");
        let mut summary = Self { reason: phase.to_string(), total: spec.list("containers").len(), ..Self::default() };
        summary.total += spec.list("initContainers").iter().filter(|c| is_sidecar(c)).count();
        if !status.text("reason").is_empty() {
            summary.reason = status.text("reason").to_string();
        }
        if table::condition(status, "PodScheduled").is_some_and(|c| c.text("reason") == "SchedulingGated") {
            summary.reason = "SchedulingGated".to_string();
        }
        let sidecars = summary.init_containers(spec, status);
        let initialized = table::condition(status, "Initialized").is_some_and(|c| c.text("status") == "True");
        if sidecars.initialized || initialized {
            (summary.restarts, summary.last_restart) = (sidecars.restarts, sidecars.last_restart);
            summary.containers(status);
        }
        if pod.at("metadata").has("deletionTimestamp") {
            if status.text("reason") == "NodeLost" {
                summary.reason = "Unknown".to_string();
            } else if !is_terminal_phase(Some(phase)) {
                summary.reason = "Terminating".to_string();
            }
        }
        summary
    }

    /// Counts init containers up to the first that is not done, which gives the reason.
    fn init_containers(&mut self, spec: &Value, status: &Value) -> Sidecars {
        let mut sidecars = Sidecars { initialized: true, restarts: 0, last_restart: None };
        let containers = spec.list("initContainers");
        for (index, container) in status.list("initContainerStatuses").iter().enumerate() {
            let restarts = container.int("restartCount").unwrap_or(0);
            self.restarts += restarts;
            self.last_restart = self.last_restart.max(finished(container));
            let is_sidecar = containers.iter().any(|c| c.text("name") == container.text("name") && is_sidecar(c));
            if is_sidecar {
                sidecars.restarts += restarts;
                sidecars.last_restart = sidecars.last_restart.max(finished(container));
            }
            let state = container.at("state");
            let terminated = state.at("terminated");
            if state.has("terminated") && terminated.int("exitCode").unwrap_or(0) == 0 {
                continue;
            }
            if is_sidecar && container.flag("started") {
                self.ready += usize::from(container.flag("ready"));
                continue;
            }
            let waiting = state.at("waiting").text("reason");
            self.reason = if state.has("terminated") {
                format!("Init:{}", end_reason(terminated))
            } else if !matches!(waiting, "" | "PodInitializing") {
                format!("Init:{waiting}")
            } else {
                format!("Init:{index}/{}", containers.len())
            };
            sidecars.initialized = false;
            break;
        }
        sidecars
    }

    fn containers(&mut self, status: &Value) {
        let mut running = false;
        let mut error = String::new();
        for container in status.list("containerStatuses").iter().rev() {
            self.restarts += container.int("restartCount").unwrap_or(0);
            self.last_restart = self.last_restart.max(finished(container));
            let state = container.at("state");
            let waiting = state.at("waiting").text("reason");
            if !waiting.is_empty() {
                self.reason = waiting.to_string();
            } else if state.has("terminated") {
                self.reason = end_reason(state.at("terminated"));
                if state.at("terminated").int("exitCode").unwrap_or(0) != 0 {
                    error.clone_from(&self.reason);
                }
            } else if container.flag("ready") && state.has("running") {
                running = true;
                self.ready += 1;
            }
        }
        if self.reason != "Completed" {
            return;
        }
        let ready = table::condition(status, "Ready").is_some_and(|c| c.text("status") == "True");
        if running && ready {
            self.reason = "Running".to_string();
        } else if !error.is_empty() {
            self.reason = error;
        } else if running {
            self.reason = "NotReady".to_string();
        }
    }
}

struct Sidecars {
    /// No init container is still to do.
    initialized: bool,
    restarts: i64,
    last_restart: Option<Timestamp>,
}

fn is_sidecar(container: &Value) -> bool {
    container.text("restartPolicy") == "Always"
}

fn finished(container: &Value) -> Option<Timestamp> {
    container.at("lastState").at("terminated").text("finishedAt").parse().ok()
}

fn end_reason(terminated: &Value) -> String {
    let signal = terminated.int("signal").unwrap_or(0);
    match terminated.text("reason") {
        "" if signal != 0 => format!("Signal:{signal}"),
        "" => format!("ExitCode:{}", terminated.int("exitCode").unwrap_or(0)),
        reason => reason.to_string(),
    }
}
