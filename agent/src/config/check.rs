//! `agent config check`: whether a node could run with a configuration, before it has to.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde::Serialize;

use super::{Error, check_settings, dropins, layout, merged, validate};
use crate::client::watch::describe;
use crate::doctor::Output;

/// Command line of `agent config`.
#[derive(Debug, Clone, Args)]
pub struct ConfigOptions {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Debug, Clone, Subcommand)]
enum ConfigCommand {
    /// Say what is wrong with a KubeletConfiguration
    Check(CheckOptions),
}

#[derive(Debug, Clone, Args)]
struct CheckOptions {
    /// A KubeletConfiguration and the files that change it, in this order; this node's own, where none is given
    files: Vec<PathBuf>,
    /// Folder of this node's own
    #[arg(long, default_value = "/etc/keelson")]
    config_dir: PathBuf,
    /// How the answer is printed
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// What was found.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Report {
    errors: Vec<String>,
    warnings: Vec<String>,
}

/// Checks, and prints what was found.
///
/// # Errors
/// The configuration is not one that a node can run with.
pub fn run(options: &ConfigOptions) -> anyhow::Result<()> {
    let ConfigCommand::Check(check) = &options.command;
    let files = if check.files.is_empty() {
        // Only the two roots that are not asked for come from node.yaml.
        let layout = layout::Layout::new(&check.config_dir, "", "");
        let mut own = vec![layout.agent_yaml()];
        own.extend(dropins::files(&layout.dropin_dir()).context("drop-in files")?);
        own
    } else {
        check.files.clone()
    };
    let mut report = report(&files);
    if check.files.is_empty() {
        report.errors.extend(check_settings(&check.config_dir).err().map(|error| describe(&error)));
    }
    match check.output {
        Output::Text => manual::output::text(text(&report)),
        Output::Json => manual::output::line(serde_json::to_string_pretty(&report)?),
    }
    anyhow::ensure!(report.errors.is_empty(), "{} error(s)", report.errors.len());
    Ok(())
}

fn report(files: &[PathBuf]) -> Report {
    match merged(files) {
        Ok((kubelet, warnings)) => Report { errors: validate::validate(&kubelet), warnings },
        Err(Error::Invalid(errors)) => Report { errors, warnings: Vec::new() },
        Err(error) => Report { errors: vec![describe(&error)], warnings: Vec::new() },
    }
}

fn text(report: &Report) -> String {
    let mut lines: Vec<String> = report.errors.iter().map(|error| format!("error: {error}\n")).collect();
    lines.extend(report.warnings.iter().map(|warning| format!("warning: {warning}\n")));
    if report.errors.is_empty() {
        lines.push("The configuration is valid.\n".to_owned());
    }
    lines.concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_wrong_is_said_and_what_is_unknown_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, fields: &str| {
            let head = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n";
            let path = folder.path().join(name);
            std::fs::write(&path, format!("{head}{fields}\n")).unwrap();
            path
        };
        let base = write("base", "maxPods: -1\npodsPerCore: -2\nmaxPodz: 3");
        let wrong = report(std::slice::from_ref(&base));
        assert_eq!(wrong.warnings, ["unknown field \"maxPodz\" in KubeletConfiguration"]);
        assert_eq!(
            wrong.errors,
            [
                "invalid configuration: maxPods (--max-pods) -1 must not be a negative number",
                "invalid configuration: podsPerCore (--pods-per-core) -2 must not be a negative number",
            ]
        );
        let mended = report(&[base, write("10.conf", "maxPods: 9\npodsPerCore: 0\nmaxPodds: 1")]);
        assert!(mended.errors.is_empty(), "{mended:?}");
        assert_eq!(mended.warnings.len(), 2);
        assert!(mended.warnings[1].ends_with("10.conf: unknown field \"maxPodds\" in KubeletConfiguration"));
        assert!(text(&mended).ends_with("The configuration is valid.\n"));
        let missing = report(&[folder.path().join("none")]);
        assert_eq!(missing.errors.len(), 1);
    }
}
