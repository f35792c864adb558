//! Calling the plugins as a container runtime does, on a host that is a network namespace.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use netns::NetNs;
use netns::nft::Kernel as _;
use serde_json::{Value, json};

static COUNTER: AtomicU32 = AtomicU32::new(0);

pub const BINARY: &str = env!("CARGO_BIN_EXE_cni-plugins");

/// A namespace that is gone when this is dropped.
pub struct TestNs {
    pub ns: NetNs,
    pub path: PathBuf,
}

impl TestNs {
    pub fn new(name: &str) -> Self {
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let path = PathBuf::from(format!("/run/netns/kc-{}-{number}-{name}", std::process::id()));
        let ns = NetNs::create(&path).unwrap();
        Self { ns, path }
    }
}

impl Drop for TestNs {
    fn drop(&mut self) {
        NetNs::delete(&self.path).unwrap();
    }
}

/// A host with the plugins, and a folder for their data.
pub struct Host {
    pub host: TestNs,
    pub data: tempfile::TempDir,
}

/// A container of a host.
pub struct Container {
    pub id: String,
    pub ns: TestNs,
}

impl Container {
    pub fn new(id: &str) -> Self {
        Self { id: id.to_owned(), ns: TestNs::new("pod") }
    }
}

impl Host {
    pub fn new() -> Self {
        let host = TestNs::new("host");
        let work = async {
            let netlink = netns::Netlink::open(&host.ns).unwrap();
            let lo = netlink.require_link("lo").await.unwrap();
            netlink.set_up(lo.index).await.unwrap();
        };
        block_on(work);
        for key in ["net/bridge/bridge-nf-call-iptables", "net/bridge/bridge-nf-call-ip6tables"] {
            netns::sysctl::write(&host.ns, key, "1").unwrap();
        }
        Self { host, data: tempfile::tempdir().unwrap() }
    }

    /// What the agent writes: a bridge with a gateway and hairpin, addresses from `subnet`.
    pub fn bridge_config(&self) -> Value {
        json!({
            "cniVersion": "1.1.0", "name": "test", "type": "bridge", "bridge": "cni0",
            "isGateway": true, "isDefaultGateway": true, "hairpinMode": true, "mtu": 1400,
            "ipam": {
                "type": "host-local", "dataDir": self.data.path(),
                "ranges": [[{"subnet": "10.44.0.0/24"}], [{"subnet": "fd44::/64"}]],
            },
        })
    }

    /// Calls `plugin` for `container`, inside of the host's namespace. Returns what it prints, as an error if it fails.
    pub fn call(&self, plugin: &str, command: &str, container: &Container, config: &Value) -> Result<Value, Value> {
        let path = container.ns.path.display().to_string();
        self.call_with(
            plugin,
            config,
            &[
                ("CNI_COMMAND", command),
                ("CNI_CONTAINERID", &container.id),
                ("CNI_NETNS", &path),
                ("CNI_IFNAME", if plugin == "loopback" { "lo" } else { "eth0" }),
                ("CNI_PATH", "/nowhere"),
            ],
        )
    }

    pub fn call_with(&self, plugin: &str, config: &Value, environment: &[(&str, &str)]) -> Result<Value, Value> {
        let mut command = Command::new(BINARY);
        command.arg0(plugin).env_clear().envs(environment.iter().copied());
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let config = config.to_string();
        // The child is started by a thread inside of the namespace, and inherits it.
        self.host
            .ns
            .run(move || {
                let mut child = command.spawn().unwrap();
                let _ = child.stdin.take().unwrap().write_all(config.as_bytes());
                let output = child.wait_with_output().unwrap();
                let text = String::from_utf8(output.stdout).unwrap();
                let value = if text.is_empty() { Value::Null } else { serde_json::from_str(&text).unwrap() };
                if output.status.success() { Ok(value) } else { Err(value) }
            })
            .unwrap()
    }

    pub fn links(&self) -> Vec<String> {
        links(&self.host.ns)
    }

    pub fn has_table(&self) -> bool {
        block_on(async { netns::nft::Nft::open(&self.host.ns).unwrap().has_table("keelson-cni").await.unwrap() })
    }

    /// How many containers' addresses are masqueraded.
    pub fn masquerades(&self) -> usize {
        let elements =
            async { netns::nft::Nft::open(&self.host.ns).unwrap().elements("keelson-cni", "masqueraded4").await };
        block_on(elements).map(|all| all.len()).unwrap_or_default()
    }

    pub fn reservations(&self) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.data.path().join("test")) else { return Vec::new() };
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.filter(|name| name.parse::<std::net::IpAddr>().is_ok()).collect();
        names.sort();
        names
    }
}

pub fn links(ns: &NetNs) -> Vec<String> {
    block_on(async { netns::Netlink::open(ns).unwrap().links().await.unwrap() }).into_iter().map(|l| l.name).collect()
}

pub fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

/// The first address of the family in a result, without its length.
pub fn address(result: &Value, v6: bool) -> String {
    let ips = result["ips"].as_array().unwrap().iter().map(|ip| ip["address"].as_str().unwrap());
    let found = ips.clone().find(|ip| ip.contains(':') == v6);
    found.unwrap().split('/').next().unwrap().to_owned()
}

/// Another test's child may hold a copy of the listener before this one, between its fork and its exec.
fn listen_at(server: &NetNs, port: u16) -> TcpListener {
    for _ in 0..200 {
        match server.run(move || TcpListener::bind(("::", port))).unwrap() {
            Ok(listener) => return listener,
            Err(_in_use) => thread::sleep(Duration::from_millis(10)),
        }
    }
    panic!("port {port} stays in use");
}

/// Serves one connection in `server` and makes it from `client`. Returns the client's address as the server sees it.
pub fn exchange(client: &NetNs, server: &NetNs, listen: u16, address: &str) -> std::io::Result<String> {
    let listener = listen_at(server, listen);
    listener.set_nonblocking(true).unwrap();
    let address: SocketAddr = address.parse().unwrap();
    let connection = client.clone();
    let connecting = thread::spawn(move || {
        connection.run(move || {
            let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(3))?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            Ok(text)
        })
    });
    while !connecting.is_finished() {
        match listener.accept() {
            Ok((mut stream, peer)) => write!(stream, "{}", peer.ip().to_canonical()).unwrap(),
            Err(_) => thread::sleep(Duration::from_millis(1)),
        }
    }
    connecting.join().unwrap().unwrap()
}
