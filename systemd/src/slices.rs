//! Transient slices over D-Bus (org.freedesktop.systemd1.Manager), for cgroups that systemd is to know of: where it is the one writer of
//! the tree, as the cgroup driver `systemd` wants it, limits that it was not told are lost with its next look at the unit.
//!
//! Calls block, though not for ever; they are made from threads that may, never from a task.

use std::time::Duration;

use futures::StreamExt as _;
use tokio::runtime::Handle;
use tokio::sync::Mutex;
use zbus::zvariant::{OwnedObjectPath, Value};

use crate::units::{Pair, UnitsProxy};

/// How long systemd may take for all that is asked of it at once, connecting included (libcontainer waits as long for a job).
const JOB: Duration = Duration::from_secs(30);
/// Replaces a conflicting job that waits.
const MODE: &str = "replace";
const UNIT_EXISTS: &str = "org.freedesktop.systemd1.UnitExists";
const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";

/// Why a slice is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum SliceError {
    /// No bus, or systemd is not on it.
    #[error("talk to systemd over the system bus")]
    Bus(#[source] Box<zbus::Error>),
    /// systemd refused.
    #[error("{action} {unit}")]
    Refused {
        /// What was asked for.
        action: &'static str,
        /// Of which unit.
        unit: String,
        /// systemd's words.
        #[source]
        source: Box<zbus::Error>,
    },
    /// Nothing came back in time, or the connection ended.
    #[error("{action} {unit}: systemd does not answer")]
    NoAnswer {
        /// What was asked for.
        action: &'static str,
        /// Of which unit.
        unit: String,
    },
    /// A job that ended with anything but `done`.
    #[error("{action} {unit}: systemd's job ended with {result:?}")]
    Job {
        /// What was asked for.
        action: &'static str,
        /// Of which unit.
        unit: String,
        /// `failed`, `canceled`, ….
        result: String,
    },
}

/// One property of a unit (systemd.resource-control(5) in its D-Bus form).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Property {
    /// `CPUWeight`, 1 to 10000.
    CpuWeight(u64),
    /// `CPUQuotaPerSecUSec`; `u64::MAX` for none.
    CpuQuotaPerSecond(u64),
    /// `CPUQuotaPeriodUSec`.
    CpuQuotaPeriod(u64),
    /// `MemoryMax` in bytes; `u64::MAX` for none.
    MemoryMax(u64),
    /// `MemoryMin` in bytes.
    MemoryMin(u64),
    /// `MemoryLow` in bytes.
    MemoryLow(u64),
    /// `TasksMax`; `u64::MAX` for none.
    TasksMax(u64),
}

impl Property {
    fn pair(self) -> (&'static str, Value<'static>) {
        match self {
            Self::CpuWeight(value) => ("CPUWeight", value.into()),
            Self::CpuQuotaPerSecond(value) => ("CPUQuotaPerSecUSec", value.into()),
            Self::CpuQuotaPeriod(value) => ("CPUQuotaPeriodUSec", value.into()),
            Self::MemoryMax(value) => ("MemoryMax", value.into()),
            Self::MemoryMin(value) => ("MemoryMin", value.into()),
            Self::MemoryLow(value) => ("MemoryLow", value.into()),
            Self::TasksMax(value) => ("TasksMax", value.into()),
        }
    }
}

/// systemd's slices.
pub struct Slices {
    runtime: Handle,
    /// The address of the bus, if it is not the machine's.
    address: Option<String>,
    patience: Duration,
    /// The connection, once there is one; a broken one is replaced at the next call.
    units: Mutex<Option<UnitsProxy<'static>>>,
}

impl Slices {
    /// Slices of the systemd that runs this machine. `runtime` drives the connection; nothing is connected yet.
    #[must_use]
    pub fn new(runtime: Handle) -> Self {
        Self { runtime, address: None, patience: JOB, units: Mutex::new(None) }
    }

    /// Starts a transient slice with `properties`, or sets them on the one that is there.
    ///
    /// # Errors
    /// See [`SliceError`].
    pub fn ensure(&self, name: &str, properties: &[Property]) -> Result<(), SliceError> {
        self.ask("start", name, async |units| match start(&units, name, properties).await {
            Err(SliceError::Refused { source, .. }) if is(&source, UNIT_EXISTS) => set(&units, name, properties).await,
            other => other,
        })
    }

    /// Sets `properties` on a slice of others' until the next boot; it must be there.
    ///
    /// # Errors
    /// See [`SliceError`].
    pub fn set(&self, name: &str, properties: &[Property]) -> Result<(), SliceError> {
        self.ask("set properties of", name, async |units| set(&units, name, properties).await)
    }

    /// Stops a slice and everything in it. One that is not there is stopped.
    ///
    /// # Errors
    /// See [`SliceError`].
    pub fn stop(&self, name: &str) -> Result<(), SliceError> {
        let stopped = self.ask("stop", name, async |units| {
            let asked = async { units.stop_unit(name, MODE).await };
            job(&units, "stop", name, asked).await
        });
        match stopped {
            Err(SliceError::Refused { source, .. }) if is(&source, NO_SUCH_UNIT) => Ok(()),
            other => other,
        }
    }

    /// Asks systemd, for as long as it may take. A connection that is the reason of a failure is forgotten.
    fn ask(
        &self,
        action: &'static str,
        unit: &str,
        what: impl AsyncFnOnce(UnitsProxy<'static>) -> Result<(), SliceError>,
    ) -> Result<(), SliceError> {
        self.runtime.block_on(async {
            let asked = async { what(self.units().await?).await };
            let result = tokio::time::timeout(self.patience, asked).await;
            let result = result.unwrap_or_else(|_| Err(SliceError::NoAnswer { action, unit: unit.to_owned() }));
            if result.as_ref().is_err_and(is_broken)
                // Where it is held, somebody connects anew.
                && let Ok(mut units) = self.units.try_lock()
            {
                *units = None;
            }
            result
        })
    }

    async fn units(&self) -> Result<UnitsProxy<'static>, SliceError> {
        let mut known = self.units.lock().await;
        if let Some(units) = known.as_ref() {
            return Ok(units.clone());
        }
        let units = connect(self.address.as_deref()).await.map_err(bus)?;
        Ok(known.insert(units).clone())
    }
}

/// A connection to the bus at an address, or to the machine's.
async fn connect(address: Option<&str>) -> zbus::Result<UnitsProxy<'static>> {
    let connection = match address {
        Some(address) => zbus::connection::Builder::address(address)?.build().await?,
        None => zbus::Connection::system().await?,
    };
    let units = UnitsProxy::new(&connection).await?;
    // Without it systemd does not say when jobs end.
    units.subscribe().await?;
    Ok(units)
}

/// Whether a connection is the reason of a failure.
fn is_broken(error: &SliceError) -> bool {
    match error {
        SliceError::Bus(_) | SliceError::NoAnswer { .. } => true,
        SliceError::Refused { source, .. } => matches!(**source, zbus::Error::InputOutput(_)),
        SliceError::Job { .. } => false,
    }
}

fn bus(error: zbus::Error) -> SliceError {
    SliceError::Bus(Box::new(error))
}

async fn start(units: &UnitsProxy<'_>, name: &str, properties: &[Property]) -> Result<(), SliceError> {
    let mut pairs: Vec<Pair<'_>> =
        vec![("Description", format!("Kubernetes {name}").into()), ("DefaultDependencies", false.into())];
    // Accounting is what makes systemd hand the controllers down to the slice.
    pairs
        .extend(["CPUAccounting", "MemoryAccounting", "TasksAccounting", "IOAccounting"].map(|key| (key, true.into())));
    if let Some(parent) = parent(name) {
        pairs.push(("Wants", vec![parent].into()));
    }
    pairs.extend(properties.iter().map(|property| property.pair()));
    job(units, "start", name, async { units.start_transient_unit(name, MODE, &pairs, &[]).await }).await
}

async fn set(units: &UnitsProxy<'_>, name: &str, properties: &[Property]) -> Result<(), SliceError> {
    let pairs: Vec<Pair<'_>> = properties.iter().map(|property| property.pair()).collect();
    if pairs.is_empty() {
        return Ok(());
    }
    let refused =
        |source| SliceError::Refused { action: "set properties of", unit: name.to_owned(), source: Box::new(source) };
    units.set_unit_properties(name, true, &pairs).await.map_err(refused)
}

/// Asks for a job and waits for its end.
async fn job(
    units: &UnitsProxy<'_>,
    action: &'static str,
    unit: &str,
    asked: impl Future<Output = zbus::Result<OwnedObjectPath>>,
) -> Result<(), SliceError> {
    // Listening begins before asking: a slice's job ends at once.
    let mut removed = units.receive_job_removed().await.map_err(bus)?;
    let wanted = asked.await.map_err(|source| SliceError::Refused {
        action,
        unit: unit.to_owned(),
        source: Box::new(source),
    })?;
    let unit = unit.to_owned();
    while let Some(signal) = removed.next().await {
        let args = signal.args().map_err(bus)?;
        if *args.job() == wanted {
            let result = args.result().clone();
            return if result == "done" { Ok(()) } else { Err(SliceError::Job { action, unit, result }) };
        }
    }
    Err(SliceError::NoAnswer { action, unit })
}

/// The slice above: `a-b-c.slice` lies in `a-b.slice` (systemd.slice(5)).
fn parent(name: &str) -> Option<String> {
    let (above, _) = name.strip_suffix(".slice")?.rsplit_once('-')?;
    Some(format!("{above}.slice"))
}

fn is(error: &zbus::Error, name: &str) -> bool {
    matches!(error, zbus::Error::MethodError(found, _, _) if found.as_str() == name)
}

#[cfg(test)]
mod tests;
