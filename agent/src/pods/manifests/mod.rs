//! Static pods: the manifests of this node (`staticPodPath`, `staticPodURL`), which run whether there is an API server
//! or not.

pub mod decode;
mod file;
mod url;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use tokio::sync::mpsc;

/// Where this node's manifests are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Manifests {
    /// `staticPodPath`: a folder or a file, and how often it is read although nothing seems to have changed.
    pub path: Option<(PathBuf, Duration)>,
    /// `staticPodURL`, and how often it is asked.
    pub url: Option<(String, Duration)>,
    /// `staticPodURLHeader`
    pub header: BTreeMap<String, Vec<String>>,
}

/// A place that manifests come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    Path,
    Url,
}

/// All pods of one place, as they are now.
pub type Found = (Place, Vec<Arc<Pod>>);

impl Manifests {
    /// The places that must have spoken before it is known which static pods there are.
    pub fn places(&self) -> impl Iterator<Item = Place> {
        let path = self.path.iter().map(|_| Place::Path);
        path.chain(self.url.iter().map(|_| Place::Url))
    }

    /// Follows all places until the receiver is dropped.
    #[must_use]
    pub fn follow(&self, node_name: &str) -> mpsc::Receiver<Found> {
        let (found, receiver) = mpsc::channel(4);
        if let Some((path, period)) = self.path.clone() {
            tokio::spawn(file::follow(file::Source { path, period, node_name: node_name.to_owned() }, found.clone()));
        }
        if let Some((url, period)) = self.url.clone() {
            let source = url::Source { url, period, header: self.header.clone(), node_name: node_name.to_owned() };
            tokio::spawn(url::follow(source, found));
        }
        receiver
    }
}
