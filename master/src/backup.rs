//! `master backup` and `master restore`.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use http::Request;
use http_body_util::BodyExt as _;
use jiff::Timestamp;
use kube::Client;
use kube::client::Body;
use store::{Embedded, Occupant, Snapshot};

use crate::archive::{self, Parts};
use crate::cli::{BackupOptions, RestoreOptions};
use crate::data_dir::{self, DataDir};
use crate::pki::authorities;
use crate::settings::Settings;
use crate::{init, token};

const STORE: &str = "store";
const SETTINGS: &str = "master.yaml";
/// What of `pki/` is worth keeping beside the CAs: leaves are signed anew.
const PKI: [&str; 4] = ["front-proxy-ca.crt", "front-proxy-ca.key", "sa.key", "sa.pub"];

/// Writes a backup: from the running master, or from the store's files where none runs.
pub fn backup(options: &BackupOptions) -> Result<()> {
    let dir = DataDir::new(&options.location.data_dir);
    let settings =
        data_dir::read(&dir.settings())?.with_context(|| format!("there is no cluster in {}", dir.root().display()))?;
    let snapshot = take(&dir)?;
    let mut parts = Parts::from([(STORE.to_owned(), snapshot.encode()), (SETTINGS.to_owned(), settings.into_bytes())]);
    if options.with_pki {
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
    println!(
        "{}: {objects} objects at revision {}, {} bytes{}",
        options.file.display(),
        snapshot.revision,
        packed.len(),
        if options.with_pki { ", with CA and signing keys: keep it as safe as them" } else { "" }
    );
    Ok(())
}

fn kept_pki() -> impl Iterator<Item = &'static str> {
    authorities::FILES.into_iter().chain(PKI)
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

/// Puts a backup into a data folder. All of it is verified before anything there is touched, and what was there is kept aside.
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
    let aside = put_aside(&dir, &files, now)?;
    let revision = Embedded::restore(&dir.store(), &snapshot, known, now.as_millisecond().unsigned_abs())?;
    for (name, text) in &files {
        data_dir::write_private(&dir.root().join(name), text)?;
    }
    println!(
        "{} objects of {} are restored; the store goes on at revision {revision}.",
        manifest.objects, manifest.created
    );
    if let Some(aside) = aside {
        println!("What was there before: {}", aside.display());
    }
    println!("Serve it with:         master init --data-dir {}", dir.root().display());
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
    Ok(files)
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
    let mut replaced: Vec<PathBuf> =
        [dir.store(), journal].into_iter().chain(files.iter().map(|(name, _)| dir.root().join(name))).collect();
    replaced.retain(|path| path.exists());
    for path in &replaced {
        keep(dir.root(), path, &aside)?;
    }
    Ok((!replaced.is_empty()).then_some(aside))
}

/// A copy: the original stays until something is renamed over it.
fn keep(root: &Path, path: &Path, aside: &Path) -> Result<()> {
    let copy = aside.join(path.strip_prefix(root)?);
    let folder = copy.parent().context("a folder")?;
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    fs::copy(path, &copy).map(drop).with_context(|| format!("cannot keep {} as {}", path.display(), copy.display()))
}

#[cfg(test)]
mod tests;
