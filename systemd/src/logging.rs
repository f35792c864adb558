//! Logs of a program: to the journal with their fields where standard error is connected to it, and else to standard error as text.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::journal::{Journal, JournalLayer};

/// For the rest of the process. Text has the module of each line only where `with_target` says so; entries of the journal always have it.
pub fn install(identifier: &str, filter: EnvFilter, with_target: bool) {
    if let Some(journal) = Journal::of_this_process() {
        tracing_subscriber::registry().with(filter).with(JournalLayer::new(journal, identifier)).init();
        return;
    }
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .with_target(with_target)
        .init();
}
