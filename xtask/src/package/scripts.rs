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
    assert_eq!(calls(dir.path()), "agent leave --force\n");
    fs::remove_file(dir.path().join("agent-fails")).unwrap();
    assert!(run("remove").status.success());
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
