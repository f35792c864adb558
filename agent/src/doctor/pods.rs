//! What pods need of the node, and what is left of pods that are gone. The functions that ask come first, those that judge are pure.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use cri::v1::{ListPodSandboxRequest, PodSandbox};
use k8s_openapi::api::core::v1::Service;
use kube::Api;
use tokio::net::{TcpStream, UdpSocket};

use super::Finding;
use crate::client::watch::describe;
use crate::config::Config;
use crate::inspect::ask;
use crate::inspect::views::PodView;
use crate::{leave, runtime_info};

const PATIENCE: Duration = Duration::from_secs(5);
const DNS_PORT: u16 = 53;
/// A query for the root's name servers: any server answers it, if only by a refusal. ID 1, recursion desired, one question.
const QUERY: [u8; 17] = [0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1];

/// Looks at all of it.
pub(super) async fn look(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    let runtime = cri::Client::new(&config.kubelet.container_runtime_endpoint);
    if let Ok(runtime) = &runtime
        && let Ok(Ok(info)) = tokio::time::timeout(PATIENCE, runtime_info::ask(runtime)).await
    {
        let configured = runtime_info::configured_driver(&config.kubelet);
        let theirs = info.cgroup_driver.map(|driver| driver.to_string());
        findings.push(cgroups(&configured.to_string(), theirs.as_deref()));
    }
    findings.extend(services(config).await);
    findings.extend(dns(config).await);
    // Without the agent nobody knows which pods there should be; that it does not answer is said elsewhere.
    let known = ask::ask::<Vec<PodView>>(&config.layout.agent_socket(), "/pods").await;
    if let (Ok(known), Ok(runtime)) = (known, &runtime) {
        let known: BTreeSet<String> = known.into_iter().map(|pod| pod.uid).collect();
        let listed = runtime.list_pod_sandbox(ListPodSandboxRequest::default()).await;
        let sandboxes = listed.map(|answer| answer.items).unwrap_or_default();
        let mounts = volumes::teardown::mounted(&volumes::Layout::new(&config.layout.data_dir)).unwrap_or_default();
        findings.push(leaks(&known, &sandboxes, &mounts));
    }
    findings
}

/// The Service of the API server, by the rules of the node's own proxy.
async fn services(config: &Config) -> Option<Finding> {
    let client = leave::node_client(config).ok()?;
    let service = Api::<Service>::namespaced(client, "default").get("kubernetes").await.ok()?;
    let spec = service.spec?;
    let address: IpAddr = spec.cluster_ip?.parse().ok()?;
    let port = u16::try_from(spec.ports?.first()?.port).ok()?;
    let place = SocketAddr::new(address, port);
    let answer = tokio::time::timeout(PATIENCE, TcpStream::connect(place)).await;
    Some(reached(
        place,
        answer.map_err(|_| "no answer".to_owned()).and_then(|got| got.map(drop).map_err(|e| e.to_string())),
    ))
}

async fn dns(config: &Config) -> Option<Finding> {
    let address: IpAddr = config.kubelet.cluster_dns.first()?.parse().ok()?;
    let asking = async {
        let socket = UdpSocket::bind(if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }).await?;
        socket.connect((address, DNS_PORT)).await?;
        socket.send(&QUERY).await?;
        socket.recv(&mut [0; 512]).await
    };
    let answer = tokio::time::timeout(PATIENCE, asking).await;
    Some(resolved(
        address,
        answer.map_err(|_| "no answer".to_owned()).and_then(|got| got.map(drop).map_err(|e| describe(&e))),
    ))
}

fn cgroups(configured: &str, theirs: Option<&str>) -> Finding {
    match theirs {
        Some(theirs) if theirs != configured => Finding::warning(
            "cgroups",
            format!(
                "the runtime's cgroup driver is {theirs}, cgroupDriver in agent.yaml is {configured}; the runtime's is used"
            ),
            "drain the node, and join it again: that writes down what the runtime has",
        ),
        _ => Finding::ok("cgroups", format!("driver {configured}, as the runtime's")),
    }
}

fn reached(place: SocketAddr, answer: Result<(), String>) -> Finding {
    match answer {
        Ok(()) => Finding::ok("services", format!("{place} leads to the API server")),
        Err(error) => Finding::fault(
            "services",
            format!("{place}, the Service of the API server: {error}"),
            "are the rules there (nft list table inet keelson)? systemctl restart agent makes them anew",
        ),
    }
}

fn resolved(address: IpAddr, answer: Result<(), String>) -> Finding {
    match answer {
        Ok(()) => Finding::ok("DNS", format!("{address} answers")),
        Err(error) => Finding::warning(
            "DNS",
            format!("{address}, which pods are told to ask: {error}"),
            "is the cluster's DNS deployed, and are its pods Ready? kubectl get pods -n kube-system -l k8s-app=kube-dns",
        ),
    }
}

/// Sandboxes and mounts of pods that the agent does not know. One that has just ended is being removed: what stays is a leak.
fn leaks(known: &BTreeSet<String>, sandboxes: &[PodSandbox], mounts: &[(String, PathBuf)]) -> Finding {
    let of_sandboxes = sandboxes.iter().filter_map(|sandbox| {
        let of = sandbox.metadata.as_ref()?;
        (!known.contains(&of.uid)).then(|| format!("sandbox {} of {}/{}", sandbox.id, of.namespace, of.name))
    });
    let unknown = mounts.iter().filter(|(uid, _)| !known.contains(uid));
    let of_mounts = unknown.map(|(_, point)| format!("mount {}", point.display()));
    let found: Vec<String> = of_sandboxes.chain(of_mounts).collect();
    if found.is_empty() {
        return Finding::ok("leftovers of pods", "none");
    }
    Finding::warning(
        "leftovers of pods",
        format!("of no pod that the agent knows: {}", found.join(", ")),
        "look again in a minute; what is still there then is removed by systemctl restart agent, and its log says why it was not before",
    )
}

#[cfg(test)]
mod tests {
    use cri::v1::PodSandboxMetadata;

    use super::super::Severity::{Fault, Ok as Fine, Warning};
    use super::*;

    #[test]
    fn what_belongs_to_no_pod_is_named() {
        let sandbox = |uid: &str| PodSandbox {
            id: format!("s-{uid}"),
            metadata: Some(PodSandboxMetadata { name: "p".into(), namespace: "n".into(), uid: uid.into(), attempt: 0 }),
            ..PodSandbox::default()
        };
        let mount = |uid: &str| (uid.to_owned(), PathBuf::from(format!("/var/lib/keelson/pods/{uid}/volumes/x")));
        let known = BTreeSet::from(["u1".to_owned()]);
        assert_eq!(leaks(&known, &[sandbox("u1")], &[mount("u1")]).severity, Fine);
        let found = leaks(&known, &[sandbox("u1"), sandbox("u2")], &[mount("u1"), mount("u3")]);
        assert_eq!(found.severity, Warning);
        assert!(found.message.contains("sandbox s-u2 of n/p, mount /var/lib/keelson/pods/u3/volumes/x"), "{found:?}");
    }

    #[test]
    fn services_are_the_nodes_own_work_and_dns_is_the_clusters() {
        let place = "10.96.0.1:443".parse().unwrap();
        assert_eq!(reached(place, Ok(())).severity, Fine);
        assert_eq!(reached(place, Err("refused".into())).severity, Fault);
        assert_eq!(resolved(place.ip(), Err("no answer".into())).severity, Warning);
        assert_eq!(cgroups("systemd", Some("cgroupfs")).severity, Warning);
        assert_eq!(cgroups("systemd", None).severity, Fine);
    }
}
