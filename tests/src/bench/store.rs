//! Runs that are finished, on disk, so that measuring can be resumed. Runs of other programs or sizes are kept apart.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::compare::Round;
use super::machine::Busy;
use super::{Figures, Section, Side};

/// A finished run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finished {
    /// The day, in the machine's own time.
    pub day: String,
    /// How much of the machine others used just before.
    pub busy: Busy,
    pub figures: Figures,
}

/// Which run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    pub section: Section,
    pub round: u32,
    pub side: Side,
}

/// The finished runs of what `key` stands for.
#[derive(Debug, Clone)]
pub struct Store {
    pub dir: PathBuf,
}

impl Store {
    /// `key` is everything that figures depend on: programs, sizes, machine.
    #[must_use]
    pub fn new(base: &Path, key: &impl Hash) -> Self {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        Self { dir: base.join(format!("{:016x}", hasher.finish())) }
    }

    fn path(&self, run: Run) -> PathBuf {
        self.dir.join(format!("{}-{}-{}.json", run.section, run.round, run.side))
    }

    /// `None` where it is not finished.
    ///
    /// # Errors
    /// When what is there cannot be read.
    pub fn load(&self, run: Run) -> Result<Option<Finished>> {
        let path = self.path(run);
        match fs::read(&path) {
            Ok(text) => {
                serde_json::from_slice(&text).map(Some).with_context(|| format!("{} is damaged", path.display()))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
        }
    }

    /// # Errors
    /// When it cannot be written.
    pub fn save(&self, run: Run, finished: &Finished) -> Result<()> {
        fs::create_dir_all(&self.dir).with_context(|| format!("create {}", self.dir.display()))?;
        let (path, fresh) = (self.path(run), self.path(run).with_extension("new"));
        fs::write(&fresh, serde_json::to_vec_pretty(finished)?)?;
        fs::rename(&fresh, &path).with_context(|| format!("write {}", path.display()))
    }

    /// The runs of a section, round by round, with whatever is finished of them.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn rounds(&self, section: Section, rounds: u32) -> Result<Vec<(Option<Finished>, Option<Finished>)>> {
        (1..=rounds)
            .map(|round| {
                let load = |side| self.load(Run { section, round, side });
                Ok((load(Side::Stock)?, load(Side::Ours)?))
            })
            .collect()
    }

    /// Forgets all of them.
    ///
    /// # Errors
    /// When they cannot be removed.
    pub fn forget(&self) -> Result<()> {
        match fs::remove_dir_all(&self.dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("remove {}", self.dir.display()))
            }
            _ => Ok(()),
        }
    }
}

/// What is compared of finished runs.
#[must_use]
pub fn figures(rounds: &[(Option<Finished>, Option<Finished>)]) -> Vec<Round> {
    let of = |finished: &Option<Finished>| finished.as_ref().map(|f| f.figures.clone());
    rounds.iter().map(|(stock, ours)| Round { stock: of(stock), ours: of(ours) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finished_run_is_found_again_by_the_same_key_alone() {
        let base = tempfile::tempdir().unwrap();
        let run = Run { section: Section::Node, round: 2, side: Side::Ours };
        let mut figures = Figures::default();
        figures.set("x_ms", 1.5);
        let finished = Finished { day: "2026-11-26".into(), busy: Busy { percent: 3.0, niced: 0.0 }, figures };
        Store::new(base.path(), &"a").save(run, &finished).unwrap();
        assert_eq!(Store::new(base.path(), &"a").load(run).unwrap(), Some(finished));
        assert_eq!(Store::new(base.path(), &"b").load(run).unwrap(), None);
        assert_eq!(Store::new(base.path(), &"a").load(Run { round: 1, ..run }).unwrap(), None);
        let rounds = Store::new(base.path(), &"a").rounds(Section::Node, 2).unwrap();
        assert!(rounds[0].1.is_none() && rounds[1].1.is_some() && rounds[1].0.is_none());
        Store::new(base.path(), &"a").forget().unwrap();
        assert_eq!(Store::new(base.path(), &"a").load(run).unwrap(), None);
    }

    #[test]
    fn a_damaged_run_is_named() {
        let base = tempfile::tempdir().unwrap();
        let store = Store::new(base.path(), &0);
        let run = Run { section: Section::Cni, round: 1, side: Side::Stock };
        fs::create_dir_all(&store.dir).unwrap();
        fs::write(store.dir.join("cni-1-stock.json"), "{").unwrap();
        let error = store.load(run).unwrap_err().to_string();
        assert!(error.contains("cni-1-stock.json is damaged"), "{error}");
    }
}
