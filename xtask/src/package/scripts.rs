//! Tests of what packages and the archive run when they are removed: the scripts themselves, on folders of a test.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// A script of `packaging` with all of its absolute folders below `root`, where programs write down how they were called.
fn script(root: &Path, name: &str) -> Command {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging").join(name);
    let mut text = fs::read_to_string(source).unwrap();
    for folder in ["/etc/keelson", "/var/lib/keelson", "/run/keelson", "/etc/systemd/system", "/run/systemd/system"] {
        text = text.replace(folder, &format!("{}{folder}", root.display()));
    }
    let bin = root.join("bin");
    fs::create_dir_all(&bin).unwrap();
    for program in ["agent", "systemctl", "deb-systemd-helper", "deb-systemd-invoke"] {
        let stub =
            format!("#!/bin/sh\necho {program} \"$@\" >> {0}/calls\n[ ! -e {0}/{program}-fails ]\n", root.display());
        executable(&bin.join(program), &stub);
    }
    let path = root.join(name.replace('/', "-"));
    executable(&path, &text);
    let mut command = Command::new(path);
    command.env("PATH", format!("{}:{}", bin.display(), std::env::var("PATH").unwrap()));
    command
}

fn executable(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn make(root: &Path, files: &[&str]) {
    for file in files {
        fs::create_dir_all(root.join(file).parent().unwrap()).unwrap();
        fs::write(root.join(file), "").unwrap();
    }
}

fn told(out: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}

fn calls(root: &Path) -> String {
    fs::read_to_string(root.join("calls")).unwrap_or_default()
}

/// Needs root.
#[test]
fn purging_empties_a_partition_of_its_own_and_touches_no_other() {
    for (name, folder) in [("agent/postrm", "var/lib/keelson"), ("master/postrm", "var/lib/keelson-master")] {
        let dir = tempfile::tempdir().unwrap();
        let (data, below) = (dir.path().join(folder), dir.path().join(folder).join("pods/u/mounted"));
        for point in [&data, &below] {
            fs::create_dir_all(point).unwrap();
            mount(Some("tmpfs"), point, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
        }
        let unit = format!("etc/systemd/system/multi-user.target.wants/{}.service", name.split('/').next().unwrap());
        make(dir.path(), &[&unit, "etc/keelson/agent.yaml"]);
        make(&data, &["store", "pods/v/file", "pods/u/mounted/precious"]);
        let out = script(dir.path(), name).arg("purge").output().unwrap();
        let precious = below.join("precious").exists();
        let left = [data.join("store"), data.join("pods/v"), dir.path().join(&unit)].map(|path| path.exists());
        for point in [&below, &data] {
            umount2(point, MntFlags::UMOUNT_NOFOLLOW).unwrap();
        }
        assert!(out.status.success() && told(&out).contains("stays: something is mounted there"), "{}", told(&out));
        assert!(precious && left == [false; 3], "{precious} {left:?}");
        let out = script(dir.path(), name).arg("purge").output().unwrap();
        assert!(out.status.success() && told(&out).is_empty() && !data.exists(), "{}", told(&out));
    }
}

#[test]
fn a_package_stays_where_the_machine_cannot_leave() {
    let dir = tempfile::tempdir().unwrap();
    let run = |action: &str| script(dir.path(), "agent/prerm").arg(action).output().unwrap();
    assert!(run("remove").status.success());
    assert_eq!(calls(dir.path()), "", "it has not joined");
    make(dir.path(), &["etc/keelson/node.yaml", "agent-fails"]);
    let out = run("remove");
    assert!(!out.status.success() && told(&out).contains("the package stays"), "{}", told(&out));
    assert!(run("upgrade").status.success());
    let left = |folder: &str| format!("agent leave --force --config-dir {}/{folder}\n", dir.path().display());
    assert_eq!(calls(dir.path()), left("etc/keelson"));
    fs::remove_file(dir.path().join("agent-fails")).unwrap();
    assert!(run("remove").status.success());
}

/// Joined by `agent join --config-dir`, of which keys are left at least; the unit stands before the package's.
#[test]
fn a_node_with_a_folder_of_its_own_leaves_with_the_package_too() {
    let dir = tempfile::tempdir().unwrap();
    let (units, folder) = (dir.path().join("etc/systemd/system"), dir.path().join("srv/a node"));
    make(dir.path(), &["srv/a node/pki/client.pem", "etc/systemd/system/keelson.slice", "agent-fails"]);
    let write = |program: &str| {
        let line =
            format!("[Service]\nExecStart={program} run --config-dir \"{}\"\nRestart=always\n", folder.display());
        fs::write(units.join("agent.service"), line).unwrap();
    };
    let run = || script(dir.path(), "agent/prerm").arg("remove").output().unwrap();
    write("/usr/bin/agent");
    assert!(!run().status.success() && units.join("agent.service").exists());
    assert_eq!(calls(dir.path()), format!("agent leave --force --config-dir {}\n", folder.display()));
    fs::remove_file(dir.path().join("agent-fails")).unwrap();
    assert!(run().status.success());
    assert_eq!(fs::read_dir(&units).unwrap().count(), 0);
    // An agent of the archive's is no affair of the package.
    fs::write(dir.path().join("calls"), "").unwrap();
    write("/usr/local/bin/agent");
    assert!(run().status.success() && calls(dir.path()).is_empty() && units.join("agent.service").exists());
}

#[test]
fn a_packages_master_with_a_folder_of_its_own_takes_its_unit_along() {
    let dir = tempfile::tempdir().unwrap();
    let units = dir.path().join("etc/systemd/system");
    make(dir.path(), &["etc/systemd/system/agent.service", "etc/systemd/system/keelson.slice"]);
    fs::write(units.join("master.service"), "[Service]\nExecStart=/usr/bin/master run --data-dir /srv/m\n").unwrap();
    let run = |action: &str| script(dir.path(), "master/prerm").arg(action).output().unwrap();
    assert!(run("upgrade").status.success() && units.join("master.service").exists());
    let out = run("remove");
    assert!(out.status.success() && told(&out).contains("stay in /srv/m\n"), "{}", told(&out));
    assert!(!units.join("master.service").exists() && units.join("keelson.slice").exists());
    assert_eq!(calls(dir.path()), "systemctl disable --now master.service\n");
}

#[test]
fn the_archive_keeps_the_program_of_a_node() {
    let dir = tempfile::tempdir().unwrap();
    let prefix = dir.path().join("usr");
    make(dir.path(), &["agent/bin/agent", "usr/bin/agent", "etc/systemd/system/agent.service", "srv/k/node.yaml"]);
    let line = format!("ExecStart={}/bin/agent run --config-dir {}/srv/k\n", prefix.display(), dir.path().display());
    fs::write(dir.path().join("etc/systemd/system/agent.service"), line).unwrap();
    let remove = || {
        let mut install = script(dir.path(), "install.sh");
        install.args(["--remove", "agent"]).env("PREFIX", &prefix).output().unwrap()
    };
    let refused = |folder: &str| {
        let (out, told_to) = (remove(), format!("agent leave --config-dir {}/{folder}'", dir.path().display()));
        assert!(!out.status.success() && told(&out).contains(&told_to), "{}", told(&out));
        assert!(prefix.join("bin/agent").exists() && calls(dir.path()).is_empty());
    };
    refused("srv/k");
    // A join that was cut short.
    fs::remove_dir_all(dir.path().join("srv")).unwrap();
    make(dir.path(), &["etc/keelson/pki/client.key"]);
    refused("etc/keelson");
    fs::remove_dir_all(dir.path().join("etc/keelson")).unwrap();
    assert!(remove().status.success());
    assert!(!prefix.join("bin/agent").exists() && !dir.path().join("etc/systemd/system/agent.service").exists());
}

#[test]
fn a_master_takes_its_unit_along() {
    let dir = tempfile::tempdir().unwrap();
    let (prefix, unit) = (dir.path().join("usr"), dir.path().join("etc/systemd/system/master.service"));
    make(dir.path(), &["master/bin/master", "etc/systemd/system/master.service", "usr/bin/master"]);
    let write = |program: &str| {
        let line = format!("[Service]\nExecStart={program} run --data-dir /data/m\nRestart=always\n");
        fs::write(&unit, line).unwrap();
    };
    let remove = || {
        let out =
            script(dir.path(), "install.sh").args(["--remove", "master"]).env("PREFIX", &prefix).output().unwrap();
        assert!(out.status.success(), "{}", told(&out));
        told(&out)
    };
    // That of a package, say.
    write("/usr/bin/master");
    remove();
    assert!(unit.exists() && calls(dir.path()).is_empty() && !prefix.join("bin/master").exists());
    make(dir.path(), &["usr/bin/master"]);
    write(&prefix.join("bin/master").display().to_string());
    assert!(remove().contains("stay in /data/m\n"));
    assert!(!unit.exists() && !prefix.join("bin/master").exists());
    assert_eq!(calls(dir.path()), "systemctl disable --now master.service\nsystemctl daemon-reload\n");
    remove();
}
