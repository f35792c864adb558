//! Keelson's CNI plugins in one binary: `bridge`, `host-local`, `loopback`, `portmap`.
//!
//! Which one is called is said by the binary's name (they are hard links, which the agent makes) or by the first argument. The
//! protocol is that of the CNI specification 1.1: environment and standard input in, JSON on standard output out.

mod bridge;
mod delegate;
mod error;
mod host_local;
mod loopback;
mod portmap;
mod request;
mod rules;
mod types;

use std::io::{Read, Write};
use std::path::Path;
use std::process::ExitCode;

use serde_json::{Value, json};

use bridge::unlink;
use error::{Code, Error, Result};
use request::{Environment, Request};
use types::VERSIONS;

/// The plugins' standard names.
pub const PLUGINS: [&str; 4] = ["bridge", "host-local", "loopback", "portmap"];

fn main() -> ExitCode {
    let mut arguments = std::env::args();
    let called = arguments.next().unwrap_or_default();
    let called = Path::new(&called).file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
    let name = if PLUGINS.contains(&called.as_str()) { Some(called) } else { arguments.next() };
    match name.as_deref() {
        Some(unlink::COMMAND) => run_unlink(arguments.next().as_deref()),
        Some(name) => run_plugin(name),
        None => usage(),
    }
}

fn usage() -> ExitCode {
    eprintln!("usage: cni-plugins ({}), with the request as the CNI specification has it", PLUGINS.join("|"));
    ExitCode::from(2)
}

/// Nobody reads what it says: the process that started it finds out why by itself.
fn run_unlink(link: Option<&str>) -> ExitCode {
    let Some(link) = link else { return usage() };
    let done = runtime().and_then(|runtime| runtime.block_on(unlink::run(link)));
    if done.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs one call of the plugin `name` and prints what came of it.
fn run_plugin(name: &str) -> ExitCode {
    let environment = Environment::of_process();
    if environment.0.is_empty() {
        eprintln!("CNI {name} plugin of Keelson; CNI protocol versions supported: {}", VERSIONS.join(", "));
        return ExitCode::SUCCESS;
    }
    let mut version = VERSIONS.last().copied().unwrap_or_default().to_owned();
    let outcome = call(name, environment, &mut version);
    let (output, code) = match outcome {
        Ok(output) => (output, ExitCode::SUCCESS),
        Err(error) => (error.to_json(&version), ExitCode::FAILURE),
    };
    // Nobody is left to tell when standard output is closed.
    let _ = std::io::stdout().write_all(output.as_bytes());
    code
}

/// The call's output. `version` becomes the configuration's as soon as that is known, for errors to be of.
fn call(name: &str, environment: Environment, version: &mut String) -> Result<String> {
    if !PLUGINS.contains(&name) {
        let known = PLUGINS.join(", ");
        return Err(Error::config("type", format!("unknown plugin {name:?}, there are {known}")));
    }
    let mut input = String::new();
    std::io::stdin()
        .read_to_string(&mut input)
        .map_err(|e| Error::because(Code::Io, "error reading from stdin", &e))?;
    let config: Value = serde_json::from_str(&input)
        .map_err(|e| Error::because(Code::Decode, "network configuration is not JSON", &e))?;
    if let Some(named) = config.get("cniVersion").and_then(Value::as_str) {
        named.clone_into(version);
    }
    if environment.get("CNI_COMMAND") == Some("VERSION") {
        return Ok(json!({ "cniVersion": version, "supportedVersions": VERSIONS }).to_string());
    }
    let request = Request::read(environment, config)?;
    match run(name, &request)? {
        Some(result) => result.into_json(request.version),
        None => Ok(String::new()),
    }
}

fn run(name: &str, request: &Request) -> Result<Option<types::Success>> {
    if name == "host-local" {
        return host_local::run(request);
    }
    runtime()?.block_on(async {
        match name {
            "bridge" => bridge::run(request).await,
            "portmap" => portmap::run(request).await,
            _ => loopback::run(request).await,
        }
    })
}

/// One thread is enough, and the cheapest to start.
fn runtime() -> Result<tokio::runtime::Runtime> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|e| Error::because(Code::Io, "start runtime", &e))
}
