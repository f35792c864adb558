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

/// Writes down the values of `keys`, but for those that an earlier run has: what counts is how they were at first.
pub(super) fn remember(data_dir: &Path, keys: &[String]) -> io::Result<()> {
    let path = data_dir.join(FILE);
    let mut values = remembered(data_dir);
    let known = values.len();
    for key in keys {
        if !values.contains_key(key)
            && let Ok(value) = netns::sysctl::read_current(key)
        {
            values.insert(key.clone(), value.trim().to_owned());
        }
    }
    if values.len() == known && path.exists() {
        return Ok(());
    }
    fs::write(path, serde_json::to_vec(&values)?)
}

/// What was written down; nothing of a file that cannot be read.
pub(super) fn remembered(data_dir: &Path) -> BTreeMap<String, String> {
    let text = fs::read(data_dir.join(FILE)).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
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
        let keys = ["net/ipv4/ip_forward", "net/ipv4/ip_default_ttl"].map(str::to_owned);
        fs::write(dir.join(FILE), r#"{"net/ipv4/ip_forward":"7"}"#).unwrap();
        remember(&dir, &keys[..1]).unwrap();
        assert_eq!(fs::read_to_string(dir.join(FILE)).unwrap(), r#"{"net/ipv4/ip_forward":"7"}"#);
        // What an agent comes to change later joins it.
        remember(&dir, &keys).unwrap();
        assert_eq!(remembered(&dir)["net/ipv4/ip_forward"], "7");
        fs::remove_file(dir.join(FILE)).unwrap();
        remember(&dir, &keys[1..]).unwrap();
        let kept: BTreeMap<String, String> = serde_json::from_slice(&fs::read(dir.join(FILE)).unwrap()).unwrap();
        assert!(kept["net/ipv4/ip_default_ttl"].parse::<u8>().is_ok(), "{kept:?}");
        restore(&dir).unwrap();
        fs::remove_dir_all(dir).unwrap();
    }
}
