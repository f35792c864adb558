//! A node, its pods and a client outside of the cluster, each a network namespace of its own.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use ipnet::IpNet;
use netns::{NetNs, Netlink, Route, VethPair};

static COUNTER: AtomicU32 = AtomicU32::new(0);

/// A namespace that is gone when this is dropped.
pub struct TestNs {
    pub ns: NetNs,
    path: PathBuf,
}

impl TestNs {
    pub fn new(name: &str) -> Self {
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let path = PathBuf::from(format!("/run/netns/kt-{}-{number}-{name}", std::process::id()));
        let ns = NetNs::create(&path).unwrap();
        Self { ns, path }
    }
}

impl Drop for TestNs {
    fn drop(&mut self) {
        NetNs::delete(&self.path).unwrap();
    }
}

pub fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// The node: a bridge for pods (10.1.0.1/24, fd00:1::1/64) and a link to the outside (192.168.9.1/24).
pub struct Node {
    pub node: TestNs,
    pub client: TestNs,
    bridge: u32,
}

impl Node {
    pub async fn new() -> Self {
        let node = TestNs::new("node");
        let client = TestNs::new("client");
        netns::sysctl::write(&node.ns, "net/ipv4/ip_forward", "1").unwrap();
        netns::sysctl::write(&node.ns, "net/ipv6/conf/all/forwarding", "1").unwrap();
        let netlink = Netlink::open(&node.ns).unwrap();
        up(&netlink, "lo").await;
        netlink.ensure_bridge("br0", None).await.unwrap();
        netns::sysctl::write(&node.ns, "net/ipv6/conf/br0/accept_dad", "0").unwrap();
        let bridge = up(&netlink, "br0").await;
        for address in ["10.1.0.1/24", "fd00:1::1/64"] {
            netlink.add_address(bridge, net(address)).await.unwrap();
        }
        connect(&netlink, "ext0", &client, None).await;
        let ext = netlink.require_link("ext0").await.unwrap().index;
        netlink.add_address(ext, net("192.168.9.1/24")).await.unwrap();
        // Where ClusterIP traffic of the host itself is routed before it is translated.
        netlink.replace_route(&Route::via(net("0.0.0.0/0"), ip("192.168.9.2"))).await.unwrap();
        netlink.replace_route(&Route::on_link(net("fd00:10::/112"), bridge)).await.unwrap();
        let inside = Netlink::open(&client.ns).unwrap();
        up(&inside, "lo").await;
        let eth = up(&inside, "eth0").await;
        inside.add_address(eth, net("192.168.9.2/24")).await.unwrap();
        inside.replace_route(&Route::via(net("0.0.0.0/0"), ip("192.168.9.1"))).await.unwrap();
        Self { node, client, bridge }
    }

    /// A pod on the bridge with 10.1.0.`host` and fd00:1::`host`.
    pub async fn pod(&self, host: u8) -> TestNs {
        let pod = TestNs::new("pod");
        let netlink = Netlink::open(&self.node.ns).unwrap();
        let port = format!("veth{host}");
        connect(&netlink, &port, &pod, Some(self.bridge)).await;
        // What the bridge plugin does with hairpinMode: a pod that reaches itself is bridged back to its own port.
        netlink.set_hairpin(netlink.require_link(&port).await.unwrap().index, true).await.unwrap();
        let inside = Netlink::open(&pod.ns).unwrap();
        up(&inside, "lo").await;
        netns::sysctl::write(&pod.ns, "net/ipv6/conf/eth0/accept_dad", "0").unwrap();
        let eth = up(&inside, "eth0").await;
        inside.add_address(eth, net(&format!("10.1.0.{host}/24"))).await.unwrap();
        inside.add_address(eth, net(&format!("fd00:1::{host:x}/64"))).await.unwrap();
        inside.replace_route(&Route::via(net("0.0.0.0/0"), ip("10.1.0.1"))).await.unwrap();
        inside.replace_route(&Route::via(net("::/0"), ip("fd00:1::1"))).await.unwrap();
        pod
    }
}

async fn up(netlink: &Netlink, name: &str) -> u32 {
    let link = netlink.require_link(name).await.unwrap();
    netlink.set_up(link.index).await.unwrap();
    link.index
}

async fn connect(netlink: &Netlink, name: &str, to: &TestNs, master: Option<u32>) {
    let pair = VethPair { name, peer_name: "eth0", peer_namespace: &to.ns, peer_mac: None, mtu: None, master };
    netlink.create_veth(&pair).await.unwrap();
}

/// A server that answers each connection and datagram with its name and the client's address.
pub struct Server {
    stop: Arc<AtomicBool>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Server {
    pub fn start(inside: &TestNs, name: &str, port: u16) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (tcp, udp) = inside
            .ns
            .run(move || {
                let any: SocketAddr = format!("[::]:{port}").parse().unwrap();
                (TcpListener::bind(any).unwrap(), UdpSocket::bind(any).unwrap())
            })
            .unwrap();
        tcp.set_nonblocking(true).unwrap();
        udp.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let (name_tcp, name_udp) = (name.to_owned(), name.to_owned());
        let (stop_tcp, stop_udp) = (stop.clone(), stop.clone());
        let tcp = thread::spawn(move || {
            while !stop_tcp.load(Ordering::Relaxed) {
                match tcp.accept() {
                    Ok((mut stream, peer)) => {
                        let _ = write!(stream, "{name_tcp} {}", peer.ip().to_canonical());
                    }
                    Err(_) => thread::sleep(Duration::from_millis(2)),
                }
            }
        });
        let udp = thread::spawn(move || {
            let mut buffer = [0; 64];
            while !stop_udp.load(Ordering::Relaxed) {
                if let Ok((_, peer)) = udp.recv_from(&mut buffer) {
                    let answer = format!("{name_udp} {}", peer.ip().to_canonical());
                    let _ = udp.send_to(answer.as_bytes(), peer);
                }
            }
        });
        Self { stop, threads: vec![tcp, udp] }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Connects from `inside` and returns what the server says: its name and the client's address as it saw it.
pub fn ask(inside: &NetNs, address: &str) -> Result<(String, String), std::io::ErrorKind> {
    let address: SocketAddr = address.parse().unwrap();
    let answer = inside.run(move || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    });
    split(answer.unwrap())
}

/// The same by UDP, through `socket` or a new one.
pub fn ask_udp(socket: &UdpSocket, address: &str) -> Result<(String, String), std::io::ErrorKind> {
    socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let mut buffer = [0; 64];
    let answer = socket
        .send_to(b"?", address)
        .and_then(|_| socket.recv(&mut buffer))
        .map(|length| String::from_utf8_lossy(&buffer[..length]).into_owned());
    split(answer)
}

/// A UDP socket inside of a namespace.
pub fn udp_socket(inside: &NetNs) -> UdpSocket {
    inside.run(|| UdpSocket::bind("0.0.0.0:0").unwrap()).unwrap()
}

fn split(answer: std::io::Result<String>) -> Result<(String, String), std::io::ErrorKind> {
    let answer = answer.map_err(|e| e.kind())?;
    let (name, client) = answer.split_once(' ').unwrap();
    Ok((name.to_owned(), client.to_owned()))
}
