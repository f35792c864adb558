//! CNI plugins, called as a runtime calls them, on a host that is a network namespace.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sched::{CloneFlags, setns};
use serde_json::{Value, json};

use super::run::{Tools, plugins};
use super::{Figures, Side};
use crate::harness::cluster::Progress;
use crate::harness::host;
use crate::harness::shell::{run, wait_for};

const BRIDGE: &str = "cni0";

pub(super) fn measure(tools: &Tools, side: Side, progress: &mut dyn Progress) -> Result<Figures> {
    let layout = &tools.layout;
    let dir = layout.base.with_file_name("cni");
    if dir.exists() {
        fs::remove_dir_all(&dir)?;
    }
    let bench = Calls {
        plugins: plugins(tools, side, &dir.join("bin"))?,
        data: dir.join("ipam"),
        host: format!("{}-host", layout.prefix()),
        pod: format!("{}-pod", layout.prefix()),
        side,
    };
    run("ip", ["netns", "add", &bench.host])?;
    run("ip", ["-n", &bench.host, "link", "set", "lo", "up"])?;
    let calls = tools.sizes.calls;
    progress.step(&format!("{calls} calls of each plugin"), 0);
    // What is started by a thread inside of the namespace inherits it.
    let measured = thread::scope(|scope| scope.spawn(|| bench.measure(calls)).join());
    let figures = measured.map_err(|_| anyhow::anyhow!("the thread that calls the plugins panicked"))?;
    host::remove(layout)?;
    fs::remove_dir_all(&dir)?;
    figures
}

/// A side's plugins on a host.
struct Calls {
    side: Side,
    plugins: PathBuf,
    data: PathBuf,
    /// Names of network namespaces.
    host: String,
    pod: String,
}

/// A call of one plugin with its configuration.
type Call<'a> = (&'a str, Value);

impl Calls {
    fn measure(&self, calls: u32) -> Result<Figures> {
        setns(File::open(format!("/run/netns/{}", self.host))?, CloneFlags::CLONE_NEWNET).context("enter the host")?;
        let mut figures = Figures::default();
        for _ in 0..calls {
            for (part, chain) in self.chains() {
                self.pod(|| self.chain(part, &chain, &mut figures))?;
            }
            self.pod(|| self.portmap(&mut figures))?;
            figures.add("nothing.ms", ms(time_of(&mut Command::new("true"))?));
        }
        Ok(figures)
    }

    /// What is called in a row, by name. A pod has its loopback first, as with containerd.
    fn chains(&self) -> [(&'static str, Vec<Call<'static>>); 5] {
        let as_configured = self.side == Side::Stock;
        [
            ("loopback", vec![("loopback", config("loopback"))]),
            ("host-local", vec![("host-local", self.bridge(false))]),
            ("bridge", vec![("bridge", self.bridge(false))]),
            ("masquerade", vec![("bridge", self.bridge(true))]),
            (
                "chain",
                vec![
                    ("loopback", config("loopback")),
                    ("bridge", self.bridge(as_configured)),
                    ("portmap", with(config("portmap"), json!({"runtimeConfig": {"portMappings": []}}))),
                ],
            ),
        ]
    }

    /// As both sides' conflists have it, but for masquerading: that is the plugin's work with the stock one, and the proxy's with ours.
    fn bridge(&self, masquerade: bool) -> Value {
        let ipam = json!({
            "type": "host-local", "dataDir": self.data, "ranges": [[{"subnet": "10.244.1.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}],
        });
        let more =
            json!({"bridge": BRIDGE, "isGateway": true, "ipMasq": masquerade, "hairpinMode": true, "ipam": ipam});
        with(config("bridge"), more)
    }

    /// Makes a pod's namespace for some calls.
    fn pod(&self, calls: impl FnOnce() -> Result<()>) -> Result<()> {
        run("ip", ["netns", "add", &self.pod])?;
        calls()?;
        run("ip", ["netns", "del", &self.pod]).map(drop)
    }

    /// ADD in order, DEL in reverse, as one time each.
    fn chain(&self, part: &str, chain: &[Call<'_>], figures: &mut Figures) -> Result<()> {
        let links = links()?;
        let (mut result, mut added) = (Value::Null, Duration::ZERO);
        for (plugin, config) in chain {
            let (took, printed) = self.call(plugin, "ADD", &following(config, &result))?;
            added += took;
            // The loopback's result is no part of the chain's.
            if *plugin != "loopback" {
                result = printed;
            }
        }
        figures.add(&format!("{part}.add_ms"), ms(added));
        let (start, mut deleted) = (Instant::now(), Duration::ZERO);
        for (plugin, config) in chain.iter().rev() {
            deleted += self.call(plugin, "DEL", &following(config, &result))?.0;
        }
        figures.add(&format!("{part}.del_ms"), ms(deleted));
        wait_for("the pod's link to go", Duration::from_secs(10), || {
            ensure!(self::links()? == links, "it is there");
            Ok(())
        })?;
        figures.add(&format!("{part}.gone_ms"), ms(start.elapsed()));
        Ok(())
    }

    /// One port of a pod that the bridge has connected.
    fn portmap(&self, figures: &mut Figures) -> Result<()> {
        let bridge = self.bridge(false);
        let result = self.call("bridge", "ADD", &bridge)?.1;
        let ports = json!([{"hostPort": 18080, "containerPort": 80, "protocol": "tcp"}]);
        let config = with(config("portmap"), json!({"runtimeConfig": {"portMappings": ports}}));
        let config = following(&config, &result);
        figures.add("portmap.add_ms", ms(self.call("portmap", "ADD", &config)?.0));
        figures.add("portmap.del_ms", ms(self.call("portmap", "DEL", &config)?.0));
        self.call("bridge", "DEL", &following(&bridge, &result)).map(drop)
    }

    /// How long a call takes, and what it prints.
    fn call(&self, plugin: &str, command: &str, config: &Value) -> Result<(Duration, Value)> {
        let input = config.to_string();
        let mut process = Command::new(self.plugins.join(plugin));
        process.env("CNI_COMMAND", command).env("CNI_CONTAINERID", "bench").env("CNI_PATH", &self.plugins);
        process.env("CNI_NETNS", format!("/run/netns/{}", self.pod));
        process.env("CNI_IFNAME", if plugin == "loopback" { "lo" } else { "eth0" });
        let start = Instant::now();
        let mut child = process
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("start {}", self.plugins.join(plugin).display()))?;
        child.stdin.take().context("standard input")?.write_all(input.as_bytes())?;
        let output = child.wait_with_output()?;
        let took = start.elapsed();
        let printed = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success(), "{plugin} {command}: {}: {printed}", output.status);
        Ok((took, serde_json::from_str(&printed).unwrap_or(Value::Null)))
    }
}

fn config(plugin: &str) -> Value {
    json!({"cniVersion": "1.0.0", "name": "bench", "type": plugin})
}

/// A configuration with more fields.
fn with(mut config: Value, more: Value) -> Value {
    if let (Some(config), Value::Object(more)) = (config.as_object_mut(), more) {
        config.extend(more);
    }
    config
}

/// A configuration after the plugins before it in the chain.
fn following(config: &Value, result: &Value) -> Value {
    if result.is_null() { config.clone() } else { with(config.clone(), json!({"prevResult": result})) }
}

/// How long a program takes, e.g. one that does nothing: no plugin can be faster.
fn time_of(command: &mut Command) -> Result<Duration> {
    let start = Instant::now();
    ensure!(command.status()?.success(), "{command:?} failed");
    Ok(start.elapsed())
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// The links of this thread's network, but for the bridge. From its /proc, since /sys shows the network of whoever mounted it.
fn links() -> Result<BTreeSet<String>> {
    let text = fs::read_to_string("/proc/thread-self/net/dev")?;
    let names = text.lines().skip(2).filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned()));
    Ok(names.filter(|name| name != BRIDGE).collect())
}
