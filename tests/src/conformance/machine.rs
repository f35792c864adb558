//! test/e2e_node on a virtual machine: Debian with systemd and cgroup v2, where the agent and containerd are units that the suite restarts.
//!
//! ```text
//! control plane here <-- LAN --> v1: containerd.service, kubelet-keelson.service (the agent), e2e-node.service (ginkgo)
//!                                      its serial line --> output, report, logs
//! ```

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::Request;
use super::ginkgo::Run;
use super::report::Outcome;
use crate::harness::cluster::{Progress, kubelet_config};
use crate::harness::shell::wait_for;
use crate::harness::upstream::Upstream;
use crate::harness::{Cluster, Layout, Options, registry};
use crate::machines::{Assets, Frame, Guest, Machine, Payload, SYSTEMD_CGROUP};

/// A node for pods with a suite beside them.
const FRAME: Frame = Frame { number: 1, memory: 3072 };
/// The stand-ins that tests of test/e2e_node start; importing one takes an emulated machine many seconds.
const IMAGES: [&str; 5] = ["agnhost", "busybox", "nginx", "nonewprivs", "pause"];
const SUITE: &str = "e2e_node.test";
const GINKGO: &str = "ginkgo";
/// containerd 2 and a runc that knows user namespaces, and where Debian's own are.
const CONTAINERD_2: [(&str, &str); 3] = [
    ("containerd", "/usr/bin/containerd"),
    ("containerd-shim-runc-v2", "/usr/bin/containerd-shim-runc-v2"),
    ("debian/runc", "/usr/sbin/runc"),
];
/// Where the suite runs. It writes the kubelet's configuration into files of these names there.
const WORK: &str = "/run/e2e-node";
/// How long importing the images may take, and joining.
const PATIENCE: Duration = Duration::from_secs(600);
/// Lines that end the parts of what comes over the serial line.
const OUTPUT_END: &str = "@@ end of the output";
const REPORT_END: &str = "@@ end of the report";
/// Whose logs come after the report, in this order.
const LOGS: [&str; 2] = ["agent", "containerd"];
const LOG_END: &str = "@@ end of the log";

/// What the agent's unit is for the suite: it finds a kubelet by this shape of name, and what it kills is to stay so until it is restarted. Its
/// log is a file, in whose lines all fields are.
const UNIT: &str = r"
systemctl disable --now agent.service
cd /etc/systemd/system
cp $(systemctl show --property FragmentPath --value agent.service) kubelet-keelson.service
mkdir kubelet-keelson.service.d
printf '[Service]\nRestart=no\nRemainAfterExit=yes\nStandardError=append:/var/log/agent.log\n' > kubelet-keelson.service.d/suite.conf
systemctl daemon-reload
systemctl enable --now kubelet-keelson.service
";
/// Its users are root already.
const SUDO: &str = r#"printf '#!/bin/sh\nexec "$@"\n' > /usr/local/bin/sudo && chmod 755 /usr/local/bin/sudo"#;

/// A control plane on this machine with a virtual machine as its one node.
#[derive(Debug)]
pub struct Site {
    pub cluster: Cluster,
    machine: Machine,
}

impl Site {
    /// Powers a new machine on and has it join a new cluster.
    ///
    /// # Errors
    /// When a step fails; what was made stays for a look.
    pub fn up(layout: Layout, request: &Request, upstream: &Upstream, progress: &mut dyn Progress) -> Result<Self> {
        let assets = Assets::build()?;
        let mut options = Options::nodes(0);
        options.control_plane = request.against.parts().0;
        options.suite = true;
        options.upstream = Some(upstream.clone());
        let mut cluster = Cluster::up(layout, options, progress)?;
        progress.step("a disk of programs and images", 0);
        let payload = Payload::with(&cluster.layout.base, |content| gather(upstream, request.containerd2, content))?;
        progress.step("a virtual machine boots", 0);
        let machine = Machine::install(&cluster, &assets, &payload, FRAME)?;
        // So that it ends with the cluster, whoever ends that.
        cluster.remember(machine.process()?.clone())?;
        let site = Self { cluster, machine };
        site.provision(request.containerd2)?;
        progress.step("it imports images", IMAGES.len() as u64);
        site.import(progress)?;
        progress.step("it joins", 0);
        site.join()?;
        Ok(site)
    }

    /// One that was left; what is left of a broken one is removed.
    ///
    /// # Errors
    /// When that refuses to go.
    pub fn adopt(layout: Layout, progress: &mut dyn Progress) -> Result<Option<Self>> {
        let Some(cluster) = Cluster::adopt(layout)? else { return Ok(None) };
        let (assets, payload) = (Assets::build()?, Payload::of(&cluster.layout.base));
        // A cluster that never had its machine is one of a run that was interrupted.
        let Ok(machine) = Machine::adopt(&cluster, &assets, &payload, FRAME) else {
            return cluster.down(progress).map(|_| None);
        };
        let site = Self { cluster, machine };
        if site.cluster.healthy() && site.ready().is_ok() {
            return Ok(Some(site));
        }
        site.down(progress).map(|_| None)
    }

    /// The machine's name, which is its node's.
    #[must_use]
    pub fn node(&self) -> &str {
        &self.machine.name
    }

    /// The suite, as the machine has it: it is in the folder that it runs in.
    #[must_use]
    pub fn suite() -> PathBuf {
        Path::new(WORK).join(SUITE)
    }

    /// A file of the disk, as the machine has it.
    fn program(name: &str) -> PathBuf {
        Path::new(Payload::MOUNT).join(name)
    }

    fn guest(&self) -> Guest {
        self.machine.guest()
    }

    /// Brings onto the machine what a node has, and starts containerd anew with it.
    fn provision(&self, containerd2: bool) -> Result<()> {
        let (guest, mount) = (self.guest(), Payload::MOUNT);
        guest.say(&format!("mount -o ro /dev/vdb {mount} && dpkg -i {mount}/{}", Payload::PACKAGE))?;
        guest.say(SUDO)?;
        for (from, to) in CONTAINERD_2.iter().filter(|_| containerd2) {
            guest.say(&format!("systemctl stop containerd && cp {} {to}", Self::program(&flat(from)).display()))?;
        }
        let layout = &self.cluster.layout;
        for file in registry::files(layout)? {
            self.bring(&file, &fs::read(&file).with_context(|| format!("read {}", file.display()))?)?;
        }
        let hosts = registry::hosts(layout);
        let mirrors = format!("\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\n  config_path = {hosts:?}\n");
        let config = "/etc/containerd/config.toml";
        guest
            .say(&format!("cat >> {config} <<'EOF'{SYSTEMD_CGROUP}{mirrors}EOF\nsystemctl restart containerd"))
            .map(drop)
    }

    fn import(&self, progress: &mut dyn Progress) -> Result<()> {
        for image in IMAGES {
            let archive = Self::program(&format!("{image}.tar"));
            let import = format!("ctr -n k8s.io images import {}", archive.display());
            self.guest().say_within(&import, PATIENCE)?;
            progress.tick();
        }
        Ok(())
    }

    fn join(&self) -> Result<()> {
        let (guest, manifests) = (self.guest(), "/etc/kubernetes/manifests");
        let config = Path::new("/root/kubelet-config.yaml");
        let fields = [("staticPodPath".into(), json!(manifests)), ("readOnlyPort".into(), json!(10255))];
        self.bring(config, kubelet_config(&fields.into()).to_string().as_bytes())?;
        let command = self.cluster.join_command()?;
        let join = format!(
            "mkdir -p {manifests} && {command} --data-dir /var/lib/kubelet --kubelet-config {}",
            config.display()
        );
        guest.say_within(&join, PATIENCE)?;
        guest.say(&format!("set -e\n{UNIT}"))?;
        // Where the suite expects the configurations that it changes are the agent's.
        guest.say(&format!(
            "mkdir -p {WORK} /etc/keelson/agent.conf.d && cd {WORK} && ln -s {} . && \
             ln -s /etc/keelson/agent.yaml kubelet-config && ln -s /etc/keelson/agent.conf.d kubelet.conf.d",
            Self::program(SUITE).display()
        ))?;
        wait_for("the machine's node to be Ready", PATIENCE, || self.ready())
    }

    fn ready(&self) -> Result<()> {
        let ready = "jsonpath={.status.conditions[?(@.type==\"Ready\")].status}";
        let said = self.cluster.kubectl().run(&["get", "node", self.node(), "-o", ready])?;
        ensure!(said == "True", "Ready is {said:?}");
        Ok(())
    }

    /// Writes a file onto the machine that only root may read.
    fn bring(&self, path: &Path, content: &[u8]) -> Result<()> {
        let (text, dir) = (STANDARD.encode(content), path.parent().unwrap_or(path));
        let line = format!("umask 077 && mkdir -p {} && echo {text} | base64 -d > {}", dir.display(), path.display());
        self.guest().say(&line).map(drop)
    }

    /// Runs the suite on the machine to its end, red or not.
    ///
    /// # Errors
    /// When it does not start, or the machine hangs up.
    pub fn run(&self, run: &Run, progress: &mut dyn Progress) -> Result<Vec<Outcome>> {
        run.make_dir()?;
        let mut lines = BufReader::new(self.machine.line()?).split(b'\n');
        self.bring(&Path::new(WORK).join("run"), script(run).as_bytes())?;
        let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        self.guest().say(&format!(
            "systemd-run --quiet --collect --unit e2e-node --setenv={path} --setenv=HOME=/root sh {WORK}/run"
        ))?;
        let not_ended = |line: &std::io::Result<Vec<u8>>| !line.as_ref().is_ok_and(|l| l == OUTPUT_END.as_bytes());
        let seen = run.follow(lines.by_ref().take_while(not_ended), progress)?;
        save(&mut lines, REPORT_END, &run.report())?;
        for program in LOGS {
            save(&mut lines, LOG_END, &self.cluster.layout.log(&format!("{program}-{}", self.node())))?;
        }
        run.outcomes(seen, progress)
    }

    /// Ends the cluster; answers what is left of it.
    ///
    /// # Errors
    /// When something refuses to go.
    pub fn down(self, progress: &mut dyn Progress) -> Result<Vec<String>> {
        drop(self.machine);
        self.cluster.down(progress)
    }

    /// Leaves both for [`Self::adopt`].
    pub fn leave(self) {
        self.machine.leave();
    }
}

/// Puts programs and images into a folder. They are of one file system as a rule, and large.
fn gather(upstream: &Upstream, containerd2: bool, content: &Path) -> Result<()> {
    let programs = [SUITE, GINKGO].map(|name| (upstream.program(name), name.to_owned()));
    let images = IMAGES.map(|name| format!("{name}.tar")).map(|name| (upstream.images.join(&name), name));
    let tools = CONTAINERD_2.map(|(name, _)| (upstream.containerd.join(name), flat(name)));
    let tools = tools.into_iter().filter(|_| containerd2);
    for (from, name) in programs.into_iter().chain(images).chain(tools) {
        let to = content.join(name);
        fs::hard_link(&from, &to)
            .or_else(|_| fs::copy(&from, &to).map(drop))
            .with_context(|| format!("{} to {}", from.display(), to.display()))?;
    }
    Ok(())
}

/// The name of a file on the disk, which has no folders.
fn flat(name: &str) -> String {
    name.replace('/', "-")
}

/// What runs in the machine. All of it goes to the serial line: what ginkgo prints, its report, and [`LOGS`].
fn script(run: &Run) -> String {
    let words: Vec<String> = run.arguments(Path::new(WORK)).iter().map(|word| quote(word)).collect();
    format!(
        "exec > {line} 2>&1\ncd {WORK}\nrm -f {report}\n{ginkgo} {words}\necho\necho '{OUTPUT_END}'\n\
         cat {report}\necho\necho '{REPORT_END}'\n\
         cat /var/log/agent.log\necho '{LOG_END}'\njournalctl --boot --no-pager -o cat -u containerd\necho '{LOG_END}'\n",
        line = Machine::line_there(),
        report = Path::new(WORK).join(run.report().file_name().unwrap_or_default()).display(),
        ginkgo = Site::program(GINKGO).display(),
        words = words.join(" "),
    )
}

/// A word of a shell's line.
fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Writes the lines up to one that ends them into a file.
fn save(lines: &mut impl Iterator<Item = std::io::Result<Vec<u8>>>, end: &str, path: &Path) -> Result<()> {
    let mut file = File::create(path).with_context(|| format!("create {}", path.display()))?;
    for line in lines {
        let line = line?;
        if line == end.as_bytes() {
            return Ok(());
        }
        file.write_all(&line)?;
        file.write_all(b"\n")?;
    }
    bail!("the machine hung up; its console and QEMU's log are beside {}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::harness::shell::output;
    use std::process::Command;

    #[test]
    fn words_stay_words() {
        let word = r#"-focus=\s\[sig-node\] it's "$HOME" `x`"#;
        let said = output(Command::new("sh").arg("-c").arg(format!("printf %s {}", quote(word)))).unwrap();
        assert_eq!(said, word);
    }

    #[test]
    fn parts_of_the_line_end_where_they_say() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("part");
        let mut lines = BufReader::new(b"a\nb\n@@ end of the report\nc\n".as_slice()).split(b'\n');
        save(&mut lines, REPORT_END, &path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "a\nb\n");
        let error = save(&mut lines, LOG_END, &path).unwrap_err();
        assert!(error.to_string().starts_with("the machine hung up"), "{error}");
    }
}
