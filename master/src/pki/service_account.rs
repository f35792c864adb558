//! The keys of ServiceAccount tokens: `sa.key` signs, and what earlier ones have signed is good until they are forgotten
//! (`sa-previous.pub`: their public keys, the latest first).

use anyhow::{Context as _, Result, ensure};
use auth::{SecretText, SigningKey, VerifyingKey, pki};

use crate::data_dir::{self, DataDir};

const KEY: &str = "sa.key";
const PUBLIC: &str = "sa.pub";
const PREVIOUS: &str = "sa-previous.pub";

/// All files of these keys, below `pki/`.
pub const FILES: [&str; 3] = [KEY, PUBLIC, PREVIOUS];

/// What tokens are signed and verified with.
pub struct ServiceAccountKeys {
    signing: SecretText,
    public_pem: String,
    previous_pem: String,
}

impl ServiceAccountKeys {
    /// Reads them, and makes the first one. For who has the lock.
    pub(super) fn made(dir: &DataDir) -> Result<Self> {
        let path = dir.pki(KEY);
        let signing = match data_dir::read(&path)? {
            Some(key) => SecretText::new(key),
            None => write_new(dir)?,
        };
        let public_pem = pki::public_key_pem(&signing).with_context(|| format!("{} is not a key", path.display()))?;
        let public = dir.pki(PUBLIC);
        if data_dir::read(&public)?.as_deref() != Some(public_pem.as_str()) {
            data_dir::write_public(&public, &public_pem)?;
        }
        let previous_pem = data_dir::read(&dir.pki(PREVIOUS))?.unwrap_or_default();
        Ok(ServiceAccountKeys { signing, public_pem, previous_pem })
    }

    pub fn signing(&self) -> Result<SigningKey> {
        SigningKey::from_pem(self.signing.reveal()).context("pki/sa.key")
    }

    pub fn previous(&self) -> Result<Vec<VerifyingKey>> {
        VerifyingKey::all_from_pem(&self.previous_pem).context("pki/sa-previous.pub")
    }
}

/// Makes another key that signs from now on.
pub fn rotate(dir: &DataDir) -> Result<()> {
    let _lock = dir.lock_pki()?;
    dir.check_whole()?;
    let ServiceAccountKeys { public_pem, previous_pem, .. } = ServiceAccountKeys::made(dir)?;
    // First, so that no crash leaves tokens that nobody verifies.
    if !previous_pem.contains(&public_pem) {
        data_dir::write_public(&dir.pki(PREVIOUS), &format!("{public_pem}{previous_pem}"))?;
    }
    write_new(dir)?;
    ServiceAccountKeys::made(dir).map(drop)
}

/// Ends all tokens that are not signed by the key of now.
pub fn forget(dir: &DataDir) -> Result<()> {
    let _lock = dir.lock_pki()?;
    let path = dir.pki(PREVIOUS);
    ensure!(path.exists(), "no earlier key is known: there is no {}", path.display());
    data_dir::remove(&path)
}

fn write_new(dir: &DataDir) -> Result<SecretText> {
    let key = SecretText::new(pki::new_key_pem()?);
    data_dir::write_private(&dir.pki(KEY), key.reveal())?;
    Ok(key)
}
