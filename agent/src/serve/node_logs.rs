//! `/logs/`: the files of `/var/log`, and queries for logs of services (KEP-2258), from the journal or from files.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Response, StatusCode, header};
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2, readlinkat};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;
use tokio::sync::mpsc;

use super::container_logs::stream;
use super::query::Query;
use super::routes::{Body, Failure, text, typed};

const FOLDER: &str = "/var/log";
/// How long a query may take.
const DEADLINE: Duration = Duration::from_secs(30);
const CHUNK: usize = 32 * 1024;
/// As many as the kernel follows.
const MAX_LINKS: usize = 40;
const MAX_SERVICES: usize = 4;
const MAX_SERVICE_NAME: usize = 256;
const MAX_TAIL: u64 = 100_000;

/// A file of the log folder, or what a folder there holds.
pub(super) async fn file(parts: &[&str], slash: bool) -> Result<Response<Body>, Failure> {
    let decoded: Vec<String> = parts.iter().map(|part| super::query::decode_path(part)).collect();
    let path = decoded.join("/");
    let missing = || Failure::not_found("404 page not found\n".into());
    let opened = tokio::task::spawn_blocking(move || open(Path::new(FOLDER), &path)).await;
    let file = opened.ok().and_then(Result::ok).ok_or_else(missing)?;
    let meta = file.metadata().map_err(|_| missing())?;
    if !meta.is_dir() {
        return Ok(stream(copy(tokio::fs::File::from_std(file))));
    }
    if !slash {
        // Links in the listing are relative to the folder, as Go's file server has them.
        let name = decoded.last().map_or("logs", String::as_str);
        let mut response = text(StatusCode::MOVED_PERMANENTLY, "");
        let location = header::HeaderValue::from_str(&format!("{name}/")).map_err(|_| missing())?;
        response.headers_mut().insert(header::LOCATION, location);
        return Ok(response);
    }
    let listing = tokio::task::spawn_blocking(move || list(&file.into())).await;
    let listing = listing.ok().and_then(Result::ok).ok_or_else(missing)?;
    Ok(typed(StatusCode::OK, "text/html; charset=utf-8", Bytes::from(listing)))
}

/// Opens a file below a folder; no link leads out of it. Links that begin at the machine's root, as those of containers' logs do, are
/// followed where they lead into it.
fn open(folder: &Path, path: &str) -> std::io::Result<std::fs::File> {
    let root: OwnedFd = std::fs::File::open(folder)?.into();
    let below = |path: &Path, flags: OFlag| {
        let resolve = ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS;
        openat2(&root, path, OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(resolve))
    };
    let mut path = PathBuf::from(if path.is_empty() { "." } else { path });
    for _ in 0..MAX_LINKS {
        match below(&path, OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY) {
            Err(Errno::ENOENT) => {}
            opened => return Ok(opened?.into()),
        }
        let link = below(&path, OFlag::O_PATH | OFlag::O_NOFOLLOW)?;
        let target = PathBuf::from(readlinkat(&link, "")?);
        path = target.strip_prefix(folder).map_err(|_| Errno::ENOENT)?.to_owned();
    }
    Err(Errno::ELOOP.into())
}

/// What Go's file server shows of a folder.
fn list(folder: &OwnedFd) -> std::io::Result<String> {
    use std::os::fd::AsRawFd;
    let mut names = Vec::new();
    for entry in std::fs::read_dir(format!("/proc/self/fd/{}", folder.as_raw_fd()))? {
        let entry = entry?;
        let slash = if entry.file_type()?.is_dir() { "/" } else { "" };
        names.push(format!("{}{slash}", entry.file_name().to_string_lossy()));
    }
    names.sort();
    let lines: String = names.iter().map(|name| format!("<a href=\"{}\">{}</a>\n", link(name), escape(name))).collect();
    Ok(format!("<!doctype html>\n<meta name=\"viewport\" content=\"width=device-width\">\n<pre>\n{lines}</pre>\n"))
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&#34;").replace('\'', "&#39;")
}

fn link(name: &str) -> String {
    let mut out = String::new();
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' | b'@' | b'+' | b'=' => {
                out.push(char::from(byte));
            }
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

fn copy(mut from: impl AsyncRead + Unpin + Send + 'static) -> mpsc::Receiver<Bytes> {
    let (sink, chunks) = mpsc::channel(2);
    tokio::spawn(async move { pump(&mut from, &sink).await });
    chunks
}

async fn pump(from: &mut (impl AsyncRead + Unpin), sink: &mpsc::Sender<Bytes>) {
    let mut buffer = BytesMut::with_capacity(CHUNK);
    while from.read_buf(&mut buffer).await.is_ok_and(|count| count > 0) {
        if sink.send(buffer.split().freeze()).await.is_err() {
            return;
        }
        buffer.reserve(CHUNK);
    }
}

/// Whether a request is a query, and not for a file.
pub(super) fn is_query(query: &Query) -> bool {
    ["query", "sinceTime", "untilTime", "tailLines", "pattern", "boot"].iter().any(|key| query.has(key))
}

/// What is asked for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Ask {
    services: Vec<String>,
    files: Vec<String>,
    since: Option<jiff::Timestamp>,
    until: Option<jiff::Timestamp>,
    tail: Option<u64>,
    boot: Option<i64>,
    pattern: Option<String>,
}

/// Answers a query.
pub(super) async fn query(query: &Query) -> Result<Response<Body>, Failure> {
    let ask = ask(query).map_err(|message| Failure::bad_request(format!("{message}\n")))?;
    if let [path] = ask.files.as_slice() {
        let path = path.trim_start_matches('/').to_owned();
        let opened = tokio::task::spawn_blocking(move || open(Path::new(FOLDER), &path)).await;
        let file = opened.ok().and_then(Result::ok);
        let file = file.ok_or_else(|| Failure::bad_request("query: no such file\n".into()))?;
        return Ok(stream(copy(tokio::fs::File::from_std(file))));
    }
    let (sink, chunks) = mpsc::channel(2);
    // When the deadline passes, or nobody listens any more, the journal reader is killed with its handle.
    tokio::spawn(async move { tokio::time::timeout(DEADLINE, of_services(&ask, &sink)).await });
    Ok(stream(chunks))
}

/// Reads and checks a query, in upstream's words.
fn ask(query: &Query) -> Result<Ask, String> {
    let mut ask = Ask::default();
    for text in query.all("query").into_iter().filter(|text| !text.trim().is_empty()) {
        if text.contains(['/', '\\']) { ask.files.push(text) } else { ask.services.push(text) }
    }
    let time = |key: &str| match query.get(key) {
        None => Ok(None),
        Some(text) => {
            let parsed = text.parse::<jiff::Timestamp>();
            parsed.map(Some).map_err(|_| format!("{key}: Invalid value: {text:?}: invalid time format"))
        }
    };
    (ask.since, ask.until) = (time("sinceTime")?, time("untilTime")?);
    let number = |key: &str| match query.get(key) {
        None => Ok(None),
        Some(text) => text.parse::<i64>().map(Some).map_err(|error| format!("{key}: Invalid value: {text:?}: {error}")),
    };
    ask.boot = number("boot")?;
    if let Some(tail) = number("tailLines")? {
        let bad = || format!("tailLines: Invalid value: {tail}: must be between 0 and {MAX_TAIL}, inclusive");
        ask.tail = Some(u64::try_from(tail).ok().filter(|tail| *tail <= MAX_TAIL).ok_or_else(bad)?);
    }
    ask.pattern = query.get("pattern").map(str::to_owned);
    check(ask)
}

fn check(ask: Ask) -> Result<Ask, String> {
    let has_options =
        ask.since.is_some() || ask.until.is_some() || ask.tail.is_some() || ask.boot.is_some() || ask.pattern.is_some();
    let problem = if ask.files.is_empty() && ask.services.is_empty() {
        Some("query: Required value: cannot be empty with options".to_owned())
    } else if !ask.files.is_empty() && !ask.services.is_empty() {
        Some("query: Invalid value: cannot specify a file and service".to_owned())
    } else if ask.files.len() > 1 {
        Some("query: Invalid value: cannot specify more than one file".to_owned())
    } else if !ask.files.is_empty() && has_options {
        Some("query: Invalid value: cannot specify file with options".to_owned())
    } else if ask.services.len() > MAX_SERVICES {
        Some(format!("query: Too many: {}: must have at most {MAX_SERVICES} items", ask.services.len()))
    } else if ask.since.zip(ask.until).is_some_and(|(since, until)| since > until) {
        Some("untilTime: Invalid value: must be after `sinceTime`".to_owned())
    } else if ask.boot.is_some_and(|boot| boot > 0) {
        Some(format!("boot: Invalid value: {}: must be less than 1", ask.boot.unwrap_or_default()))
    } else {
        ask.services.iter().find_map(|service| bad_service(service))
    };
    problem.map_or(Ok(ask), Err)
}

/// Service names become arguments of a command and names of files.
fn bad_service(name: &str) -> Option<String> {
    if name.len() > MAX_SERVICE_NAME {
        return Some(format!("query: Invalid value: {name:?}: length must be less than {MAX_SERVICE_NAME}"));
    }
    let safe = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':' | '@');
    let bad = !name.chars().all(safe) || name.starts_with('-');
    bad.then(|| format!("query: Invalid value: {name:?}: input contains unsupported characters"))
}

async fn of_services(ask: &Ask, sink: &mpsc::Sender<Bytes>) {
    let units = journal_units().await;
    let (native, files): (Vec<_>, Vec<_>) =
        ask.services.iter().partition(|service| units.contains(&format!("{service}.service")));
    if !native.is_empty() {
        journal(ask, &native, sink).await;
    }
    let plain = Ask { services: ask.services.clone(), ..Ask::default() };
    if !files.is_empty() && *ask != plain {
        let names: Vec<&str> = files.iter().map(|name| name.as_str()).collect();
        let text = format!(
            "\noptions present and query resolved to log files for [{}]\ntry without specifying options\n",
            names.join(" ")
        );
        // Nobody listens any more: nothing is left to do.
        let _ = sink.send(Bytes::from(text)).await;
        return;
    }
    for service in files {
        of_file(service, sink).await;
    }
}

/// The units that the journal knows; empty where there is no journal.
async fn journal_units() -> String {
    let asked = Command::new("journalctl").args(["--field", "_SYSTEMD_UNIT"]).kill_on_drop(true).output().await;
    asked.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
}

fn arguments(ask: &Ask, services: &[&String]) -> Vec<String> {
    let time = |time: jiff::Timestamp| time.strftime("%Y-%m-%d %H:%M:%S").to_string();
    let mut arguments: Vec<String> = ["--utc", "--no-pager", "--output=short-precise"].map(str::to_owned).into();
    arguments.extend(ask.since.map(|since| format!("--since={}", time(since))));
    arguments.extend(ask.until.map(|until| format!("--until={}", time(until))));
    if let Some(tail) = ask.tail {
        arguments.extend(["--pager-end".to_owned(), format!("--lines={tail}")]);
    }
    arguments.extend(services.iter().map(|service| format!("--unit={service}")));
    arguments.extend(ask.pattern.as_ref().map(|pattern| format!("--grep={pattern}")));
    if let Some(boot) = ask.boot {
        arguments.extend(["--boot".to_owned(), boot.to_string()]);
    }
    arguments
}

async fn journal(ask: &Ask, services: &[&String], sink: &mpsc::Sender<Bytes>) {
    let mut command = Command::new("journalctl");
    command.args(arguments(ask, services)).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let Ok(mut child) = command.kill_on_drop(true).spawn() else {
        let _ = sink.send(Bytes::from_static(b"\nerror: journal output not available\n")).await;
        return;
    };
    if let Some(mut output) = child.stdout.take() {
        pump(&mut output, sink).await;
    }
}

/// `/var/log/<service>`, `<service>.log` or `<service>/<service>.log`, whichever comes first.
async fn of_file(service: &str, sink: &mpsc::Sender<Bytes>) {
    for name in [service.to_owned(), format!("{service}.log"), format!("{service}/{service}.log")] {
        let opened = tokio::task::spawn_blocking(move || open(Path::new(FOLDER), &name)).await;
        let Some(file) = opened.ok().and_then(Result::ok) else { continue };
        if file.metadata().is_ok_and(|meta| !meta.is_dir()) {
            return pump(&mut tokio::fs::File::from_std(file), sink).await;
        }
    }
    let _ = sink.send(Bytes::from(format!("\nlog not found for {service}\n"))).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_opened_within_their_folder_only() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("sub")).unwrap();
        std::fs::write(folder.path().join("sub/a.log"), "text").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", folder.path().join("out")).unwrap();
        assert!(open(folder.path(), "sub/a.log").is_ok());
        let link = |target: PathBuf, name: &str| std::os::unix::fs::symlink(target, folder.path().join(name)).unwrap();
        link(folder.path().join("sub/a.log"), "of-container");
        link(folder.path().join("of-container"), "of-link");
        for path in ["of-container", "of-link"] {
            assert_eq!(std::io::read_to_string(open(folder.path(), path).unwrap()).unwrap(), "text", "{path}");
        }
        link(folder.path().join("../../../../../../etc/passwd"), "up");
        link(folder.path().join("round"), "round");
        for path in ["out", "../../etc/passwd", "missing", "up", "round"] {
            assert!(open(folder.path(), path).is_err(), "{path}");
        }
        let listing = list(&open(folder.path(), "").unwrap().into()).unwrap();
        assert!(listing.contains("<a href=\"sub/\">sub/</a>\n"), "{listing}");
    }

    #[test]
    fn queries_are_checked_in_upstreams_words() {
        let parse = |text: &str| ask(&Query::parse(text));
        let good = parse("query=kubelet&tailLines=5&sinceTime=2026-01-01T00:00:00Z&boot=-1&pattern=x").unwrap();
        assert_eq!(
            (good.services.as_slice(), good.tail, good.boot),
            (["kubelet".to_owned()].as_slice(), Some(5), Some(-1))
        );
        let service = "kubelet".to_owned();
        let arguments = arguments(&good, &[&service]);
        assert!(arguments.contains(&"--since=2026-01-01 00:00:00".to_owned()), "{arguments:?}");
        assert!(arguments.contains(&"--unit=kubelet".to_owned()) && arguments.contains(&"--grep=x".to_owned()));
        for (text, problem) in [
            ("tailLines=5", "cannot be empty with options"),
            ("query=/a.log&query=b", "cannot specify a file and service"),
            ("query=/a&query=/b", "more than one file"),
            ("query=/a&boot=0", "file with options"),
            ("query=a&boot=1", "must be less than 1"),
            ("query=a;b", "unsupported characters"),
            ("query=--help", "unsupported characters"),
            ("query=a&tailLines=100001", "must be between 0 and 100000"),
            ("query=a&sinceTime=x", "invalid time format"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(problem), "{text}: {error}");
        }
    }
}
