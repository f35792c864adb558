//! The command that joins a machine, and the token in it.

use anyhow::{Context as _, Result};
use auth::{BootstrapToken, pki};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use crate::data_dir::{self, DataDir};
use crate::settings::Settings;

/// What a machine is told that is to join.
pub struct Invitation {
    endpoints: Vec<String>,
    ca_cert_hash: String,
    token: String,
}

impl Invitation {
    /// To `endpoints`, or where there is none to where this master is.
    pub fn new(endpoints: &[String], settings: &Settings, ca_pem: &str, token: &BootstrapToken) -> Result<Self> {
        let endpoints = if endpoints.is_empty() { vec![settings.endpoint().to_string()] } else { endpoints.to_vec() };
        Ok(Self { endpoints, ca_cert_hash: pki::public_key_hash(ca_pem)?, token: token.reveal() })
    }

    /// `agent join HOST:PORT,… --token … --ca-cert-hash …`
    pub fn command(&self) -> String {
        format!("agent join {} --token {} --ca-cert-hash {}", self.endpoints.join(","), self.token, self.ca_cert_hash)
    }

    /// What `agent join --join-file` reads. JSON's texts are YAML's.
    pub fn file(&self) -> String {
        let Self { endpoints, ca_cert_hash, token } = self;
        format!(
            "# Joins one machine: agent join --join-file FILE. Who reads it can join machines.\napiVersion: keelson.dev/v1\n\
             kind: JoinFile\nmasters: {}\ncaCertHash: {}\ntoken: {}\n",
            json!(endpoints),
            json!(ca_cert_hash),
            json!(token)
        )
    }
}

/// When a token ends that is made now; a `ttl` of nothing never does.
pub fn expiration(ttl: SignedDuration, now: Timestamp) -> Result<Option<Timestamp>> {
    if ttl.is_zero() { Ok(None) } else { Ok(Some(now.checked_add(ttl).context("the token's time to live")?)) }
}

/// The token that waits for `master run`, while it is good.
pub fn pending_token(dir: &DataDir, now: Timestamp) -> Result<Option<BootstrapToken>> {
    let path = dir.pending_token();
    let Some(text) = data_dir::read(&path)? else { return Ok(None) };
    let secret = serde_json::from_str(&text).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(BootstrapToken::from_secret(&secret).filter(|token| token.is_usable(now)))
}

/// Leaves a token for `master run`: nothing serves yet that could store it.
pub fn leave_token(dir: &DataDir, token: &BootstrapToken) -> Result<()> {
    data_dir::write_private(&dir.pending_token(), &token.to_secret().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_what_agents_read() {
        let invitation = Invitation {
            endpoints: vec!["10.0.0.1:6443".into(), "[fd00::2]:6443".into()],
            ca_cert_hash: "sha256:7c".into(),
            token: "abcdef.0123456789abcdef".into(),
        };
        assert_eq!(
            invitation.file().split_once('\n').unwrap().1,
            "apiVersion: keelson.dev/v1\nkind: JoinFile\nmasters: [\"10.0.0.1:6443\",\"[fd00::2]:6443\"]\n\
             caCertHash: \"sha256:7c\"\ntoken: \"abcdef.0123456789abcdef\"\n"
        );
        assert_eq!(
            invitation.command(),
            "agent join 10.0.0.1:6443,[fd00::2]:6443 --token abcdef.0123456789abcdef --ca-cert-hash sha256:7c"
        );
    }
}
