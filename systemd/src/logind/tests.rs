//! Against a bus of our own with a logind that does as told.

use std::os::fd::AsFd;
use std::sync::{Arc, Mutex};

use futures::FutureExt as _;
use zbus::object_server::SignalEmitter;
use zbus::zvariant::Fd;

use super::*;
use crate::test_bus::Bus;

#[derive(Default)]
struct State {
    asked: Vec<[String; 4]>,
    /// The other ends of the locks that were given.
    locks: Vec<std::os::unix::net::UnixStream>,
    preparing: bool,
    signals: Vec<(String, i32)>,
}

#[derive(Clone, Default)]
struct FakeLogin(Arc<Mutex<State>>);

#[zbus::interface(name = "org.freedesktop.login1.Manager")]
impl FakeLogin {
    fn inhibit(&self, what: String, who: String, why: String, mode: String) -> zbus::fdo::Result<OwnedFd> {
        let (ours, theirs) =
            std::os::unix::net::UnixStream::pair().map_err(|e| zbus::fdo::Error::IOError(e.to_string()))?;
        let mut state = self.0.lock().unwrap();
        state.asked.push([what, who, why, mode]);
        state.locks.push(ours);
        Ok(Fd::Borrowed(theirs.as_fd()).try_to_owned().unwrap().into())
    }

    #[zbus(property, name = "InhibitDelayMaxUSec")]
    fn inhibit_delay_max(&self) -> u64 {
        5_000_000
    }

    #[zbus(property)]
    fn preparing_for_shutdown(&self) -> bool {
        self.0.lock().unwrap().preparing
    }

    #[zbus(signal)]
    async fn prepare_for_shutdown(emitter: &SignalEmitter<'_>, start: bool) -> zbus::Result<()>;
}

struct FakeManager(FakeLogin);

#[zbus::interface(name = "org.freedesktop.systemd1.Manager")]
impl FakeManager {
    fn kill_unit(&self, name: String, whom: String, signal: i32) {
        assert_eq!(whom, "all");
        self.0.0.lock().unwrap().signals.push((name, signal));
    }
}

async fn serve(bus: &Bus) -> (Connection, FakeLogin) {
    let login = FakeLogin::default();
    let connection = bus.connection().await;
    let server = connection.object_server();
    server.at("/org/freedesktop/login1", login.clone()).await.unwrap();
    server.at("/org/freedesktop/systemd1", FakeManager(login.clone())).await.unwrap();
    for name in ["org.freedesktop.login1", "org.freedesktop.systemd1"] {
        connection.request_name(name).await.unwrap();
    }
    (connection, login)
}

fn is_held(lock: &mut std::os::unix::net::UnixStream) -> bool {
    lock.set_nonblocking(true).unwrap();
    // An end of file is what the end of the lock looks like from here.
    std::io::Read::read(lock, &mut [0]).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
}

#[tokio::test]
async fn a_shutdown_is_held_back_told_of_and_cancelled() {
    let bus = Bus::start();
    let (served, login) = serve(&bus).await;
    let logind = Logind::on(&bus.connection().await).await.unwrap();
    assert_eq!(logind.delay().await.unwrap(), Duration::from_secs(5));
    let held = logind.inhibit("agent", "pods").await.unwrap();
    let mut lock = login.0.lock().unwrap().locks.pop().unwrap();
    assert_eq!(login.0.lock().unwrap().asked, [["shutdown", "agent", "pods", "delay"].map(str::to_owned)]);
    assert!(is_held(&mut lock));

    let mut shutdowns = logind.follow().await.unwrap();
    assert_eq!(shutdowns.next().now_or_never(), None);
    let emitter = SignalEmitter::new(&served, "/org/freedesktop/login1").unwrap();
    FakeLogin::prepare_for_shutdown(&emitter, true).await.unwrap();
    assert_eq!(shutdowns.next().await, Some(true));
    FakeLogin::prepare_for_shutdown(&emitter, false).await.unwrap();
    assert_eq!(shutdowns.next().await, Some(false));
    // Whoever announces it: upstream's suite does, and is gone at once.
    let other = bus.connection().await;
    let emitter = SignalEmitter::new(&other, "/org/freedesktop/login1").unwrap();
    FakeLogin::prepare_for_shutdown(&emitter, true).await.unwrap();
    drop(other);
    assert_eq!(shutdowns.next().await, Some(true));
    drop(held);
    // The message that brought the lock may live a moment longer.
    while is_held(&mut lock) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }

    logind.reload().await.unwrap();
    assert_eq!(login.0.lock().unwrap().signals, [("systemd-logind.service".to_owned(), 1)]);
}

#[tokio::test]
async fn a_shutdown_that_is_under_way_is_told_of() {
    let bus = Bus::start();
    let (_served, login) = serve(&bus).await;
    login.0.lock().unwrap().preparing = true;
    let mut shutdowns = Logind::on(&bus.connection().await).await.unwrap().follow().await.unwrap();
    assert!(shutdowns.is_under_way());
    assert_eq!(shutdowns.next().await, Some(true));
    assert!(!shutdowns.is_under_way());
    assert_eq!(shutdowns.next().now_or_never(), None, "once");
}

#[tokio::test]
async fn a_bus_that_goes_ends_what_follows_it() {
    let bus = Bus::start();
    let (served, _login) = serve(&bus).await;
    let logind = Logind::on(&bus.connection().await).await.unwrap();
    let mut shutdowns = logind.follow().await.unwrap();
    drop(served);
    drop(bus);
    assert_eq!(shutdowns.next().await, None);
    assert!(matches!(logind.inhibit("agent", "pods").await, Err(Error::Refused { .. })));
}

#[test]
fn the_override_is_logind_conf_and_leaves_that_of_others() {
    let dir = std::env::temp_dir().join(format!("keelson-logind-{}", std::process::id()));
    write_override(&dir, Duration::from_secs(45)).unwrap();
    let path = dir.join("99-kubelet.conf");
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.ends_with("[Login]\nInhibitDelayMaxSec=45\n"), "{text}");
    assert!(remove_override(&dir).unwrap());
    assert!(!dir.exists());
    assert!(!remove_override(&dir).unwrap());
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(&path, "# Kubelet logind override\n[Login]\nInhibitDelayMaxSec=30\n").unwrap();
    assert!(!remove_override(&dir).unwrap());
    assert!(path.exists());
    std::fs::remove_dir_all(dir).unwrap();
}
