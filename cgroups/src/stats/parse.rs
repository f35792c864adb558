//! The formats of control files.

use std::io::ErrorKind;
use std::path::Path;

use crate::{Error, fs};

/// Above this, cAdvisor and the kubelet take a limit for none: the kernel rounds "no limit" of v1 down to pages.
const UNLIMITED: u64 = 1 << 62;

/// A file with one number.
pub(super) fn number(path: &Path) -> Result<u64, Error> {
    let text = fs::read(path)?;
    text.trim().parse().map_err(|_| Error::Format { path: path.into(), content: text.clone() })
}

/// A file with one number that some kernels do not have.
pub(super) fn optional(path: &Path) -> Result<u64, Error> {
    Ok(present(number(path))?.unwrap_or(0))
}

/// A file with a number, or `max`, or one that stands for no limit.
pub(super) fn limit(path: &Path) -> Result<Option<u64>, Error> {
    let Some(text) = present(fs::read(path))? else { return Ok(None) };
    let text = text.trim();
    if text == "max" || text == "-1" {
        return Ok(None);
    }
    let value: u64 = text.parse().map_err(|_| Error::Format { path: path.into(), content: text.to_owned() })?;
    Ok(Some(value).filter(|value| *value < UNLIMITED))
}

/// `None` where there is no such file; that of the cgroup itself is told by the files that are always there.
pub(super) fn present<T>(result: Result<T, Error>) -> Result<Option<T>, Error> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Error::Read { source, .. }) if source.kind() == ErrorKind::NotFound => Ok(None),
        // A kernel with pressure accounting switched off (psi=0) has the files and refuses to read them.
        Err(Error::Read { source, .. }) if source.raw_os_error() == Some(nix::libc::EOPNOTSUPP) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A file of `key value` lines.
pub(super) struct Keyed(String);

impl Keyed {
    pub(super) fn read(path: &Path) -> Result<Self, Error> {
        Ok(Self(fs::read(path)?))
    }

    /// One with nothing in it where there is no such file.
    pub(super) fn optional(path: &Path) -> Result<Self, Error> {
        Ok(Self(present(fs::read(path))?.unwrap_or_default()))
    }

    /// A value; 0 for what this kernel does not count.
    pub(super) fn get(&self, key: &str) -> u64 {
        let lines = self.0.lines().filter_map(|line| line.split_once(' '));
        lines.filter(|(name, _)| *name == key).find_map(|(_, value)| value.trim().parse().ok()).unwrap_or(0)
    }
}

/// Time in which tasks waited for a resource (PSI).
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Pressure {
    /// Some task waited.
    pub some: Stall,
    /// All tasks waited.
    pub full: Stall,
}

/// Shares of the last 10, 60 and 300 seconds in percent, and all the time in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Stall {
    pub avg10: f64,
    pub avg60: f64,
    pub avg300: f64,
    pub total: u64,
}

/// A pressure file; `None` where the kernel has none.
pub(super) fn pressure(path: &Path) -> Result<Option<Pressure>, Error> {
    Ok(present(fs::read(path))?.map(|text| parse_pressure(&text)))
}

fn parse_pressure(text: &str) -> Pressure {
    let mut pressure = Pressure::default();
    for line in text.lines() {
        match line.split_once(' ') {
            Some(("some", rest)) => pressure.some = stall(rest),
            Some(("full", rest)) => pressure.full = stall(rest),
            _ => {}
        }
    }
    pressure
}

fn stall(text: &str) -> Stall {
    let mut stall = Stall::default();
    for (key, value) in text.split_whitespace().filter_map(|pair| pair.split_once('=')) {
        let average = || value.parse().unwrap_or(0.0);
        match key {
            "avg10" => stall.avg10 = average(),
            "avg60" => stall.avg60 = average(),
            "avg300" => stall.avg300 = average(),
            "total" => stall.total = value.parse().unwrap_or(0),
            _ => {}
        }
    }
    stall
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_is_read() {
        let text =
            "some avg10=1.50 avg60=0.25 avg300=0.00 total=12345\nfull avg10=0.00 avg60=0.10 avg300=0.00 total=7\n";
        let pressure = parse_pressure(text);
        assert_eq!(pressure.some, Stall { avg10: 1.5, avg60: 0.25, avg300: 0.0, total: 12345 });
        assert_eq!((pressure.full.avg60, pressure.full.total), (0.1, 7));
    }

    #[test]
    fn limits_can_be_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("limit");
        assert_eq!(limit(&path).unwrap(), None);
        for (text, expected) in
            [("max\n", None), ("-1\n", None), ("9223372036854771712\n", None), ("4096\n", Some(4096))]
        {
            std::fs::write(&path, text).unwrap();
            assert_eq!(limit(&path).unwrap(), expected, "{text:?}");
        }
        std::fs::write(&path, "much\n").unwrap();
        assert!(limit(&path).is_err());
    }
}
