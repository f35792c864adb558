//! Installing and starting units through `systemctl`.

use std::fs;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::files::{self, FileError};
use crate::unit::{Role, SLICE, Service, service_text, slice_text};

/// Where an administrator's units live (systemd.unit(5)).
pub const UNIT_DIR: &str = "/etc/systemd/system";
/// Where those of packages live.
const PACKAGED_DIR: &str = "/usr/lib/systemd/system";

/// What can go wrong with units.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A unit file could not be written or removed.
    #[error(transparent)]
    File(#[from] FileError),
    /// `systemctl` could not be run at all.
    #[error("cannot run systemctl {args}")]
    Spawn {
        /// The arguments given.
        args: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// `systemctl` ran and refused.
    #[error("systemctl {args} failed: {stderr}")]
    Systemctl {
        /// The arguments given.
        args: String,
        /// What it said.
        stderr: String,
    },
}

/// Whether systemd is the init of this machine: the test of sd_booted(3).
#[must_use]
pub fn is_running() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// Installs and drives units; `unit_dir` is [`UNIT_DIR`] but in tests.
#[derive(Debug, Clone)]
pub struct Manager {
    unit_dir: PathBuf,
    packaged_dir: PathBuf,
    systemctl: PathBuf,
}

impl Default for Manager {
    fn default() -> Self {
        Self::new(UNIT_DIR, PACKAGED_DIR, "systemctl")
    }
}

impl Manager {
    /// A manager that writes to `unit_dir` what is not in `packaged_dir`, and runs `systemctl`.
    pub fn new(unit_dir: impl Into<PathBuf>, packaged_dir: impl Into<PathBuf>, systemctl: impl Into<PathBuf>) -> Self {
        Self { unit_dir: unit_dir.into(), packaged_dir: packaged_dir.into(), systemctl: systemctl.into() }
    }

    /// Writes the unit (and its slice) where it differs from what is there. Returns whether anything changed. A package's unit that
    /// runs the same program the same way is left to serve, with upgrades of the package to change it.
    ///
    /// # Errors
    /// A file that cannot be written, or a failing `daemon-reload`.
    pub fn install(&self, service: &Service) -> Result<bool, Error> {
        if self.is_packaged(service) {
            return self.remove_own(service.role);
        }
        let slice = self.write_if_changed(SLICE, &slice_text())?;
        let unit = self.write_if_changed(service.role.unit_name(), &service_text(service))?;
        if slice || unit {
            self.run(&["daemon-reload"])?;
        }
        Ok(slice || unit)
    }

    /// Enables the unit at boot and restarts it when `restart`, else only starts it.
    ///
    /// # Errors
    /// What `systemctl` said.
    pub fn enable_and_start(&self, role: Role, restart: bool) -> Result<(), Error> {
        self.run(&["enable", role.unit_name()])?;
        let verb = if restart { "restart" } else { "start" };
        // Without --no-block a unit that waits for the API server (Type=notify) would hold up its caller, who reports
        // progress by other means.
        self.run(&["--no-block", verb, role.unit_name()])
    }

    /// Waits until a unit that was started is active.
    ///
    /// # Errors
    /// What `systemctl` said, also where the unit does not come up.
    pub fn await_active(&self, role: Role) -> Result<(), Error> {
        self.run(&["start", role.unit_name()])
    }

    /// Stops, disables and deletes the unit, and the slice with the last of them. Absence is not an error.
    ///
    /// # Errors
    /// A file that cannot be deleted, or what `systemctl` said.
    pub fn remove(&self, role: Role) -> Result<(), Error> {
        let places = [&self.unit_dir, &self.packaged_dir].map(|dir| dir.join(role.unit_name()));
        if !places.iter().any(|place| place.exists()) {
            // What enabled a unit that somebody has deleted.
            self.remove_file(&format!("multi-user.target.wants/{}", role.unit_name()))?;
            return Ok(());
        }
        self.run(&["disable", "--now", role.unit_name()])?;
        self.remove_file(role.unit_name())?;
        if self.is_stopped(role.other()) {
            self.run(&["stop", SLICE])?;
        }
        if !self.unit_dir.join(role.other().unit_name()).exists() {
            self.remove_file(SLICE)?;
        }
        self.run(&["daemon-reload"])
    }

    /// Restarts the unit and waits until it says that it is ready.
    ///
    /// # Errors
    /// What `systemctl` said, also where the unit does not come up.
    pub fn restart(&self, role: Role) -> Result<(), Error> {
        self.run(&["restart", role.unit_name()])
    }

    /// The program that the unit runs.
    ///
    /// # Errors
    /// There is no such unit, or `systemctl` does not say.
    pub fn executable(&self, role: Role) -> Result<PathBuf, Error> {
        let args = ["show", "--value", "--property", "ExecStart", role.unit_name()];
        let said = String::from_utf8_lossy(&self.output(&args)?.stdout).into_owned();
        // `{ path=/usr/bin/agent ; argv[]=/usr/bin/agent run ; … }`
        let path = said.split_once("path=").and_then(|(_, rest)| rest.split_once(" ;")).map(|(path, _)| path.into());
        path.ok_or_else(|| Error::Systemctl { args: args.join(" "), stderr: format!("it says {:?}", said.trim()) })
    }

    /// Whether the unit is active; false when `systemctl` cannot tell.
    #[must_use]
    pub fn is_active(&self, role: Role) -> bool {
        self.output(&["is-active", "--quiet", role.unit_name()]).is_ok_and(|out| out.status.success())
    }

    /// The process that systemd runs the unit by; `None` where none runs, or `systemctl` cannot tell.
    #[must_use]
    pub fn main_pid(&self, role: Role) -> Option<u32> {
        let out = self.output(&["show", "--value", "--property", "MainPID", role.unit_name()]).ok()?;
        // 0 where none does.
        String::from_utf8_lossy(&out.stdout).trim().parse().ok().filter(|pid| *pid != 0)
    }

    /// What the unit says of itself ([`crate::notify::status`]); `None` where it says nothing, or `systemctl` cannot tell.
    #[must_use]
    pub fn status_text(&self, role: Role) -> Option<String> {
        let out = self.output(&["show", "--value", "--property", "StatusText", role.unit_name()]).ok()?;
        Some(String::from_utf8_lossy(&out.stdout).trim().to_owned()).filter(|text| !text.is_empty())
    }

    /// Whether nothing of the unit runs, nor is about to.
    fn is_stopped(&self, role: Role) -> bool {
        let said = self.output(&["is-active", role.unit_name()]);
        let state = said.map(|out| String::from_utf8_lossy(&out.stdout).trim().to_owned()).unwrap_or_default();
        !matches!(state.as_str(), "active" | "activating" | "deactivating" | "reloading")
    }

    /// Whether a package has this very unit.
    fn is_packaged(&self, service: &Service) -> bool {
        let path = self.packaged_dir.join(service.role.unit_name());
        fs::read_to_string(path).is_ok_and(|text| text == service_text(service))
    }

    /// Removes a unit that was written before a package had it: it would stand before the package's.
    fn remove_own(&self, role: Role) -> Result<bool, Error> {
        let was_there = self.remove_file(role.unit_name())?;
        if was_there {
            self.run(&["daemon-reload"])?;
        }
        Ok(was_there)
    }

    /// Whether there was such a file.
    fn remove_file(&self, name: &str) -> Result<bool, FileError> {
        files::remove(&self.unit_dir.join(name))
    }

    fn write_if_changed(&self, name: &str, text: &str) -> Result<bool, FileError> {
        let path = self.unit_dir.join(name);
        if fs::read_to_string(&path).is_ok_and(|old| old == text) {
            return Ok(false);
        }
        files::write(&path, text)?;
        Ok(true)
    }

    fn run(&self, args: &[&str]) -> Result<(), Error> {
        let out = self.output(args)?;
        if out.status.success() {
            return Ok(());
        }
        let stderr = String::from_utf8_lossy(&out.stderr).trim().to_owned();
        Err(Error::Systemctl { args: args.join(" "), stderr })
    }

    fn output(&self, args: &[&str]) -> Result<Output, Error> {
        tracing::debug!(?args, "systemctl");
        // What ends the caller's terminal, or comes from its Ctrl-C, is for the caller to heed.
        Command::new(&self.systemctl)
            .args(args)
            .process_group(0)
            .output()
            .map_err(|source| Error::Spawn { args: args.join(" "), source })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A systemctl that writes down its arguments, one call a line, and fails when the file `fail` exists.
    fn fake(dir: &Path) -> Manager {
        let script = dir.join("systemctl");
        let text = format!(
            "#!/bin/sh\necho \"$@\" >> {0}/calls\nif [ -e {0}/fail ]; then echo refused >&2; exit 1; fi\n\
             [ $1 != is-active ]\n",
            dir.display()
        );
        fs::write(&script, text).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir_all(dir.join("packaged")).unwrap();
        Manager::new(dir, dir.join("packaged"), script)
    }

    /// A systemctl that says `text`.
    fn saying(dir: &Path, text: &str) -> Manager {
        let systemctl = dir.join("systemctl");
        fs::write(&systemctl, format!("#!/bin/sh\necho '{text}'\n")).unwrap();
        fs::set_permissions(&systemctl, fs::Permissions::from_mode(0o755)).unwrap();
        Manager::new(dir, dir, systemctl)
    }

    fn agent() -> Service {
        Service { role: Role::Agent, executable: "/a".into(), args: vec![], writes: None }
    }

    fn temp(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("keelson-systemd-{}-{name}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        dir
    }

    #[test]
    fn installing_twice_reloads_once() {
        let dir = temp("twice");
        let manager = fake(&dir);
        assert!(manager.install(&agent()).unwrap());
        assert!(!manager.install(&agent()).unwrap());
        manager.enable_and_start(Role::Agent, false).unwrap();
        manager.await_active(Role::Agent).unwrap();
        manager.remove(Role::Agent).unwrap();
        manager.remove(Role::Agent).unwrap();
        let calls = fs::read_to_string(dir.join("calls")).unwrap();
        let expected = "daemon-reload\nenable agent.service\n--no-block start agent.service\n\
                        start agent.service\ndisable --now agent.service\nis-active master.service\nstop keelson.slice\ndaemon-reload\n";
        assert_eq!(calls, expected);
        assert!(!dir.join(SLICE).exists());
        assert!(!dir.join("agent.service").exists());
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn the_program_of_a_unit_is_what_systemd_runs() {
        let dir = temp("program");
        let says = |text: &str| saying(&dir, text).executable(Role::Agent);
        let shown = "{ path=/usr/bin/agent ; argv[]=/usr/bin/agent run --config-dir /etc/keelson ; ignore_errors=no }";
        assert_eq!(says(shown).unwrap(), Path::new("/usr/bin/agent"));
        assert!(says("").is_err());
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn what_enabled_a_unit_goes_also_when_the_unit_is_gone() {
        let dir = temp("wants");
        let link = dir.join("multi-user.target.wants/agent.service");
        fs::create_dir_all(link.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink("/nowhere/agent.service", &link).unwrap();
        fake(&dir).remove(Role::Agent).unwrap();
        assert!(link.symlink_metadata().is_err() && !dir.join("calls").exists());
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn the_process_of_a_unit_is_what_systemd_says() {
        let dir = temp("pid");
        let pid = |text: &str| saying(&dir, text).main_pid(Role::Agent);
        assert_eq!((pid("4711"), pid("0"), pid("")), (Some(4711), None, None));
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn no_terminal_cuts_systemctl_short() {
        let dir = temp("group");
        let manager = saying(&dir, "'$(cut -d ' ' -f 5 /proc/$$/stat) $$'");
        let said = manager.status_text(Role::Agent).unwrap();
        let (group, pid) = said.split_once(' ').unwrap();
        assert_eq!(group, pid);
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_unit_says_how_it_is() {
        let dir = temp("status-text");
        let text = |text: &str| saying(&dir, text).status_text(Role::Agent);
        assert_eq!((text("node n1: not Ready").as_deref(), text("")), (Some("node n1: not Ready"), None));
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_packages_unit_serves_and_is_never_deleted() {
        let dir = temp("packaged");
        let manager = fake(&dir);
        let service = Service::packaged(Role::Agent);
        manager.install(&service).unwrap();
        assert!(dir.join("agent.service").exists(), "no package has it yet");
        let packaged = dir.join("packaged/agent.service");
        fs::write(&packaged, service_text(&service)).unwrap();
        assert!(manager.install(&service).unwrap());
        assert!(!dir.join("agent.service").exists(), "it would stand before the package's");
        assert!(!manager.install(&service).unwrap());
        // Another program, or other folders, are no affair of the package.
        manager.install(&agent()).unwrap();
        assert!(dir.join("agent.service").exists());
        manager.remove(Role::Agent).unwrap();
        assert!(packaged.exists() && !dir.join("agent.service").exists());
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_refusal_carries_what_systemctl_said() {
        let dir = temp("refusal");
        let manager = fake(&dir);
        fs::write(dir.join("fail"), "").unwrap();
        let error = manager.install(&agent()).unwrap_err();
        assert_eq!(error.to_string(), "systemctl daemon-reload failed: refused");
        fs::remove_dir_all(dir).unwrap();
    }
}
