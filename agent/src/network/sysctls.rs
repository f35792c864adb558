//! How settings of the kernel were before the agent changed them, so that leaving can put them back.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

/// The file, below the agent's data folder: a JSON object, path below /proc/sys -> value.
const FILE: &str = "sysctls-before.json";

/// Why settings were not put back.
#[derive(Debug, thiserror::Error)]
pub(super) enum RestoreError {
    #[error("read {FILE}")]
    Read(#[from] io::Error),
    #[error("parse {FILE}")]
    Parse(#[from] serde_json::Error),
    #[error("set {key}")]
    Set { key: String, source: netns::Error },
}

/// Writes down the values of `keys`, unless an earlier run has: what counts is how they were at first.
pub(super) fn remember(data_dir: &Path, keys: &[&str]) -> io::Result<()> {
    let path = data_dir.join(FILE);
    if path.exists() {
        return Ok(());
    }
    let value = |key: &&str| Some(((*key).to_owned(), netns::sysctl::read_current(key).ok()?.trim().to_owned()));
    let values: BTreeMap<String, String> = keys.iter().filter_map(value).collect();
    fs::write(path, serde_json::to_vec(&values)?)
}

/// Puts them back.
pub(super) fn restore(data_dir: &Path) -> Result<(), RestoreError> {
    let text = match fs::read(data_dir.join(FILE)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let values: BTreeMap<String, String> = serde_json::from_slice(&text)?;
    for (key, value) in values {
        netns::sysctl::write_current(&key, &value).map_err(|source| RestoreError::Set { key, source })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_values_are_kept_and_put_back() {
        let dir = std::env::temp_dir().join(format!("keelson-sysctls-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        // Nothing was changed: nothing is put back.
        restore(&dir).unwrap();
        fs::write(dir.join(FILE), "{}").unwrap();
        remember(&dir, &["net/ipv4/ip_forward"]).unwrap();
        assert_eq!(fs::read_to_string(dir.join(FILE)).unwrap(), "{}");
        fs::remove_file(dir.join(FILE)).unwrap();
        remember(&dir, &["net/ipv4/ip_default_ttl"]).unwrap();
        let kept: BTreeMap<String, String> = serde_json::from_slice(&fs::read(dir.join(FILE)).unwrap()).unwrap();
        assert!(kept["net/ipv4/ip_default_ttl"].parse::<u8>().is_ok(), "{kept:?}");
        restore(&dir).unwrap();
        fs::remove_dir_all(dir).unwrap();
    }
}
