//! The whole server over real TLS, with an API server that allows everything and a runtime that is not there.
#![allow(clippy::large_futures)] // CRI's requests are large, tests are short

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::client::testing::answered;
use crate::client::tls as client_tls;
use crate::config::{KubeletConfiguration, Layout, NodeSettings};
use crate::identity::csr::Purpose;
use crate::identity::tests::TestCa;

struct NoPods;

impl Pods for NoPods {
    fn all(&self) -> Vec<Arc<Pod>> {
        Vec::new()
    }

    fn get(&self, _: &str, _: &str) -> Option<Arc<Pod>> {
        None
    }
}

/// Every pod `p` is this one.
struct Known(Arc<Pod>);

impl Pods for Known {
    fn all(&self) -> Vec<Arc<Pod>> {
        Vec::new()
    }

    fn get(&self, _: &str, name: &str) -> Option<Arc<Pod>> {
        (name == "p").then(|| Arc::clone(&self.0))
    }
}

/// A pod with a container `c`, which runs as `id`.
fn with_container(id: &str) -> serde_json::Value {
    serde_json::json!({
        "metadata": {"namespace": "ns", "name": "p", "uid": "meant"},
        "spec": {"containers": [{"name": "c"}]},
        "status": {"containerStatuses": [{"name": "c", "image": "i", "imageID": "", "ready": true, "restartCount": 0,
            "containerID": format!("containerd://{id}"), "state": {"running": {}}}]},
    })
}

fn known(pod: serde_json::Value) -> Arc<dyn Pods> {
    Arc::new(Known(Arc::new(serde_json::from_value(pod).unwrap())))
}

/// Runs container `c` of pod `ns/p` with this uid, and answers its id.
async fn start_container(fake: &cri::fake::Fake, uid: &str, log: &std::path::Path) -> String {
    use cri::v1;
    let client = fake.client();
    fake.add_image("i");
    let labels = [("pod.namespace", "ns"), ("pod.name", "p"), ("pod.uid", uid), ("container.name", "c")];
    let labels = labels.map(|(key, value)| (format!("io.kubernetes.{key}"), value.to_owned()));
    let metadata = v1::PodSandboxMetadata { name: "p".into(), uid: uid.into(), namespace: "ns".into(), attempt: 0 };
    let config = v1::PodSandboxConfig { metadata: Some(metadata), labels: labels.clone().into(), ..Default::default() };
    let request = v1::RunPodSandboxRequest { config: Some(config), runtime_handler: String::new() };
    let pod_sandbox_id = client.run_pod_sandbox(request).await.unwrap().pod_sandbox_id;
    let config = v1::ContainerConfig {
        metadata: Some(v1::ContainerMetadata { name: "c".into(), attempt: 0 }),
        image: Some(v1::ImageSpec { image: "i".into(), ..Default::default() }),
        labels: labels.into(),
        log_path: log.to_str().unwrap().to_owned(),
        ..Default::default()
    };
    let request = v1::CreateContainerRequest { pod_sandbox_id, config: Some(config), sandbox_config: None };
    let id = client.create_container(request).await.unwrap().container_id;
    client.start_container(v1::StartContainerRequest { container_id: id.clone() }).await.unwrap();
    id
}

fn allowing() -> kube::Client {
    answered(|_| Some((201, r#"{"metadata":{},"spec":{},"status":{"allowed":true}}"#.to_owned())))
}

#[tokio::test]
async fn by_default_both_families_are_served() {
    let listener = listen(&KubeletConfiguration::default().address, 0).unwrap();
    let port = local(&listener).unwrap().port();
    for address in ["127.0.0.1", "::1"] {
        TcpStream::connect((address, port)).await.unwrap();
    }
}

/// Statistics of this machine, on which no pods run.
fn provider(runtime: &cri::Client, config: &Config) -> Arc<stats::Provider> {
    let registry = Arc::new(crate::pods::registry::Registry::default());
    let storage = stats::Storage {
        registry: Arc::clone(&registry),
        runtime: runtime.clone(),
        layout: volumes::Layout::new(&config.layout.data_dir),
        logs_dir: config.layout.data_dir.clone(),
        disk: stats::disk::DiskUsage::new(Duration::from_secs(60)),
    };
    let cgroups = Arc::from(cgroups::open(cgroups::detect::detect().unwrap()).unwrap());
    let host = stats::Host::new("n1", crate::node::facts::read(std::path::Path::new("/")));
    Arc::new(stats::Provider::new(registry, cgroups, cgroups::Tree::new("/keelson-none"), host, storage))
}

struct Running {
    handle: ServeHandle,
    ca: TestCa,
    certificate: watch::Sender<Option<Identity>>,
    authorities: watch::Sender<Roots>,
    dir: std::path::PathBuf,
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.dir));
    }
}

async fn running(name: &str) -> Running {
    running_with(name, cri::Client::new("unix:///nonexistent.sock").unwrap(), Arc::new(NoPods)).await
}

async fn running_with(name: &str, runtime: cri::Client, pods: Arc<dyn Pods>) -> Running {
    running_on(name, runtime, pods, 0).await
}

async fn running_on(name: &str, runtime: cri::Client, pods: Arc<dyn Pods>, read_only_port: u16) -> Running {
    running_as(name, runtime, pods, KubeletConfiguration { read_only_port, ..KubeletConfiguration::default() }).await
}

async fn running_as(name: &str, runtime: cri::Client, pods: Arc<dyn Pods>, kubelet: KubeletConfiguration) -> Running {
    let dir = std::env::temp_dir().join(format!("keelson-serve-{}-{name}", std::process::id()));
    let layout = Layout::new(&dir, &dir, &dir);
    std::fs::create_dir_all(layout.pki_dir()).unwrap();
    let ca = TestCa::new("ca");
    let config = Config {
        layout,
        // Port 0 is refused in files; here it means any.
        kubelet: KubeletConfiguration { address: "127.0.0.1".into(), port: 0, ..kubelet },
        node: NodeSettings {
            node_name: "n1".into(),
            server: "https://127.0.0.1:1".parse().unwrap(),
            node_ip: None,
            node_labels: Default::default(),
            data_dir: dir.clone(),
            run_dir: dir.clone(),
            cni_conf_dir: Some(dir.clone()),
            cni_bin_dir: Some(dir.clone()),
        },
    };
    let (certificate, seen) = watch::channel(None);
    let stats = provider(&runtime, &config);
    let (trusted, authorities) = watch::channel(Roots::from([ca.der.clone()]));
    let inputs = ServeInputs {
        config: Arc::new(config),
        client: allowing(),
        runtime,
        pods,
        stats,
        certificate: seen,
        authorities,
    };
    let handle = start(inputs).await.unwrap();
    Running { handle, ca, certificate, authorities: trusted, dir }
}

impl Running {
    fn serving(&self) -> Identity {
        self.ca.identity("n1", &Purpose::Serving { dns: vec![], ips: vec!["127.0.0.1".parse().unwrap()] })
    }

    async fn get(&self, path: &str, identity: Option<&Identity>) -> Result<String, crate::client::ConnectError> {
        self.ask("GET", path, identity).await
    }

    async fn ask(
        &self,
        method: &str,
        path: &str,
        identity: Option<&Identity>,
    ) -> Result<String, crate::client::ConnectError> {
        let certified = identity.map(|identity| Arc::clone(&identity.certified));
        let mut tls = (*client_tls::client_config(std::slice::from_ref(&self.ca.der), certified).unwrap()).clone();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        let server: crate::client::Server = self.handle.local.to_string().parse().unwrap();
        let mut stream = server.connect(Arc::new(tls)).await?;
        let request = format!("{method} {path} HTTP/1.1\r\nHost: n1\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // The server's close without close_notify is an error to rustls and none to us.
        let _ = stream.read_to_end(&mut answer).await;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }
}

#[tokio::test]
async fn handshakes_fail_until_there_is_a_certificate_and_follow_renewals() {
    let running = running("renewal").await;
    assert!(running.get("/healthz", None).await.is_err());
    running.certificate.send_replace(Some(running.serving()));
    assert!(running.get("/healthz", None).await.unwrap().starts_with("HTTP/1.1 401"));
}

#[tokio::test]
async fn only_certificates_of_the_cluster_are_served() {
    let running = running("auth").await;
    running.certificate.send_replace(Some(running.serving()));
    let client = running.ca.identity("master", &Purpose::Client);
    assert!(running.get("/healthz", Some(&client)).await.unwrap().ends_with("ok"));
    let pods = running.get("/pods", Some(&client)).await.unwrap();
    assert!(pods.contains(r#""kind":"PodList""#), "{pods}");
    let configz = running.get("/configz", Some(&client)).await.unwrap();
    assert!(configz.contains(r#""maxPods":110"#), "{configz}");
    assert!(running.get("/nothing", Some(&client)).await.unwrap().starts_with("HTTP/1.1 404"));
    let stranger = TestCa::new("other").identity("master", &Purpose::Client);
    // TLS 1.3 reports the refused certificate with the first read.
    assert!(!running.get("/healthz", Some(&stranger)).await.is_ok_and(|answer| answer.contains("200 OK")));
}

#[tokio::test]
async fn bad_requests_are_answered_and_a_missing_runtime_is_said() {
    let runtime = cri::Client::new("unix:///nonexistent.sock").unwrap();
    let running = running_with("bad", runtime, known(with_container("1"))).await;
    running.certificate.send_replace(Some(running.serving()));
    let client = running.ca.identity("master", &Purpose::Client);
    let answer = running.get("/containerLogs/ns/p/c?tailLines=x", Some(&client)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 422") && answer.contains("tailLines: Invalid value"), "{answer}");
    let answer = running.get("/containerLogs/ns/p/c", Some(&client)).await.unwrap();
    let unable = "unable to retrieve container logs for containerd://1";
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains(unable), "{answer}");
    let answer = running.get("/exec/ns/p/c?command=sh", Some(&client)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("at least 1 of stdin, stdout, stderr"), "{answer}");
}

#[tokio::test]
async fn logs_that_are_not_there_are_told_apart() {
    let (fake, gone) = (cri::fake::Fake::default(), "/nonexistent/0.log");
    let id = start_container(&fake, "meant", std::path::Path::new(gone)).await;
    let running = running_with("logs", fake.client(), known(with_container(&id))).await;
    running.certificate.send_replace(Some(running.serving()));
    let client = running.ca.identity("master", &Purpose::Client);
    for (path, code, text) in [
        ("p/c?previous=true", 400, "previous terminated container \"c\" in pod \"p\" not found"),
        ("p/c", 400, "failed to try resolving symlinks in path \"/nonexistent/0.log\": lstat"),
        ("p/d", 404, "container \"d\" not found in pod \"p\""),
        ("q/c", 404, "pod \"q\" does not exist"),
    ] {
        let answer = running.get(&format!("/containerLogs/ns/{path}"), Some(&client)).await.unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {code}")) && answer.contains(text), "{path}: {answer}");
    }
}

/// A pod that was deleted by force still ends while another has its name.
#[tokio::test]
async fn logs_and_sessions_are_those_of_the_pod_that_is_meant_now() {
    let (fake, folder) = (cri::fake::Fake::default(), tempfile::tempdir().unwrap());
    let log = |uid: &str| {
        let path = folder.path().join(uid);
        std::fs::write(&path, format!("2026-01-01T00:00:01Z stdout F of {uid}\n")).unwrap();
        path
    };
    let id = start_container(&fake, "meant", &log("meant")).await;
    start_container(&fake, "other", &log("other")).await;
    let pods = known(with_container(&id));
    let running = running_with("same-name", fake.client(), pods).await;
    running.certificate.send_replace(Some(running.serving()));
    let client = running.ca.identity("master", &Purpose::Client);
    let answer = running.get("/containerLogs/ns/p/c", Some(&client)).await.unwrap();
    assert!(answer.contains("of meant") && !answer.contains("of other"), "{answer}");
    running.ask("POST", "/run/ns/p/c?cmd=true", Some(&client)).await.unwrap();
    let asked: Vec<String> = fake.calls().into_iter().filter(|c| c.rpc == "ExecSync").map(|c| c.id).collect();
    assert_eq!(asked, [id]);
}

#[tokio::test]
async fn statistics_are_those_of_this_machine() {
    let running = running_with("stats", cri::fake::Fake::default().client(), Arc::new(NoPods)).await;
    running.certificate.send_replace(Some(running.serving()));
    let client = running.ca.identity("master", &Purpose::Client);
    let body = |answer: String| answer.split_once("\r\n\r\n").unwrap().1.to_owned();
    let summary = body(running.get("/stats/summary", Some(&client)).await.unwrap());
    let summary: serde_json::Value = serde_json::from_str(&summary).unwrap();
    assert_eq!(summary["node"]["nodeName"], "n1");
    assert!(summary["node"]["cpu"]["usageNanoCores"].as_u64().is_some(), "{summary}");
    assert!(summary["node"]["memory"]["workingSetBytes"].as_u64().unwrap() > 0);
    let brief = running.get("/stats/summary?only_cpu_and_memory=true", Some(&client)).await.unwrap();
    assert!(brief.contains("\"cpu\"") && !brief.contains("\"rlimit\""), "{brief}");
    for (path, series) in [
        ("/metrics", "\nprocess_resident_memory_bytes "),
        ("/metrics", "\nprocess_start_time_seconds "),
        ("/metrics", "\nkubelet_running_pods 0"),
        ("/metrics/resource", "\nnode_memory_working_set_bytes "),
        ("/metrics/cadvisor", "\nmachine_cpu_cores{"),
    ] {
        let answer = running.get(path, Some(&client)).await.unwrap();
        assert!(answer.contains("text/plain; version=0.0.4") && answer.contains(series), "{path}: {answer}");
    }
}

#[tokio::test]
async fn the_read_only_port_reports_and_does_nothing_else() {
    // The kernel picks a port that is free; that nobody takes it meanwhile is likely enough.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let runtime = cri::Client::new("unix:///nonexistent.sock").unwrap();
    let running = running_on("read-only", runtime, Arc::new(NoPods), free).await;
    let get = async |path: &str| {
        let mut stream = TcpStream::connect(running.handle.read_only.unwrap()).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: n1\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    assert!(get("/healthz").await.ends_with("ok"));
    assert!(get("/pods").await.contains(r#""kind":"PodList""#));
    for path in ["/exec/ns/p/c?command=sh", "/containerLogs/ns/p/c", "/logs/", "/runningpods/"] {
        let answer = get(path).await;
        assert!(answer.starts_with("HTTP/1.1 405") && answer.contains("Debug endpoints are disabled."), "{answer}");
    }
    assert!(get("/configz").await.starts_with("HTTP/1.1 404"));
}

#[tokio::test]
async fn clients_of_another_ca_are_believed_once_it_is_trusted() {
    let running = running("authorities").await;
    running.certificate.send_replace(Some(running.serving()));
    let next = TestCa::new("next");
    let client = next.identity("master", &Purpose::Client);
    // A refused certificate ends the connection with the first thing that is read.
    assert_eq!(running.get("/healthz", Some(&client)).await.unwrap_or_default(), "");
    running.authorities.send_replace([running.ca.der.clone(), next.der.clone()].into());
    let answer = running.get("/healthz", Some(&client)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn nobody_shuts_the_port_by_connections_alone() {
    let running = running("crowd").await;
    running.certificate.send_replace(Some(running.serving()));
    let client = running.ca.identity("master", &Purpose::Client);
    let mut silent = Vec::new();
    for _ in 0..CONNECTIONS.strangers + 100 {
        silent.push(TcpStream::connect(running.handle.local).await.unwrap());
    }
    let answer = running.get("/healthz", Some(&client)).await.unwrap();
    assert!(answer.ends_with("ok"), "{answer}");
    // And who has only a token.
    let answer = running.get("/healthz", None).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    // The first of the silent ones made place.
    let mut nothing = [0];
    let closed = silent[0].read(&mut nothing);
    assert_eq!(tokio::time::timeout(HANDSHAKE / 2, closed).await.unwrap().unwrap_or(0), 0);
}

/// What a client that speaks these versions agrees upon with a server of this configuration.
async fn agreed(
    name: &str,
    kubelet: KubeletConfiguration,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> Option<(rustls::CipherSuite, rustls::NamedGroup)> {
    let runtime = cri::Client::new("unix:///nonexistent.sock").unwrap();
    let running = running_as(name, runtime, Arc::new(NoPods), kubelet).await;
    running.certificate.send_replace(Some(running.serving()));
    let mut roots = rustls::RootCertStore::empty();
    roots.add(running.ca.der.clone()).unwrap();
    let config = rustls::ClientConfig::builder_with_provider(client_tls::provider());
    let config = config.with_protocol_versions(versions).unwrap().with_root_certificates(roots).with_no_client_auth();
    let server: crate::client::Server = running.handle.local.to_string().parse().unwrap();
    let stream = server.connect(Arc::new(config)).await.ok()?;
    let session = stream.get_ref().1;
    Some((session.negotiated_cipher_suite()?.suite(), session.negotiated_key_exchange_group()?.name()))
}

#[tokio::test]
async fn the_server_offers_the_tls_that_is_configured() {
    use rustls::version::{TLS12, TLS13};
    let of =
        |version: &str| KubeletConfiguration { tls_min_version: version.into(), ..KubeletConfiguration::default() };
    assert!(agreed("tls12", of("VersionTLS12"), &[&TLS12]).await.is_some());
    assert_eq!(agreed("tls13-only", of("VersionTLS13"), &[&TLS12]).await, None);
    assert!(agreed("tls13", of("VersionTLS13"), &[&TLS12, &TLS13]).await.is_some());
    let one = "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256";
    let chosen = KubeletConfiguration {
        tls_cipher_suites: vec![one.into(), "TLS_RSA_WITH_RC4_128_SHA".into()],
        tls_curve_preferences: vec![24],
        ..KubeletConfiguration::default()
    };
    let (suite, group) = agreed("chosen", chosen.clone(), &[&TLS12]).await.unwrap();
    assert_eq!((suite.as_str(), group), (Some(one), rustls::NamedGroup::secp384r1));
    let (_, group) = agreed("chosen13", chosen, &[&TLS13]).await.unwrap();
    assert_eq!(group, rustls::NamedGroup::secp384r1);
    // Those of RSA alone: what is left is TLS 1.3.
    let old = KubeletConfiguration {
        tls_cipher_suites: vec!["TLS_RSA_WITH_RC4_128_SHA".into()],
        ..KubeletConfiguration::default()
    };
    assert_eq!(agreed("old", old.clone(), &[&TLS12]).await, None);
    assert!(agreed("old13", old, &[&TLS13]).await.is_some());
}
