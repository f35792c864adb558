//! What the labels of a namespace ask for.

use std::fmt;

use serde_json::Value;

const PREFIX: &str = "pod-security.kubernetes.io/";

/// How much is forbidden, from nothing to most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Privileged,
    Baseline,
    Restricted,
}

impl Level {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "privileged" => Level::Privileged,
            "baseline" => Level::Baseline,
            "restricted" => Level::Restricted,
            _ => return None,
        })
    }
}

/// The Kubernetes release whose checks are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// `v1.` and this.
    Minor(u32),
    Latest,
}

impl Version {
    fn parse(text: &str) -> Option<Self> {
        if text == "latest" {
            return Some(Version::Latest);
        }
        let digits = text.strip_prefix("v1.")?;
        let is_plain = digits == "0" || !digits.starts_with('0');
        let number = digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())??;
        is_plain.then_some(Version::Minor(number))
    }
}

/// One level of one release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    pub level: Level,
    pub version: Version,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        };
        match self.version {
            Version::Minor(minor) => write!(f, "{level}:v1.{minor}"),
            Version::Latest => write!(f, "{level}:latest"),
        }
    }
}

/// What pods must keep, and what only their makers are told of. Audit annotations need an audit log, which there is none of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    pub enforce: Rule,
    pub warn: Rule,
}

/// A field and what is wrong with it.
pub type Error = (String, String);

impl Policy {
    /// The policy of a namespace, and the labels that cannot be read: what they should have enforced is `restricted`, and what
    /// they should have told of is nothing.
    pub fn of(namespace: &Value) -> (Self, Vec<Error>) {
        let mut errors = Vec::new();
        let said = |name: &str| namespace["metadata"]["labels"][format!("{PREFIX}{name}")].as_str();
        let level = |mode: &str, wrong: Level, errors: &mut Vec<Error>| {
            let text = said(mode)?;
            let level = Level::parse(text);
            if level.is_none() {
                errors.push(error(mode, text, "must be one of privileged, baseline, restricted"));
            }
            Some((level.unwrap_or(wrong), level.is_some()))
        };
        let version = |mode: &str, errors: &mut Vec<Error>| {
            let name = format!("{mode}-version");
            let text = said(&name)?;
            let version = Version::parse(text);
            if version.is_none() {
                errors.push(error(&name, text, "must be \"latest\" or \"v1.x\""));
            }
            Some(version.unwrap_or(Version::Latest))
        };
        let enforce = level("enforce", Level::Restricted, &mut errors);
        let enforce_version = version("enforce", &mut errors);
        let _ = (level("audit", Level::Privileged, &mut errors), version("audit", &mut errors));
        let warn = level("warn", Level::Privileged, &mut errors);
        let warn_version = version("warn", &mut errors);
        let rule = |level: Option<(Level, bool)>, version: Option<Version>| Rule {
            level: level.map_or(Level::Privileged, |(level, _)| level),
            version: version.unwrap_or(Version::Latest),
        };
        let mut policy = Policy { enforce: rule(enforce, enforce_version), warn: rule(warn, warn_version) };
        // What is enforced of pods is told of what makes them, too.
        if warn.is_none() && enforce.is_some_and(|(level, valid)| valid && level > Level::Privileged) {
            policy.warn.level = policy.enforce.level;
            policy.warn.version = warn_version.unwrap_or(policy.enforce.version);
        }
        (policy, errors)
    }
}

fn error(label: &str, value: &str, why: &str) -> Error {
    (format!("metadata.labels[{PREFIX}{label}]"), format!("Invalid value: {value:?}: {why}"))
}
