//! What the agent is told: `agent.yaml` (a `KubeletConfiguration`) and the files that change it (`agent.conf.d`), `node.yaml` ([`NodeSettings`]: what a
//! `KubeletConfiguration` cannot say), and where its files lie ([`Layout`]).

pub mod check;
mod defaults;
mod dropins;
pub mod duration;
mod fields;
mod gates;
pub mod kubelet;
mod layout;
pub(crate) mod rescue;
pub(crate) mod reserved;
pub(crate) mod serving_tls;
pub mod settings;
mod unheeded;
mod unset;
mod validate;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize as _;
use serde_json::Value;

pub use kubelet::KubeletConfiguration;
pub use layout::{Layout, NODE_YAML, write_private};
pub use settings::NodeSettings;
pub use systemd::write_atomic;

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
    /// Values that no node can run with: all of them.
    #[error("{}", aggregate(.0))]
    Invalid(Vec<String>),
}

impl Error {
    /// What it means for this machine, and what to do about it.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        let of = |path: &Path, source: &io::Error| (source.kind(), path.ends_with(layout::NODE_YAML));
        match self {
            Self::File { path, source } => match of(path, source) {
                (io::ErrorKind::NotFound, true) => "this machine has not joined a cluster (agent join)",
                (io::ErrorKind::PermissionDenied, _) => "only root may read this node's configuration (try with sudo)",
                _ => BROKEN,
            },
            _ => BROKEN,
        }
    }
}

const BROKEN: &str = "this node's configuration cannot be used (agent config check says what to mend)";

/// As upstream says one or several errors.
fn aggregate(messages: &[String]) -> String {
    match messages {
        [one] => one.clone(),
        several => format!("[{}]", several.join(", ")),
    }
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
        Self::read(config_dir, |layout| dropins::files(&layout.dropin_dir()))
    }

    /// What [`Config::save`] wrote, and people have changed since: without the files of `agent.conf.d`, so that it can be saved again. `None`
    /// where there is not all of it, as when leaving was interrupted.
    ///
    /// # Errors
    /// A file that is there and cannot be used.
    pub fn written(config_dir: &Path) -> Result<Option<Self>, Error> {
        match Self::read(config_dir, |_| Ok(Vec::new())) {
            Ok((config, _)) => Ok(Some(config)),
            Err(Error::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn read(
        config_dir: &Path,
        dropins: impl FnOnce(&Layout) -> Result<Vec<PathBuf>, Error>,
    ) -> Result<(Self, Vec<String>), Error> {
        let settings_path = config_dir.join(NODE_YAML);
        let node: NodeSettings = parse_yaml(&settings_path, &read(&settings_path)?)?;
        let layout = Layout::new(config_dir, &node.data_dir, &node.run_dir);
        let mut files = vec![layout.agent_yaml()];
        files.extend(dropins(&layout)?);
        let (kubelet, warnings) = read_kubelet(&files)?;
        Ok((Self { layout, kubelet, node }, warnings))
    }

    /// The same for a command, with what to do about an error before it.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load_or_say(config_dir: &Path) -> anyhow::Result<(Self, Vec<String>)> {
        Self::load(config_dir).map_err(told)
    }

    /// What an agent will make of it once it is saved: with the files of `agent.conf.d`.
    ///
    /// # Errors
    /// A file that cannot be used.
    pub fn with_dropins(&self) -> Result<Self, Error> {
        let mut kubelet = self.kubelet.clone();
        for path in dropins::files(&self.layout.dropin_dir())? {
            kubelet = changed(&kubelet, &path, document(&path, &read(&path)?)?.0)?;
        }
        Ok(Self { kubelet: checked(kubelet)?, ..self.clone() })
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

/// An error with its remedy before it.
pub(crate) fn told(error: Error) -> anyhow::Error {
    let remedy = error.remedy();
    anyhow::Error::new(error).context(remedy)
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
    let fail = |message: String| Error::Parse { path: origin.to_owned(), message };
    let (document, warnings) = document(origin, text)?;
    let mut fields = serde_json::to_value(base).map_err(|e| fail(e.to_string()))?;
    match (&mut fields, unset::dropped(document)) {
        (Value::Object(fields), Value::Object(set)) => fields.extend(set),
        (fields, set) => *fields = set,
    }
    Ok((checked(complete(origin, fields)?)?, warnings))
}

/// Reads a configuration and the files that change it, in this order; what comes out of all of them must be valid.
///
/// # Errors
/// As [`parse_kubelet`].
pub fn read_kubelet(files: &[PathBuf]) -> Result<(KubeletConfiguration, Vec<String>), Error> {
    let (kubelet, warnings) = merged(files)?;
    Ok((checked(kubelet)?, warnings))
}

/// The same, though what comes out may not be valid.
fn merged(files: &[PathBuf]) -> Result<(KubeletConfiguration, Vec<String>), Error> {
    let (mut kubelet, mut warnings) = (KubeletConfiguration::default(), Vec::new());
    for (index, path) in files.iter().enumerate() {
        let (document, more) = document(path, &read(path)?)?;
        warnings.extend(more.into_iter().map(|warning| match index {
            0 => warning,
            _ => format!("{}: {warning}", path.display()),
        }));
        kubelet = match index {
            0 => complete(path, unset::dropped(document))?,
            _ => changed(&kubelet, path, document)?,
        };
    }
    warnings.extend(fields::impossible_here(&kubelet, systemd::is_running()));
    let cgroup_v2 = cgroups::detect::detect().is_ok_and(|hierarchy| hierarchy.is_v2());
    warnings.extend(reserved::without_effect(&kubelet, cgroup_v2));
    Ok((kubelet, warnings))
}

/// As upstream, drop-ins change what the first file says with the defaults in their places.
fn changed(kubelet: &KubeletConfiguration, path: &Path, dropin: Value) -> Result<KubeletConfiguration, Error> {
    let fail = |e: serde_json::Error| Error::Parse { path: path.to_owned(), message: e.to_string() };
    let mut fields = serde_json::to_value(kubelet).map_err(fail)?;
    dropins::merge(&mut fields, dropin);
    complete(path, unset::dropped(fields))
}

fn complete(origin: &Path, fields: Value) -> Result<KubeletConfiguration, Error> {
    let wrong = validate::ports(&fields);
    if !wrong.is_empty() {
        return Err(Error::Invalid(wrong));
    }
    let fields = unset::defaulted(fields);
    let kubelet = KubeletConfiguration::deserialize(&fields);
    let named = |error: serde_json::Error| Error::Parse {
        path: origin.to_owned(),
        message: unset::culprit(&fields).unwrap_or_else(|| error.to_string()),
    };
    Ok(kubelet.map_err(named)?.completed())
}

fn checked(kubelet: KubeletConfiguration) -> Result<KubeletConfiguration, Error> {
    let wrong = validate::validate(&kubelet);
    if wrong.is_empty() { Ok(kubelet) } else { Err(Error::Invalid(wrong)) }
}

/// A document of the right kind, and the warnings that it deserves.
fn document(origin: &Path, text: &str) -> Result<(Value, Vec<String>), Error> {
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
    Ok((document, warnings))
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

/// Whether `node.yaml` is as it should be; one that is not there is no affair of a configuration that is only checked.
fn check_settings(config_dir: &Path) -> Result<(), Error> {
    let path = config_dir.join(layout::NODE_YAML);
    match read(&path) {
        Err(Error::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(()),
        text => parse_yaml::<NodeSettings>(&path, &text?).map(drop),
    }
}

#[cfg(test)]
pub(crate) mod tests;
