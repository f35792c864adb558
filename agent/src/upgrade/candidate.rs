//! The program that is to take over: what it says of itself, and whether it may.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use serde::{Deserialize, Serialize};

use super::UpgradeError;
use crate::node::facts::KUBELET_VERSION;
use crate::state_format::{FORMAT, OLDEST_READABLE, Stamp};

/// Kubelets may be this many minor versions older than the API server, and never newer
/// (<https://kubernetes.io/releases/version-skew-policy/#kubelet>).
const OLDEST_SKEW: u64 = 3;

/// What `agent version --output json` says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct About {
    /// As nodes report it.
    pub version: String,
    /// The format of the state that it writes.
    pub state_format: u32,
    /// The oldest that it reads.
    pub oldest_readable_state: u32,
}

impl About {
    /// This program.
    #[must_use]
    pub fn own() -> Self {
        Self { version: KUBELET_VERSION.to_owned(), state_format: FORMAT, oldest_readable_state: OLDEST_READABLE }
    }

    /// Asks a program. One that knows only plain `version` is from before state had a format.
    pub(super) fn ask(program: &Path) -> Result<Self, UpgradeError> {
        let failed = |message: String| UpgradeError::NoAgent { path: program.to_owned(), message };
        let run = |args: &[&str]| -> Result<(bool, String), UpgradeError> {
            // Not in the terminal's group, as it is asked on the way back, too, which no Ctrl-C may end.
            let out = Command::new(program)
                .args(args)
                .process_group(0)
                .output()
                .map_err(|error| failed(error.to_string()))?;
            let text = String::from_utf8_lossy(&out.stdout).trim().to_owned();
            Ok((out.status.success(), text))
        };
        let (worked, text) = run(&["version", "--output", "json"])?;
        if worked {
            return serde_json::from_str(&text).map_err(|error| failed(error.to_string()));
        }
        match run(&["version"])? {
            (true, version) if minor(&version).is_some() => {
                Ok(Self { version, state_format: 0, oldest_readable_state: 0 })
            }
            (_, said) => Err(failed(format!("its version is {said:?}"))),
        }
    }
}

/// Whether the program may be this node's agent: by the API server's version, and by the state that it would find. Pure.
pub(super) fn judge(about: &About, api_server: Option<&str>, stamp: &Stamp) -> Vec<String> {
    let mut objections = Vec::new();
    let kubelet = &about.version;
    match (minor(kubelet), api_server, api_server.and_then(minor)) {
        (None, ..) => objections.push(format!("{kubelet:?} is no version of Kubernetes")),
        (_, None, _) => {
            objections.push("the API server does not say its version, so it cannot be told whether they fit".into())
        }
        (_, Some(server), None) => objections.push(format!("the API server's version {server:?} is not understood")),
        (Some(ours), Some(server), Some(theirs)) if ours > theirs => {
            objections.push(format!("{kubelet} is newer than the API server ({server}): upgrade that first"));
        }
        (Some(ours), Some(server), Some(theirs))
            if theirs.1.saturating_sub(ours.1) > OLDEST_SKEW || ours.0 != theirs.0 =>
        {
            objections.push(format!(
                "{kubelet} is more than {OLDEST_SKEW} minor versions older than the API server ({server})"
            ));
        }
        _ => {}
    }
    if !stamp.suits(about.state_format, about.oldest_readable_state) {
        objections.push(format!(
            "{kubelet} (state format {}) cannot go on with the state of agent {} (format {})",
            about.state_format, stamp.agent, stamp.format
        ));
    }
    objections
}

/// `v1.36.3-keelson.0.1.0` is (1, 36).
fn minor(version: &str) -> Option<(u64, u64)> {
    let mut parts = version.strip_prefix('v')?.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.trim_end_matches('+').parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(version: &str) -> About {
        About { version: version.to_owned(), state_format: 1, oldest_readable_state: 0 }
    }

    fn stamp(format: u32, oldest_reader: u32) -> Stamp {
        Stamp { format, oldest_reader, agent: "v1.36.0".into() }
    }

    #[test]
    fn skew_is_kubernetes() {
        let fits = |kubelet: &str, server: &str| judge(&about(kubelet), Some(server), &stamp(1, 0)).is_empty();
        for (kubelet, server, expected) in [
            ("v1.36.3-keelson.0.1.0", "v1.36.0", true),
            ("v1.36.0", "v1.36.9", true),
            ("v1.33.0", "v1.36.0", true),
            ("v1.32.9", "v1.36.0", false),
            ("v1.37.0", "v1.36.0", false),
            ("v1.36.0", "v1.37.2+build", true),
            ("v0.36.0", "v1.36.0", false),
            ("1.36", "v1.36.0", false),
            ("v1.36.0", "?", false),
        ] {
            assert_eq!(fits(kubelet, server), expected, "{kubelet} beside {server}");
        }
        assert_eq!(judge(&about("v1.36.0"), None, &stamp(1, 0)).len(), 1);
    }

    #[test]
    fn state_must_be_readable_both_ways() {
        let fits = |format, oldest_readable, stamp| {
            let about = About { state_format: format, oldest_readable_state: oldest_readable, ..about("v1.36.0") };
            judge(&about, Some("v1.36.0"), &stamp).is_empty()
        };
        assert!(fits(2, 1, stamp(1, 0)) && fits(0, 0, stamp(1, 0)) && fits(1, 0, stamp(2, 1)));
        assert!(!fits(0, 0, stamp(2, 1)), "a downgrade by two");
        assert!(!fits(3, 2, stamp(1, 0)), "an upgrade past what it reads");
    }
}
