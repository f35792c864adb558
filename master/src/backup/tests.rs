use super::*;
use crate::cli::Location;
use crate::pki::Pki;

fn cluster(root: &Path) -> DataDir {
    let dir = DataDir::new(root);
    dir.create().unwrap();
    let settings = "advertiseAddress: 172.30.1.2\nbind: 0.0.0.0:6443\nserviceCidr: 10.96.0.0/16\n\
                    clusterCidr: 10.244.0.0/16\nnodeMonitorGraceSeconds: 40\n";
    data_dir::write_private(&dir.settings(), settings).unwrap();
    Pki::ensure(&dir, &Settings::load(&dir).unwrap().unwrap(), Timestamp::now()).unwrap();
    drop(Embedded::open(dir.store()).unwrap());
    dir
}

fn saved(dir: &DataDir, file: &Path, with_pki: bool) {
    let location = Location { data_dir: dir.root().to_owned() };
    backup(&BackupOptions { location, with_pki, file: file.to_owned() }).unwrap();
}

fn restored(root: &Path, file: &Path, force: bool) -> Result<()> {
    restore(&RestoreOptions { location: Location { data_dir: root.to_owned() }, force, file: file.to_owned() })
}

#[test]
fn a_cluster_moves_to_an_empty_folder() {
    let folder = tempfile::tempdir().unwrap();
    let (dir, file) = (cluster(&folder.path().join("old")), folder.path().join("backup"));
    saved(&dir, &file, true);
    let new = DataDir::new(&folder.path().join("new"));
    restored(new.root(), &file, false).unwrap();
    for name in ["pki/ca.crt", "pki/ca.key", "pki/sa.key", "master.yaml"] {
        assert_eq!(fs::read(new.root().join(name)).unwrap(), fs::read(dir.root().join(name)).unwrap(), "{name}");
    }
    let Occupant::Idle(revision) = Embedded::occupant(&new.store()) else { panic!("no store") };
    assert!(revision > 1_000_000_000);
}

#[test]
fn a_folder_that_is_not_empty_is_replaced_only_by_force() {
    let folder = tempfile::tempdir().unwrap();
    let (dir, file) = (cluster(&folder.path().join("old")), folder.path().join("backup"));
    saved(&dir, &file, false);
    let ca = fs::read(dir.pki("ca.crt")).unwrap();
    let error = restored(dir.root(), &file, false).unwrap_err();
    assert!(error.to_string().ends_with("is not empty: --force replaces what is in it"), "{error}");
    restored(dir.root(), &file, true).unwrap();
    assert_eq!(fs::read(dir.pki("ca.crt")).unwrap(), ca, "a backup without keys leaves those that are there");
    let kept = fs::read_dir(dir.root()).unwrap().filter_map(Result::ok).map(|e| e.path());
    let kept = kept.into_iter().find(|path| path.to_string_lossy().contains("replaced-")).unwrap();
    assert!(kept.join("store.db").exists());
}

#[test]
fn a_running_master_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (dir, file) = (cluster(&folder.path().join("old")), folder.path().join("backup"));
    saved(&dir, &file, false);
    let running = Embedded::open(dir.store()).unwrap();
    let error = restored(dir.root(), &file, true).unwrap_err();
    assert!(error.to_string().starts_with("a master runs on "), "{error}");
    drop(running);
}

#[test]
fn a_damaged_backup_touches_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (dir, file) = (cluster(&folder.path().join("old")), folder.path().join("backup"));
    saved(&dir, &file, true);
    let whole = fs::read(&file).unwrap();
    fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    let new = folder.path().join("new");
    restored(&new, &file, false).unwrap_err();
    assert!(!new.exists());
}

#[test]
fn an_interrupted_restoration_is_served_by_nobody_until_it_is_done_again() {
    let folder = tempfile::tempdir().unwrap();
    let (dir, file) = (cluster(&folder.path().join("old")), folder.path().join("backup"));
    saved(&dir, &file, true);
    let other = cluster(&folder.path().join("other"));
    crate::pki::authorities::announce(&other, Timestamp::now()).unwrap();
    // Where the store would be made anew, nothing can be made.
    let obstacle = other.store().with_extension("restored");
    fs::create_dir(&obstacle).unwrap();
    restored(other.root(), &file, true).unwrap_err();
    let serve = || Pki::ensure(&other, &Settings::load(&other).unwrap().unwrap(), Timestamp::now());
    let Err(error) = serve() else { panic!("one cluster's keys with another's objects") };
    assert!(error.to_string().ends_with("was interrupted: say `master restore --force FILE` again"), "{error}");
    fs::remove_dir(&obstacle).unwrap();
    restored(other.root(), &file, true).unwrap();
    let served = serve().unwrap();
    assert_eq!(
        served.authorities.bundle_pem(),
        fs::read_to_string(dir.pki("ca.crt")).unwrap(),
        "no CA of the other one"
    );
}

#[test]
fn a_backup_whose_keys_are_not_those_of_its_certificates_touches_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (dir, file) = (cluster(&folder.path().join("old")), folder.path().join("backup"));
    data_dir::write_private(&dir.pki("ca.key"), &auth::pki::new_key_pem().unwrap()).unwrap();
    saved(&dir, &file, true);
    let new = folder.path().join("new");
    let error = restored(&new, &file, false).unwrap_err();
    assert!(format!("{error:#}").contains("pki/ca.crt of the backup: "), "{error:#}");
    assert!(!new.exists());
}
