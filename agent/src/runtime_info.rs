//! What the container runtime says of its own configuration, so that nobody has to tell the agent too: Debian's containerd looks for
//! CNI plugins elsewhere than upstream's, and pods must be in cgroups of the driver that the runtime uses.
//!
//! `RuntimeConfig` (KEP-4033, containerd 2.0) names the cgroup driver; older ones show all of their configuration in a verbose `Status`.

use std::path::PathBuf;
use std::time::Duration;

use cgroups::Naming;
use cri::v1::{CgroupDriver, RuntimeConfigRequest, StatusRequest};
use serde_json::Value;

use crate::config::KubeletConfiguration;

const RETRY: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_secs(10);

/// What is known; `None` where the runtime does not say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RuntimeInfo {
    /// Where it looks for CNI plugins, in this order; containerd 2.1 may have several.
    pub cni_bin_dirs: Vec<PathBuf>,
    /// Where it looks for CNI configuration.
    pub cni_conf_dir: Option<PathBuf>,
    /// How it spells cgroups.
    pub cgroup_driver: Option<Naming>,
    /// Under which name it looks for the image of sandboxes.
    pub pause_image: Option<String>,
}

/// Asks the runtime.
///
/// # Errors
/// When it does not answer.
pub async fn ask(runtime: &cri::Client) -> Result<RuntimeInfo, cri::CallError> {
    let mut info = configured(runtime).await?;
    match runtime.runtime_config(RuntimeConfigRequest {}).await {
        Ok(answer) => {
            let driver = answer.linux.map(|linux| linux.cgroup_driver());
            info.cgroup_driver = driver.map(naming).or(info.cgroup_driver);
        }
        Err(error) if error.is_unimplemented() => {}
        Err(error) => return Err(error),
    }
    Ok(info)
}

/// What its configuration says, without asking for more.
///
/// # Errors
/// When it does not answer.
pub async fn configured(runtime: &cri::Client) -> Result<RuntimeInfo, cri::CallError> {
    let answer = runtime.status(StatusRequest { verbose: true }).await?;
    Ok(answer.info.get("config").map(|text| parse(text)).unwrap_or_default())
}

/// The cgroup driver in the configuration.
#[must_use]
pub fn configured_driver(config: &KubeletConfiguration) -> Naming {
    if config.cgroup_driver == "systemd" { Naming::Systemd } else { Naming::Cgroupfs }
}

/// The cgroup driver of the runtime. One that does not come up is not waited for long: what it said when the machine joined is in
/// the configuration.
pub async fn cgroup_driver(runtime: &cri::Client, config: &KubeletConfiguration) -> Naming {
    let configured = configured_driver(config);
    let asking = async {
        loop {
            match ask(runtime).await {
                Ok(info) => return info.cgroup_driver.unwrap_or(configured),
                Err(error) => tracing::debug!(%error, "the runtime does not say its cgroup driver yet"),
            }
            tokio::time::sleep(RETRY).await;
        }
    };
    let driver = tokio::time::timeout(PATIENCE, asking).await.unwrap_or(configured);
    if driver != configured {
        tracing::warn!(%driver, %configured, "the runtime's cgroup driver is not the configured one; the runtime's is used");
    }
    driver
}

fn naming(driver: CgroupDriver) -> Naming {
    match driver {
        CgroupDriver::Systemd => Naming::Systemd,
        CgroupDriver::Cgroupfs => Naming::Cgroupfs,
    }
}

/// Reads containerd's configuration of its CRI plugin, as `crictl info` shows it.
fn parse(text: &str) -> RuntimeInfo {
    let config: Value = serde_json::from_str(text).unwrap_or_default();
    let path = |value: &Value| value.as_str().filter(|path| !path.is_empty()).map(PathBuf::from);
    let at = |pointer: &str| path(config.pointer(pointer)?);
    let several = config.pointer("/cni/binDirs").and_then(Value::as_array);
    let default = config.pointer("/containerd/defaultRuntimeName").and_then(Value::as_str).unwrap_or("runc");
    let handler = config.get("containerd").and_then(|c| c.get("runtimes")?.get(default));
    let systemd = |handler: &Value| handler.pointer("/options/SystemdCgroup").and_then(Value::as_bool) == Some(true);
    // `sandboxImage` up to 1.7, `pinnedImages.sandbox` since 2.0.
    let pause = [config.get("sandboxImage"), config.pointer("/pinnedImages/sandbox")];
    let pause = pause.into_iter().flatten().find_map(Value::as_str).filter(|name| !name.is_empty());
    RuntimeInfo {
        cni_bin_dirs: several.into_iter().flatten().filter_map(path).chain(at("/cni/binDir")).collect(),
        cni_conf_dir: at("/cni/confDir"),
        cgroup_driver: handler.map(|h| if systemd(h) { Naming::Systemd } else { Naming::Cgroupfs }),
        pause_image: pause.map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debians_containerd() {
        let info = parse(
            r#"{"containerd":{"defaultRuntimeName":"runc","runtimes":{"runc":{"runtimeType":"io.containerd.runc.v2","options":{}}}},
            "cni":{"binDir":"/usr/lib/cni","confDir":"/etc/cni/net.d","maxConfNum":1}}"#,
        );
        assert_eq!(info.cni_bin_dirs, [PathBuf::from("/usr/lib/cni")]);
        assert_eq!(info.cni_conf_dir.as_deref(), Some("/etc/cni/net.d".as_ref()));
        assert_eq!(info.cgroup_driver, Some(Naming::Cgroupfs));
    }

    #[test]
    fn containerd_2_with_the_systemd_driver() {
        let info = parse(
            r#"{"containerd":{"defaultRuntimeName":"crun","runtimes":{"runc":{},"crun":{"options":{"SystemdCgroup":true}}}},
            "cni":{"binDir":"","binDirs":["/opt/cni/bin","/usr/lib/cni"],"confDir":""}}"#,
        );
        assert_eq!(info.cni_bin_dirs, ["/opt/cni/bin", "/usr/lib/cni"].map(PathBuf::from));
        assert_eq!(info.cni_conf_dir, None);
        assert_eq!(info.cgroup_driver, Some(Naming::Systemd));
    }

    #[test]
    fn the_runtime_names_its_pause_image() {
        let name = |config: &str| parse(config).pause_image;
        assert_eq!(name(r#"{"sandboxImage":"a/pause:3.6"}"#).as_deref(), Some("a/pause:3.6"));
        assert_eq!(name(r#"{"pinnedImages":{"sandbox":"b/pause:3.10"}}"#).as_deref(), Some("b/pause:3.10"));
        assert_eq!(name(r#"{"sandboxImage":""}"#), None);
        assert_eq!(name("no json"), None);
    }

    #[test]
    fn what_is_not_understood_is_unknown() {
        assert_eq!(parse("no json"), RuntimeInfo::default());
        assert_eq!(parse("{}"), RuntimeInfo::default());
    }
}
