//! Calling the IPAM plugin: host-local in this process, any other one as a process.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde::Deserialize;
use serde_json::Value;

use crate::error::{Code, Error, Result};
use crate::host_local;
use crate::request::{self, Request};
use crate::types::{Success, decode};

/// The IPAM plugin of a configuration; `None` when it wants no addresses.
pub fn ipam_type(request: &Request) -> Result<Option<&str>> {
    match request.config.pointer("/ipam/type") {
        None => Ok(None),
        Some(Value::String(name)) if name.is_empty() => Ok(None),
        // The name becomes part of a path.
        Some(Value::String(name)) if !name.contains('/') && name != ".." => Ok(Some(name)),
        Some(other) => Err(Error::config("ipam.type", format!("{other} is not a plugin's name"))),
    }
}

/// Runs the request's command with the IPAM plugin `plugin`. Only ADD has a result.
pub fn ipam(request: &Request, plugin: &str) -> Result<Option<Success>> {
    if plugin == "host-local" {
        return host_local::run(request);
    }
    let path = find(request, plugin)?;
    let output = execute(request, &path)?;
    if request.command != request::Command::Add {
        return Ok(None);
    }
    decode(&output, "result of ipam plugin: ").map(Some)
}

fn find(request: &Request, plugin: &str) -> Result<PathBuf> {
    let folders = request.environment.get("CNI_PATH").unwrap_or_default();
    let is_executable = |path: &PathBuf| {
        path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
    };
    std::env::split_paths(folders)
        .map(|folder| folder.join(plugin))
        .find(is_executable)
        .ok_or_else(|| Error::config("ipam.type", format!("failed to find plugin {plugin:?} in path [{folders}]")))
}

fn execute(request: &Request, path: &PathBuf) -> Result<Value> {
    let fail = |e: std::io::Error| Error::io("run ipam plugin", path, &e);
    let mut child = Command::new(path)
        .envs(&request.environment.0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .map_err(fail)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A plugin that does not read its input (DEL of some) closes it: what counts is how it ends.
        let _ = stdin.write_all(request.config.to_string().as_bytes());
    }
    let output = child.wait_with_output().map_err(fail)?;
    if output.status.success() {
        return Ok(serde_json::from_slice(&output.stdout).unwrap_or(Value::Null));
    }
    Err(plugin_error(path, &output))
}

/// The error that the plugin printed, passed on.
fn plugin_error(path: &std::path::Path, output: &std::process::Output) -> Error {
    #[derive(Deserialize)]
    struct Json {
        msg: String,
        #[serde(default)]
        details: String,
    }
    match serde_json::from_slice::<Json>(&output.stdout) {
        Ok(json) => Error { details: json.details, ..Error::new(Code::Network, json.msg) },
        Err(_) => Error::new(Code::Network, format!("ipam plugin {} failed: {}", path.display(), output.status)),
    }
}
