//! Whom managed fields name as the writer of a request.

use http::header::USER_AGENT;
use jiff::Timestamp;
use schema::Manager;

use crate::problem::Result;
use crate::request::LONGEST_MANAGER;
use crate::road::Call;

/// The `fieldManager` of a request, or what its User-Agent begins with; `options` is the kind of options that a refusal
/// names.
pub(crate) fn manager(call: &Call, options: &str) -> Result<Manager> {
    let named = call.query.field_manager(options)?;
    let agent = call.head.headers.get(USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let name = if named.is_empty() { prefix(agent) } else { named.to_owned() };
    Ok(Manager { name, subresource: call.path.subresource.clone(), now: Timestamp::now() })
}

/// `handlers.prefixFromUserAgent`
fn prefix(agent: &str) -> String {
    let mut out = String::new();
    for c in agent.split('/').next().unwrap_or_default().chars().filter(|c| !c.is_control()) {
        if out.len() + c.len_utf8() > LONGEST_MANAGER {
            break;
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::prefix;

    #[test]
    fn user_agents_are_cut_at_the_slash_and_at_128_bytes() {
        assert_eq!(prefix("kubectl/v1.36.0 (linux/amd64)"), "kubectl");
        assert_eq!(prefix("a\tb"), "ab");
        assert_eq!(prefix(&"x".repeat(200)).len(), 128);
        assert_eq!(prefix(""), "");
    }
}
