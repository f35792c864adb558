//! One machine: QEMU's process, its disk, and its cable to the cluster's LAN.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::assets::Assets;
use super::guest::Guest;
use super::payload::Payload;
use crate::harness::host::Lan;
use crate::harness::process::{Process, spawn};
use crate::harness::shell::{output, run, wait_for};
use crate::harness::{Cluster, Layout};

/// How long a machine may take from power on until it answers; 20 to 40 s where nobody else computes.
const BOOT: Duration = Duration::from_secs(300);
/// The name of the serial line.
const LINE: &str = "keelson.line";

/// What a machine is made of.
#[derive(Debug, Clone, Copy)]
pub struct Frame {
    /// Its number on the LAN: machine 1 is `v1`.
    pub number: u8,
    /// MiB of memory.
    pub memory: u32,
}

impl Frame {
    /// As small as a node may be.
    #[must_use]
    pub fn small(number: u8) -> Self {
        Self { number, memory: 1536 }
    }
}

/// A machine. Dropping it cuts its power.
#[derive(Debug)]
pub struct Machine {
    pub name: String,
    /// Its address on the cluster's LAN.
    pub address: String,
    frame: Frame,
    gateway: String,
    layout: Layout,
    assets: Assets,
    payload: Payload,
    process: Option<Process>,
}

impl Machine {
    /// A new Debian on the LAN of `cluster`, powered on.
    ///
    /// # Errors
    /// When it does not come up; its console is in the log folder of the cluster.
    pub fn install(cluster: &Cluster, assets: &Assets, payload: &Payload, frame: Frame) -> Result<Self> {
        let mut machine = Self::of(cluster, assets, payload, frame);
        fs::create_dir_all(machine.layout.run())?;
        let mut create = assets.program("qemu-img");
        create.args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"]).arg(assets.debian.join("root.ext4"));
        output(create.arg(machine.disk()))?;
        machine.plug_in()?;
        machine.power_on()?;
        Ok(machine)
    }

    /// A machine that another process has left, and had its cluster remember.
    ///
    /// # Errors
    /// When there is none.
    pub fn adopt(cluster: &Cluster, assets: &Assets, payload: &Payload, frame: Frame) -> Result<Self> {
        let mut machine = Self::of(cluster, assets, payload, frame);
        machine.process = Some(cluster.process(&machine.process_name())?.clone());
        Ok(machine)
    }

    /// Lets it run on when we end.
    pub fn leave(mut self) {
        self.process = None;
    }

    fn of(cluster: &Cluster, assets: &Assets, payload: &Payload, frame: Frame) -> Self {
        let lan: Lan = cluster.lan;
        Self {
            name: format!("v{}", frame.number),
            address: lan.address(100 + frame.number).to_string(),
            frame,
            gateway: lan.address(1).to_string(),
            layout: cluster.layout.clone(),
            assets: assets.clone(),
            payload: payload.clone(),
            process: None,
        }
    }

    fn process_name(&self) -> String {
        format!("machine-{}", self.name)
    }

    /// Its cable: a tap device on the cluster's bridge.
    fn plug_in(&self) -> Result<()> {
        let tap = self.tap();
        run("ip", ["tuntap", "add", "dev", &tap, "mode", "tap"])?;
        run("ip", ["link", "set", &tap, "master", &self.layout.bridge(), "up"]).map(drop)
    }

    /// Pulls its cable, or plugs it in again.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn cable(&self, plugged: bool) -> Result<()> {
        run("ip", ["link", "set", &self.tap(), if plugged { "up" } else { "down" }]).map(drop)
    }

    /// Starts QEMU and waits until the guest agent answers.
    ///
    /// # Errors
    /// When it does not within some minutes.
    pub fn power_on(&mut self) -> Result<()> {
        let name = self.process_name();
        let process = spawn(&name, &mut self.command(), &self.layout.log(&name))?;
        self.process = Some(process);
        self.wait_answer()
    }

    /// Waits until the machine has booted: the guest agent answers and systemd is done with starting.
    ///
    /// # Errors
    /// When it does not within some minutes.
    pub fn wait_answer(&self) -> Result<()> {
        let (guest, console) = (self.guest(), self.console());
        wait_for(&format!("{} to boot (its console: {})", self.name, console.display()), BOOT, || {
            ensure!(self.process.as_ref().is_some_and(Process::alive), "QEMU ended");
            guest.ping()?;
            // Degraded is for the tests to judge.
            guest.run("systemctl is-system-running --wait", BOOT).map(drop)
        })
    }

    /// Restarts the machine as its administrator does, and waits until it is there again.
    ///
    /// # Errors
    /// When it does not come back.
    pub fn reboot(&self) -> Result<()> {
        let guest = self.guest();
        let before = boot_id(&guest)?;
        guest.say("systemctl --no-block reboot")?;
        wait_for(&format!("{} to reboot", self.name), BOOT, || {
            ensure!(boot_id(&guest)? != before, "it is still up");
            Ok(())
        })?;
        self.wait_answer()
    }

    /// Cuts the power: what was not on the disk is lost.
    ///
    /// # Errors
    /// When QEMU does not end.
    pub fn power_cut(&mut self) -> Result<()> {
        match self.process.take() {
            Some(process) => process.kill(),
            None => Ok(()),
        }
    }

    /// Waits until the machine has gone down by itself.
    ///
    /// # Errors
    /// When it does not within some minutes.
    pub fn wait_down(&mut self) -> Result<()> {
        wait_for(&format!("{} to power off (its console: {})", self.name, self.console().display()), BOOT, || {
            ensure!(!self.process.as_ref().is_some_and(Process::alive), "QEMU runs");
            Ok(())
        })?;
        self.power_cut()
    }

    #[must_use]
    pub fn guest(&self) -> Guest {
        Guest { socket: self.layout.run().join(format!("{}.qga", self.name)) }
    }

    /// QEMU.
    ///
    /// # Errors
    /// When its power is off.
    pub fn process(&self) -> Result<&Process> {
        self.process.as_ref().context("the machine has no power")
    }

    /// The other end of its serial line: what a program there writes to [`Self::line_there`] is read here.
    ///
    /// # Errors
    /// When QEMU does not run.
    pub fn line(&self) -> Result<UnixStream> {
        let socket = self.line_socket();
        UnixStream::connect(&socket).with_context(|| format!("connect {}", socket.display()))
    }

    /// The serial line as the machine has it.
    #[must_use]
    pub fn line_there() -> String {
        format!("/dev/virtio-ports/{LINE}")
    }

    fn line_socket(&self) -> PathBuf {
        self.layout.run().join(format!("{}.line", self.name))
    }

    /// What it printed on its serial console.
    #[must_use]
    pub fn console(&self) -> PathBuf {
        self.layout.log(&format!("console-{}", self.name))
    }

    fn disk(&self) -> PathBuf {
        self.layout.base.join(format!("{}.qcow2", self.name))
    }

    fn tap(&self) -> String {
        format!("{}-{}", self.layout.prefix(), self.name)
    }

    fn command(&self) -> Command {
        let mut command = self.assets.program("qemu-system-x86_64");
        for folder in self.assets.firmware() {
            command.arg("-L").arg(folder);
        }
        let drive = |path: &Path, format: &str, id: &str| {
            format!("file={},format={format},if=none,id={id},cache=writeback", path.display())
        };
        command.args(["-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2"]);
        command.args(["-m", &self.frame.memory.to_string(), "-nodefaults", "-no-user-config", "-display", "none"]);
        command.arg("-kernel").arg(self.assets.debian.join("vmlinuz"));
        command.arg("-initrd").arg(self.assets.debian.join("initrd.img"));
        command.args(["-append", &self.kernel_command_line()]);
        command.arg("-serial").arg(format!("file:{}", self.console().display()));
        command.arg("-drive").arg(drive(&self.disk(), "qcow2", "root"));
        command.args(["-device", "virtio-blk-pci,drive=root"]);
        command.arg("-drive").arg(format!("{},readonly=on", drive(&self.payload.disk, "raw", "payload")));
        command.args(["-device", "virtio-blk-pci,drive=payload", "-device", "virtio-rng-pci"]);
        command.arg("-netdev").arg(format!("tap,id=lan,ifname={},script=no,downscript=no", self.tap()));
        let mac = format!("52:54:00:4b:4c:{:02x}", self.frame.number);
        command.arg("-device").arg(format!("virtio-net-pci,netdev=lan,romfile=,mac={mac}"));
        command.args(["-device", "virtio-serial-pci"]);
        command.arg("-chardev").arg(format!("socket,id=ga,path={},server=on,wait=off", self.guest().socket.display()));
        command.args(["-device", "virtserialport,chardev=ga,name=org.qemu.guest_agent.0"]);
        command.arg("-chardev").arg(format!("socket,id=line,path={},server=on,wait=off", self.line_socket().display()));
        command.args(["-device", &format!("virtserialport,chardev=line,name={LINE}")]);
        command
    }

    /// What is the machine's own: systemd takes its name from here, and its network from a credential.
    fn kernel_command_line(&self) -> String {
        let network = format!(
            "[Match]\nName=eth0\n[Network]\nAddress={}/24\nGateway={}\nIPv6AcceptRA=no\n",
            self.address, self.gateway
        );
        format!(
            "root=/dev/vda rw console=ttyS0 mitigations=off net.ifnames=0 systemd.hostname={} \
             systemd.set_credential_binary=network.network.10-lan:{}",
            self.name,
            STANDARD.encode(network)
        )
    }
}

fn boot_id(guest: &Guest) -> Result<String> {
    guest.say("cat /proc/sys/kernel/random/boot_id").context("boot id")
}

impl Drop for Machine {
    fn drop(&mut self) {
        if let Err(error) = self.power_cut() {
            eprintln!("{}: {error:#}", self.name);
        }
    }
}
