//! `cargo xtask check`: the rules of the house that neither rustc nor clippy knows. What is written in ARCHITECTURE.md about who
//! may use whom is enforced here.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::twins;
use anyhow::{Context, Result, bail, ensure};
use keelson_tests::harness::{images::checkout, shell::output};

/// Crate -> the only rooms that may name it as a dependency. Rooms are folders.
const ONLY_THROUGH: &[(&str, &[&str])] = &[
    ("tonic", &["cri", "probes"]),
    ("prost", &["cri", "probes"]),
    ("k8s-cri", &["cri"]),
    ("nlink", &["netns"]),
    ("zbus", &["systemd"]),
    ("redb", &["master/store"]),
    ("cri", &["agent", "tests"]),
    ("netns", &["cni-plugins", "proxy", "agent"]),
    ("pod", &["agent"]),
    ("cgroups", &["agent"]),
    ("volumes", &["agent"]),
    ("probes", &["agent"]),
    ("proxy", &["agent"]),
    ("store", &["master", "master/apiserver"]),
    ("apiserver", &["master"]),
    ("scheduler", &["master"]),
    ("controllers", &["master"]),
    // The two programs share rooms, and never each other.
    ("agent", &[]),
    ("master", &[]),
];
const LONGEST_FILE: usize = 600;

/// Checks all rules and lists every breach.
pub fn check() -> Result<()> {
    let root = checkout();
    let sources = sources(&root)?;
    report(&root, &sources)?;
    let mut breaches = layers(&root)?;
    breaches.extend(sizes(&sources));
    breaches.extend(twins::find(&sources));
    if breaches.is_empty() {
        println!("layers and sizes are as they should be, and nothing stands twice");
        return Ok(());
    }
    for breach in &breaches {
        println!("{breach}");
    }
    bail!("{} breach(es) of the house rules", breaches.len());
}

/// A dependency that a room may not have.
fn layers(root: &Path) -> Result<Vec<String>> {
    let mut breaches = Vec::new();
    let manifests = tracked(root, "*Cargo.toml")?;
    let is_room = |manifest: &PathBuf| manifest.parent().is_some_and(|room| !room.as_os_str().is_empty());
    ensure!(manifests.iter().any(is_room), "no rooms were found, so that nothing was checked");
    for manifest in manifests {
        let room = manifest.parent().map(|p| p.to_string_lossy().into_owned()).unwrap_or_default();
        if room.is_empty() {
            continue;
        }
        let text = fs::read_to_string(root.join(&manifest)).with_context(|| format!("read {}", manifest.display()))?;
        for (krate, rooms) in ONLY_THROUGH.iter().filter(|(k, _)| depends(&text, k)) {
            let own = Path::new(&room).file_name().is_some_and(|n| n == *krate);
            if !own && !rooms.contains(&room.as_str()) {
                breaches.push(format!("{}: {krate} is used only through {}", manifest.display(), rooms.join(", ")));
            }
        }
    }
    Ok(breaches)
}

/// Whether `[dependencies]` names the crate. What only tests or the build use is not a layer.
fn depends(manifest: &str, krate: &str) -> bool {
    let mut section = "";
    manifest.lines().map(str::trim).any(|line| {
        if line.starts_with('[') {
            section = line;
        }
        let name = line.split(['.', ' ', '=']).next().unwrap_or("");
        section == "[dependencies]" && name == krate
    })
}

/// How large each room is, so that a change shows what it costs.
fn report(root: &Path, sources: &[(PathBuf, String)]) -> Result<()> {
    let manifests = tracked(root, "*Cargo.toml")?;
    let rooms = manifests.iter().filter_map(|manifest| manifest.parent()).filter(|room| !room.as_os_str().is_empty());
    println!("{:<20} {:>6} {:>7}  longest file", "room", "files", "lines");
    for room in rooms.collect::<BTreeSet<_>>() {
        let inside =
            |file: &Path| file.ancestors().skip(1).find(|at| manifests.contains(&at.join("Cargo.toml"))) == Some(room);
        let files: Vec<(usize, &Path)> = sources
            .iter()
            .filter(|(file, _)| inside(file))
            .map(|(file, text)| (text.lines().count(), file.strip_prefix(room).unwrap_or(file)))
            .collect();
        let lines: usize = files.iter().map(|(lines, _)| lines).sum();
        let longest = files.iter().max().map(|(lines, file)| format!("{} ({lines})", file.display()));
        println!("{:<20} {:>6} {lines:>7}  {}", room.display(), files.len(), longest.unwrap_or_default());
    }
    Ok(())
}

fn sizes(sources: &[(PathBuf, String)]) -> Vec<String> {
    let lines = sources.iter().map(|(file, text)| (file, text.lines().count()));
    let too_long = lines.filter(|(_, lines)| *lines > LONGEST_FILE);
    too_long
        .map(|(file, lines)| format!("{}: {lines} lines, where {LONGEST_FILE} are the most", file.display()))
        .collect()
}

/// Every source file with its text.
fn sources(root: &Path) -> Result<Vec<(PathBuf, String)>> {
    let read = |file: PathBuf| {
        let text = fs::read_to_string(root.join(&file)).with_context(|| format!("read {}", file.display()))?;
        Ok((file, text))
    };
    tracked(root, "*.rs")?.into_iter().map(read).collect()
}

fn tracked(root: &Path, pattern: &str) -> Result<Vec<PathBuf>> {
    let listed = output(Command::new("git").current_dir(root).args(["ls-files", "--", pattern]))?;
    Ok(listed.lines().map(PathBuf::from).filter(|p| root.join(p).exists()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_dependencies_section_counts() {
        let manifest = "[dependencies]\ntonic.workspace = true\n[dev-dependencies]\nnlink = \"1\"\n";
        assert!(depends(manifest, "tonic"));
        assert!(!depends(manifest, "nlink"));
        assert!(!depends(manifest, "tonic-prost"));
    }
}
