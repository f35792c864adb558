//! `Warning` headers (`apiserver/pkg/endpoints/filters/warning.go`): each text once, and all of them no longer than headers
//! may be.

use std::collections::HashSet;

use http::header::HeaderValue;

/// `truncateAtTotalRunes`: with more than this, long texts are cut.
const MOST: usize = 4 * 1024;
/// `truncateItemRunes`
const LONGEST_CUT: usize = 256;

/// The headers that tell a client these texts.
pub(crate) fn headers<'a>(texts: impl Iterator<Item = &'a String>) -> Vec<HeaderValue> {
    let mut seen = HashSet::new();
    let once: Vec<&String> = texts.filter(|text| !text.is_empty() && seen.insert(text.as_str())).collect();
    let whole: usize = once.iter().map(|text| text.chars().count()).sum();
    let longest = if whole > MOST { LONGEST_CUT } else { MOST };
    let mut written = 0;
    let mut headers = Vec::new();
    for text in once {
        if written >= MOST {
            break;
        }
        let text: String = text.chars().take(longest).collect();
        written += text.chars().count();
        headers.extend(header(&text));
    }
    headers
}

/// RFC 7234: code, agent, quoted text. None where the text cannot be in a header.
fn header(text: &str) -> Option<HeaderValue> {
    let quoted = text.replace('\\', "\\\\").replace('"', "\\\"").replace(['\n', '\r'], " ");
    HeaderValue::from_bytes(format!("299 - \"{quoted}\"").as_bytes()).ok()
}

#[cfg(test)]
mod tests {
    use super::headers;

    fn shown(texts: &[String]) -> Vec<String> {
        headers(texts.iter()).iter().map(|value| String::from_utf8(value.as_bytes().to_vec()).unwrap()).collect()
    }

    #[test]
    fn texts_are_quoted_and_told_once() {
        let texts = ["unknown field \"ä\\b\"".to_owned(), String::new(), "x\ny".to_owned(), "x\ny".to_owned()];
        assert_eq!(shown(&texts), ["299 - \"unknown field \\\"ä\\\\b\\\"\"", "299 - \"x y\""]);
    }

    #[test]
    fn what_is_too_much_is_cut() {
        let long: Vec<String> = (0..100).map(|n| format!("{n}{}", "x".repeat(1_000))).collect();
        let cut = shown(&long);
        assert_eq!(cut.len(), 16);
        assert!(cut.iter().all(|header| header.len() == 256 + "299 - \"\"".len()));
        let one = shown(&["y".repeat(3_000)]);
        assert_eq!(one[0].len(), 3_000 + "299 - \"\"".len());
    }
}
