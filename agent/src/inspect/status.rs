//! `agent status`: whether this node works, in a few lines.

use super::views::PodView;
use super::{InspectOptions, ask};
use crate::client::watch::describe;
use crate::doctor::{self, Finding};

/// Prints what the node is, whether its agent, master and runtime answer, how long its certificates last, and its pods.
///
/// # Errors
/// When something is at fault.
pub async fn status(options: &InspectOptions) -> anyhow::Result<()> {
    let (config, mut findings) = doctor::essentials(&options.config_dir).await;
    if let Some(config) = config {
        let pods = ask::ask::<Vec<PodView>>(&config.layout.agent_socket(), "/pods").await;
        findings.push(agent(pods.map_err(|error| describe(&error))));
    }
    doctor::print(&findings, options.output)
}

/// What the running agent says of its pods.
fn agent(pods: Result<Vec<PodView>, String>) -> Finding {
    let pods = match pods {
        Ok(pods) => pods,
        Err(error) => return Finding::fault("agent", error, "systemctl start agent; journalctl -u agent"),
    };
    let running = pods.iter().filter(|pod| pod.phase == "Running").count();
    let containers = pods.iter().flat_map(|pod| &pod.containers);
    let live = containers.filter(|container| container.state.starts_with("running")).count();
    Finding::ok("agent", format!("runs: {} pods, {running} of them Running, {live} containers", pods.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Severity;

    #[test]
    fn an_agent_that_does_not_answer_is_at_fault() {
        assert_eq!(agent(Err("no agent answers".into())).severity, Severity::Fault);
        let fine = agent(Ok(Vec::new()));
        assert_eq!((fine.severity, &*fine.message), (Severity::Ok, "runs: 0 pods, 0 of them Running, 0 containers"));
    }
}
