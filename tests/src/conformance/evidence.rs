//! What is gathered of a red test: one folder with its failure, its output, the state of its namespace, and what agents and master logged
//! about it.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::report::Outcome;
use crate::harness::Cluster;

/// How long a folder's name may be.
const LONGEST: usize = 120;

/// Gathers everything about a red test below `dir` and answers the folder.
///
/// # Errors
/// When it cannot be written.
pub fn gather(cluster: &Cluster, outcome: &Outcome, dir: &Path) -> Result<PathBuf> {
    let folder = dir.join(slug(&outcome.name));
    fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    let failure = format!("{}\n{}\n\n{}\n", outcome.name, outcome.location, outcome.message);
    fs::write(folder.join("failure.txt"), failure)?;
    fs::write(folder.join("output.txt"), &outcome.output)?;
    let namespaces = outcome.namespaces();
    for log in cluster.logs()? {
        excerpt(&log, &namespaces, &folder)?;
    }
    for namespace in &namespaces {
        state(cluster, namespace, &folder)?;
    }
    Ok(folder)
}

/// The lines of a log that name one of the namespaces.
fn excerpt(log: &Path, namespaces: &[String], folder: &Path) -> Result<()> {
    let mut lines = Vec::new();
    let file = File::open(log).with_context(|| format!("open {}", log.display()))?;
    for line in BufReader::new(file).split(b'\n') {
        let line = line?;
        let text = String::from_utf8_lossy(&line);
        if namespaces.iter().any(|n| text.contains(n.as_str())) {
            lines.push(text.into_owned());
        }
    }
    if let (false, Some(name)) = (lines.is_empty(), log.file_name()) {
        fs::write(folder.join(name), lines.join("\n") + "\n")?;
    }
    Ok(())
}

/// What is in a namespace, where the suite has left it.
fn state(cluster: &Cluster, namespace: &str, folder: &Path) -> Result<()> {
    let kubectl = cluster.kubectl();
    let mut file = File::create(folder.join(format!("{namespace}.txt")))?;
    for line in
        ["get all -o wide", "get events --sort-by=.metadata.creationTimestamp", "get pods -o yaml", "describe pods"]
    {
        writeln!(file, "$ kubectl -n {namespace} {line}")?;
        let said = kubectl.say(&format!("-n {namespace} {line}"));
        writeln!(file, "{}", said.unwrap_or_else(|error| format!("{error:#}")))?;
    }
    Ok(())
}

/// A folder's name for a test: what can be typed, and short. Where names begin alike for long, what they hash to tells them apart.
fn slug(name: &str) -> String {
    let mut slug = String::new();
    for c in name.chars() {
        match c {
            c if c.is_ascii_alphanumeric() => slug.push(c.to_ascii_lowercase()),
            _ if !slug.ends_with('-') && !slug.is_empty() => slug.push('-'),
            _ => {}
        }
    }
    if slug.len() > LONGEST {
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        slug.truncate(LONGEST);
        slug = format!("{}-{:04x}", slug.trim_end_matches('-'), hasher.finish() & 0xffff);
    }
    slug.trim_end_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_have_names_that_can_be_typed() {
        assert_eq!(slug("[sig-node] Pods should run: \"x\" [Conformance]"), "sig-node-pods-should-run-x-conformance");
        let (one, other) = (slug(&"a b".repeat(100)), slug(&"a b".repeat(101)));
        assert!(one.len() <= LONGEST + 5 && one != other, "{one} {other}");
    }

    #[test]
    fn only_lines_of_the_namespace_are_taken() {
        let dir = std::env::temp_dir().join(format!("keelson-evidence-{}", std::process::id()));
        fs::create_dir_all(dir.join("out")).unwrap();
        let log = dir.join("agent-n1.log");
        fs::write(&log, "pod of pods-1\nother\n").unwrap();
        excerpt(&log, &["pods-1".to_owned()], &dir.join("out")).unwrap();
        assert_eq!(fs::read_to_string(dir.join("out/agent-n1.log")).unwrap(), "pod of pods-1\n");
        fs::remove_dir_all(&dir).unwrap();
    }
}
