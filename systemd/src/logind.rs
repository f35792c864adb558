//! Shutdowns of the machine, as logind announces and delays them (<https://systemd.io/INHIBITOR_LOCKS/>).
//!
//! ```text
//! inhibit("delay") ----> logind holds the shutdown for at most InhibitDelayMaxSec
//! PrepareForShutdown(true) ----> do what is to be done, then drop the Inhibitor: the machine goes down
//! PrepareForShutdown(false) ---> the shutdown was cancelled: inhibit again
//! ```

use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::Fuse;
use zbus::message::Type;
use zbus::zvariant::OwnedFd;
use zbus::{Connection, MatchRule, MessageStream};

use crate::files::{self, FileError};
use crate::units::UnitsProxy;

/// Where administrators and programs override `logind.conf` (logind.conf(5)).
pub const OVERRIDE_DIR: &str = "/etc/systemd/logind.conf.d";
/// A kubelet's file there; who replaces a kubelet replaces it.
const OVERRIDE: &str = "99-kubelet.conf";
/// Says whose the file is.
const HEADER: &str = "# Keelson's agent: pods get their time when the machine shuts down.\n";
const UNIT: &str = "systemd-logind.service";
/// Makes logind read its configuration again.
const SIGHUP: i32 = 1;

/// Why shutdowns are not followed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No bus, or nobody to talk to on it.
    #[error("talk to logind over the system bus")]
    Bus(#[source] Box<zbus::Error>),
    /// logind does not do what it is asked for.
    #[error("{action}")]
    Refused {
        /// What was asked for.
        action: &'static str,
        /// logind's words.
        #[source]
        source: Box<zbus::Error>,
    },
    /// The override cannot be written or removed.
    #[error(transparent)]
    File(#[from] FileError),
}

#[zbus::proxy(
    interface = "org.freedesktop.login1.Manager",
    default_service = "org.freedesktop.login1",
    default_path = "/org/freedesktop/login1",
    gen_blocking = false
)]
trait Login {
    fn inhibit(&self, what: &str, who: &str, why: &str, mode: &str) -> zbus::Result<OwnedFd>;
    #[zbus(property(emits_changed_signal = "false"), name = "InhibitDelayMaxUSec")]
    fn inhibit_delay_max(&self) -> zbus::Result<u64>;
    #[zbus(property(emits_changed_signal = "false"))]
    fn preparing_for_shutdown(&self) -> zbus::Result<bool>;
}

/// Beginnings and ends of shutdowns, whoever tells of them: as with a kubelet, somebody else than logind may announce one.
fn prepare_for_shutdown() -> zbus::Result<MatchRule<'static>> {
    let rule = MatchRule::builder().msg_type(Type::Signal).path("/org/freedesktop/login1")?;
    Ok(rule.interface("org.freedesktop.login1.Manager")?.member("PrepareForShutdown")?.build())
}

/// Holds a shutdown back until it is dropped.
#[derive(Debug)]
pub struct Inhibitor {
    _lock: OwnedFd,
}

/// The logind of this machine.
#[derive(Debug, Clone)]
pub struct Logind {
    login: LoginProxy<'static>,
    units: UnitsProxy<'static>,
}

impl Logind {
    /// Connects to the system bus.
    ///
    /// # Errors
    /// When there is none.
    pub async fn connect() -> Result<Self, Error> {
        Self::on(&Connection::system().await.map_err(bus)?).await
    }

    async fn on(connection: &Connection) -> Result<Self, Error> {
        let login = LoginProxy::new(connection).await.map_err(bus)?;
        let units = UnitsProxy::new(connection).await.map_err(bus)?;
        Ok(Self { login, units })
    }

    /// How long logind holds a shutdown back at most.
    ///
    /// # Errors
    /// When it does not say.
    pub async fn delay(&self) -> Result<Duration, Error> {
        let refused = refused("read InhibitDelayMaxUSec of logind");
        self.login.inhibit_delay_max().await.map(Duration::from_micros).map_err(refused)
    }

    /// Makes logind read its configuration again, which it does some time later.
    ///
    /// # Errors
    /// When systemd refuses.
    pub async fn reload(&self) -> Result<(), Error> {
        self.units.kill_unit(UNIT, "all", SIGHUP).await.map_err(refused("make logind read its configuration"))
    }

    /// Holds shutdowns back from now on. `who` and `why` are shown by `systemd-inhibit --list`.
    ///
    /// # Errors
    /// When logind refuses; it does so while a shutdown is under way.
    pub async fn inhibit(&self, who: &str, why: &str) -> Result<Inhibitor, Error> {
        let lock = self.login.inhibit("shutdown", who, why, "delay").await;
        lock.map(|lock| Inhibitor { _lock: lock }).map_err(refused("hold shutdowns back"))
    }

    /// Follows shutdowns from now on.
    ///
    /// # Errors
    /// When the bus does not tell of them.
    pub async fn follow(&self) -> Result<Shutdowns, Error> {
        let refused = || refused("follow shutdowns");
        let rule = prepare_for_shutdown().map_err(refused())?;
        let connection = self.login.inner().connection();
        let signals = MessageStream::for_match_rule(rule, connection, None).await.map_err(refused())?;
        // Asked after the signals are followed: what comes between is told twice rather than never.
        let under_way = self.login.preparing_for_shutdown().await.map_err(refused())?;
        Ok(Shutdowns { signals: signals.fuse(), under_way })
    }
}

/// Beginnings and cancellations of shutdowns.
pub struct Shutdowns {
    signals: Fuse<MessageStream>,
    under_way: bool,
}

impl Shutdowns {
    /// Waits for the next; true when one begins. `None` once the bus is gone. Cancel-safe.
    pub async fn next(&mut self) -> Option<bool> {
        if std::mem::take(&mut self.under_way) {
            return Some(true);
        }
        while let Some(Ok(signal)) = self.signals.next().await {
            if let Ok(start) = signal.body().deserialize() {
                return Some(start);
            }
        }
        None
    }

    /// Whether one was under way when they began to be followed, and was not told of yet.
    #[must_use]
    pub fn is_under_way(&self) -> bool {
        self.under_way
    }
}

/// Lets logind hold a shutdown back for `delay`, from the next time that it reads its configuration.
///
/// # Errors
/// A file that cannot be written.
pub fn write_override(dir: &Path, delay: Duration) -> Result<(), Error> {
    Ok(files::write(&dir.join(OVERRIDE), &override_text(delay))?)
}

/// Removes the override, unless somebody else's stands in its place, and the folder that then is empty: Debian has none. Whether one was
/// removed.
///
/// # Errors
/// A file that cannot be removed.
pub fn remove_override(dir: &Path) -> Result<bool, Error> {
    let Some(path) = own_override(dir) else { return Ok(false) };
    let removed = files::remove(&path)?;
    // Stays where others' files are in it.
    let _ = std::fs::remove_dir(dir);
    Ok(removed)
}

/// The override, where it is not somebody else's.
#[must_use]
pub fn own_override(dir: &Path) -> Option<PathBuf> {
    let path = dir.join(OVERRIDE);
    std::fs::read_to_string(&path).is_ok_and(|text| text.starts_with(HEADER)).then_some(path)
}

fn override_text(delay: Duration) -> String {
    format!("{HEADER}[Login]\nInhibitDelayMaxSec={}\n", delay.as_secs())
}

fn bus(error: zbus::Error) -> Error {
    Error::Bus(Box::new(error))
}

fn refused(action: &'static str) -> impl FnOnce(zbus::Error) -> Error {
    move |source| Error::Refused { action, source: Box::new(source) }
}

#[cfg(test)]
mod tests;
