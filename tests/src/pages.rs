//! The commands of documentation, as a test runs them: fenced blocks of `sh` that say where they are run.

use anyhow::{Result, bail, ensure};

/// Where a block is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// On the worker machine, as root.
    Node,
    /// On the master's machine, as root.
    Master,
    /// Where an administrator has kubectl.
    Admin,
}

/// A fenced block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    pub place: Place,
    /// Of its fence, from 1.
    pub line: usize,
    /// What it stands under.
    pub heading: String,
    pub script: String,
}

/// The blocks of a page that are run, in their order: ```` ```sh node ````, `master`, `admin`.
///
/// # Errors
/// A block of `sh` that nobody runs, or that does not end.
pub fn blocks(page: &str) -> Result<Vec<Block>> {
    let mut blocks = Vec::new();
    let mut lines = page.lines().enumerate();
    let mut heading = String::new();
    while let Some((at, line)) = lines.next() {
        if line.starts_with('#') {
            heading = line.trim_start_matches('#').trim().to_owned();
        }
        let Some(info) = line.trim_start().strip_prefix("```") else { continue };
        let mut script = String::new();
        loop {
            match lines.next() {
                Some((_, line)) if line.trim_start().starts_with("```") => break,
                Some((_, line)) => script.extend([line, "\n"]),
                None => bail!("line {}: this block does not end", at + 1),
            }
        }
        let mut words = info.split_whitespace();
        if words.next() != Some("sh") {
            continue;
        }
        let place = match words.next() {
            Some("node") => Place::Node,
            Some("master") => Place::Master,
            Some("admin") => Place::Admin,
            other => bail!("line {}: where is this run? {other:?} is neither node, master nor admin", at + 1),
        };
        ensure!(!script.trim().is_empty(), "line {}: this block is empty", at + 1);
        blocks.push(Block { place, line: at + 1, heading: heading.clone(), script });
    }
    Ok(blocks)
}

/// Puts values into the places of words that readers replace, such as `NODE`. Parts of longer words stay.
#[must_use]
pub fn filled(script: &str, values: &[(&str, &str)]) -> String {
    let is_part = |c: char| c.is_ascii_alphanumeric();
    let mut text = String::new();
    let mut rest = script;
    while !rest.is_empty() {
        let (word, after) = rest.split_at(rest.find(|c| !is_part(c)).unwrap_or(rest.len()));
        text.push_str(values.iter().find(|(name, _)| *name == word).map_or(word, |(_, value)| value));
        let (between, after) = after.split_at(after.find(is_part).unwrap_or(after.len()));
        text.push_str(between);
        rest = after;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_say_where_they_are_run() {
        let page = "# A\n```sh node\nagent status\nagent pods\n```\n```yaml\na: 1\n```\n   ```sh admin\nkubectl get nodes\n   ```\n";
        let found = blocks(page).unwrap();
        assert_eq!(found.len(), 2);
        let script = "agent status\nagent pods\n".into();
        assert_eq!(found[0], Block { place: Place::Node, line: 2, heading: "A".into(), script });
        assert_eq!((found[1].place, found[1].line), (Place::Admin, 9));
        for wrong in ["```sh\nls\n```\n", "```sh elsewhere\nls\n```\n", "```sh node\nls\n", "```sh node\n```\n"] {
            assert!(blocks(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn only_whole_words_are_replaced() {
        let values = [("NODE", "v1"), ("MASTER", "10.0.0.1")];
        assert_eq!(
            filled("kubectl drain NODE; NODES x_NODE_x MASTER:6443\n", &values),
            "kubectl drain v1; NODES x_v1_x 10.0.0.1:6443\n"
        );
    }

    #[test]
    fn every_page_of_ours_can_be_run() {
        let docs = crate::harness::images::checkout().join("docs");
        for name in ["install.md", "join.md", "operate.md"] {
            let page = std::fs::read_to_string(docs.join(name)).unwrap();
            assert!(!blocks(&page).unwrap().is_empty(), "{name}");
        }
    }
}
