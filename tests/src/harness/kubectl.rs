//! The real kubectl against one cluster.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::shell::output;

/// `KEELSON_KUBECTL`, else the one that `make` fetched into `.cache/tools`, else the one in PATH.
#[must_use]
pub fn program() -> PathBuf {
    if let Some(given) = std::env::var_os("KEELSON_KUBECTL") {
        return given.into();
    }
    let fetched = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.cache/tools/kubectl");
    if fetched.exists() { fetched } else { "kubectl".into() }
}

/// kubectl with one kubeconfig.
#[derive(Debug, Clone)]
pub struct Kubectl {
    pub kubeconfig: PathBuf,
}

impl Kubectl {
    /// A command to which arguments are added.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = Command::new(program());
        command.arg("--kubeconfig").arg(&self.kubeconfig);
        // Whoever runs the tests may have a cluster of his own.
        command.env_remove("KUBECONFIG");
        command
    }

    /// Runs it and answers what it printed.
    ///
    /// # Errors
    /// When kubectl fails; the error has what it printed.
    pub fn run(&self, args: &[&str]) -> Result<String> {
        output(self.command().args(args))
    }

    /// The same, split at white space, so that a line of a test reads as it is typed. No quoting.
    ///
    /// # Errors
    /// When kubectl fails.
    pub fn say(&self, line: &str) -> Result<String> {
        self.run(&line.split_whitespace().collect::<Vec<_>>())
    }

    /// Applies a manifest.
    ///
    /// # Errors
    /// When kubectl fails.
    pub fn apply(&self, manifest: &str) -> Result<String> {
        let file = std::env::temp_dir().join(format!(
            "keelson-apply-{}-{:?}.yaml",
            std::process::id(),
            std::thread::current().id()
        ));
        std::fs::write(&file, manifest)?;
        let result = self.run(&["apply", "-f", &file.to_string_lossy()]);
        std::fs::remove_file(&file)?;
        result
    }

    /// An object, or a list of them, as JSON.
    ///
    /// # Errors
    /// When kubectl fails or prints something else.
    pub fn json(&self, line: &str) -> Result<serde_json::Value> {
        let mut words: Vec<&str> = line.split_whitespace().collect();
        words.extend(["-o", "json"]);
        Ok(serde_json::from_str(&self.run(&words)?)?)
    }
}
