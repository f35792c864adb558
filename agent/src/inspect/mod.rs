//! `agent pods`, `agent explain`, `agent top`, `agent status`: what a person on the machine asks, without an API server.
//!
//! ```text
//! agent explain POD -> ask -- unix socket of root's --> socket -> views, pods::questions, pods::journal
//!                      text <-------- JSON ------------------+
//! ```
//!
//! [`views`] and [`text`] are pure. A question costs the running agent one pass of one worker, and nothing is counted or
//! kept for these commands but the journal of decisions.

pub mod ask;
pub mod socket;
mod status;
pub mod text;
pub mod views;

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::config::Config;
use crate::doctor::Output;
use views::{Explained, PodView, Top};

pub use status::status;

/// Command line of `agent pods`, `agent top` and `agent status`.
#[derive(Debug, Clone, Args)]
pub struct InspectOptions {
    /// Folder of configuration and keys
    #[arg(long, default_value = "/etc/keelson")]
    pub config_dir: PathBuf,
    /// How the answer is printed
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
}

/// Command line of `agent explain`.
#[derive(Debug, Clone, Args)]
pub struct ExplainOptions {
    /// The pod: NAME or NAMESPACE/NAME
    pub pod: String,
    /// Its namespace
    #[arg(short, long, default_value = "default")]
    pub namespace: String,
    #[command(flatten)]
    pub inspect: InspectOptions,
}

/// Prints the pods and containers of this node.
///
/// # Errors
/// No agent answers.
pub async fn pods(options: &InspectOptions) -> anyhow::Result<()> {
    show(options, "/pods", |pods: &Vec<PodView>| text::pods(pods, jiff::Timestamp::now())).await
}

/// Prints what pods and containers use, against what they asked for.
///
/// # Errors
/// No agent answers.
pub async fn top(options: &InspectOptions) -> anyhow::Result<()> {
    show(options, "/top", |top: &Top| text::top(top)).await
}

/// Prints what the agent wants next for a pod, and what it decided before, with the reasons.
///
/// # Errors
/// No agent answers, or it knows no such pod.
pub async fn explain(options: &ExplainOptions) -> anyhow::Result<()> {
    let (namespace, name) = options.pod.split_once('/').unwrap_or((&options.namespace, &options.pod));
    show(&options.inspect, &format!("/explain/{namespace}/{name}"), |explained: &Explained| text::explained(explained))
        .await
}

async fn show<T: Serialize + DeserializeOwned>(
    options: &InspectOptions,
    path: &str,
    text: impl FnOnce(&T) -> String,
) -> anyhow::Result<()> {
    let (config, _) = Config::load_or_say(&options.config_dir)?;
    let answer: T = ask::ask(&config.layout.agent_socket(), path).await?;
    match options.output {
        Output::Text => manual::output::text(text(&answer)),
        Output::Json => manual::output::line(serde_json::to_string_pretty(&answer)?),
    }
    Ok(())
}
