//! Credentials for registries, and which of them fit an image (pkg/credentialprovider/keyring.go).

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use base16ct::lower::encode_string;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use cri::v1::AuthConfig;
use k8s_openapi::api::core::v1::Secret;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Docker's own registry goes by another name in credentials than in images.
const DEFAULT_REGISTRY: &str = "index.docker.io";

/// Name and password, and where they are from.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    username: String,
    password: String,
    email: String,
    /// The Secret; `None` for what every pod of the node may use.
    pub secret: Option<SecretRef>,
}

/// A Secret that credentials are from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SecretRef {
    pub namespace: String,
    pub name: String,
    pub uid: String,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential").field("secret", &self.secret).finish_non_exhaustive()
    }
}

impl Credential {
    /// As the runtime takes it.
    #[must_use]
    pub fn auth(&self) -> AuthConfig {
        AuthConfig { username: self.username.clone(), password: self.password.clone(), ..AuthConfig::default() }
    }

    /// Tells credentials apart without telling them: the SHA-256 of their JSON, as upstream writes it.
    #[must_use]
    pub fn hash(&self) -> String {
        #[derive(Serialize)]
        struct Auth<'a> {
            #[serde(skip_serializing_if = "str::is_empty")]
            username: &'a str,
            #[serde(skip_serializing_if = "str::is_empty")]
            password: &'a str,
            #[serde(skip_serializing_if = "str::is_empty")]
            email: &'a str,
        }
        let auth = Auth { username: &self.username, password: &self.password, email: &self.email };
        encode_string(&Sha256::digest(serde_json::to_vec(&auth).unwrap_or_default()))
    }
}

/// A configuration of credentials that is none.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not the JSON that it should be. What it is instead may be a secret.
    #[error("{origin}: not a docker configuration")]
    Json { origin: String },
    /// The field `auth` of a registry.
    #[error("{origin}: unable to parse auth field of {registry:?}, must be formatted as base64(username:password)")]
    Auth { origin: String, registry: String },
}

/// `DockerConfigJSON`
#[derive(Deserialize)]
struct ConfigJson {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
}

/// `DockerConfigEntry`
#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    email: String,
    #[serde(default)]
    auth: String,
}

/// Credentials by registry (`host[:port][/path]`).
#[derive(Debug, Clone, Default)]
pub struct Keyring {
    credentials: BTreeMap<String, Vec<Credential>>,
}

impl Keyring {
    /// Takes the credentials of an image pull secret; one of another type has none.
    ///
    /// # Errors
    /// A secret that does not hold what its type says.
    pub fn add_secret(&mut self, secret: &Secret) -> Result<(), Error> {
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        let meta = &secret.metadata;
        let of = SecretRef { namespace: text(&meta.namespace), name: text(&meta.name), uid: text(&meta.uid) };
        let origin = format!("secret {}/{}", of.namespace, of.name);
        let data = |key: &str| {
            let data = secret.data.as_ref().and_then(|data| data.get(key));
            data.map(|data| data.0.as_slice()).filter(|data| !data.is_empty())
        };
        let entries = match secret.type_.as_deref() {
            Some("kubernetes.io/dockerconfigjson") => data(".dockerconfigjson").map(|data| modern(data, &origin)),
            Some("kubernetes.io/dockercfg") => data(".dockercfg").map(|data| legacy(data, &origin)),
            _ => None,
        };
        match entries {
            Some(entries) => self.add(entries?, Some(&of), &origin),
            None => Ok(()),
        }
    }

    fn add(&mut self, entries: BTreeMap<String, Entry>, of: Option<&SecretRef>, origin: &str) -> Result<(), Error> {
        for (registry, entry) in entries {
            let bad = || Error::Auth { origin: origin.to_owned(), registry: registry.clone() };
            let (username, password) = if entry.auth.is_empty() {
                (entry.username, entry.password)
            } else {
                decode(&entry.auth).ok_or_else(bad)?
            };
            let credential = Credential { username, password, email: entry.email, secret: of.cloned() };
            self.credentials.entry(key(&registry)).or_default().push(credential);
        }
        Ok(())
    }

    /// The credentials that fit a repository (`docker.io/library/nginx`), the most specific first.
    #[must_use]
    pub fn lookup(&self, repository: &str) -> Vec<Credential> {
        let fitting = self.credentials.iter().rev().filter(|(key, _)| matches(key, repository));
        let found: Vec<Credential> = fitting.flat_map(|(_, credentials)| credentials.clone()).collect();
        if found.is_empty() && repository.starts_with("docker.io/") {
            return self.credentials.get(DEFAULT_REGISTRY).cloned().unwrap_or_default();
        }
        found
    }
}

fn modern(data: &[u8], origin: &str) -> Result<BTreeMap<String, Entry>, Error> {
    let parsed = serde_json::from_slice::<ConfigJson>(data);
    Ok(parsed.map_err(|_| Error::Json { origin: origin.to_owned() })?.auths)
}

fn legacy(data: &[u8], origin: &str) -> Result<BTreeMap<String, Entry>, Error> {
    serde_json::from_slice(data).map_err(|_| Error::Json { origin: origin.to_owned() })
}

fn decode(auth: &str) -> Option<(String, String)> {
    let auth = auth.trim();
    let engine = if auth.ends_with('=') { STANDARD } else { STANDARD_NO_PAD };
    let text = String::from_utf8(engine.decode(auth).ok()?).ok()?;
    let (username, password) = text.split_once(':')?;
    Some((username.to_owned(), password.to_owned()))
}

/// A registry without its scheme; `/v1/` and `/v2/` at the start of its path stand for nothing.
fn key(registry: &str) -> String {
    let rest = registry.strip_prefix("https://").or_else(|| registry.strip_prefix("http://")).unwrap_or(registry);
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let path = if path.starts_with("/v1/") || path.starts_with("/v2/") { path.get(3..).unwrap_or("") } else { path };
    if path == "/" { host.to_owned() } else { format!("{host}{path}") }
}

/// Whether credentials of a registry are for a repository: ports are equal, the host fits name by name (`*` stands for
/// any part of one), and the path begins with the registry's.
fn matches(registry: &str, repository: &str) -> bool {
    let split = |url: &str| {
        let (host, path) = url.split_at(url.find('/').unwrap_or(url.len()));
        let (host, port) = host.rsplit_once(':').unwrap_or((host, ""));
        (host.to_owned(), port.to_owned(), path.to_owned())
    };
    let (wanted, wanted_port, wanted_path) = split(registry);
    let (host, port, path) = split(repository);
    let (wanted, host): (Vec<&str>, Vec<&str>) = (wanted.split('.').collect(), host.split('.').collect());
    port == wanted_port
        && wanted.len() == host.len()
        && path.starts_with(&wanted_path)
        && wanted.iter().zip(&host).all(|(pattern, name)| fits(pattern.as_bytes(), name.as_bytes()))
}

/// `*` is any number of characters, `?` is one.
fn fits(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern.split_first(), name.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => (0..=name.len()).any(|skip| name.get(skip..).is_some_and(|name| fits(rest, name))),
        (Some((b'?', pattern)), Some((_, name))) => fits(pattern, name),
        (Some((a, pattern)), Some((b, name))) => a == b && fits(pattern, name),
        _ => false,
    }
}

/// Where the node's own credentials are looked for: the agent's folder, that of the user, and the root.
#[must_use]
pub fn node_folders(data_dir: &Path) -> Vec<PathBuf> {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let mut folders = vec![data_dir.to_owned()];
    folders.extend(home.iter().map(|home| home.join(".docker")));
    folders.push("/.docker".into());
    folders.extend(home);
    folders.push("/".into());
    folders
}

/// Reads the first `config.json`, else the first `.dockercfg`, of some folders. Blocks.
#[must_use]
pub fn of_node(folders: &[PathBuf]) -> Keyring {
    let mut keyring = Keyring::default();
    for (name, parse) in [("config.json", modern as fn(&[u8], &str) -> _), (".dockercfg", legacy)] {
        for path in folders.iter().map(|folder| folder.join(name)) {
            let Ok(content) = std::fs::read(&path) else { continue };
            let origin = path.display().to_string();
            match parse(&content, &origin).and_then(|entries| keyring.add(entries, None, &origin)) {
                Ok(()) => return keyring,
                Err(error) => tracing::debug!(%error, "credentials of the node cannot be used"),
            }
        }
    }
    keyring
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;
    use serde_json::{Value, json};

    use super::*;

    fn secret(type_: &str, key: &str, content: &Value) -> Secret {
        let mut secret = Secret {
            type_: Some(type_.to_owned()),
            data: Some([(key.to_owned(), ByteString(content.to_string().into_bytes()))].into()),
            ..Secret::default()
        };
        (secret.metadata.namespace, secret.metadata.name) = (Some("ns".into()), Some("s".into()));
        secret
    }

    fn modern(auths: &Value) -> Secret {
        secret("kubernetes.io/dockerconfigjson", ".dockerconfigjson", &json!({ "auths": auths }))
    }

    fn users(keyring: &Keyring, repository: &str) -> Vec<String> {
        keyring.lookup(repository).into_iter().map(|credential| credential.username).collect()
    }

    #[test]
    fn registries_match_as_upstream_has_it() {
        let named = |user: &str| json!({"username": user, "password": "p"});
        let auths = json!({
            "https://index.docker.io/v1/": named("hub"),
            "quay.io": named("quay"),
            "quay.io/coreos": named("coreos"),
            "http://host:5000/v2/": named("port"),
            "*.gcr.io": named("glob"),
            "r?gistry.example": named("one"),
        });
        let mut keyring = Keyring::default();
        keyring.add_secret(&modern(&auths)).unwrap();
        for (repository, expected) in [
            ("docker.io/library/nginx", vec!["hub"]),
            ("quay.io/other/app", vec!["quay"]),
            ("quay.io/coreos/etcd", vec!["coreos", "quay"]),
            ("host:5000/a", vec!["port"]),
            ("host:5001/a", vec![]),
            ("eu.gcr.io/a", vec!["glob"]),
            ("a.eu.gcr.io/a", vec![]),
            ("gcr.io/a", vec![]),
            ("registry.example/a", vec!["one"]),
            ("elsewhere.example/a", vec![]),
        ] {
            assert_eq!(users(&keyring, repository), expected, "{repository}");
        }
    }

    #[test]
    fn both_kinds_of_secret_are_read_and_auth_wins() {
        let mut keyring = Keyring::default();
        keyring.add_secret(&modern(&json!({"a.example": {"username": "x", "auth": "dXNlcjpwYTpzcw=="}}))).unwrap();
        let old = json!({"b.example": {"username": "u", "password": "p", "email": "e"}});
        keyring.add_secret(&secret("kubernetes.io/dockercfg", ".dockercfg", &old)).unwrap();
        keyring.add_secret(&secret("Opaque", ".dockercfg", &json!({"c.example": {}}))).unwrap();
        let found = keyring.lookup("a.example/app");
        let auth = found[0].auth();
        assert_eq!((auth.username.as_str(), auth.password.as_str()), ("user", "pa:ss"));
        assert!(!format!("{found:?}").contains("pa:ss"), "secrets are not shown");
        assert_eq!(users(&keyring, "b.example/app"), ["u"]);
        assert!(users(&keyring, "c.example/app").is_empty());
        let bad = modern(&json!({"a.example": {"auth": "bm9jb2xvbg=="}}));
        assert!(keyring.add_secret(&bad).unwrap_err().to_string().contains("base64(username:password)"));
        assert!(keyring.add_secret(&secret("kubernetes.io/dockercfg", ".dockercfg", &json!([1]))).is_err());
    }

    #[test]
    fn equal_credentials_have_one_hash_wherever_they_are_from() {
        let credential =
            |secret| Credential { username: "u".into(), password: "p".into(), email: String::new(), secret };
        let of = SecretRef { namespace: "ns".into(), name: "s".into(), uid: "1".into() };
        assert_eq!(credential(None).hash(), credential(Some(of)).hash());
        assert_eq!(credential(None).hash(), encode_string(&Sha256::digest(br#"{"username":"u","password":"p"}"#)));
    }

    #[test]
    fn the_nodes_own_credentials_are_read_from_files() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(".dockercfg"), r#"{"a.example": {"username": "old"}}"#).unwrap();
        let folders = [folder.path().join("none"), folder.path().to_owned()];
        assert_eq!(users(&of_node(&folders), "a.example/b"), ["old"]);
        std::fs::write(folder.path().join("config.json"), r#"{"auths": {"a.example": {"username": "new"}}}"#).unwrap();
        assert_eq!(users(&of_node(&folders), "a.example/b"), ["new"]);
        assert!(of_node(&folders).lookup("a.example/b")[0].secret.is_none());
    }
}
