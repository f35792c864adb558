//! The facts of a world, in words.

use super::{Fact, short, stage, time};
use crate::view::{View, timestamp};
use crate::world::{Admission, Container, ContainerState, Desired, HookState, ProbeResults, Source, Verdict};

pub(super) fn facts(view: &View<'_>) -> Vec<Fact> {
    let mut facts = Facts(Vec::new());
    facts.add("wanted", wanted(view));
    facts.add("admission", admission(view));
    if let Some(deferral) = &view.world.deferral {
        facts.add("resize", format!("put off: {}", deferral.message));
    }
    if let Some(eviction) = &view.world.eviction {
        facts.add("eviction", format!("{}: {}", eviction.reason, eviction.message));
    }
    facts.machine(view);
    for container in &view.world.observed.containers {
        facts.add(format!("container {}", container.name), state(view, container));
    }
    for (id, results) in &view.world.observed.probes {
        let named = view.world.observed.containers.iter().find(|container| container.id == *id);
        facts.add(
            format!("probes {}", named.map_or(short(id.as_str()), |container| &container.name)),
            verdicts(results),
        );
    }
    for (of, failure) in &view.world.failures {
        let times = if failure.count == 1 { String::new() } else { format!(" ({} times in a row)", failure.count) };
        let says = format!("failed at {}{times}: {}: {}", time(failure.at), failure.reason, failure.message);
        facts.add(stage(of), says);
    }
    facts.0
}

struct Facts(Vec<Fact>);

impl Facts {
    fn add(&mut self, about: impl Into<String>, says: impl Into<String>) {
        self.0.push(Fact { about: about.into(), says: says.into() });
    }

    /// Sandboxes, volumes, cgroup, network.
    fn machine(&mut self, view: &View<'_>) {
        let observed = &view.world.observed;
        let word = |is: bool, yes: &str, no: &str| if is { yes.to_owned() } else { no.to_owned() };
        self.add("volumes", word(observed.prepared.volumes, "set up", "not set up"));
        self.add("cgroup", word(observed.prepared.cgroup, "there", "not there"));
        if !view.world.node.network_ready {
            self.add("network", "the runtime is away, or says that its network is not ready");
        }
        if observed.sandboxes.is_empty() {
            self.add("sandbox", "none");
        }
        for sandbox in &observed.sandboxes {
            let state = match (sandbox.ready, sandbox.stopped) {
                (true, _) => "ready",
                (false, true) => "stopped",
                (false, false) => "not ready",
            };
            let ips = sandbox.ips.iter().map(|ip| format!(", {ip}")).collect::<String>();
            let id = short(sandbox.id.as_str());
            let created = time(timestamp(sandbox.created_at));
            self.add("sandbox", format!("{id}, attempt {}, {state}, created at {created}{ips}", sandbox.attempt));
        }
    }
}

fn wanted(view: &View<'_>) -> String {
    let from = match &view.world.source {
        Source::Api => "by the API server",
        Source::Static { .. } => "by a manifest of this node",
    };
    match &view.world.desired {
        Desired::Gone { returns: true, .. } => "anew: its manifest went, and came back before it had ended".to_owned(),
        Desired::Gone { .. } => "no more: its object or manifest is gone".to_owned(),
        Desired::Present(pod) => match &pod.metadata.deletion_timestamp {
            Some(at) => format!("to end: deleted, to be gone by {}", time(at.0)),
            None => format!("{from}, generation {}", pod.metadata.generation.unwrap_or_default()),
        },
    }
}

fn admission(view: &View<'_>) -> String {
    match &view.world.admission {
        None => "not asked yet".to_owned(),
        Some(Admission::Admitted) => "admitted".to_owned(),
        Some(Admission::Rejected { reason, message }) => format!("rejected: {reason}: {message}"),
    }
}

fn state(view: &View<'_>, container: &Container) -> String {
    let observed = &view.world.observed;
    let id = short(container.id.as_str());
    let attempt = container.attempt;
    let state = match &container.state {
        ContainerState::Created => "created, not started".to_owned(),
        ContainerState::Running => format!("running since {}", time(timestamp(container.started_at))),
        ContainerState::Unknown => "in a state that the runtime does not know".to_owned(),
        ContainerState::Exited { .. } => exit(container),
    };
    let kill = observed.kills.get(&container.id).map(|kill| {
        let word = if kill.running { "being killed" } else { "killed" };
        format!("; {word} by this agent since {}, grace {} s", time(kill.at), kill.grace)
    });
    let hook = observed.hooks.get(&container.id).map(|hook| match hook {
        HookState::Running => "; postStart hook runs".to_owned(),
        HookState::Succeeded => "; postStart hook done".to_owned(),
        HookState::Failed { message } => format!("; postStart hook failed: {message}"),
    });
    format!("{id}, attempt {attempt}, {state}{}{}", kill.unwrap_or_default(), hook.unwrap_or_default())
}

/// How and when a container ended; empty for one that did not.
pub(super) fn exit(container: &Container) -> String {
    let ContainerState::Exited { exit_code, reason, finished_at, .. } = &container.state else { return String::new() };
    let reason = if reason.is_empty() { String::new() } else { format!(" ({reason})") };
    format!("exited with code {exit_code}{reason} at {}", time(timestamp(*finished_at)))
}

fn verdicts(results: &ProbeResults) -> String {
    let kinds = [("startup", results.startup), ("liveness", results.liveness), ("readiness", results.readiness)];
    let known = kinds.into_iter().filter_map(|(kind, verdict)| {
        Some(match verdict? {
            Verdict::Success => format!("{kind} succeeds"),
            Verdict::Failure => format!("{kind} failed failureThreshold times"),
        })
    });
    let known: Vec<String> = known.collect();
    if known.is_empty() { "no verdict yet".to_owned() } else { known.join(", ") }
}
