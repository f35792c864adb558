//! Everything Keelson says to systemd: unit files, `systemctl`, and readiness over `NOTIFY_SOCKET`.
//!
//! Unit texts are pure functions of a [`Service`]; only [`manager`] runs commands and only [`notify`] writes to the
//! notification socket, so a machine without systemd loses nothing but the unit.

mod manager;
pub mod notify;
mod unit;

pub use manager::{Error, Manager, UNIT_DIR, is_running};
pub use unit::{Role, SLICE, Service, service_text, slice_text};
