//! Files of a volume that lie on, or in, each other: of those only the last is there, or the pod does not start.

use std::fmt;

use serde_json::Value;

use crate::errors::quote;
use crate::value::Fields;
use crate::warnings::{COMPARED, Warnings};

/// Upstream's `warningsForOverlappingVirtualPaths`.
pub(super) fn overlapping(volumes: &[Value], warnings: &mut Warnings) {
    for volume in volumes {
        for (source, field) in [("configMap", "name"), ("secret", "secretName"), ("downwardAPI", "")] {
            let content = volume.at(source);
            let described = Source::of(source, content.text(field));
            collisions(|| items(content, Source::None), volume, described, warnings);
        }
        let sources = volume.at("projected").list("sources");
        let is_empty = |source: &Value| source.as_object().is_none_or(|fields| fields.values().all(Value::is_null));
        for _ in sources.iter().filter(|source| is_empty(source)) {
            warnings.say(format!("volume {} (Projected) has no sources provided", quote(volume.text("name"))));
        }
        collisions(|| sources.iter().flat_map(projected), volume, Source::Plain("Projected"), warnings);
    }
}

/// Where a file comes from, as it is shown.
#[derive(Clone, Copy, PartialEq)]
enum Source<'a> {
    None,
    Plain(&'static str),
    Named(&'static str, &'a str),
}

impl<'a> Source<'a> {
    fn of(field: &str, name: &'a str) -> Self {
        match field {
            "configMap" => Source::Named("ConfigMap", name),
            "secret" => Source::Named("Secret", name),
            _ => Source::Plain("DownwardAPI"),
        }
    }
}

impl fmt::Display for Source<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::None => Ok(()),
            Source::Plain(what) => f.write_str(what),
            Source::Named(what, name) => write!(f, "{what} {}", quote(name)),
        }
    }
}

#[derive(Clone, Copy)]
struct File<'a> {
    path: &'a str,
    source: Source<'a>,
}

impl<'a> File<'a> {
    fn new(path: &'a str, source: Source<'a>) -> Self {
        File { path: path.trim_end_matches('/'), source }
    }

    fn meets(&self, other: &Self) -> bool {
        let lies_in = |inner: &str, outer: &str| {
            inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        !self.path.is_empty()
            && !other.path.is_empty()
            && (lies_in(self.path, other.path) || lies_in(other.path, self.path))
    }
}

impl fmt::Display for File<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&quote(self.path))?;
        if self.source == Source::None { Ok(()) } else { write!(f, " ({})", self.source) }
    }
}

fn items<'a>(content: &'a Value, source: Source<'a>) -> impl Iterator<Item = File<'a>> {
    content.list("items").iter().map(move |item| File::new(item.text("path"), source))
}

/// The files of one source of a projected volume, which is one of these.
fn projected(source: &Value) -> impl Iterator<Item = File<'_>> {
    let listed = ["configMap", "secret", "downwardAPI"].into_iter().flat_map(|field| {
        let content = source.at(field);
        items(content, Source::of(field, content.text("name")))
    });
    let (token, bundle, certificate) =
        (source.at("serviceAccountToken"), source.at("clusterTrustBundle"), source.at("podCertificate"));
    let signer = if bundle.has("name") { bundle.text("name") } else { bundle.text("signerName") };
    let single = [
        (token.text("path"), Source::Plain("ServiceAccountToken")),
        (bundle.text("path"), Source::Named("ClusterTrustBundle", signer)),
        (certificate.text("certificateChainPath"), Source::Plain("PodCertificate chain")),
        (certificate.text("keyPath"), Source::Plain("PodCertificate key")),
        (certificate.text("credentialBundlePath"), Source::Plain("PodCertificate credential bundle")),
    ];
    listed.chain(single.into_iter().filter(|(path, _)| !path.is_empty()).map(|(path, from)| File::new(path, from)))
}

/// Walked anew for each file: there are few, and most volumes have none.
fn collisions<'a, I: Iterator<Item = File<'a>>>(
    files: impl Fn() -> I,
    volume: &Value,
    described: Source<'_>,
    warnings: &mut Warnings,
) {
    for (index, file) in files().take(COMPARED).enumerate() {
        for before in files().take(index).filter(|before| file.meets(before)) {
            let name = quote(volume.text("name"));
            warnings.say(format!("volume {name} ({described}): overlapping paths: {file} with {before}"));
        }
        if warnings.is_full() {
            return;
        }
    }
}
