//! Files that change a configuration: `agent.conf.d/*.conf`, each merged over what came before it in lexical order, as a
//! kubelet does with its `--config-dir`.

use std::path::{Path, PathBuf};
use std::{fs, io};

use serde_json::{Map, Value};

use super::Error;

/// The drop-in files of a folder and the folders below it, in lexical order; none where there is no folder.
///
/// # Errors
/// A folder that cannot be read.
pub fn files(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let failed = |source| Error::File { path: folder.to_owned(), source };
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    let mut paths: Vec<PathBuf> =
        entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>().map_err(failed)?;
    paths.sort();
    let mut found = Vec::new();
    for path in paths {
        if path.is_dir() {
            found.extend(files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "conf") {
            found.push(path);
        }
    }
    Ok(found)
}

/// Applies a document to another (RFC 7396, as upstream): objects field by field, everything else as a whole; null removes.
pub fn merge(target: &mut Value, patch: Value) {
    let Value::Object(changes) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(fields) = target else { return };
    for (name, change) in changes {
        if change.is_null() {
            fields.remove(&name);
        } else {
            merge(fields.entry(name).or_insert(Value::Null), change);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn objects_are_merged_and_lists_replaced() {
        let mut target = json!({"a": {"x": 1, "y": 2}, "list": [1, 2], "gone": 3, "scalar": 4});
        merge(&mut target, json!({"a": {"y": 5, "z": 6}, "list": [7], "gone": null, "scalar": {"deep": null, "b": 8}}));
        assert_eq!(target, json!({"a": {"x": 1, "y": 5, "z": 6}, "list": [7], "scalar": {"b": 8}}));
    }

    #[test]
    fn files_come_in_lexical_order_and_others_are_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("15-more")).unwrap();
        for name in ["20-b.conf", "10-a.conf", "15-more/z.conf", "README", "30.conf.bak", "40.yaml"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        let found = files(folder.path()).unwrap();
        let names: Vec<_> =
            found.iter().map(|path| path.strip_prefix(folder.path()).unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["10-a.conf", "15-more/z.conf", "20-b.conf"]);
        assert!(files(&folder.path().join("none")).unwrap().is_empty());
    }
}
