//! Logs of a program: to the journal with their fields where standard error is connected to it, and else to standard error as text.

use std::io::IsTerminal as _;

use tracing_subscriber::filter::{ParseError, Targets};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::journal::{Journal, JournalLayer};

/// For the rest of the process; the first call counts. What is shown is said by an environment variable, as `info,hyper=warn`, and else by `default`. Text has
/// the module of each line only where `with_target` says so; entries of the journal always have it.
pub fn install(identifier: &str, variable: &str, default: &str, with_target: bool) {
    let (shown, wrong) = shown(std::env::var(variable).ok().as_deref(), default);
    let installed = match Journal::of_this_process() {
        Some(journal) => {
            tracing_subscriber::registry().with(JournalLayer::new(journal, identifier)).with(shown).try_init()
        }
        None => {
            let text = tracing_subscriber::fmt::layer()
                .with_ansi(std::io::stderr().is_terminal())
                .with_writer(std::io::stderr)
                .with_target(with_target);
            tracing_subscriber::registry().with(text).with(shown).try_init()
        }
    };
    if let (Ok(()), Some(error)) = (installed, wrong) {
        tracing::warn!(%error, "{variable} is not understood, {default:?} holds");
    }
}

/// What is shown, and what is wrong with what was asked for.
fn shown(asked: Option<&str>, default: &str) -> (Targets, Option<ParseError>) {
    let default = || default.parse().unwrap_or_default();
    match asked.filter(|asked| !asked.is_empty()).map(str::parse) {
        Some(Ok(shown)) => (shown, None),
        Some(Err(error)) => (default(), Some(error)),
        None => (default(), None),
    }
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn a_variable_says_what_is_levelsand_nonsense_is_told() {
        let (levels, wrong) = shown(Some("warn,agent::pods=debug"), "info");
        assert!(wrong.is_none() && levels.would_enable("agent::pods::worker", &Level::DEBUG));
        assert!(!levels.would_enable("agent::node", &Level::INFO));
        for (asked, is_wrong) in [(None, false), (Some(""), false), (Some("agent=loud"), true)] {
            let (levels, wrong) = shown(asked, "info,hyper=warn");
            assert_eq!(wrong.is_some(), is_wrong, "{asked:?}");
            assert!(levels.would_enable("agent", &Level::INFO) && !levels.would_enable("hyper", &Level::INFO));
        }
    }
}
