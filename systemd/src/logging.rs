//! Logs of a program: to the journal with their fields where standard error is connected to it, and else to standard error as text.

use std::io::IsTerminal as _;

use tracing_subscriber::filter::{ParseError, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::journal::{Journal, JournalLayer};

/// For the rest of the process; the first call counts. What is shown is said by an environment variable, as `info,hyper=warn`, and
/// else by `default`. Text has the module of each line only where `with_target` says so; entries of the journal always have it.
pub fn install(identifier: &str, variable: &str, default: &str, with_target: bool) {
    let (levels, wrong) = levels(std::env::var(variable).ok().as_deref(), default);
    let installed = match Journal::of_this_process() {
        Some(journal) => {
            tracing_subscriber::registry().with(JournalLayer::new(journal, identifier)).with(levels).try_init()
        }
        None => {
            let text = tracing_subscriber::fmt::layer()
                .with_ansi(std::io::stderr().is_terminal())
                .with_writer(std::io::stderr)
                .with_target(with_target);
            tracing_subscriber::registry().with(text).with(levels).try_init()
        }
    };
    if let (Ok(()), Some(error)) = (installed, wrong) {
        tracing::warn!(%error, variable, default, "levels are not understood, the default holds");
    }
}

/// What is shown, and what is wrong with what was asked for.
fn levels(asked: Option<&str>, default: &str) -> (Targets, Option<ParseError>) {
    let default = || default.parse().unwrap_or_default();
    // `Targets` takes nothing between two commas for `error`, and blanks for a part of a target's name.
    let parts = asked.unwrap_or_default().split(',').map(str::trim).filter(|part| !part.is_empty());
    match parts.collect::<Vec<_>>().join(",").as_str() {
        "" => (default(), None),
        asked => asked.parse().map_or_else(|error| (default(), Some(error)), |levels| (levels, None)),
    }
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn a_variable_says_what_is_shown_and_nonsense_is_told() {
        for asked in ["warn,agent::pods=debug", "warn, agent::pods=debug,"] {
            let (levels, wrong) = levels(Some(asked), "info");
            assert!(wrong.is_none() && levels.would_enable("agent::pods::worker", &Level::DEBUG), "{asked:?}");
            assert!(levels.would_enable("agent::node", &Level::WARN), "{asked:?}");
            assert!(!levels.would_enable("agent::node", &Level::INFO), "{asked:?}");
        }
        for (asked, is_wrong) in [(None, false), (Some(""), false), (Some("agent=loud"), true)] {
            let (levels, wrong) = levels(asked, "info,hyper=warn");
            assert_eq!(wrong.is_some(), is_wrong, "{asked:?}");
            assert!(levels.would_enable("agent", &Level::INFO) && !levels.would_enable("hyper", &Level::INFO));
        }
    }
}
