//! Takes secrets out of texts. Pure. Nothing that is gathered is meant to have any; this is for what somebody has written where it does not
//! belong, such as a token in a log line.

/// What stands in a secret's place.
const GONE: &str = "[removed]";
/// What a name ends with whose value is a secret. Names of objects that hold some (`secretName`) tell nothing.
const SECRET_NAMES: [&str; 11] = [
    "password",
    "passwd",
    "token",
    "secret",
    "authorization",
    "auth",
    "apikey",
    "api_key",
    "client-key-data",
    "secretkey",
    // Of KubeletConfiguration: any of the headers may be what its server knows the node by.
    "staticpodurlheader",
];

/// The text without private keys, tokens of Kubernetes' forms, users of URLs, and values of names that say what they are.
#[must_use]
pub fn redact(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut in_key = false;
    // The column of a secret's name whose value goes on below it.
    let mut below: Option<(usize, bool)> = None;
    for line in text.split_inclusive('\n') {
        if line.contains("-----BEGIN") && line.contains("PRIVATE KEY") {
            in_key = true;
            clean.push_str(GONE);
            clean.push('\n');
        }
        if in_key {
            in_key = !(line.contains("-----END") && line.contains("PRIVATE KEY"));
            continue;
        }
        if let Some((column, told)) = &mut below
            && goes_on(line, *column)
        {
            if !std::mem::replace(told, true) {
                clean.push_str(&format!("{:column$}  {GONE}\n", ""));
            }
            continue;
        }
        let (line_clean, is_open) = values(line);
        below = is_open.then(|| (column_of_name(line), false));
        clean.push_str(&words(&users(&line_clean)));
    }
    clean
}

/// Where the name begins that a line of YAML begins with: behind the dashes of lists.
fn column_of_name(line: &str) -> usize {
    line.len() - line.trim_start_matches([' ', '\t', '-']).len()
}

/// Whether a line belongs to the value of a name in that column: it stands deeper, is an item of a list, or closes what was opened.
fn goes_on(line: &str, column: usize) -> bool {
    let text = line.trim_start();
    let indent = line.len() - text.len();
    text.is_empty() || indent > column || (indent == column && text.starts_with(['-', ']', '}']))
}

/// Replaces what follows `name:`, `name=` or `"name":`, up to the end of the line, of the quoted text or of the brackets. Whether the value may
/// go on in the lines below.
fn values(line: &str) -> (String, bool) {
    let mut clean = String::with_capacity(line.len());
    let (mut rest, mut is_open) = (line, false);
    while let Some(at) = rest.find([':', '=']) {
        let (before, after) = rest.split_at(at + 1);
        clean.push_str(before);
        rest = after;
        let name = before.trim_end_matches([':', '=']).trim_end_matches(['"', '\'', ' ']).to_ascii_lowercase();
        if !SECRET_NAMES.iter().any(|secret| name.ends_with(secret)) {
            continue;
        }
        let blanks = rest.len() - rest.trim_start_matches([' ', '\t']).len();
        let (blank, value) = rest.split_at(blanks);
        let (length, goes_on) = value_length(value);
        is_open = goes_on;
        if length > 0 {
            clean.push_str(blank);
            clean.push_str(GONE);
            rest = value.get(length..).unwrap_or_default();
        }
    }
    clean.push_str(rest);
    (clean, is_open)
}

/// How much of what follows a name is its value, and whether that may go on below.
fn value_length(value: &str) -> (usize, bool) {
    let whole = value.trim_end_matches(['\r', '\n']).len();
    match value.chars().next() {
        // A block below, which `|` and `>` announce.
        None | Some('\r' | '\n' | '#' | '|' | '>') => (0, true),
        Some(quote @ ('"' | '\'')) => closing(value, quote).map_or((whole, true), |end| (end, false)),
        Some('[' | '{') => bracketed(value).map_or((whole, true), |end| (end, false)),
        Some(_) => {
            let length = value.trim_end_matches(['\r', '\n', ',', '}']).len();
            // Plain text may be folded; what stands between braces of one line is whole.
            (length, length == whole)
        }
    }
}

/// Where the quoted text ends that `value` begins with.
fn closing(value: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    value.char_indices().skip(1).find_map(|(at, c)| {
        let ends = c == quote && !escaped;
        escaped = c == '\\' && !escaped && quote == '"';
        ends.then(|| at + c.len_utf8())
    })
}

/// Where the list or mapping ends that `value` begins with. Brackets in quoted texts are none.
fn bracketed(value: &str) -> Option<usize> {
    let (mut depth, mut at) = (0_usize, 0);
    while let Some(c) = value.get(at..)?.chars().next() {
        match c {
            '"' | '\'' => at += closing(value.get(at..)?, c)? - c.len_utf8(),
            '[' | '{' => depth += 1,
            ']' | '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        at += c.len_utf8();
        if depth == 0 {
            return Some(at);
        }
    }
    None
}

/// Replaces `user:password@` of URLs.
fn users(text: &str) -> String {
    const SCHEME_END: &str = "://";
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(SCHEME_END) {
        let (before, after) = rest.split_at(at + SCHEME_END.len());
        clean.push_str(before);
        let ends = |c: char| c.is_whitespace() || "/\"'".contains(c);
        let authority = after.split(ends).next().unwrap_or_default();
        rest = match authority.rfind('@') {
            Some(user) if user > 0 => {
                clean.push_str(GONE);
                after.get(user..).unwrap_or_default()
            }
            _ => after,
        };
    }
    clean.push_str(rest);
    clean
}

/// Replaces tokens that stand anywhere.
fn words(text: &str) -> String {
    let is_part = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let word = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        let (word, after) = rest.split_at(word);
        clean.push_str(if is_token(word) { GONE } else { word });
        let between = after.find(is_part).unwrap_or(after.len());
        let (between, after) = after.split_at(between);
        clean.push_str(between);
        rest = after;
    }
    clean
}

/// A signed token (JWT) or a bootstrap token.
fn is_token(word: &str) -> bool {
    let word = word.trim_end_matches('.');
    let parts: Vec<&str> = word.split('.').collect();
    let plain =
        |text: &str, length| text.len() == length && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    match parts.as_slice() {
        [id, secret] => plain(id, 6) && plain(secret, 16),
        [header, payload, _] => header.starts_with("eyJ") && payload.starts_with("eyJ"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_go() {
        for (text, expected) in [
            ("-----BEGIN EC PRIVATE KEY-----\nMHc\n-----END EC PRIVATE KEY-----\nafter\n", "[removed]\nafter\n"),
            (
                "agent join 10.0.0.1:6443 --token abcdef.0123456789abcdef --x\n",
                "agent join 10.0.0.1:6443 --token [removed] --x\n",
            ),
            ("got eyJhbGciOi.eyJpc3MiOi.c2ln-_x, then", "got [removed], then"),
            ("authorization: Bearer abc\nnext: 1\n", "authorization: [removed]\nnext: 1\n"),
            ("{\"password\":\"hunter2\",\"user\":\"me\"}", "{\"password\":[removed],\"user\":\"me\"}"),
            ("  auth = 'dXNlcjpwYXNz' # registry\n", "  auth = [removed] # registry\n"),
            ("DB_PASSWORD=hunter2\n", "DB_PASSWORD=[removed]\n"),
            ("the token is abcdef.0123456789abcdef.\n", "the token is [removed]\n"),
            ("{\"token\":\"a\\\"b\",\"x\":1}", "{\"token\":[removed],\"x\":1}"),
            (
                "Environment=HTTPS_PROXY=http://user:pass@word@proxy:3128 A=1\n",
                "Environment=HTTPS_PROXY=http://[removed]@proxy:3128 A=1\n",
            ),
            ("pull \"https://u@h/x@y\": no\n", "pull \"https://[removed]@h/x@y\": no\n"),
        ] {
            assert_eq!(redact(text), expected);
        }
    }

    #[test]
    fn secrets_of_several_lines_go() {
        for text in [
            "staticPodURLHeader: {X-Key: [\"hunter2\"], Authorization: [\"Bearer hunter2\"]}\nport: 1\n",
            "staticPodURLHeader:\n  X-Key: [hunter2]\n\n  Authorization:\n  - Bearer hunter2\nport: 1\n",
            "staticPodURLHeader: {\n  X-Key: [hunter2]\n}\nport: 1\n",
            "Authorization: [\"Bearer hunter2\", \"]\", 'hunter2']\nport: 1\n",
            "Authorization: # whose\n- Bearer hunter2\n- Basic hunter2\nport: 1\n",
            "{\n  \"Authorization\": [\n    \"Bearer hunter2\"\n  ],\n  \"port\": 1\n}\n",
            "password: |-\n  hunter2\n  hunter2\nport: 1\n",
            "password: \"hunter2\n  hunter2\"\nport: 1\n",
            "password: hunter2\n  hunter2\r\nport: 1\n",
            "list:\n- token:\n    hunter2\n  port: 1\n",
            "list:\n- secret:\n  - hunter2\n- port: 1\n",
            "token:\n  nested: hunter2\nport: 1\n",
        ] {
            let clean = redact(text);
            assert!(!clean.contains("hunter2") && clean.contains(GONE), "{text}{clean}");
            assert!(clean.contains("port"), "{text}{clean}");
        }
    }

    #[test]
    fn all_else_stays() {
        for text in [
            "secretName: db-credentials\n",
            "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
            "2026-11-27T03:10:33.123Z agent is running node=n1 version=v1.36.3-keelson.0.1.0\n",
            "containerd://0123456789abcdef0123456789abcdef and nginx:1.25.3, keelson.dev/backoff=1\n",
            "authentication: {webhook: {enabled: true}}\ntokens: {\n",
            "the token:\nnext line\n",
            "- token:\n- next: item\n",
            "nginx from https://registry/nginx@sha256:12 and unix:///run/x.sock@1\n",
            "",
            "ä = ö: ü\n",
        ] {
            assert_eq!(redact(text), text);
        }
    }
}
