//! `master backup` and `master restore`.

use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use auth::SecretText;
use auth::pki::CertifiedKey;
use http::Request;
use http_body_util::BodyExt as _;
use jiff::Timestamp;
use kube::Client;
use kube::client::Body;
use store::{Embedded, Occupant, Snapshot};

use crate::archive::{self, Parts};
use crate::cli::{BackupOptions, RestoreOptions};
use crate::data_dir::{self, DataDir};
use crate::pki::{authorities, service_account};
use crate::settings::Settings;
use crate::{init, tls, token};

const STORE: &str = "store";
const SETTINGS: &str = "master.yaml";
/// What of `pki/` is worth keeping beside the CAs and the keys of ServiceAccount tokens: leaves are signed anew.
const PROXY_CA: [&str; 2] = ["front-proxy-ca.crt", "front-proxy-ca.key"];
/// The certificates among them that are of no use without their keys.
const PAIRS: [&str; 3] = ["ca", "ca-next", "front-proxy-ca"];

/// Writes a backup: from the running master, or from the store's files where none runs.
pub fn backup(options: &BackupOptions) -> Result<()> {
    let dir = DataDir::new(&options.location.data_dir);
    dir.check_whole()?;
    let settings =
        data_dir::read(&dir.settings())?.with_context(|| format!("there is no cluster in {}", dir.root().display()))?;
    let snapshot = take(&dir)?;
    let mut parts = Parts::from([(STORE.to_owned(), snapshot.encode()), (SETTINGS.to_owned(), settings.into_bytes())]);
    if options.with_pki {
        let _lock = dir.lock_pki()?;
        for name in kept_pki() {
            if let Some(text) = data_dir::read(&dir.pki(name))? {
                parts.insert(format!("pki/{name}"), text.into_bytes());
            }
        }
    }
    let objects = snapshot.records.len();
    let packed = archive::pack(Timestamp::now().to_string(), snapshot.revision, objects, &parts)?;
    archive::unpack(&packed).context("the backup cannot be read back")?;
    data_dir::write_private_bytes(&options.file, &packed)?;
    manual::output::line(format_args!(
        "{}: {objects} objects at revision {}, {} bytes{}",
        options.file.display(),
        snapshot.revision,
        packed.len(),
        if options.with_pki { ", with CA and signing keys: keep it as safe as them" } else { "" }
    ));
    Ok(())
}

fn kept_pki() -> impl Iterator<Item = &'static str> {
    authorities::FILES.into_iter().chain(PROXY_CA).chain(service_account::FILES)
}

fn take(dir: &DataDir) -> Result<Snapshot> {
    let path = dir.store();
    match Embedded::occupant(&path) {
        Occupant::InUse => init::runtime()?.block_on(async {
            let client = token::connect(dir).await?;
            let bytes = download(&client).await.context("the running master gives no snapshot")?;
            Ok(Snapshot::decode(&bytes)?)
        }),
        Occupant::Idle(_) => {
            let backend = Embedded::open(&path)?;
            Ok(Snapshot::of(&backend)?)
        }
        Occupant::None => bail!("there is no store: {}", path.display()),
        Occupant::Damaged(why) => bail!("{}: {why}", path.display()),
    }
}

async fn download(client: &Client) -> Result<Vec<u8>> {
    let request = Request::get(apiserver::SNAPSHOT_PATH).body(Body::empty())?;
    let response = client.send(request).await?;
    let status = response.status();
    let bytes = response.into_body().collect().await?.to_bytes();
    ensure!(status.is_success(), "{status}: {}", String::from_utf8_lossy(&bytes));
    Ok(bytes.to_vec())
}

/// Puts a backup into a data folder. All of it is verified before anything there is touched, and what was there is kept aside. What
/// interrupts it leaves a folder that no master serves, until all of it is done again.
pub fn restore(options: &RestoreOptions) -> Result<()> {
    let shown = options.file.display();
    let packed = fs::read(&options.file).with_context(|| format!("cannot read {shown}"))?;
    let (manifest, parts) =
        archive::unpack(&packed).with_context(|| format!("{shown} is no backup to restore from"))?;
    let snapshot = parts.get(STORE).with_context(|| format!("{shown} has no store"))?;
    let snapshot = Snapshot::decode(snapshot).with_context(|| format!("{shown} is damaged"))?;
    let files = files(&parts)?;

    let dir = DataDir::new(&std::path::absolute(&options.location.data_dir)?);
    let known = check_place(&dir, options.force)?;
    dir.create()?;
    let now = Timestamp::now();
    let _lock = dir.lock_pki()?;
    let aside = put_aside(&dir, &files, now)?;
    data_dir::write_private(&dir.restoring(), &format!("{shown}\n"))?;
    replace(&dir, &files)?;
    let revision = Embedded::restore(&dir.store(), &snapshot, known, now.as_millisecond().unsigned_abs())?;
    data_dir::remove(&dir.restoring())?;
    manual::output::line(format_args!(
        "{} objects of {} are restored; the store goes on at revision {revision}.",
        manifest.objects, manifest.created
    ));
    if let Some(aside) = aside {
        manual::output::line(format_args!("What was there before: {}", aside.display()));
    }
    manual::output::line(format_args!("Serve it with:         master init --data-dir {}", dir.root().display()));
    Ok(())
}

/// The files of a backup beside the store. Their names are known: none can lead elsewhere.
fn files(parts: &Parts) -> Result<Vec<(String, String)>> {
    let known = kept_pki().map(|name| format!("pki/{name}")).chain([SETTINGS.to_owned()]);
    let mut files = Vec::new();
    for name in known {
        let Some(bytes) = parts.get(&name) else { continue };
        let text = String::from_utf8(bytes.clone()).with_context(|| format!("{name} is no text"))?;
        files.push((name, text));
    }
    let settings = files.iter().find(|(name, _)| name == SETTINGS).map(|(_, text)| text.as_str());
    Settings::parse(settings.context("the backup has no master.yaml")?).context("master.yaml of the backup")?;
    PAIRS.iter().try_for_each(|name| check_pair(&files, name))?;
    Ok(files)
}

/// Whether a certificate and its key are both there and belong together, or neither is there.
fn check_pair(files: &[(String, String)], name: &str) -> Result<()> {
    let (certificate, key) = (format!("pki/{name}.crt"), format!("pki/{name}.key"));
    let find = |wanted: &str| files.iter().find(|(name, _)| name == wanted).map(|(_, text)| text.clone());
    match (find(&certificate), find(&key)) {
        (Some(certificate_pem), Some(key_pem)) => {
            let pair = CertifiedKey { certificate_pem, key_pem: SecretText::new(key_pem) };
            tls::read(&pair.certificate_pem, &pair).map(drop).with_context(|| format!("{certificate} of the backup"))
        }
        (None, None) => Ok(()),
        _ => bail!("the backup has only one of {certificate} and {key}"),
    }
}

/// Puts the files of a backup in their places. Where it has the keys, others than its own would be another cluster's.
fn replace(dir: &DataDir, files: &[(String, String)]) -> Result<()> {
    for (name, text) in files {
        data_dir::write_private(&dir.root().join(name), text)?;
    }
    stale(files).try_for_each(|name| data_dir::remove(&dir.pki(name)))
}

/// Names below `pki/` of what a backup with keys does not have.
fn stale(files: &[(String, String)]) -> impl Iterator<Item = &'static str> {
    let has = |wanted: &str| files.iter().any(|(name, _)| name.strip_prefix("pki/") == Some(wanted));
    let has_keys = has("ca.crt");
    kept_pki().filter(move |name| has_keys && !has(name))
}

/// Whether a store may be put here; the revision of the one that is there.
fn check_place(dir: &DataDir, force: bool) -> Result<u64> {
    let path = dir.store();
    let known = match Embedded::occupant(&path) {
        Occupant::InUse => bail!("a master runs on {}: stop it first", dir.root().display()),
        Occupant::None => 0,
        Occupant::Idle(revision) => revision,
        Occupant::Damaged(why) => {
            ensure!(force, "{} is damaged ({why}): --force replaces it", path.display());
            0
        }
    };
    let is_empty = match fs::read_dir(dir.root()) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => true,
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", dir.root().display())),
    };
    ensure!(is_empty || force, "{} is not empty: --force replaces what is in it", dir.root().display());
    Ok(known)
}

/// Keeps what is about to be replaced, in a folder beside it.
fn put_aside(dir: &DataDir, files: &[(String, String)], now: Timestamp) -> Result<Option<PathBuf>> {
    let aside = dir.root().join(format!("replaced-{}", now.as_second()));
    let journal = dir.store().with_extension("journal");
    let files = files.iter().map(|(name, _)| dir.root().join(name)).chain(stale(files).map(|name| dir.pki(name)));
    let mut replaced: Vec<PathBuf> = [dir.store(), journal].into_iter().chain(files).collect();
    replaced.retain(|path| path.exists());
    for path in &replaced {
        keep(dir.root(), path, &aside)?;
    }
    Ok((!replaced.is_empty()).then_some(aside))
}

/// A copy, on the disk before this returns: the original stays until something is renamed over it.
fn keep(root: &Path, path: &Path, aside: &Path) -> Result<()> {
    let copy = aside.join(path.strip_prefix(root)?);
    let folder = copy.parent().context("a folder")?;
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let kept = fs::copy(path, &copy)
        .and_then(|_| File::open(&copy)?.sync_all())
        // Its name in its folder, and the folder's in those above.
        .and_then(|()| [copy.as_path(), folder, aside].into_iter().try_for_each(data_dir::sync_parent));
    kept.with_context(|| format!("cannot keep {} as {}", path.display(), copy.display()))
}

#[cfg(test)]
mod tests;
