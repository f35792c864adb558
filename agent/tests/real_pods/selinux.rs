//! Which files get the labels of containers, on a runtime in memory: it alone knows what labels are.

use serde_json::json;

use crate::disturbed::{Node, ready};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_agent_made_is_relabelled_and_what_is_the_machines_never() {
    for selinux in [true, false] {
        let node = Node::new(&format!("selinux-{selinux}"));
        let machine = tempfile::tempdir().unwrap();
        std::fs::create_dir(machine.path().join("part")).unwrap();
        let _agent = node.agent_with(|config| config.selinux = selinux);
        node.api.create(
            "p",
            json!({
                "terminationGracePeriodSeconds": 1,
                "volumes": [{"name": "own", "emptyDir": {}}, {"name": "host", "hostPath": {"path": machine.path()}}],
                "containers": [{"name": "c", "image": "example.com/c:1", "terminationMessagePath": "/dev/end", "volumeMounts": [
                    {"name": "own", "mountPath": "/own"}, {"name": "host", "mountPath": "/host"},
                    {"name": "host", "mountPath": "/part", "subPath": "part"},
                ]}],
            }),
        );
        node.until("the pod is Ready", || node.api.pod("p").is_some_and(|pod| ready(&pod))).await;
        let mounts = node.fake.containers().remove(0).config.mounts;
        let mut relabelled: Vec<_> =
            mounts.into_iter().filter(|mount| mount.selinux_relabel).map(|mount| mount.container_path).collect();
        relabelled.sort();
        let expected: &[&str] = if selinux { &["/dev/end", "/etc/hosts", "/own"] } else { &[] };
        assert_eq!(relabelled, expected);
        node.api.delete("p", 1);
        node.until("the pod is gone", || node.api.pod("p").is_none()).await;
    }
}
