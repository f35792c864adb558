//! A serving certificate that an administrator keeps in files (`tlsCertFile`, `tlsPrivateKeyFile`): read anew when they change.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::watch;

use super::{Error, Identity};
use crate::watched::Watched;

/// Certificate and key are two files, and seldom written at once.
const SETTLE: Duration = Duration::from_millis(100);
/// How often they are read where no change was seen (upstream's `FileRefreshDuration`).
const PERIOD: Duration = Duration::from_secs(60);

/// The two files.
#[derive(Debug, Clone)]
pub struct Files {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Files {
    /// # Errors
    /// A file that cannot be read, or the two do not belong together.
    pub fn read(&self) -> Result<Identity, Error> {
        let text =
            |path: &Path| std::fs::read_to_string(path).map_err(|source| Error::File { path: path.to_owned(), source });
        let pem = format!("{}\n{}", text(&self.certificate)?, text(&self.key)?);
        Identity::from_pem(&self.certificate.to_string_lossy(), &pem)
    }

    /// Publishes what the files say whenever they change, for as long as somebody listens. While they cannot be used, what they said
    /// before is.
    pub async fn follow(self, current: watch::Sender<Option<Identity>>) {
        let folders = [&self.certificate, &self.key].into_iter().filter_map(|file| file.parent().map(Path::to_owned));
        let folders: BTreeSet<PathBuf> = folders.collect();
        let mut watched = Watched::new(SETTLE);
        loop {
            watched.set(folders.clone());
            match self.read() {
                Ok(identity) => drop(current.send_if_modified(|known| {
                    let is_new = known.as_ref().is_none_or(|known| known.pem != identity.pem);
                    *known = Some(identity);
                    is_new
                })),
                Err(error) => {
                    tracing::warn!(%error, "the changed serving certificate cannot be used; the one before stays");
                }
            }
            // Cancel-safe: closed() holds nothing, and neither does sleeping.
            tokio::select! {
                () = current.closed() => return,
                () = tokio::time::sleep(PERIOD) => {}
                () = watched.changed() => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::csr::{Purpose, new_request};
    use crate::identity::tests::TestCa;

    fn write(files: &Files, ca: &TestCa, name: &str) {
        let (key, request) = new_request(name, &Purpose::Client).unwrap();
        std::fs::write(&files.certificate, ca.sign(&request)).unwrap();
        std::fs::write(&files.key, key.serialize_pem()).unwrap();
    }

    #[tokio::test]
    async fn files_that_change_are_read_anew_and_broken_ones_are_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files { certificate: dir.path().join("tls.crt"), key: dir.path().join("tls.key") };
        let ca = TestCa::new("ca");
        write(&files, &ca, "n1");
        let (sender, mut current) = watch::channel(Some(files.read().unwrap()));
        let following = tokio::spawn(files.clone().follow(sender));
        // The watch is set when the task has begun to wait.
        tokio::time::sleep(SETTLE).await;
        std::fs::write(&files.certificate, "no certificate").unwrap();
        write(&files, &ca, "n2");
        current.changed().await.unwrap();
        assert_eq!(current.borrow().as_ref().unwrap().common_name, "system:node:n2");
        drop(current);
        following.await.unwrap();
        std::fs::remove_file(&files.key).unwrap();
        assert!(files.read().unwrap_err().to_string().ends_with("tls.key"));
    }
}
