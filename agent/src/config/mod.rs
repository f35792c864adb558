//! What the agent is told: `agent.yaml` (a `KubeletConfiguration`), `node.yaml` ([`NodeSettings`]: what a
//! `KubeletConfiguration` cannot say), and where its files lie ([`Layout`]).

pub mod duration;
mod fields;
pub mod kubelet;
mod layout;
pub mod settings;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use api::quantity::Quantity;
use serde_json::Value;

pub use kubelet::KubeletConfiguration;
pub use layout::{Layout, write_atomic, write_private};
pub use settings::NodeSettings;

/// What can be wrong with a configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file that cannot be read or written.
    #[error("{path}")]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A file that is not what it should be.
    #[error("{path}: {message}")]
    Parse {
        /// The file, or where else the text came from.
        path: PathBuf,
        /// What the parser said.
        message: String,
    },
    /// A value that no node can run with.
    #[error("invalid configuration: {field}: {message}")]
    Invalid {
        /// The field's path.
        field: &'static str,
        /// What is wrong with its value.
        message: String,
    },
}

/// Everything that is configured.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where files lie.
    pub layout: Layout,
    /// `agent.yaml`.
    pub kubelet: KubeletConfiguration,
    /// `node.yaml`.
    pub node: NodeSettings,
}

impl Config {
    /// Reads `config_dir`. The second value holds the warnings that the files deserve.
    ///
    /// # Errors
    /// A file that is missing, unreadable or invalid.
    pub fn load(config_dir: &Path) -> Result<(Self, Vec<String>), Error> {
        let settings_path = config_dir.join(layout::NODE_YAML);
        let node: NodeSettings = parse_yaml(&settings_path, &read(&settings_path)?)?;
        let layout = Layout::new(config_dir, &node.data_dir, &node.run_dir);
        let path = layout.agent_yaml();
        let (kubelet, warnings) = parse_kubelet(&path, &read(&path)?)?;
        Ok((Self { layout, kubelet, node }, warnings))
    }

    /// Writes `agent.yaml` and `node.yaml`.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn save(&self) -> Result<(), Error> {
        let documents =
            [(self.layout.agent_yaml(), to_yaml(&self.kubelet)), (self.layout.node_yaml(), to_yaml(&self.node))];
        for (path, text) in documents {
            let text = text.map_err(|message| Error::Parse { path: path.clone(), message })?;
            write_private(&path, text.as_bytes()).map_err(|source| Error::File { path, source })?;
        }
        Ok(())
    }
}

/// Parses a `KubeletConfiguration` with upstream's defaults; `origin` names it in errors. Strictness is that of a
/// careful reader, not of upstream: unknown fields are warned of, wrong types are errors.
///
/// # Errors
/// Text that is not YAML, another kind or version, a field of the wrong type, or a value that no node can run with.
pub fn parse_kubelet(origin: &Path, text: &str) -> Result<(KubeletConfiguration, Vec<String>), Error> {
    parse_kubelet_over(None, origin, text)
}

/// The same, over another configuration: a field that the document does not set stays as it is there.
///
/// # Errors
/// As [`parse_kubelet`].
pub fn parse_kubelet_over(
    base: Option<&KubeletConfiguration>,
    origin: &Path,
    text: &str,
) -> Result<(KubeletConfiguration, Vec<String>), Error> {
    let document: Value = parse_yaml(origin, text)?;
    let fail = |message: String| Error::Parse { path: origin.to_owned(), message };
    let head = |name: &str| document.get(name).and_then(Value::as_str).unwrap_or_default();
    if head("kind") != kubelet::KIND || head("apiVersion") != kubelet::API_VERSION {
        return Err(fail(format!(
            "expected {} {}, found {:?} {:?}",
            kubelet::API_VERSION,
            kubelet::KIND,
            head("apiVersion"),
            head("kind")
        )));
    }
    let warnings = fields::warnings(&document);
    let mut fields = serde_json::to_value(base).map_err(|e| fail(e.to_string()))?;
    match (&mut fields, without_unset(document)) {
        (Value::Object(fields), Value::Object(set)) => fields.extend(set),
        (fields, set) => *fields = set,
    }
    let kubelet: KubeletConfiguration = serde_json::from_value(fields).map_err(|e| fail(e.to_string()))?;
    let kubelet = kubelet.completed();
    validate(&kubelet)?;
    Ok((kubelet, warnings))
}

/// Drops what upstream's defaulting takes for "not set": nulls and zero durations, which kubeadm's rendering of a
/// configuration is full of.
fn without_unset(document: Value) -> Value {
    match document {
        Value::Object(fields) => fields
            .into_iter()
            .filter(|(_, value)| !value.is_null() && value != "0s")
            .map(|(name, value)| (name, without_unset(value)))
            .collect(),
        other => other,
    }
}

/// The checks that upstream's `ValidateKubeletConfiguration` makes of the fields obeyed here.
fn validate(config: &KubeletConfiguration) -> Result<(), Error> {
    let invalid = |field, message: String| Err(Error::Invalid { field, message });
    if config.max_pods < 0 {
        return invalid("maxPods", format!("{} must not be a negative number", config.max_pods));
    }
    if config.pods_per_core < 0 {
        return invalid("podsPerCore", format!("{} must not be a negative number", config.pods_per_core));
    }
    if config.port == 0 {
        return invalid("port", "0 must be between 1 and 65535, inclusive".into());
    }
    if config.node_lease_duration_seconds <= 0 {
        return invalid("nodeLeaseDurationSeconds", "must be greater than 0".into());
    }
    if config.container_log_max_files < 2 {
        return invalid("containerLogMaxFiles", "must be greater than 1".into());
    }
    if !["cgroupfs", "systemd"].contains(&config.cgroup_driver.as_str()) {
        return invalid("cgroupDriver", format!("{:?} must be cgroupfs or systemd", config.cgroup_driver));
    }
    if !["Webhook", "AlwaysAllow"].contains(&config.authorization.mode.as_str()) {
        return invalid(
            "authorization.mode",
            format!("{:?} must be Webhook or AlwaysAllow", config.authorization.mode),
        );
    }
    for (field, list) in [("systemReserved", &config.system_reserved), ("kubeReserved", &config.kube_reserved)] {
        for (name, text) in list {
            if !text.parse::<Quantity>().is_ok_and(|q| !q.is_negative()) {
                return invalid(field, format!("{name}: {text:?} is not a quantity of 0 or more"));
            }
        }
    }
    if let Err(wrong) = crate::eviction::threshold::parse(config) {
        return invalid(wrong.field, wrong.message);
    }
    if config.eviction_max_pod_grace_period < 0 {
        let message = format!("{} must be a non-negative integer", config.eviction_max_pod_grace_period);
        return invalid("evictionMaxPodGracePeriod", message);
    }
    images(config)?;
    for pattern in &config.allowed_unsafe_sysctls {
        if let Err(message) = crate::pods::sysctls::check_pattern(pattern) {
            return invalid("allowedUnsafeSysctls", message);
        }
    }
    if config.tls_cert_file.is_empty() != config.tls_private_key_file.is_empty() {
        return invalid("tlsCertFile", "must be set together with tlsPrivateKeyFile".into());
    }
    Ok(())
}

/// The checks of images: their garbage collection, pulls, and who may use them.
fn images(config: &KubeletConfiguration) -> Result<(), Error> {
    let invalid = |field, message: String| Err(Error::Invalid { field, message });
    let (high, low) = (config.image_gc_high_threshold_percent, config.image_gc_low_threshold_percent);
    if !(0..=100).contains(&high) {
        return invalid("imageGCHighThresholdPercent", format!("{high} must be between 0 and 100, inclusive"));
    }
    if !(0..=100).contains(&low) {
        return invalid("imageGCLowThresholdPercent", format!("{low} must be between 0 and 100, inclusive"));
    }
    if low >= high {
        return invalid(
            "imageGCLowThresholdPercent",
            format!("{low} must be less than imageGCHighThresholdPercent {high}"),
        );
    }
    let (min, max) = (config.image_minimum_gc_age.0, config.image_maximum_gc_age.0);
    if !max.is_zero() && max < min {
        return invalid("imageMaximumGCAge", "must be greater than imageMinimumGCAge".into());
    }
    if config.max_parallel_image_pulls.is_some_and(|max| max < 1) {
        return invalid("maxParallelImagePulls", "must be a positive number".into());
    }
    if config.serialize_image_pulls == Some(true) && config.max_parallel_image_pulls.is_some_and(|max| max > 1) {
        return invalid("maxParallelImagePulls", "cannot be larger than 1 unless serializeImagePulls is false".into());
    }
    if config.registry_pull_qps < 0 {
        return invalid("registryPullQPS", format!("{} must not be a negative number", config.registry_pull_qps));
    }
    if config.registry_burst < 0 {
        return invalid("registryBurst", format!("{} must not be a negative number", config.registry_burst));
    }
    let (policy, allowlist) =
        (config.image_pull_credentials_verification_policy.as_str(), &config.preloaded_images_verification_allowlist);
    let policies = ["NeverVerify", "NeverVerifyPreloadedImages", "NeverVerifyAllowlistedImages", "AlwaysVerify"];
    if !policies.contains(&policy) {
        let message = format!("{policy:?} is not one of {}", policies.join(", "));
        return invalid("imagePullCredentialsVerificationPolicy", message);
    }
    if !allowlist.is_empty() && policy != "NeverVerifyAllowlistedImages" {
        let message = "can only be used with the NeverVerifyAllowlistedImages policy".to_owned();
        return invalid("preloadedImagesVerificationAllowlist", message);
    }
    match allowlist.iter().find_map(|pattern| crate::images::records::check_pattern(pattern)) {
        Some(message) => invalid("preloadedImagesVerificationAllowlist", message),
        None => Ok(()),
    }
}

/// Reads a configuration file.
///
/// # Errors
/// A file that cannot be read.
pub fn read(path: &Path) -> Result<String, Error> {
    fs::read_to_string(path).map_err(|source| Error::File { path: path.to_owned(), source })
}

fn parse_yaml<T: serde::de::DeserializeOwned>(origin: &Path, text: &str) -> Result<T, Error> {
    serde_saphyr::from_str(text).map_err(|e| Error::Parse { path: origin.to_owned(), message: e.to_string() })
}

fn to_yaml<T: serde::Serialize>(value: &T) -> Result<String, String> {
    serde_saphyr::to_string(value).map_err(|e| e.to_string())
}

#[cfg(test)]
pub(crate) mod tests;
