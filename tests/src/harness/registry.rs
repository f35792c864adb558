//! A registry for tests that must pull: Debian's docker-registry on the master's host, over the folder of stand-ins that
//! `tests/upstream/build` left. Nodes ask it in place of registry.k8s.io (by TLS) and docker.io (plain): their containerd has it as a
//! mirror. It keeps nothing of its own.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::host::inside;
use super::layout::Layout;
use super::process::{Process, spawn};
use super::shell::{output, wait_for};
use super::upstream::Upstream;

const PLAIN: u16 = 5000;
const TLS: u16 = 5001;

/// Starts both and writes what containerd reads of them.
///
/// # Errors
/// When one does not come up; its log says why.
pub(super) fn start(layout: &Layout, address: Ipv4Addr, upstream: &Upstream) -> Result<Vec<Process>> {
    let dir = layout.base.join("registry");
    fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
    certificate(&dir, address)?;
    mirror(layout, "docker.io", &format!("http://{address}:{PLAIN}"), None)?;
    mirror(layout, "registry.k8s.io", &format!("https://{address}:{TLS}"), Some(&dir.join("tls.crt")))?;
    let host = layout.host("m");
    let mut processes = Vec::new();
    for (name, port) in [("registry", PLAIN), ("registry-tls", TLS)] {
        let config = dir.join(format!("{name}.yaml"));
        // Every JSON is a YAML.
        fs::write(&config, configuration(&dir, address, port, &upstream.images.join("registry")).to_string())?;
        let mut serve = inside(&host, &upstream.debian.join("registry"));
        let process = spawn(name, serve.arg("serve").arg(&config), &layout.log(name))?;
        let url = format!("{}://{address}:{port}/v2/", if port == TLS { "https" } else { "http" });
        wait_for(&format!("{name} (its log: {})", layout.log(name).display()), Duration::from_secs(30), || {
            ensure!(process.alive(), "{name} ended");
            output(Command::new("curl").args(["-fsS", "--noproxy", "*", "--cacert"]).arg(dir.join("tls.crt")).arg(&url))
        })?;
        processes.push(process);
    }
    Ok(processes)
}

/// The folder that containerd looks up registries in.
#[must_use]
pub fn hosts(layout: &Layout) -> PathBuf {
    layout.base.join("registry/hosts")
}

/// What containerd reads: the files of [`hosts`], and what these name.
///
/// # Errors
/// When they cannot be listed.
pub fn files(layout: &Layout) -> Result<Vec<PathBuf>> {
    let dir = hosts(layout);
    let mirrors = fs::read_dir(&dir).with_context(|| format!("list {}", dir.display()))?;
    let mut files = vec![layout.base.join("registry/tls.crt")];
    for mirror in mirrors {
        files.push(mirror?.path().join("hosts.toml"));
    }
    Ok(files)
}

fn configuration(dir: &Path, address: Ipv4Addr, port: u16, images: &Path) -> Value {
    let tls =
        if port == TLS { json!({"certificate": dir.join("tls.crt"), "key": dir.join("tls.key")}) } else { json!({}) };
    json!({
        "version": 0.1,
        "log": {"level": "warn"},
        // All clusters of this machine read the same folder.
        "storage": {"filesystem": {"rootdirectory": images}, "maintenance": {"readonly": {"enabled": true}}},
        "http": {"addr": format!("{address}:{port}"), "secret": "not needed by who only reads", "tls": tls},
    })
}

fn certificate(dir: &Path, address: Ipv4Addr) -> Result<()> {
    let mut request = Command::new("openssl");
    request.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", "-days", "30"]);
    request.args(["-subj", "/CN=registry", "-addext", &format!("subjectAltName=IP:{address}")]);
    request.arg("-keyout").arg(dir.join("tls.key")).arg("-out").arg(dir.join("tls.crt"));
    output(&mut request).context("the registry's certificate").map(drop)
}

/// What containerd does when an image of `registry` is pulled.
fn mirror(layout: &Layout, registry: &str, url: &str, ca: Option<&Path>) -> Result<()> {
    let dir = hosts(layout).join(registry);
    fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
    let ca = ca.map(|path| format!("  ca = {path:?}\n")).unwrap_or_default();
    let text =
        format!("server = \"https://{registry}\"\n[host.{url:?}]\n  capabilities = [\"pull\", \"resolve\"]\n{ca}");
    fs::write(dir.join("hosts.toml"), text).with_context(|| format!("write {}", dir.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containerd_asks_the_mirror_first() {
        let base = std::env::temp_dir().join(format!("keelson-registry-{}", std::process::id()));
        let layout = Layout::new("r1", &base);
        mirror(&layout, "registry.k8s.io", "https://172.30.1.2:5001", Some(Path::new("/x/tls.crt"))).unwrap();
        let text = fs::read_to_string(hosts(&layout).join("registry.k8s.io/hosts.toml")).unwrap();
        assert_eq!(
            text,
            "server = \"https://registry.k8s.io\"\n[host.\"https://172.30.1.2:5001\"]\n  capabilities = [\"pull\", \"resolve\"]\n  \
             ca = \"/x/tls.crt\"\n"
        );
        assert_eq!(
            files(&layout).unwrap(),
            ["tls.crt", "hosts/registry.k8s.io/hosts.toml"].map(|f| base.join("registry").join(f))
        );
        fs::remove_dir_all(&base).unwrap();
        let (plain, tls) = (
            configuration(&base, Ipv4Addr::LOCALHOST, PLAIN, &base),
            configuration(&base, Ipv4Addr::LOCALHOST, TLS, &base),
        );
        assert!(plain["http"]["tls"]["key"].is_null() && tls["http"]["tls"]["key"].is_string());
        assert_eq!(plain["storage"]["maintenance"]["readonly"]["enabled"], true);
    }
}
