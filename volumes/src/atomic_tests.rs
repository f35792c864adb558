use std::os::unix::fs::PermissionsExt;

use super::*;

fn payload(files: &[(&str, &str)]) -> Payload {
    files
        .iter()
        .map(|(path, data)| ((*path).to_owned(), File { data: data.as_bytes().to_vec(), mode: 0o640, owner: None }))
        .collect()
}

fn update(folder: &Path, files: &[(&str, &str)]) -> bool {
    write(folder, &payload(files), Timestamp::now(), |_| Ok(())).unwrap()
}

fn listing(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn files_are_reached_through_the_data_link() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    assert!(update(folder, &[("a", "1"), ("d/e", "2")]));
    assert_eq!(fs::read_link(folder.join("a")).unwrap(), Path::new("..data/a"));
    assert_eq!(fs::read_link(folder.join("d")).unwrap(), Path::new("..data/d"));
    assert_eq!(fs::read_to_string(folder.join("d/e")).unwrap(), "2");
    assert_eq!(fs::metadata(folder.join("a")).unwrap().permissions().mode() & 0o777, 0o640);
    assert_eq!(listing(folder).len(), 4);
}

#[test]
fn nothing_happens_when_nothing_changed() {
    let folder = tempfile::tempdir().unwrap();
    update(folder.path(), &[("a", "1")]);
    let before = fs::read_link(folder.path().join(DATA)).unwrap();
    assert!(!update(folder.path(), &[("a", "1")]));
    assert_eq!(fs::read_link(folder.path().join(DATA)).unwrap(), before);
}

#[test]
fn changed_and_stale_files() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    update(folder, &[("a", "1"), ("b", "1"), ("d/x", "1"), ("d/y", "1")]);
    assert!(update(folder, &[("a", "2"), ("d/y", "1")]));
    assert_eq!(fs::read_to_string(folder.join("a")).unwrap(), "2");
    assert!(fs::symlink_metadata(folder.join("b")).is_err());
    assert!(!folder.join("d/x").exists());
    // One generation, ..data, a, d.
    assert_eq!(listing(folder).len(), 4);
    assert!(update(folder, &[]));
    assert_eq!(listing(folder).len(), 2);
}

#[test]
fn paths_that_leave_the_folder_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    for path in ["", ".", "./", "/etc/passwd", "a/../../b", "..data", "./..data", "..", "./..", "a/./../b"] {
        let result = write(folder.path(), &payload(&[(path, "x")]), Timestamp::now(), |_| Ok(()));
        assert!(matches!(result, Err(Error::PayloadPath(_))), "{path:?}");
    }
    assert!(listing(folder.path()).is_empty());
}

/// Containers cannot write here; whoever can all the same, through a hostPath say, has the agent read nothing else.
#[test]
fn what_was_not_written_here_is_replaced_unread() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let outside = tempfile::tempdir().unwrap();
    update(folder, &[("a", "1")]);
    let generation = folder.join(fs::read_link(folder.join(DATA)).unwrap());
    fs::remove_file(generation.join("a")).unwrap();
    symlink("/dev/zero", generation.join("a")).unwrap();
    assert!(update(folder, &[("a", "1")]));
    assert_eq!(fs::read_to_string(folder.join("a")).unwrap(), "1");
    for target in [outside.path(), Path::new("../x"), Path::new("..")] {
        fs::remove_file(folder.join(DATA)).unwrap();
        symlink(target, folder.join(DATA)).unwrap();
        assert!(update(folder, &[("a", "1")]), "{target:?}");
        assert_eq!(fs::read_to_string(folder.join("a")).unwrap(), "1");
    }
    assert!(listing(outside.path()).is_empty());
}

/// What the API's validation passes and `filepath.Clean` makes plain.
#[test]
fn paths_are_cleaned_once() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let files = [("./a", "1"), ("b//c", "2"), ("d/./e/", "3"), ("plain", "4")];
    assert!(update(folder, &files));
    for (path, data) in [("a", "1"), ("b/c", "2"), ("d/e", "3"), ("plain", "4")] {
        assert_eq!(fs::read_to_string(folder.join(path)).unwrap(), data, "{path}");
    }
    // One generation, ..data, a, b, d, plain.
    assert_eq!(listing(folder).len(), 6);
    let before = fs::read_link(folder.join(DATA)).unwrap();
    assert!(!update(folder, &files), "nothing changed");
    assert_eq!(fs::read_link(folder.join(DATA)).unwrap(), before);
    assert!(!update(folder, &[("a", "1"), ("b/c", "2"), ("d/e", "3"), ("plain", "4")]), "the same files");
}

#[test]
fn a_failure_leaves_the_old_generation() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    update(folder, &[("a", "1")]);
    let failed = write(folder, &payload(&[("a", "2")]), Timestamp::now(), |_| Err(Error::Unsupported("test")));
    assert!(failed.is_err());
    assert_eq!(fs::read_to_string(folder.join("a")).unwrap(), "1");
    assert_eq!(listing(folder).len(), 3);
}

#[test]
fn leftovers_of_a_crash_are_cleared() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    update(folder, &[("a", "1")]);
    symlink("nowhere", folder.join(NEW_DATA)).unwrap();
    fs::create_dir(folder.join("..2020_01_01_00_00_00.1")).unwrap();
    fs::remove_file(folder.join("a")).unwrap();
    assert!(!update(folder, &[("a", "1")]));
    assert_eq!(fs::read_to_string(folder.join("a")).unwrap(), "1");
    assert!(update(folder, &[("a", "2")]));
    assert_eq!(listing(folder).len(), 3);
}
