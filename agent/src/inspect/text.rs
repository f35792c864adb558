//! What people are shown, as text. Pure.

use std::fmt::Write as _;

use jiff::Timestamp;
use pod::Explanation;

use super::views::{ContainerUse, ContainerView, Explained, PodView, Top, Use};
use crate::pods::journal::{Decision, History};

/// Pods, each with its containers below.
#[must_use]
pub fn pods(pods: &[PodView], now: Timestamp) -> String {
    if pods.is_empty() {
        return "No pods on this node.\n".to_owned();
    }
    let head = ["NAMESPACE", "POD / CONTAINER", "STATE", "READY", "RESTARTS", "IP", "AGE"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for pod in pods {
        let counted = || pod.containers.iter().filter(|container| matches!(&*container.role, "app" | "sidecar"));
        let ready = counted().filter(|container| container.ready).count();
        let restarts: i32 = counted().map(|container| container.restart_count).sum();
        rows.push(vec![
            pod.namespace.clone(),
            pod.name.clone(),
            phase(pod),
            format!("{ready}/{}", counted().count()),
            restarts.to_string(),
            pod.pod_ip.clone().unwrap_or_else(|| "-".to_owned()),
            pod.start_time.map_or_else(|| "-".to_owned(), |start| age(start, now)),
        ]);
        rows.extend(pod.containers.iter().map(container));
    }
    table(&rows)
}

fn phase(pod: &PodView) -> String {
    match &pod.reason {
        _ if pod.terminating => "Terminating".to_owned(),
        Some(reason) => format!("{} ({reason})", pod.phase),
        None => pod.phase.clone(),
    }
}

fn container(container: &ContainerView) -> Vec<String> {
    let role = if container.role == "app" { String::new() } else { format!(" ({})", container.role) };
    let last = container.last_state.as_ref().map(|last| format!("; before: {last}")).unwrap_or_default();
    let probes =
        if container.probes.is_empty() { String::new() } else { format!("; {} probe", container.probes.join(", ")) };
    vec![
        String::new(),
        format!("  {}{role}", container.name),
        format!("{}{last}{probes}", container.state),
        if container.ready { "yes" } else { "no" }.to_owned(),
        container.restart_count.to_string(),
        String::new(),
        String::new(),
    ]
}

/// What pods and containers use.
#[must_use]
pub fn top(top: &Top) -> String {
    let head = ["NAMESPACE", "POD / CONTAINER", "CPU", "OF REQUEST", "OF LIMIT", "MEMORY", "OF REQUEST", "OF LIMIT"];
    let mut rows = vec![head.map(str::to_owned).to_vec(), line("", "(this machine)", top.node, None)];
    for pod in &top.pods {
        rows.push(line(&pod.namespace, &pod.name, pod.used, None));
        for container in &pod.containers {
            rows.push(line("", &format!("  {}", container.name), container.used, Some(container)));
        }
    }
    table(&rows)
}

fn line(namespace: &str, name: &str, used: Use, container: Option<&ContainerUse>) -> Vec<String> {
    let (requests, limits) =
        container.map_or_else(Default::default, |container| (container.requests, container.limits));
    let cpu = |millis: u64| format!("{millis}m");
    let of = |used: Option<u64>, whole: Option<u64>, text: fn(u64) -> String| match (used, whole) {
        (Some(used), Some(whole)) if whole > 0 => format!("{}% of {}", used.saturating_mul(100) / whole, text(whole)),
        _ => "-".to_owned(),
    };
    vec![
        namespace.to_owned(),
        name.to_owned(),
        used.cpu_millis.map_or_else(|| "-".to_owned(), cpu),
        of(used.cpu_millis, requests.cpu_millis, cpu),
        of(used.cpu_millis, limits.cpu_millis, cpu),
        used.memory_bytes.map_or_else(|| "-".to_owned(), bytes),
        of(used.memory_bytes, requests.memory_bytes, bytes),
        of(used.memory_bytes, limits.memory_bytes, bytes),
    ]
}

fn bytes(count: u64) -> String {
    match count {
        0..1024 => format!("{count}B"),
        1024..1_048_576 => format!("{}Ki", count >> 10),
        _ => format!("{}Mi", count >> 20),
    }
}

/// What is wanted for a pod and why, and what was decided before.
#[must_use]
pub fn explained(explained: &Explained) -> String {
    let mut text = String::new();
    match (&explained.pod, &explained.now) {
        (Some(pod), Some(now)) => {
            line_of(&mut text, &format!("{}/{} ({}): {}", pod.namespace, pod.name, pod.uid, phase(pod)));
            now_text(&mut text, now);
        }
        (Some(pod), None) => {
            line_of(&mut text, &format!("{}/{} ({}): {}", pod.namespace, pod.name, pod.uid, phase(pod)));
            line_of(&mut text, "\nNothing is planned: the container runtime cannot be read (agent doctor).");
        }
        (None, _) => line_of(&mut text, "The pod is gone from this node."),
    }
    for history in &explained.history {
        decisions(&mut text, history);
    }
    text
}

fn now_text(text: &mut String, now: &Explanation) {
    line_of(text, "\nNext:");
    for step in &now.steps {
        line_of(text, &format!("  {}\n    because {}", step.step, step.because));
    }
    for wait in &now.waits {
        line_of(text, &format!("  wait: {wait}"));
    }
    if now.steps.is_empty() && now.waits.is_empty() {
        line_of(text, "  nothing: all is as it is wanted");
    }
    if let Some(at) = &now.wake_at {
        line_of(text, &format!("  looked at again at {at}, or when something happens"));
    }
    line_of(text, &format!("\nDecided at {} from:", now.at));
    let rows: Vec<Vec<String>> =
        now.facts.iter().map(|fact| vec![format!("  {}", fact.about), fact.says.clone()]).collect();
    text.push_str(&table(&rows));
}

fn decisions(text: &mut String, history: &History) {
    line_of(text, &format!("\nDecisions about {}:", history.uid));
    history.decisions.iter().for_each(|decision| line_of(text, &decision_text(decision)));
}

fn decision_text(decision: &Decision) -> String {
    let outcome = match &decision.outcome {
        None => "under way".to_owned(),
        Some(outcome) => {
            let took = outcome.at.duration_since(decision.at).as_millis();
            match &outcome.error {
                None => format!("done in {took} ms"),
                Some(error) => format!("FAILED after {took} ms: {error}"),
            }
        }
    };
    let (at, step, because) = (decision.at, &decision.reason.step, &decision.reason.because);
    format!("  {at:.3}  {step}: {outcome}\n    because {because}")
}

fn line_of(text: &mut String, line: &str) {
    text.push_str(line);
    text.push('\n');
}

/// As kubectl says it: the two largest units.
fn age(start: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(start).as_secs().max(0);
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{}s", seconds % 60),
        (0, ..) => format!("{hours}h{minutes}m"),
        _ => format!("{days}d{hours}h"),
    }
}

/// Columns, each as wide as its widest cell; the last is as wide as it is.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            // Writing to a String cannot fail.
            let _ = write!(line, "{cell:<width$}   ");
        }
        line_of(&mut text, line.trim_end());
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use pod::explain::{Fact, Reason};

    use super::*;
    use crate::inspect::views::PodUse;
    use crate::pods::journal::Outcome;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn pod() -> PodView {
        PodView {
            namespace: "default".into(),
            name: "web".into(),
            uid: "u-1".into(),
            phase: "Running".into(),
            reason: None,
            pod_ip: Some("10.0.0.7".into()),
            start_time: Some(at(0)),
            terminating: false,
            containers: vec![ContainerView {
                name: "app".into(),
                role: "app".into(),
                image: "image:1".into(),
                state: "waiting: CrashLoopBackOff".into(),
                last_state: Some("exited 1 (Error)".into()),
                ready: false,
                restart_count: 2,
                probes: vec!["liveness".into()],
            }],
        }
    }

    #[test]
    fn pods_have_their_containers_below() {
        let expected = "\
NAMESPACE   POD / CONTAINER   STATE                                                                READY   RESTARTS   IP         AGE
default     web               Running                                                              0/1     2          10.0.0.7   1h2m
              app             waiting: CrashLoopBackOff; before: exited 1 (Error); liveness probe   no      2
";
        assert_eq!(normal(&pods(&[pod()], at(3725))), normal(expected));
        assert_eq!(pods(&[], at(0)), "No pods on this node.\n");
        assert_eq!(age(at(0), at(59)), "59s");
        assert_eq!(age(at(0), at(125)), "2m5s");
        assert_eq!(age(at(0), at(90_000)), "1d1h");
    }

    /// Without the width of columns.
    fn normal(text: &str) -> Vec<Vec<&str>> {
        text.lines().map(|line| line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect()).collect()
    }

    #[test]
    fn columns_are_as_wide_as_they_must_be() {
        let rows = [vec!["a".to_owned(), "bb".to_owned()], vec!["ccc".to_owned(), "d".to_owned()]];
        assert_eq!(table(&rows), "a     bb\nccc   d\n");
    }

    #[test]
    fn use_stands_beside_what_was_asked_for() {
        let amount = |cpu, memory| Use { cpu_millis: cpu, memory_bytes: memory };
        let container = ContainerUse {
            name: "app".into(),
            used: amount(Some(50), Some(64 << 20)),
            requests: amount(Some(100), None),
            limits: amount(None, Some(128 << 20)),
        };
        let used = container.used;
        let pod = PodUse { namespace: "default".into(), name: "web".into(), used, containers: vec![container] };
        let text = top(&Top { at: at(0), node: amount(None, Some(1 << 30)), pods: vec![pod] });
        let rows = normal(&text);
        assert_eq!(rows[1], ["(this machine)", "-", "-", "-", "1024Mi", "-", "-"]);
        assert_eq!(rows[2], ["default", "web", "50m", "-", "-", "64Mi", "-", "-"]);
        assert_eq!(rows[3], ["app", "50m", "50% of 100m", "-", "64Mi", "-", "50% of 128Mi"]);
    }

    #[test]
    fn an_explanation_says_what_comes_next_why_and_what_was() {
        let reason = |step: &str, because: &str| Reason { step: step.into(), because: because.into() };
        let decision = Decision {
            at: at(0),
            reason: reason("restart container app (attempt 1)", "it exited"),
            outcome: Some(Outcome { at: at(1), error: Some("RunContainerError: no".into()) }),
        };
        let history = History {
            uid: "u-1".into(),
            namespace: "default".into(),
            name: "web".into(),
            decisions: VecDeque::from([decision]),
        };
        let now = Explanation {
            at: "2027-01-15T08:00:00.000Z".into(),
            facts: vec![Fact { about: "admission".into(), says: "admitted".into() }],
            steps: vec![reason("set up volumes", "they are not set up")],
            waits: vec!["container app is being started".into()],
            wake_at: None,
            done: false,
        };
        let text = explained(&Explained { pod: Some(pod()), now: Some(now), history: vec![history] });
        let expected = "\
default/web (u-1): Running

Next:
  set up volumes
    because they are not set up
  wait: container app is being started

Decided at 2027-01-15T08:00:00.000Z from:
  admission   admitted

Decisions about u-1:
  2027-01-15T08:00:00.000Z  restart container app (attempt 1): FAILED after 1000 ms: RunContainerError: no
    because it exited
";
        assert_eq!(text, expected);
    }
}
