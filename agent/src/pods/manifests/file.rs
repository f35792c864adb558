//! Manifests in a folder, or in one file (pkg/kubelet/config/file.go).

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use tokio::sync::mpsc;

use super::decode::{self, Origin};
use super::{Found, Place};
use crate::watched::Watched;

/// As upstream: what is longer is no manifest.
const LONGEST: u64 = 10 << 20;
/// A change is seldom alone.
const SETTLE: Duration = Duration::from_millis(20);

pub(super) struct Source {
    pub path: PathBuf,
    pub period: Duration,
    pub node_name: String,
}

/// What each file said last. A file that cannot be read as a pod (an editor's slip) goes on meaning what it meant.
type Known = BTreeMap<PathBuf, Arc<Pod>>;

/// Reads the files whenever one of them changes, and now and then.
pub(super) async fn follow(source: Source, found: mpsc::Sender<Found>) {
    let source = Arc::new(source);
    let mut known = Known::new();
    let mut watched = Watched::new(SETTLE);
    loop {
        // A file that went and came back is told of twice, as inotify tells a kubelet: its pod ends first.
        let gone = watched.set([folder(&source.path).to_owned()].into());
        let count = known.len();
        known.retain(|path, _| path.file_name().is_none_or(|name| !gone.contains(name)));
        if known.len() < count && found.send((Place::Path, known.values().cloned().collect())).await.is_err() {
            return;
        }
        let (reading, before) = (Arc::clone(&source), known.clone());
        match tokio::task::spawn_blocking(move || read(&reading, &before)).await {
            Ok(Ok(now)) => {
                known = now;
                if found.send((Place::Path, known.values().cloned().collect())).await.is_err() {
                    return;
                }
            }
            Ok(Err(error)) => tracing::error!(path = %source.path.display(), %error, "manifests cannot be read"),
            Err(error) => tracing::error!(%error, "manifests were not read"),
        }
        // Cancel-safe: sleeping and reading inotify events are; closed() holds nothing.
        tokio::select! {
            () = found.closed() => return,
            () = tokio::time::sleep(source.period) => {}
            () = watched.changed() => {}
        }
    }
}

/// The folder in which changes are seen: that of a file, or of a folder that is not there yet, is the one above.
fn folder(path: &Path) -> &Path {
    if path.is_dir() { path } else { path.parent().unwrap_or(path) }
}

/// The pods that the files say. A path that does not exist has none.
fn read(source: &Source, before: &Known) -> io::Result<Known> {
    let mut now = Known::new();
    for path in files(&source.path)? {
        let text = match text(&path) {
            Ok(text) => text,
            // Gone between the list and now.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => {
                tracing::error!(path = %path.display(), %error, "manifest cannot be read");
                now.extend(before.get(&path).map(|pod| (path.clone(), Arc::clone(pod))));
                continue;
            }
        };
        match decode::pod(&text, &Origin::File(&path.to_string_lossy()), &source.node_name) {
            Ok(pod) => {
                let same =
                    before.get(&path).filter(|before| before.metadata == pod.metadata && before.spec == pod.spec);
                let pod = same.map_or_else(|| Arc::new(pod), Arc::clone);
                now.insert(path, pod);
            }
            Err(error) => {
                tracing::error!(path = %path.display(), %error, "manifest is no pod of this node");
                now.extend(before.get(&path).map(|pod| (path.clone(), Arc::clone(pod))));
            }
        }
    }
    Ok(now)
}

/// Regular files of the folder that are not hidden, or the file itself.
fn files(path: &Path) -> io::Result<Vec<PathBuf>> {
    let metadata = match std::fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        metadata => metadata?,
    };
    if metadata.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        let hidden = entry.file_name().to_string_lossy().starts_with('.');
        // Links are followed.
        if !hidden && std::fs::metadata(entry.path()).is_ok_and(|metadata| metadata.is_file()) {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

fn text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(LONGEST).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(name: &str) -> String {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{containers: [{{name: c, image: i}}]}}}}"
        )
    }

    fn names(found: &Found) -> Vec<String> {
        found.1.iter().map(|pod| pod.metadata.name.clone().unwrap()).collect()
    }

    async fn next(found: &mut mpsc::Receiver<Found>) -> Found {
        tokio::time::timeout(Duration::from_secs(10), found.recv()).await.unwrap().unwrap()
    }

    /// The next answer that is as wanted.
    async fn until(found: &mut mpsc::Receiver<Found>, wanted: &[&str]) -> Found {
        loop {
            let answer = next(found).await;
            if names(&answer) == wanted {
                return answer;
            }
        }
    }

    #[tokio::test]
    async fn files_come_change_and_go() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("a.yaml"), manifest("a")).unwrap();
        std::fs::write(at(".hidden"), manifest("hidden")).unwrap();
        std::fs::create_dir(at("folder")).unwrap();
        let (sender, mut found) = mpsc::channel(4);
        let source = Source { path: folder.path().into(), period: Duration::from_secs(3600), node_name: "n".into() };
        tokio::spawn(follow(source, sender));
        let first = next(&mut found).await;
        assert_eq!(names(&first), ["a-n"]);
        std::fs::write(at("b.yaml"), manifest("b")).unwrap();
        let second = until(&mut found, &["a-n", "b-n"]).await;
        assert!(Arc::ptr_eq(&first.1[0], &second.1[0]), "an unchanged file is the same pod");
        // A slip keeps the pod; so does a file that is put in place by moving it.
        std::fs::write(at("a.yaml"), "apiVersion: v1\nkind: [").unwrap();
        std::fs::write(at(".new"), manifest("c")).unwrap();
        std::fs::rename(at(".new"), at("c.yaml")).unwrap();
        until(&mut found, &["a-n", "b-n", "c-n"]).await;
        std::fs::remove_file(at("a.yaml")).unwrap();
        std::fs::remove_file(at("b.yaml")).unwrap();
        until(&mut found, &["c-n"]).await;
    }

    /// Upstream's e2e_node: "should successfully recreate when file is removed and recreated".
    #[tokio::test]
    async fn a_file_that_is_written_anew_is_told_from_one_that_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["a", "b"] {
            std::fs::write(at(&format!("{name}.yaml")), manifest(name)).unwrap();
        }
        let (sender, mut found) = mpsc::channel(4);
        let source = Source { path: folder.path().into(), period: Duration::from_secs(3600), node_name: "n".into() };
        tokio::spawn(follow(source, sender));
        let first = next(&mut found).await;
        std::fs::remove_file(at("a.yaml")).unwrap();
        std::fs::write(at("a.yaml"), manifest("a")).unwrap();
        assert_eq!(names(&next(&mut found).await), ["b-n"]);
        let back = next(&mut found).await;
        assert_eq!(names(&back), ["a-n", "b-n"]);
        assert_eq!(back.1[0].metadata.uid, first.1[0].metadata.uid);
        std::fs::write(at(".new"), manifest("b")).unwrap();
        std::fs::rename(at(".new"), at("b.yaml")).unwrap();
        std::fs::write(at("c.yaml"), manifest("c")).unwrap();
        loop {
            let told = next(&mut found).await;
            assert!(names(&told).contains(&"b-n".to_owned()), "what was replaced was never away");
            if told.1.len() == 3 {
                break;
            }
        }
    }

    #[tokio::test]
    async fn a_folder_that_comes_later_is_found() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("manifests");
        let (sender, mut found) = mpsc::channel(4);
        let source = Source { path: path.clone(), period: Duration::from_millis(50), node_name: "n".into() };
        tokio::spawn(follow(source, sender));
        assert_eq!(names(&next(&mut found).await), [""; 0]);
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("a.yaml"), manifest("a")).unwrap();
        until(&mut found, &["a-n"]).await;
    }
}
