//! The cluster's CA, and its replacement by another in three steps, none of which anybody has to notice (docs/adr/0018-ca-rotation.md):
//!
//! | phase | signs | is trusted | files |
//! |---|---|---|---|
//! | settled | the CA | the CA | `ca` |
//! | announced | the CA | it and the next one | `ca`, `ca-next`, `ca-bridge.crt` |
//! | replaced | what was the next one | it and the previous one | `ca`, `ca-previous.crt`, `ca-bridge.crt` |

use anyhow::{Result, bail, ensure};
use auth::pki::{self, CA_NAME, Ca, CertifiedKey};
use jiff::Timestamp;

use super::{CA, ensure_ca, read_pair, write_pair};
use crate::data_dir::{self, DataDir};

/// All files of the authorities, below `pki/`.
pub const FILES: [&str; 6] = ["ca.crt", "ca.key", "ca-next.crt", "ca-next.key", "ca-previous.crt", "ca-bridge.crt"];

/// How far a replacement is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Settled,
    Announced,
    Replaced,
}

/// The certificate authorities of the cluster.
pub struct Authorities {
    /// Signs everything.
    pub signing: CertifiedKey,
    /// Trusted already, and signs after the next step.
    pub next: Option<CertifiedKey>,
    /// Still trusted, the certificate.
    pub previous: Option<String>,
    /// The newer CA's name and key, signed by the older CA.
    bridge: Option<String>,
}

impl Authorities {
    /// Reads them; makes the CA where there is none, and ends a step that a crash interrupted.
    pub fn ensure(dir: &DataDir, now: Timestamp) -> Result<Self> {
        let _lock = dir.lock_pki()?;
        Self::made(dir, now)
    }

    /// The same for who has the lock.
    pub(super) fn made(dir: &DataDir, now: Timestamp) -> Result<Self> {
        dir.check_whole()?;
        resume(dir)?;
        Ok(Authorities {
            signing: ensure_ca(dir, CA, now)?,
            next: read_pair(&dir.pki("ca-next.crt"), &dir.pki("ca-next.key"))?,
            previous: data_dir::read(&dir.pki("ca-previous.crt"))?,
            bridge: data_dir::read(&dir.pki("ca-bridge.crt"))?,
        })
    }

    pub fn phase(&self) -> Phase {
        match (&self.next, &self.previous) {
            (Some(_), _) => Phase::Announced,
            (None, Some(_)) => Phase::Replaced,
            (None, None) => Phase::Settled,
        }
    }

    /// Signs.
    pub fn signer(&self) -> Result<Ca> {
        super::signer(&self.signing)
    }

    /// Everyone's trust. The CA that signs comes first: agents look there for who should have signed their certificates.
    pub fn bundle_pem(&self) -> String {
        let second = self.next.as_ref().map(|pair| &pair.certificate_pem).or(self.previous.as_ref());
        format!("{}{}", self.signing.certificate_pem, second.map_or("", String::as_str))
    }

    /// What the API server presents after its own certificate: the CA, so that a joining machine can pin it, and the way to it for those
    /// who only know the previous one.
    pub fn chain_pem(&self) -> String {
        let older = match (self.phase(), &self.bridge, &self.previous) {
            (Phase::Replaced, Some(bridge), Some(previous)) => format!("{bridge}{previous}"),
            _ => String::new(),
        };
        format!("{}{older}", self.signing.certificate_pem)
    }
}

/// Makes the next CA, trusted from now on.
pub fn announce(dir: &DataDir, now: Timestamp) -> Result<()> {
    let _lock = dir.lock_pki()?;
    let authorities = Authorities::made(dir, now)?;
    ensure!(authorities.phase() == Phase::Settled, "the CA is being replaced already");
    // A name of its own: clients that tell CAs by their names are not confused.
    let (_, next) = Ca::generate(&format!("{CA_NAME}-{}", now.as_second()), now)?;
    data_dir::write_public(&dir.pki("ca-bridge.crt"), &authorities.signer()?.vouch_for(&next, now)?)?;
    write_pair(&dir.pki("ca-next.crt"), &dir.pki("ca-next.key"), &next)
}

/// Takes the announcement back.
pub fn withdraw(dir: &DataDir) -> Result<()> {
    let _lock = dir.lock_pki()?;
    // The certificate last: with it the phase ends.
    ["ca-bridge.crt", "ca-next.crt", "ca-next.key"].iter().try_for_each(|name| data_dir::remove(&dir.pki(name)))
}

/// The next CA signs from now on; the one before is trusted for a while yet, and its key is gone.
pub fn replace(dir: &DataDir, now: Timestamp) -> Result<()> {
    let _lock = dir.lock_pki()?;
    let Authorities { signing, next, .. } = Authorities::made(dir, now)?;
    let Some(next) = next else { bail!("no CA is announced") };
    data_dir::write_public(&dir.pki("ca-previous.crt"), &signing.certificate_pem)?;
    take_over(dir, &next)
}

/// The previous CA is trusted no longer.
pub fn finish(dir: &DataDir) -> Result<()> {
    let _lock = dir.lock_pki()?;
    ["ca-bridge.crt", "ca-previous.crt"].iter().try_for_each(|name| data_dir::remove(&dir.pki(name)))
}

fn take_over(dir: &DataDir, next: &CertifiedKey) -> Result<()> {
    write_pair(&dir.pki("ca.crt"), &dir.pki("ca.key"), next)?;
    ["ca-next.crt", "ca-next.key"].iter().try_for_each(|name| data_dir::remove(&dir.pki(name)))
}

/// A crash after [`replace`] wrote the new key leaves it beside the old certificate, or beside the announcement.
fn resume(dir: &DataDir) -> Result<()> {
    let Some(key) = data_dir::read(&dir.pki("ca.key"))? else { return Ok(()) };
    match read_pair(&dir.pki("ca-next.crt"), &dir.pki("ca-next.key"))? {
        Some(next) if next.key_pem.reveal() == key => take_over(dir, &next),
        _ => Ok(()),
    }
}

/// Whether `certificate_pem` is signed by the CA that signs now.
pub fn is_current(certificate_pem: &str, signing: &CertifiedKey) -> bool {
    pki::is_issued_by(certificate_pem, &signing.certificate_pem).unwrap_or(false)
}
