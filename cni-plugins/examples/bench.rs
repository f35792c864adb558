//! Prints how long ADD and DEL of `bridge` (with host-local) and `portmap` take, beside a process that does nothing.
//!
//! `cargo run --release -p cni-plugins --example bench [ROUNDS]`, as root. It works in namespaces of its own.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use netns::NetNs;
use serde_json::{Value, json};

struct Bench {
    binary: PathBuf,
    host: NetNs,
    pod: PathBuf,
}

impl Bench {
    /// Runs one call inside of the host's namespace; how long it took, and what it printed.
    fn call(&self, plugin: &str, command: &str, config: &Value) -> Result<(Duration, Value)> {
        let mut process = Command::new(&self.binary);
        process.arg(plugin).env_clear().env("CNI_COMMAND", command).env("CNI_CONTAINERID", "bench");
        process.env("CNI_NETNS", &self.pod).env("CNI_IFNAME", "eth0").env("CNI_PATH", "/nowhere");
        let input = config.to_string();
        let (took, output) = self.host.run(move || run(process, input.as_bytes()))??;
        Ok((took, serde_json::from_slice(&output).unwrap_or(Value::Null)))
    }
}

fn run(mut process: Command, input: &[u8]) -> Result<(Duration, Vec<u8>)> {
    let start = Instant::now();
    let mut child = process.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    child.stdin.take().context("stdin")?.write_all(input)?;
    let output = child.wait_with_output()?;
    let took = start.elapsed();
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stdout));
    }
    Ok((took, output.stdout))
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn rounds(bench: &Bench, count: usize, data: &Path) -> Result<()> {
    let bridge = json!({
        "cniVersion": "1.0.0", "name": "bench", "type": "bridge", "bridge": "cni0", "isGateway": true,
        "isDefaultGateway": true, "hairpinMode": true,
        "ipam": {"type": "host-local", "dataDir": data, "ranges": [[{"subnet": "10.55.0.0/16"}]]},
    });
    let names = ["bridge ADD", "portmap ADD, no ports", "portmap ADD", "portmap DEL", "bridge DEL"];
    let mut times: [Vec<Duration>; 5] = Default::default();
    for _ in 0..count {
        NetNs::create(&bench.pod)?;
        let (added, result) = bench.call("bridge", "ADD", &bridge)?;
        let mut portmap = json!({"cniVersion": "1.0.0", "name": "bench", "type": "portmap", "prevResult": result});
        let idle = bench.call("portmap", "ADD", &portmap)?.0;
        let ports = json!({"portMappings": [{"hostPort": 8080, "containerPort": 80}]});
        portmap.as_object_mut().into_iter().for_each(|p| drop(p.insert("runtimeConfig".into(), ports.clone())));
        let mapped = bench.call("portmap", "ADD", &portmap)?.0;
        let unmapped = bench.call("portmap", "DEL", &portmap)?.0;
        let deleted = bench.call("bridge", "DEL", &bridge)?.0;
        NetNs::delete(&bench.pod)?;
        for (times, took) in times.iter_mut().zip([added, idle, mapped, unmapped, deleted]) {
            times.push(took);
        }
    }
    for (name, times) in names.iter().zip(&mut times) {
        println!("{name:24}{:>12.2?}", median(times));
    }
    let mut nothing = Vec::new();
    for _ in 0..count {
        nothing.push(run(Command::new("/bin/true"), b"")?.0);
    }
    println!("{:24}{:>12.2?}", "/bin/true", median(&mut nothing));
    Ok(())
}

fn main() -> Result<()> {
    let count = std::env::args().nth(1).map_or(Ok(50), |text| text.parse()).context("rounds")?;
    let own = std::env::current_exe()?;
    let target = own.parent().and_then(Path::parent).context("target folder")?;
    let tag = std::process::id();
    let data = std::env::temp_dir().join(format!("keelson-cni-bench-{tag}"));
    let host = format!("/run/netns/kb-{tag}-host");
    let bench = Bench {
        binary: target.join("cni-plugins"),
        host: NetNs::create(&host)?,
        pod: format!("/run/netns/kb-{tag}-pod").into(),
    };
    let done = rounds(&bench, count, &data);
    NetNs::delete(&bench.pod)?;
    NetNs::delete(&host)?;
    if data.exists() {
        std::fs::remove_dir_all(&data)?;
    }
    done
}
