//! Everything Keelson says to systemd: unit files, `systemctl`, readiness over `NOTIFY_SOCKET`, and over D-Bus transient slices and
//! shutdowns of the machine.
//!
//! Unit texts are pure functions of a [`Service`]; only [`manager`] runs commands, only [`notify`] writes to the
//! notification socket, only [`journal`] to the journal's, and only [`slices`] and [`logind`] use D-Bus, so a machine without systemd loses
//! nothing but these.

mod dropins;
mod files;
pub mod journal;
pub mod logging;
pub mod logind;
mod manager;
pub mod notify;
pub mod slices;
#[cfg(test)]
mod test_bus;
mod unit;
mod units;

pub use dropins::DropIns;
pub use files::{FileError, is_unfinished, unfinished, write_atomic};
pub use manager::{Error, Manager, UNIT_DIR, is_running};
pub use unit::{Role, SLICE, Service, service_text, slice_text};
