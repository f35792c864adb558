//! Pure parts, and the rest against a bus of our own with a systemd that does as told.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use zbus::object_server::SignalEmitter;
use zbus::zvariant::OwnedValue;

use super::*;
use crate::test_bus::Bus;

#[test]
fn slices_nest_by_their_names() {
    assert_eq!(parent("kubepods-burstable-poda_b.slice").as_deref(), Some("kubepods-burstable.slice"));
    assert_eq!(parent("kubepods.slice"), None);
}

#[test]
fn properties_have_systemds_names_and_types() {
    let pairs: HashMap<_, _> = [
        Property::CpuWeight(59),
        Property::CpuQuotaPerSecond(500_000),
        Property::CpuQuotaPeriod(100_000),
        Property::MemoryMax(u64::MAX),
        Property::MemoryMin(5),
        Property::MemoryLow(0),
        Property::TasksMax(7),
    ]
    .map(Property::pair)
    .into();
    assert_eq!(pairs["CPUWeight"], Value::U64(59));
    assert_eq!(pairs["CPUQuotaPerSecUSec"], Value::U64(500_000));
    assert_eq!(pairs["CPUQuotaPeriodUSec"], Value::U64(100_000));
    assert_eq!(pairs["MemoryMax"], Value::U64(u64::MAX));
    assert_eq!((&pairs["MemoryMin"], &pairs["MemoryLow"]), (&Value::U64(5), &Value::U64(0)));
    assert_eq!(pairs["TasksMax"], Value::U64(7));
}

type Properties = Vec<(String, OwnedValue)>;

struct FakeManager {
    hangs: Arc<AtomicBool>,
}

#[zbus::interface(name = "org.freedesktop.systemd1.Manager")]
impl FakeManager {
    fn subscribe(&self) {}

    async fn start_transient_unit(
        &self,
        name: String,
        _mode: String,
        _properties: Properties,
        _others: Vec<(String, Properties)>,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
    ) -> zbus::fdo::Result<OwnedObjectPath> {
        if self.hangs.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        let job = OwnedObjectPath::try_from("/org/freedesktop/systemd1/job/1").map_err(zbus::Error::from)?;
        // As of a slice, whose job ends at once.
        Self::job_removed(&emitter, 1, job.clone(), name, "done".to_owned()).await?;
        Ok(job)
    }

    #[zbus(signal)]
    async fn job_removed(
        emitter: &SignalEmitter<'_>,
        id: u32,
        job: OwnedObjectPath,
        unit: String,
        result: String,
    ) -> zbus::Result<()>;
}

fn slices(address: String, patience: Duration) -> Arc<Slices> {
    Arc::new(Slices { address: Some(address), patience, ..Slices::new(Handle::current()) })
}

/// Makes a slice as the agent does, on a thread that may block; answers what came of it, and after how long.
async fn ensure(slices: &Arc<Slices>) -> (Result<(), SliceError>, Duration) {
    let (slices, begun) = (Arc::clone(slices), Instant::now());
    let ensured = tokio::task::spawn_blocking(move || slices.ensure("a.slice", &[Property::TasksMax(7)]));
    (ensured.await.unwrap(), begun.elapsed())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_systemd_that_hangs_is_given_up_and_asked_again() {
    let bus = Bus::start();
    let hangs = Arc::new(AtomicBool::new(true));
    let connection = bus.connection().await;
    let manager = FakeManager { hangs: Arc::clone(&hangs) };
    connection.object_server().at("/org/freedesktop/systemd1", manager).await.unwrap();
    connection.request_name("org.freedesktop.systemd1").await.unwrap();
    let slices = slices(bus.address.clone(), Duration::from_secs(2));
    let (result, after) = ensure(&slices).await;
    assert_eq!(result.unwrap_err().to_string(), "start a.slice: systemd does not answer");
    assert!(after < Duration::from_secs(20), "{after:?}");
    hangs.store(false, Ordering::Relaxed);
    ensure(&slices).await.0.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bus_that_hangs_is_given_up() {
    let folder = std::env::temp_dir().join(format!("keelson-slices-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    // It takes connections, and says nothing.
    let _bus = std::os::unix::net::UnixListener::bind(folder.join("bus")).unwrap();
    let slices = slices(format!("unix:path={}", folder.join("bus").display()), Duration::from_millis(200));
    // Both at once: nobody waits for the other's patience.
    let (one, other) = tokio::join!(ensure(&slices), ensure(&slices));
    for (result, after) in [one, other] {
        assert!(matches!(result, Err(SliceError::NoAnswer { .. })), "{result:?}");
        assert!(after < Duration::from_secs(20), "{after:?}");
    }
    std::fs::remove_dir_all(folder).unwrap();
}
