//! Takes secrets out of texts. Pure. Nothing that is gathered is meant to have any; this is for what somebody has written where it does not
//! belong, such as a token in a log line.

/// What stands in a secret's place.
const GONE: &str = "[removed]";
/// What a name ends with whose value is a secret. Names of objects that hold some (`secretName`) tell nothing.
const SECRET_NAMES: [&str; 10] = [
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
];

/// The text without private keys, tokens of Kubernetes' forms, and values of names that say what they are.
#[must_use]
pub fn redact(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut in_key = false;
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
        clean.push_str(&words(&values(line)));
    }
    clean
}

/// Replaces what follows `name:`, `name=` or `"name":`, up to the end of the line or of the quoted text.
fn values(line: &str) -> String {
    let mut clean = String::with_capacity(line.len());
    let mut rest = line;
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
        let length = value_length(value);
        // `token: {` and a name without a value say nothing.
        if length > 0 {
            clean.push_str(blank);
            clean.push_str(GONE);
            rest = value.get(length..).unwrap_or_default();
        }
    }
    clean.push_str(rest);
    clean
}

/// How much of what follows a name is its value.
fn value_length(value: &str) -> usize {
    let mut characters = value.char_indices();
    match characters.next() {
        None | Some((_, '\n' | '{' | '[' | '|' | '>')) => 0,
        Some((_, quote @ ('"' | '\''))) => {
            let end = characters.find(|(_, c)| *c == quote).map(|(at, c)| at + c.len_utf8());
            end.unwrap_or_else(|| value.trim_end_matches('\n').len())
        }
        Some(_) => value.trim_end_matches(['\n', ',', '}']).len(),
    }
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
        ] {
            assert_eq!(redact(text), expected);
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
            "token:\n  nested: 1\n",
            "",
            "ä = ö: ü\n",
        ] {
            assert_eq!(redact(text), text);
        }
    }
}
