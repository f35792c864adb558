//! Readiness and watchdog over `NOTIFY_SOCKET` (sd_notify(3)). Everything here is a no-op where systemd did not ask.

use std::time::Duration;

use sd_notify::NotifyState;

/// Says that start-up is done (`READY=1`), with a status line for `systemctl status`.
pub fn ready(status: &str) {
    send(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Replaces the status line of `systemctl status`.
pub fn status(status: &str) {
    send(&[NotifyState::Status(status)]);
}

/// Says that the service is ending.
pub fn stopping() {
    send(&[NotifyState::Stopping]);
}

/// Feeds the watchdog once.
pub fn watchdog() {
    send(&[NotifyState::Watchdog]);
}

/// How often to call [`watchdog`]: half of `WatchdogSec=`, or `None` where no watchdog is set for this process.
#[must_use]
pub fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|limit| limit / 2)
}

fn send(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "sd_notify failed");
    }
}
