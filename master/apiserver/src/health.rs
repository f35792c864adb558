//! `/livez`, `/readyz`, `/healthz` with their single checks, and `/metrics`.

use std::fmt::Write as _;

use http::request::Parts;
use http::{Response, StatusCode};

use crate::body::{self, Body};
use crate::request::Query;
use crate::server::Core;

/// Says why the server is not well.
type Check = fn(&Core) -> Result<(), &'static str>;

/// What is looked at.
const CHECKS: &[(&str, Check)] = &[
    ("ping", |_| Ok(())),
    ("store", |core| if core.store.is_open() { Ok(()) } else { Err("the committer has ended") }),
];

/// Answers health and metrics; `None` for other paths.
pub(crate) fn answer(core: &Core, head: &Parts) -> Option<Response<Body>> {
    let path = head.uri.path().trim_matches('/');
    let (root, check) = path.split_once('/').unwrap_or((path, ""));
    match root {
        "livez" | "readyz" | "healthz" => health(core, root, check, &Query::parse(head.uri.query())),
        "metrics" if check.is_empty() => Some(body::respond(StatusCode::OK, body::TEXT, metrics(core))),
        _ => None,
    }
}

fn health(core: &Core, root: &str, only: &str, query: &Query) -> Option<Response<Body>> {
    if !only.is_empty() {
        let (_, check) = CHECKS.iter().find(|(name, _)| *name == only)?;
        return Some(match check(core) {
            Ok(()) => body::respond(StatusCode::OK, body::TEXT, "ok"),
            Err(why) => {
                body::respond(StatusCode::INTERNAL_SERVER_ERROR, body::TEXT, format!("internal server error: {why}\n"))
            }
        });
    }
    let excluded: Vec<&str> = query.pairs().filter(|(name, _)| *name == "exclude").map(|(_, value)| value).collect();
    let (mut report, mut healthy) = (String::new(), true);
    for (name, check) in CHECKS {
        // Writing to a String cannot fail.
        let _ = match check(core) {
            _ if excluded.contains(name) => writeln!(report, "[+]{name} excluded: ok"),
            Ok(()) => writeln!(report, "[+]{name} ok"),
            Err(_) => {
                healthy = false;
                writeln!(report, "[-]{name} failed: reason withheld")
            }
        };
    }
    Some(match (healthy, query.has("verbose")) {
        (true, false) => body::respond(StatusCode::OK, body::TEXT, "ok"),
        (true, true) => body::respond(StatusCode::OK, body::TEXT, format!("{report}{root} check passed\n")),
        (false, _) => {
            body::respond(StatusCode::INTERNAL_SERVER_ERROR, body::TEXT, format!("{report}{root} check failed\n"))
        }
    })
}

/// What can be counted without counting it on every request.
fn metrics(core: &Core) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "# HELP apiserver_current_resource_version Revision up to which everything is visible.");
    let _ = writeln!(text, "# TYPE apiserver_current_resource_version gauge");
    let _ = writeln!(text, "apiserver_current_resource_version {}", core.store.revision());
    let _ = writeln!(text, "# HELP apiserver_storage_objects Number of stored objects by resource.");
    let _ = writeln!(text, "# TYPE apiserver_storage_objects gauge");
    for (resource, count) in core.store.counts() {
        let _ = writeln!(text, "apiserver_storage_objects{{resource=\"{resource}\"}} {count}");
    }
    text
}
