//! Transient slices over D-Bus (org.freedesktop.systemd1.Manager), for cgroups that systemd is to know of: where it is the one writer of
//! the tree, as the cgroup driver `systemd` wants it, limits that it was not told are lost with its next look at the unit.
//!
//! Calls block; they are made from threads that may, never from a task.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use tokio::runtime::Handle;
use zbus::zvariant::{OwnedObjectPath, Value};

use crate::units::{Pair, UnitsProxy};

/// How long systemd may take for a job (libcontainer waits as long).
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
    /// A job that ended with anything but `done`, or not in time.
    #[error("{action} {unit}: systemd's job ended with {result:?}")]
    Job {
        /// What was asked for.
        action: &'static str,
        /// Of which unit.
        unit: String,
        /// `failed`, `timeout`, ….
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
            Self::TasksMax(value) => ("TasksMax", value.into()),
        }
    }
}

/// systemd's slices.
pub struct Slices {
    runtime: Handle,
    /// The connection, once there is one; a broken one is replaced at the next call.
    units: Mutex<Option<UnitsProxy<'static>>>,
}

impl Slices {
    /// Slices of the systemd that runs this machine. `runtime` drives the connection; nothing is connected yet.
    #[must_use]
    pub fn new(runtime: Handle) -> Self {
        Self { runtime, units: Mutex::new(None) }
    }

    /// Starts a transient slice with `properties`, or sets them on the one that is there.
    ///
    /// # Errors
    /// See [`SliceError`].
    pub fn ensure(&self, name: &str, properties: &[Property]) -> Result<(), SliceError> {
        let units = self.units()?;
        self.kept(self.runtime.block_on(async {
            match start(&units, name, properties).await {
                Err(SliceError::Refused { source, .. }) if is(&source, UNIT_EXISTS) => {
                    set(&units, name, properties).await
                }
                other => other,
            }
        }))
    }

    /// Stops a slice and everything in it. One that is not there is stopped.
    ///
    /// # Errors
    /// See [`SliceError`].
    pub fn stop(&self, name: &str) -> Result<(), SliceError> {
        let units = self.units()?;
        let asked = async { units.stop_unit(name, MODE).await };
        match self.kept(self.runtime.block_on(job(&units, "stop", name, asked))) {
            Err(SliceError::Refused { source, .. }) if is(&source, NO_SUCH_UNIT) => Ok(()),
            other => other,
        }
    }

    fn units(&self) -> Result<UnitsProxy<'static>, SliceError> {
        let mut known = self.units.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(units) = known.as_ref() {
            return Ok(units.clone());
        }
        let units = self.runtime.block_on(async {
            let units = UnitsProxy::new(&zbus::Connection::system().await?).await?;
            // Without it systemd does not say when jobs end.
            units.subscribe().await?;
            Ok::<_, zbus::Error>(units)
        });
        Ok(known.insert(units.map_err(bus)?).clone())
    }

    /// Forgets the connection where it is the reason of a failure.
    fn kept(&self, result: Result<(), SliceError>) -> Result<(), SliceError> {
        let broken = match &result {
            Err(SliceError::Bus(_)) => true,
            Err(SliceError::Refused { source, .. }) => matches!(**source, zbus::Error::InputOutput(_)),
            _ => false,
        };
        if broken {
            *self.units.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
        result
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
    let ended = |result: &str| SliceError::Job { action, unit: unit.to_owned(), result: result.to_owned() };
    let waiting = async {
        while let Some(signal) = removed.next().await {
            let args = signal.args().map_err(bus)?;
            if *args.job() == wanted {
                return if args.result() == "done" { Ok(()) } else { Err(ended(args.result())) };
            }
        }
        Err(ended("no answer"))
    };
    tokio::time::timeout(JOB, waiting).await.unwrap_or_else(|_| Err(ended("no answer")))
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
mod tests {
    use std::collections::HashMap;

    use super::*;

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
            Property::TasksMax(7),
        ]
        .map(Property::pair)
        .into();
        assert_eq!(pairs["CPUWeight"], Value::U64(59));
        assert_eq!(pairs["CPUQuotaPerSecUSec"], Value::U64(500_000));
        assert_eq!(pairs["CPUQuotaPeriodUSec"], Value::U64(100_000));
        assert_eq!(pairs["MemoryMax"], Value::U64(u64::MAX));
        assert_eq!(pairs["TasksMax"], Value::U64(7));
    }
}
