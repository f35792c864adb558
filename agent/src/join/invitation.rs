//! What lets a machine join: where the masters are, which CA they have, and a token. From the command line, or from a file for one machine
//! that `master token create --join-file` writes.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::options::{CaHash, JoinOptions, Token};
use crate::client::Servers;

const KIND: &str = "JoinFile";
const API_VERSION: &str = "keelson.dev/v1";
const FIELDS: [&str; 5] = ["apiVersion", "kind", "masters", "caCertHash", "token"];

/// The three things. Its Debug shows no secret: [`Token`]'s does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invitation {
    /// The API servers.
    pub masters: Servers,
    /// The hash of their CA's public key.
    pub ca_cert_hash: CaHash,
    /// Lets the machine ask for a certificate.
    pub token: Token,
}

/// Why a join file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It is not there, or cannot be read.
    #[error("join file {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Its token is for whoever has it.
    #[error(
        "join file {path}: others may read it (mode {mode:04o}), and join machines with it; chmod 600 it, and where somebody \
         may have done so, have another one made (master token create --join-file)"
    )]
    Open {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// A field is not what it should be.
    #[error("join file {path}: {problem}")]
    Content {
        /// The file.
        path: PathBuf,
        /// The field, and what is wrong with it.
        problem: String,
    },
}

impl FileError {
    /// Whether there is no such file.
    pub(super) fn is_absence(&self) -> bool {
        matches!(self, Self::Read { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

impl Invitation {
    /// That of the command line: all of it, as clap has seen to, or in a file.
    ///
    /// # Errors
    /// A file that cannot be used.
    pub fn of(options: &JoinOptions) -> Result<Option<Self>, FileError> {
        if let Some(path) = &options.join_file {
            return Self::read(path).map(Some);
        }
        let JoinOptions { master: Some(masters), token: Some(token), ca_cert_hash: Some(hash), .. } = options else {
            return Ok(None);
        };
        Ok(Some(Self { masters: masters.clone(), ca_cert_hash: *hash, token: token.clone() }))
    }

    /// Reads a join file that only its owner may read.
    ///
    /// # Errors
    /// See [`FileError`].
    pub fn read(path: &Path) -> Result<Self, FileError> {
        let failed = |source| FileError::Read { path: path.to_owned(), source };
        let mode = fs::metadata(path).map_err(failed)?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(FileError::Open { path: path.to_owned(), mode });
        }
        let text = fs::read_to_string(path).map_err(failed)?;
        Self::parse(&text).map_err(|problem| FileError::Content { path: path.to_owned(), problem })
    }

    /// The error names the field, and never the token's secret.
    fn parse(text: &str) -> Result<Self, String> {
        // The parser's own words may quote the text, and with it the token.
        let document: Map<String, Value> =
            serde_saphyr::from_str(text).map_err(|_| format!("is no YAML mapping of {}", FIELDS.join(", ")))?;
        if let Some(unknown) = document.keys().find(|key| !FIELDS.contains(&key.as_str())) {
            return Err(format!("{unknown}: unknown field; there are {}", FIELDS.join(", ")));
        }
        for (name, expected) in [("apiVersion", API_VERSION), ("kind", KIND)] {
            if text_of(&document, name)? != expected {
                return Err(format!("{name}: must be {expected}"));
            }
        }
        let masters = document.get("masters").ok_or("masters: is missing")?;
        let masters =
            masters.as_array().filter(|list| !list.is_empty()).ok_or("masters: must be a list of HOST[:PORT]")?;
        let masters: Option<Vec<&str>> = masters.iter().map(Value::as_str).collect();
        let masters = masters.ok_or("masters: must be a list of HOST[:PORT]")?.join(",");
        Ok(Self {
            masters: masters.parse().map_err(|error| format!("masters: {error}"))?,
            ca_cert_hash: text_of(&document, "caCertHash")?.parse().map_err(|error| format!("caCertHash: {error}"))?,
            token: text_of(&document, "token")?.parse().map_err(|error| format!("token: {error}"))?,
        })
    }
}

fn text_of<'a>(document: &'a Map<String, Value>, name: &str) -> Result<&'a str, String> {
    match document.get(name) {
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(format!("{name}: must be a text")),
        None => Err(format!("{name}: is missing")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `master token create --join-file` writes it.
    const FILE: &str = r#"# Joins one machine.
apiVersion: keelson.dev/v1
kind: JoinFile
masters: ["10.0.0.1:6443", "[fd00::2]:6443"]
caCertHash: "sha256:7c2e69131a36ae2a042a339b33381c6d0d43887e2de83720eff5359e26aec866"
token: "abcdef.0123456789abcdef"
"#;

    #[test]
    fn a_file_says_it_all() {
        let invitation = Invitation::parse(FILE).unwrap();
        assert_eq!(invitation.masters.to_string(), "10.0.0.1:6443,[fd00::2]:6443");
        assert_eq!(invitation.token.id(), "abcdef");
        assert!(!format!("{invitation:?}").contains("0123456789abcdef"));
    }

    #[test]
    fn what_is_wrong_is_named_and_the_secret_is_not() {
        for (from, to, problem) in [
            ("kind: JoinFile", "kind: Config", "kind: must be JoinFile"),
            ("keelson.dev/v1", "v1", "apiVersion: must be keelson.dev/v1"),
            ("kind: JoinFile\n", "", "kind: is missing"),
            ("masters: [\"10.0.0.1:6443\", \"[fd00::2]:6443\"]\n", "", "masters: is missing"),
            ("[\"10.0.0.1:6443\", \"[fd00::2]:6443\"]", "[]", "masters: must be a list of HOST[:PORT]"),
            ("\"10.0.0.1:6443\"", "6443", "masters: must be a list of HOST[:PORT]"),
            ("10.0.0.1:6443", "a b", "masters: \"a b\" is not an address of the form HOST[:PORT]"),
            ("sha256:7c", "sha256:", "caCertHash: "),
            (".0123456789abcdef", ".0123456789abcdeX", "token: the token is not of the form"),
            ("\"abcdef.0123456789abcdef\"", "12", "token: must be a text"),
            ("token:", "tokens:", "tokens: unknown field"),
            ("token: ", "token: {", "is no YAML mapping"),
        ] {
            let wrong = Invitation::parse(&FILE.replace(from, to)).unwrap_err();
            assert!(wrong.starts_with(problem), "{to}: {wrong}");
            assert!(!wrong.contains("0123456789"), "{wrong}");
        }
        assert_eq!(Invitation::parse("").unwrap_err(), "apiVersion: is missing");
    }

    #[test]
    fn a_file_that_others_may_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node.join");
        assert!(matches!(Invitation::read(&path), Err(FileError::Read { .. })));
        fs::write(&path, FILE).unwrap();
        for (mode, fine) in [(0o644, false), (0o640, false), (0o600, true), (0o400, true)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let read = Invitation::read(&path);
            assert_eq!(read.is_ok(), fine, "{mode:o}");
        }
        fs::write(&path, FILE.replace("token:", "tokens:")).unwrap();
        assert!(Invitation::read(&path).is_err(), "not writable by its mode, but root writes");
    }
}
