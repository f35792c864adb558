//! The command that joins a machine, and the token in it.

use anyhow::{Context as _, Result};
use auth::{BootstrapToken, pki};
use jiff::{SignedDuration, Timestamp};

use crate::data_dir::{self, DataDir};
use crate::settings::Settings;

/// `agent join IP:PORT --token … --ca-cert-hash …`
pub fn command(settings: &Settings, ca_pem: &str, token: &BootstrapToken) -> Result<String> {
    let hash = pki::public_key_hash(ca_pem)?;
    Ok(format!("agent join {} --token {} --ca-cert-hash {hash}", settings.endpoint(), token.reveal()))
}

/// A new token; a `ttl` of nothing never ends.
pub fn new_token(ttl: SignedDuration, now: Timestamp) -> Result<BootstrapToken> {
    let expires = if ttl.is_zero() { None } else { Some(now.checked_add(ttl).context("the token's time to live")?) };
    Ok(BootstrapToken::generate(expires))
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
