//! Error cases against a little TLS server that answers as an API server would.

use std::collections::BTreeMap;

use rcgen::{CertificateParams, DnType, KeyPair};
use rustls::ServerConfig;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::options::CaHash;
use super::*;
use crate::client::Server;
use crate::client::testing::answered;
use crate::config::KubeletConfiguration;
use crate::identity::csr::Purpose;
use crate::identity::tests::TestCa;

/// What the server says to `METHOD /path`: status line and body. Anything else is 404.
type Answers = BTreeMap<&'static str, (&'static str, String)>;

struct Fake {
    server: Server,
    hash: CaHash,
    ca: CertificateDer<'static>,
}

/// Starts a server whose certificate is for `names`; its task ends with the test's runtime.
async fn fake(names: &[&str], change: impl FnOnce(&mut CertificateParams), send_ca: bool, answers: Answers) -> Fake {
    let ca = TestCa::new("kubernetes");
    let mut params = CertificateParams::new(names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>()).unwrap();
    params.distinguished_name.push(DnType::CommonName, "kube-apiserver");
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    let leaf = params.signed_by(&key, &ca.issuer).unwrap().der().clone();
    let chain = if send_ca { vec![leaf, ca.der.clone()] } else { vec![leaf] };
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let mut config = ServerConfig::builder_with_provider(tls::provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let answers = Arc::new(answers);
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let (acceptor, answers) = (acceptor.clone(), Arc::clone(&answers));
            tokio::spawn(async move { serve(acceptor.accept(tcp).await?, &answers).await });
        }
    });
    let hash = {
        use x509_parser::prelude::{FromDer, X509Certificate};
        CaHash::of_spki(X509Certificate::from_der(&ca.der).unwrap().1.public_key().raw)
    };
    Fake { server: format!("127.0.0.1:{port}").parse().unwrap(), hash, ca: ca.der }
}

async fn serve(
    mut stream: tokio_rustls::server::TlsStream<tokio::net::TcpStream>,
    answers: &Answers,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 8192];
    loop {
        let read = stream.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        let head = String::from_utf8_lossy(&buffer[..read]).into_owned();
        let path = head.split_whitespace().nth(1).unwrap_or_default().to_owned();
        let missing = ("404 Not Found", failure(404, "not found"));
        let refused = ("401 Unauthorized", failure(401, "Unauthorized"));
        let is_expired = head.contains("Bearer expire.");
        let (status, body) = if is_expired { &refused } else { answers.get(path.as_str()).unwrap_or(&missing) };
        let date =
            if path == "/version" && body == "old" { "Sun, 06 Nov 1994 08:49:37 GMT".to_owned() } else { today() };
        let response = format!(
            "HTTP/1.1 {status}\r\nDate: {date}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(response.as_bytes()).await?;
    }
}

fn today() -> String {
    jiff::Timestamp::now().strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

fn failure(code: u16, message: &str) -> String {
    format!(r#"{{"kind":"Status","apiVersion":"v1","status":"Failure","message":"{message}","code":{code}}}"#)
}

async fn good(answers: Answers) -> Fake {
    fake(&["127.0.0.1"], |_| {}, true, answers).await
}

fn bootstrap(fake: &Fake) -> kube::Client {
    let config = tls::client_config(std::slice::from_ref(&fake.ca), None).unwrap();
    client::new(&fake.server.clone().into(), config, &Credentials::Token("abcdef.0123456789abcdef".into())).unwrap().0
}

#[tokio::test]
async fn the_pinned_ca_is_found_in_the_chain() {
    let fake = good(Answers::new()).await;
    assert_eq!(pin::pin(&fake.server, fake.hash).await.unwrap(), fake.ca);
}

#[tokio::test]
async fn a_stock_servers_ca_is_found_in_cluster_info() {
    use base64::Engine;
    // The CA is made inside of `fake`, so the first server lends it to nobody: its own ConfigMap cannot be known before.
    let unknown = fake(&["127.0.0.1"], |_| {}, false, Answers::new()).await;
    let error = pin::pin(&unknown.server, unknown.hash).await.unwrap_err();
    assert!(matches!(error, JoinError::HiddenCa { .. }), "{error}");
    assert!(error.to_string().contains("not found"), "{error}");
    let data = base64::engine::general_purpose::STANDARD.encode(identity::to_pem(&unknown.ca));
    let kubeconfig = format!(r#"{{"clusters":[{{"name":"","cluster":{{"certificate-authority-data":"{data}"}}}}]}}"#);
    let map = serde_json::json!({"metadata": {"name": "cluster-info"}, "data": {"kubeconfig": kubeconfig}}).to_string();
    let answers = Answers::from([("/api/v1/namespaces/kube-public/configmaps/cluster-info", ("200 OK", map))]);
    // This server is signed by another CA, so the published one is found and then does not verify it.
    let liar = fake(&["127.0.0.1"], |_| {}, false, answers).await;
    let error = pin::pin(&liar.server, unknown.hash).await.unwrap_err();
    assert!(matches!(error, JoinError::NotTls { .. }), "{error}");
}

#[tokio::test]
async fn a_wrong_hash_names_both() {
    let fake = good(Answers::new()).await;
    let error = pin::pin(&fake.server, CaHash::of_spki(b"other")).await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, JoinError::WrongCa { .. }), "{text}");
    assert!(text.contains(&fake.hash.to_string()) && text.contains(&CaHash::of_spki(b"other").to_string()), "{text}");
}

#[tokio::test]
async fn a_wrong_address_is_unreachable_or_no_api_server() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server: Server = listener.local_addr().unwrap().to_string().parse().unwrap();
    drop(listener);
    let error = pin::pin(&server, CaHash::of_spki(b"")).await.unwrap_err();
    assert!(matches!(error, JoinError::Unreachable { .. }), "{error}");

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server: Server = listener.local_addr().unwrap().to_string().parse().unwrap();
    tokio::spawn(async move {
        let (mut tcp, _) = listener.accept().await?;
        tcp.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await
    });
    let error = pin::pin(&server, CaHash::of_spki(b"")).await.unwrap_err();
    assert!(matches!(error, JoinError::NotTls { .. }), "{error}");
}

#[tokio::test]
async fn another_name_in_the_certificate_is_told() {
    let fake = fake(&["master.example"], |_| {}, true, Answers::new()).await;
    let error = pin::pin(&fake.server, fake.hash).await.unwrap_err();
    assert!(matches!(error, JoinError::WrongName { .. }), "{error}");
    assert!(error.to_string().contains("master.example"), "{error}");
}

#[tokio::test]
async fn a_certificate_of_the_future_is_a_wrong_clock() {
    let later = |params: &mut CertificateParams| {
        params.not_before = rcgen::date_time_ymd(2090, 1, 1);
        params.not_after = rcgen::date_time_ymd(2091, 1, 1);
    };
    let fake = fake(&["127.0.0.1"], later, true, Answers::new()).await;
    let error = pin::pin(&fake.server, fake.hash).await.unwrap_err();
    assert!(matches!(error, JoinError::Clock { .. }), "{error}");
}

#[tokio::test]
async fn clocks_that_differ_are_told() {
    let fake = good(Answers::from([("/version", ("200 OK", "old".to_owned()))])).await;
    let error = checks::clock(&bootstrap(&fake), &fake.server).await.unwrap_err();
    assert!(matches!(error, JoinError::Skew { direction: "ahead of", .. }), "{error}");
    let fake = good(Answers::new()).await;
    checks::clock(&bootstrap(&fake), &fake.server).await.unwrap();
}

const CONFIG_PATH: &str = "/api/v1/namespaces/kube-system/configmaps/kubelet-config";

#[tokio::test]
async fn a_wrong_token_is_told_from_a_cluster_without_configuration() {
    let token = "abcdef.0123456789abcdef".parse().unwrap();
    let fake = good(Answers::from([(CONFIG_PATH, ("401 Unauthorized", failure(401, "Unauthorized")))])).await;
    let error = checks::kubelet_config(&bootstrap(&fake), &token).await.unwrap_err();
    assert!(matches!(&error, JoinError::Token { id } if id == "abcdef"), "{error}");
    assert!(!error.to_string().contains("0123456789abcdef"));
    let fake = good(Answers::new()).await;
    assert_eq!(checks::kubelet_config(&bootstrap(&fake), &token).await.unwrap(), None);
}

#[tokio::test]
async fn a_node_that_is_one_already_needs_no_token() {
    let fake = good(Answers::new()).await;
    let token: Token = "expire.0123456789abcdef".parse().unwrap();
    let invitation = Invitation { masters: fake.server.clone().into(), ca_cert_hash: fake.hash, token: token.clone() };
    let own = TestCa::new("kubernetes").identity("n1", &Purpose::Client);
    for (stored, refused) in [(None, true), (Some(&own), false)] {
        let client = asking(&invitation, &fake.ca, stored).unwrap();
        assert_eq!(checks::kubelet_config(&client, &token).await.is_err(), refused);
    }
}

#[tokio::test]
async fn a_living_node_of_that_name_is_told() {
    let node = r#"{"metadata":{"name":"n1"},"status":{"nodeInfo":{"machineID":"m","architecture":"","bootID":"",
        "containerRuntimeVersion":"","kernelVersion":"","kubeProxyVersion":"","kubeletVersion":"","operatingSystem":"",
        "osImage":"","systemUUID":""},"conditions":[{"type":"Ready","status":"True"}]}}"#;
    let fake = good(Answers::from([("/api/v1/nodes/n1", ("200 OK", node.to_owned()))])).await;
    let client = bootstrap(&fake);
    let ask = |name, machine: &str, is_again| {
        let (client, claimant) = (client.clone(), Claimant { machine_id: machine.to_owned(), is_again });
        async move { checks::name_is_free(&client, name, &claimant).await }
    };
    for (machine, is_again) in [("other", true), ("other", false), ("", true)] {
        let error = ask("n1", machine, is_again).await.unwrap_err();
        assert!(matches!(&error, JoinError::Occupied { machine, .. } if machine == "m"), "{error}");
    }
    assert!(matches!(ask("n1", "m", false).await, Err(JoinError::OwnNode { .. })), "a kubelet, or a copy");
    // Its certificate expired a moment ago, or is one of another CA now.
    ask("n1", "m", true).await.unwrap();
    ask("n2", "", false).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_node_of_a_kubelet_that_was_ended_is_taken_over_once_it_is_not_ready() {
    let begun = tokio::time::Instant::now();
    let client = answered(move |_| {
        let status = if begun.elapsed() < Duration::from_secs(50) { "True" } else { "Unknown" };
        let info = [
            "architecture",
            "bootID",
            "containerRuntimeVersion",
            "kernelVersion",
            "kubeProxyVersion",
            "kubeletVersion",
        ];
        let info = info.into_iter().chain(["operatingSystem", "osImage", "systemUUID", "machineID"]);
        let info: BTreeMap<&str, &str> = info.map(|name| (name, "m")).collect();
        let ready = serde_json::json!([{"type": "Ready", "status": status}]);
        let node = serde_json::json!({"metadata": {}, "status": {"nodeInfo": info, "conditions": ready}});
        Some((200, node.to_string()))
    });
    let progress = Progress(crate::doctor::Output::Text);
    let ask = async |machine: &str| {
        let claimant = Claimant { machine_id: machine.to_owned(), is_again: false };
        checks::name_gets_free(&client, "n1", &claimant, progress).await
    };
    assert!(matches!(ask("other").await, Err(JoinError::Occupied { .. })), "another machine's is not waited for");
    assert!(begun.elapsed() < Duration::from_secs(1));
    ask("m").await.unwrap();
    assert!(begun.elapsed() >= Duration::from_secs(50));
}

#[tokio::test]
async fn a_node_that_comes_back_cordoned_is_told() {
    for (unschedulable, remedy) in [(true, Some("kubectl uncordon n1")), (false, None)] {
        let client = answered(move |_| {
            let node = serde_json::json!({"metadata": {"name": "n1"}, "spec": {"unschedulable": unschedulable}});
            Some((200, node.to_string()))
        });
        let finding = still_cordoned(&client, "n1").await;
        assert_eq!(finding.and_then(|finding| finding.remedy).as_deref(), remedy);
    }
}

#[tokio::test]
async fn a_wrong_runtime_socket_is_named() {
    for endpoint in ["tcp://1.2.3.4:1", "unix:///nonexistent/containerd.sock"] {
        let error = check_runtime(endpoint).await.unwrap_err();
        assert!(matches!(error, JoinError::Runtime { .. }), "{error}");
        assert!(error.to_string().contains(endpoint), "{error}");
    }
}

/// As on the command line, with all of an invitation and folders below `dir`.
fn options(dir: &Path, more: &str) -> JoinOptions {
    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        options: JoinOptions,
    }
    let hash = CaHash::of_spki(b"");
    let printed = format!("join 10.0.0.1 --token abcdef.0123456789abcdef --ca-cert-hash {hash}");
    let line = format!("{printed} --config-dir {}/etc {more}", dir.display());
    <Line as clap::Parser>::parse_from(line.split_whitespace()).options
}

fn cluster_document(fields: &str) -> String {
    format!("apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n{fields}\n")
}

#[test]
fn a_node_that_joins_again_keeps_all_that_the_command_does_not_name() {
    let dir = tempfile::tempdir().unwrap();
    let masters: Servers = "10.0.0.1,10.0.0.2".parse().unwrap();
    let more = format!(
        "--data-dir {0}/data --run-dir {0}/run --node-ip 10.9.0.1 --node-labels a=b --cgroup-root /x --cni-bin-dir /b \
         --container-runtime-endpoint unix:///x.sock --register-with-taints k=v:NoSchedule",
        dir.path().display()
    );
    let document = cluster_document("maxPods: 50\nclusterDNS: [10.96.0.10]");
    let first = options(dir.path(), &more);
    let runtime = RuntimeInfo { cni_conf_dir: Some("/said".into()), ..RuntimeInfo::default() };
    let (made, _) = compose::configuration(&first, &masters, "n1", None, Some(&document), &runtime).unwrap();
    assert_eq!((&made.node.cni_bin_dir, &made.node.cni_conf_dir), (&Some("/b".into()), &None), "it is asked anew");
    let ca = TestCa::new("ca");
    let identity = ca.identity("n1", &Purpose::Client);
    compose::write(&made, &ca.der, &identity).unwrap();
    let file = made.layout.agent_yaml();
    let text = std::fs::read_to_string(&file).unwrap().replace("maxPods: 50", "maxPods: 42 # mine");
    std::fs::write(&file, &text).unwrap();
    std::fs::create_dir(made.layout.dropin_dir()).unwrap();
    std::fs::write(made.layout.dropin_dir().join("1.conf"), cluster_document("maxPods: 7")).unwrap();

    // The printed command, from one of the masters.
    let (again, one) = (options(dir.path(), ""), "10.0.0.2".parse().unwrap());
    let earlier = Config::written(&again.config_dir).unwrap().unwrap();
    assert_eq!(compose::runtime_endpoint(&again, Some(&earlier)), "unix:///x.sock");
    let other = cluster_document("maxPods: 60\nclusterDNS: [10.97.0.10]");
    let join = |options, masters| {
        compose::configuration(options, masters, "n1", Some(&earlier), Some(&other), &RuntimeInfo::default()).unwrap()
    };
    let (kept, warnings) = join(&again, &one);
    assert_eq!((&kept.node, &kept.layout), (&made.node, &made.layout));
    assert_eq!(kept.kubelet, KubeletConfiguration { max_pods: 42, ..made.kubelet });
    assert!(warnings.len() == 2 && warnings[0].starts_with("clusterDNS stays \"10.96.0.10\""), "{warnings:?}");
    assert!(warnings[1].starts_with("server in node.yaml stays 10.0.0.1:6443,10.0.0.2:6443: take out"), "{warnings:?}");
    assert_eq!(join(&again, &masters).1.len(), 1);
    let asked = compose::key_file(&kept.layout).unwrap();
    std::fs::write(&asked, "").unwrap();
    compose::write(&kept, &ca.der, &identity).unwrap();
    assert!(!asked.exists(), "the key has its certificate");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), text, "not a comment is lost");

    // What is said counts, and so does a master that it did not know.
    let (changed, _) = join(&options(dir.path(), "--node-labels c=d"), &"10.0.0.3".parse().unwrap());
    assert_eq!((changed.node.node_labels.len(), changed.node.node_labels["c"].as_str()), (1, "d"));
    assert_eq!((changed.node.server.to_string().as_str(), changed.node.node_ip), ("10.0.0.3:6443", made.node.node_ip));
}

#[tokio::test]
async fn options_are_heeded_also_where_the_join_file_was_used() {
    let dir = tempfile::tempdir().unwrap();
    let first = options(dir.path(), "");
    let servers = "10.0.0.1".parse().unwrap();
    let (mut config, _) = compose::configuration(&first, &servers, "n1", None, None, &RuntimeInfo::default()).unwrap();
    config.layout = crate::config::Layout::new(&first.config_dir, dir.path().join("data"), dir.path().join("run"));
    assert!(!is_joined_as(&config, "n1"));
    let ca = TestCa::new("kubernetes");
    compose::write(&config, &ca.der, &ca.identity("n1", &Purpose::Client)).unwrap();
    assert!(is_joined_as(&config, "n1") && !is_joined_as(&config, "n2"));
    let again = options(dir.path(), "--container-runtime-endpoint unix:///gone.sock --dry-run");
    let ended = resumed(&again, &config, Progress(crate::doctor::Output::Text)).await;
    assert!(matches!(&ended, Err(JoinError::Runtime { endpoint, .. }) if endpoint == "unix:///gone.sock"));
}

#[test]
fn a_cluster_with_another_ca_is_the_same_by_its_masters_or_where_the_node_was_told() {
    let dir = tempfile::tempdir().unwrap();
    let servers = |text: &str| -> Servers { text.parse().unwrap() };
    let (options, master) = (options(dir.path(), ""), servers("10.0.0.1"));
    let (mut config, _) = compose::configuration(&options, &master, "n1", None, None, &RuntimeInfo::default()).unwrap();
    config.layout = crate::config::Layout::new(&options.config_dir, dir.path().join("data"), dir.path().join("run"));
    let (old, new) = (TestCa::new("kubernetes"), TestCa::new("kubernetes"));
    compose::write(&config, &old.der, &old.identity("n1", &Purpose::Client)).unwrap();
    let ask = |name: &str, at: &str, ca: &TestCa| stored(Some(&config), name, &servers(at), &ca.der);

    assert!(ask("n1", "10.0.0.9", &old).unwrap().is_some(), "it is kept, wherever the master is now");
    assert!(ask("n1", "10.0.0.2,10.0.0.1", &new).unwrap().is_none(), "another is asked for");
    assert!(matches!(ask("n1", "10.0.0.9", &new), Err(JoinError::OtherCluster { .. })));
    for (at, ca) in [("10.0.0.9", &old), ("10.0.0.1", &new)] {
        assert!(matches!(ask("n2", at, ca), Err(JoinError::OtherName { .. })));
    }
    // The new one was announced before the node went away.
    let bundle = identity::to_pem(&old.der) + &identity::to_pem(&new.der);
    std::fs::write(config.layout.ca_cert(), bundle).unwrap();
    assert!(ask("n1", "10.0.0.9", &new).unwrap().is_none());
}

#[test]
fn a_configuration_that_cannot_be_used_is_not_taken_for_none() {
    let dir = tempfile::tempdir().unwrap();
    assert!(Config::written(dir.path()).unwrap().is_none());
    let node = "nodeName: n1\nserver: https://10.0.0.1:6443\n";
    std::fs::write(dir.path().join("node.yaml"), node).unwrap();
    assert!(Config::written(dir.path()).unwrap().is_none(), "leaving was interrupted");
    std::fs::write(dir.path().join("agent.yaml"), cluster_document("maxPods: many")).unwrap();
    let error = Config::written(dir.path()).unwrap_err().to_string();
    assert!(error.contains("agent.yaml"), "{error}");
}

/// Carries bytes between whoever connects and `to`; aborting it is a master that ends with all of its connections.
async fn relay(to: &Server) -> (Server, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap().to_string().parse().unwrap();
    let to = to.to_string();
    let carrying = tokio::spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        while let Ok((mut here, _)) = listener.accept().await {
            let to = to.clone();
            connections.spawn(async move {
                let mut there = tokio::net::TcpStream::connect(to).await?;
                tokio::io::copy_bidirectional(&mut here, &mut there).await.map(drop)
            });
        }
    });
    (at, carrying)
}

#[tokio::test]
async fn a_client_goes_on_with_whichever_master_is_there() {
    let fake = good(Answers::new()).await;
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let (first, carrying) = relay(&fake.server).await;
    let (second, carrying_too) = relay(&fake.server).await;
    let servers: Servers = format!("{gone},{first},{second}").parse().unwrap();

    let lines = std::sync::Mutex::new(Vec::new());
    let (ca, answering) =
        pin::pin_any(&servers, fake.hash, |line| lines.lock().unwrap().push(line.to_owned())).await.unwrap();
    assert_eq!((ca, answering), (fake.ca.clone(), first));
    let lines = lines.into_inner().unwrap();
    assert!(lines.len() == 1 && lines[0].contains(&gone.to_string()), "{lines:?}");

    let config = tls::client_config(std::slice::from_ref(&fake.ca), None).unwrap();
    let (client, _) = client::new(&servers, config, &Credentials::Certificate).unwrap();
    let claimant = Claimant::default();
    let map = || checks::name_is_free(&client, "n1", &claimant);
    map().await.unwrap();
    carrying.abort();
    // The connection may break under one request.
    let _ = map().await;
    map().await.unwrap();
    carrying_too.abort();
    let _ = map().await;
    assert!(matches!(map().await, Err(JoinError::Api { .. })));
}

#[tokio::test]
async fn of_several_masters_one_must_answer_and_all_must_be_of_the_cluster() {
    let (fake, other) = (good(Answers::new()).await, good(Answers::new()).await);
    let gone = || async { TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string() };
    let pin = |text: String| async move { pin::pin_any(&text.parse().unwrap(), fake.hash, |_| {}).await.unwrap_err() };
    let (a, b) = (gone().await, gone().await);
    let error = pin(format!("{a},{b}")).await;
    assert!(matches!(&error, JoinError::NoMaster { failures } if failures.len() == 2), "{error}");
    assert!(error.to_string().contains(&b), "{error}");
    assert!(matches!(pin(a).await, JoinError::Unreachable { .. }));
    let error = pin(format!("{},{}", fake.server, other.server)).await;
    assert!(matches!(error, JoinError::WrongCa { .. }), "{error}");
}
