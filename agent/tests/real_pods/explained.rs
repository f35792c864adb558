//! What a person on the machine is told through the agent's socket, of pods on a runtime in memory.

use std::os::unix::fs::PermissionsExt as _;

use agent::inspect::ask::ask;
use agent::inspect::socket::{self, Inspector};
use agent::inspect::text;
use agent::inspect::views::{Explained, PodView};
use serde_json::json;

use crate::disturbed::{Node, ready};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_is_explained_afterwards() {
    let node = Node::new("explained");
    let agent = node.agent();
    let path = node.data().join("run/agent.sock");
    let _served = tokio::spawn(socket::serve(socket::bind(&path).unwrap(), Inspector::new(&agent)));
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    node.api.create(
        "p",
        json!({
            "terminationGracePeriodSeconds": 1, "restartPolicy": "Always",
            "containers": [{"name": "c", "image": "example.com/web:1"}]
        }),
    );
    node.until("the pod is Ready", || node.api.pod("p").is_some_and(|pod| ready(&pod))).await;
    let first = node.fake.containers()[0].id.clone();
    node.fake.exit(&first, 3);
    let restarts = || node.api.pod("p").unwrap()["status"]["containerStatuses"][0]["restartCount"] == 1;
    node.until("it is restarted", restarts).await;

    let namespace = node.api.pod("p").unwrap()["metadata"]["namespace"].as_str().unwrap().to_owned();
    let question = format!("/explain/{namespace}/p");
    let explained: Explained = ask(&path, &question).await.unwrap();
    let now = explained.now.as_ref().unwrap();
    assert!(now.steps.is_empty() && now.facts.iter().any(|fact| fact.about == "admission"), "{now:?}");
    let decisions = &explained.history[0].decisions;
    let restart = decisions.iter().find(|decision| decision.reason.step.starts_with("restart container c")).unwrap();
    assert_eq!(restart.reason.step, "restart container c (attempt 1)");
    let because = format!("{} exited with code 3", &first[..12.min(first.len())]);
    assert!(restart.reason.because.starts_with(&because), "{}", restart.reason.because);
    assert!(restart.reason.because.ends_with("restartPolicy Always, without back-off"), "{}", restart.reason.because);
    assert!(restart.outcome.as_ref().unwrap().error.is_none());
    let text = text::explained(&explained);
    assert!(text.contains("nothing: all is as it is wanted") && text.contains("restart container c"), "{text}");

    let pods: Vec<PodView> = ask(&path, "/pods").await.unwrap();
    assert_eq!((pods[0].phase.as_str(), pods[0].containers[0].restart_count), ("Running", 1));
    assert!(pods[0].containers[0].state.starts_with("running since"));
    let unknown = ask::<Explained>(&path, &format!("/explain/{namespace}/q")).await.unwrap_err();
    assert_eq!(unknown.to_string(), format!("this node knows no pod {namespace}/q"));

    node.api.delete("p", 1);
    let gone = || node.api.pod("p").is_none() && agent.registry().entries().is_empty();
    node.until("the pod is gone", gone).await;
    let explained: Explained = ask(&path, &question).await.unwrap();
    assert!(explained.pod.is_none() && explained.now.is_none());
    let last = explained.history[0].decisions.back().unwrap();
    assert_eq!(
        (last.reason.step.as_str(), last.reason.because.as_str()),
        ("delete the API object for good", "the pod was deleted")
    );
}
