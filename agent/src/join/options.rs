//! What `agent join` is told, checked before anything is asked of anyone.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use k8s_openapi::api::core::v1::Taint;

use crate::client::Servers;
use crate::config::settings::NodeIps;
use crate::doctor::Output;

/// Command line of `agent join`. On a machine that was joined before, what is not given stays as it is.
#[derive(Debug, Clone, Args)]
pub struct JoinOptions {
    /// The API server, HOST[:6443]; several of one cluster with commas in between
    #[arg(required_unless_present = "join_file", conflicts_with = "join_file")]
    pub master: Option<Servers>,
    /// Bootstrap token, ID.SECRET
    #[arg(long, env = "KEELSON_TOKEN", hide_env_values = true, required_unless_present = "join_file")]
    pub token: Option<Token>,
    /// Hash of the cluster CA's public key, sha256:HEX, as `kubeadm` writes it
    #[arg(long, required_unless_present = "join_file", conflicts_with = "join_file")]
    pub ca_cert_hash: Option<CaHash>,
    /// Instead of the three: what `master token create --join-file` wrote; deleted once it was used
    #[arg(long, value_name = "FILE")]
    pub join_file: Option<PathBuf>,
    /// Name of the Node; where not given, that of an earlier join, or the host name
    #[arg(long)]
    pub node_name: Option<String>,
    /// Address of the Node, or one of each family with a comma in between; the source address towards the API server where not given
    #[arg(long)]
    pub node_ip: Option<NodeIps>,
    /// Labels the Node registers with, key=value,...
    #[arg(long, value_parser = parse_labels)]
    pub node_labels: Option<Labels>,
    /// Taints the Node registers with, key=value:Effect,...
    #[arg(long, value_parser = parse_taints)]
    pub register_with_taints: Option<Taints>,
    /// A KubeletConfiguration; what it sets wins over the cluster's own
    #[arg(long, value_name = "FILE")]
    pub kubelet_config: Option<PathBuf>,
    /// Folder of configuration and keys
    #[arg(long, default_value = "/etc/keelson", value_parser = absolute)]
    pub config_dir: PathBuf,
    /// Folder of state that survives a reboot; /var/lib/keelson where not given
    #[arg(long, value_parser = absolute)]
    pub data_dir: Option<PathBuf>,
    /// Folder of state that does not; /run/keelson where not given
    #[arg(long, value_parser = absolute)]
    pub run_dir: Option<PathBuf>,
    /// Socket of the container runtime; unix:///run/containerd/containerd.sock where not given
    #[arg(long)]
    pub container_runtime_endpoint: Option<String>,
    /// cgroup under which everything of pods lies
    #[arg(long)]
    pub cgroup_root: Option<String>,
    /// Where the runtime looks for CNI configuration; asked of it where not given
    #[arg(long, value_parser = absolute)]
    pub cni_conf_dir: Option<PathBuf>,
    /// Where the runtime looks for CNI plugins; asked of it where not given
    #[arg(long, value_parser = absolute)]
    pub cni_bin_dir: Option<PathBuf>,
    /// Root folder of container logs
    #[arg(long)]
    pub pod_log_dir: Option<String>,
    /// Run here instead of installing a systemd unit
    #[arg(long)]
    pub foreground: bool,
    /// Mend what is in the way on this machine, where a command can: each finding names it
    #[arg(long, conflicts_with = "dry_run")]
    pub fix: bool,
    /// Install containerd from the distribution where no runtime answers
    #[arg(long, conflicts_with = "dry_run")]
    pub install_containerd: bool,
    /// How progress is told
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
    /// Check everything that can be wrong, and change nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// The unit runs where `/` is the working folder.
fn absolute(path: &str) -> std::io::Result<PathBuf> {
    std::path::absolute(path)
}

/// Labels in the order of their keys.
pub type Labels = BTreeMap<String, String>;

/// Several taints; a newtype so that clap takes them for one value.
#[derive(Debug, Clone, PartialEq)]
pub struct Taints(pub Vec<Taint>);

/// A bootstrap token (`[a-z0-9]{6}\.[a-z0-9]{16}`). Its secret is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

/// A hash of a public key (`SubjectPublicKeyInfo`), in kubeadm's form.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct CaHash([u8; 32]);

/// A value that does not have the form it must have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormError {
    /// Not all that a join needs.
    #[error("say where the API server is, and give --token and --ca-cert-hash, or a --join-file")]
    Incomplete,
    /// A token.
    #[error("the token is not of the form ID.SECRET, \"[a-z0-9]{{6}}.[a-z0-9]{{16}}\"")]
    Token,
    /// A hash.
    #[error("{0:?} is not of the form sha256:HEX with 64 hex digits")]
    Hash(String),
    /// A label.
    #[error("{0:?} is not a label of the form key=value")]
    Label(String),
    /// A label that the API server lets no node set (`NodeRestriction`), and a kubelet refuses when it starts.
    #[error(
        "a node may not give itself the label {0:?}: of kubernetes.io and k8s.io it sets those that a kubelet does, and others below \
         kubelet.kubernetes.io and node.kubernetes.io; leave it out, and once the node has joined: kubectl label node NAME {0}"
    )]
    OthersLabel(String),
    /// A taint.
    #[error(
        "{0:?} is not a taint of the form key=value:Effect, Effect being NoSchedule, PreferNoSchedule or NoExecute"
    )]
    Taint(String),
    /// A node name.
    #[error("{0:?} cannot be the name of a node: {1}; use --node-name")]
    NodeName(String, String),
}

impl Token {
    /// The part that is no secret.
    #[must_use]
    pub fn id(&self) -> &str {
        self.0.split('.').next().unwrap_or_default()
    }

    /// The whole token, for a header.
    #[must_use]
    pub fn secret(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({}.…)", self.id())
    }
}

impl FromStr for Token {
    type Err = FormError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let part = |p: &str, len| p.len() == len && p.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        match text.split_once('.') {
            Some((id, secret)) if part(id, 6) && part(secret, 16) => Ok(Self(text.to_owned())),
            _ => Err(FormError::Token),
        }
    }
}

impl CaHash {
    /// The hash of a DER `SubjectPublicKeyInfo`.
    #[must_use]
    pub fn of_spki(spki: &[u8]) -> Self {
        use sha2::Digest;
        Self(sha2::Sha256::digest(spki).into())
    }
}

impl fmt::Display for CaHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", base16ct::lower::encode_string(&self.0))
    }
}

impl fmt::Debug for CaHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for CaHash {
    type Err = FormError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fail = || FormError::Hash(text.to_owned());
        let hex = text.strip_prefix("sha256:").ok_or_else(fail)?;
        if hex.len() != 64 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(fail());
        }
        let mut hash = [0; 32];
        for (byte, pair) in hash.iter_mut().zip(hex.as_bytes().chunks(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| fail())?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| fail())?;
        }
        Ok(Self(hash))
    }
}

fn parse_labels(text: &str) -> Result<Labels, FormError> {
    list(text)
        .map(|item| {
            let (key, value) = item.split_once('=').ok_or_else(|| FormError::Label(item.to_owned()))?;
            let problems = [api::names::label_key_errors(key), api::names::label_value_errors(value)].concat();
            if !problems.is_empty() {
                return Err(FormError::Label(item.to_owned()));
            }
            if !api::node_labels::is_a_nodes(key) {
                return Err(FormError::OthersLabel(item.to_owned()));
            }
            Ok((key.to_owned(), value.to_owned()))
        })
        .collect()
}

fn parse_taints(text: &str) -> Result<Taints, FormError> {
    list(text).map(parse_taint).collect::<Result<_, _>>().map(Taints)
}

fn parse_taint(item: &str) -> Result<Taint, FormError> {
    let fail = || FormError::Taint(item.to_owned());
    let (head, effect) = item.rsplit_once(':').ok_or_else(fail)?;
    let (key, value) = head.split_once('=').map_or((head, None), |(k, v)| (k, Some(v)));
    if !api::names::label_key_errors(key).is_empty()
        || !["NoSchedule", "PreferNoSchedule", "NoExecute"].contains(&effect)
    {
        return Err(fail());
    }
    Ok(Taint { key: key.into(), value: value.map(Into::into), effect: effect.into(), time_added: None })
}

fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty())
}

/// The node's name: what was asked for, or the host name in lower case as kubelet takes it.
///
/// # Errors
/// [`FormError::NodeName`].
pub fn node_name(asked: Option<&str>) -> Result<String, FormError> {
    let name = match asked {
        Some(name) => name.to_owned(),
        None => nix::unistd::gethostname().map(|name| name.to_string_lossy().trim().to_lowercase()).unwrap_or_default(),
    };
    match api::names::subdomain_errors(&name).into_iter().next() {
        Some(problem) => Err(FormError::NodeName(name, problem)),
        None => Ok(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_named_from_the_root() {
        assert_eq!(absolute("/a/b").unwrap(), std::path::Path::new("/a/b"));
        assert_eq!(absolute("./k").unwrap(), std::env::current_dir().unwrap().join("k"));
    }

    #[test]
    fn tokens_keep_their_secret() {
        let token: Token = "abcdef.0123456789abcdef".parse().unwrap();
        assert_eq!(token.id(), "abcdef");
        assert!(!format!("{token:?}").contains("0123456789abcdef"));
        for text in ["", "abcdef", "abcdef.short", "ABCDEF.0123456789abcdef", "abcdef.0123456789abcdef0"] {
            assert_eq!(text.parse::<Token>(), Err(FormError::Token), "{text}");
        }
    }

    #[test]
    fn hashes_are_kubeadms() {
        let text = "sha256:7c2e69131a36ae2a042a339b33381c6d0d43887e2de83720eff5359e26aec866";
        assert_eq!(text.parse::<CaHash>().unwrap().to_string(), text);
        for text in ["sha256:", "7c2e", "sha1:7c2e", &text[..70], &text.replace('7', "g")] {
            assert!(text.parse::<CaHash>().is_err(), "{text}");
        }
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(CaHash::of_spki(b"").to_string(), empty);
    }

    #[test]
    fn labels_and_taints() {
        let labels = parse_labels("a=b, c/d=").unwrap();
        assert_eq!(labels, Labels::from([("a".into(), "b".into()), ("c/d".into(), String::new())]));
        assert!(parse_labels("a").is_err());
        assert!(parse_labels("node.kubernetes.io/rack=7,topology.kubernetes.io/zone=a").is_ok());
        for label in ["node-role.kubernetes.io/worker=", "x.k8s.io/a=b", "node-restriction.kubernetes.io/a=b"] {
            let error = parse_labels(label).unwrap_err();
            assert_eq!(error, FormError::OthersLabel(label.into()));
            assert!(error.to_string().ends_with(&format!("kubectl label node NAME {label}")), "{error}");
        }
        let taints = parse_taints("k=v:NoSchedule,k2:NoExecute").unwrap().0;
        assert_eq!(taints[0].value.as_deref(), Some("v"));
        assert_eq!((taints[1].key.as_str(), taints[1].value.as_deref()), ("k2", None));
        assert!(parse_taints("k=v:Never").is_err());
    }

    #[test]
    fn node_names_are_subdomains() {
        assert_eq!(node_name(Some("n-1.example")).unwrap(), "n-1.example");
        for name in ["", "N1", "-n", "n..1", "n_1"] {
            assert!(node_name(Some(name)).is_err(), "{name}");
        }
    }
}
