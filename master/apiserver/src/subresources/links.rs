//! Links of pages that come through a proxy (`apimachinery/pkg/util/proxy/transport.go`): an absolute path is one of the
//! backend's, and leads back through the proxy. Pure; but for those links nothing of a page is changed.

use std::ops::Range;

/// Attributes that hold links, by element (HTML 4.01 and 5).
const LINKS: &[(&str, &[&str])] = &[
    ("a", &["href"]),
    ("applet", &["codebase"]),
    ("area", &["href"]),
    ("audio", &["src"]),
    ("base", &["href"]),
    ("blockquote", &["cite"]),
    ("body", &["background"]),
    ("button", &["formaction"]),
    ("command", &["icon"]),
    ("del", &["cite"]),
    ("embed", &["src"]),
    ("form", &["action"]),
    ("frame", &["longdesc", "src"]),
    ("head", &["profile"]),
    ("html", &["manifest"]),
    ("iframe", &["longdesc", "src"]),
    ("img", &["longdesc", "src", "usemap"]),
    ("input", &["src", "usemap", "formaction"]),
    ("ins", &["cite"]),
    ("link", &["href"]),
    ("object", &["classid", "codebase", "data", "usemap"]),
    ("q", &["cite"]),
    ("script", &["src"]),
    ("source", &["src"]),
    ("video", &["poster", "src"]),
];
/// Elements whose content is no markup.
const RAW: &[&str] = &["iframe", "noembed", "noframes", "plaintext", "script", "style", "textarea", "title", "xmp"];

/// What a page is seen through.
#[derive(Debug, Clone)]
pub(super) struct Proxy {
    /// Path of the backend's root, without a slash at its end.
    pub prefix: String,
    /// The backend's own authority.
    pub backend: String,
    /// What the client calls this server.
    pub host: String,
}

impl Proxy {
    /// The link as the client must follow it; `None` where it stays as it is.
    pub(super) fn rewritten(&self, link: &str) -> Option<String> {
        let (origin, host, path) = split(link);
        let foreign = !host.is_empty() && host != self.backend && host != self.host;
        if foreign || !path.starts_with('/') {
            return None;
        }
        let origin = if host == self.host { origin } else { "" };
        let prefix = if path.starts_with(&self.prefix) { "" } else { &self.prefix };
        Some(format!("{origin}{prefix}{path}")).filter(|new| new != link)
    }

    /// The page with its links rewritten.
    pub(super) fn page(&self, page: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(page.len());
        let mut kept = 0;
        for link in (Scanner { page, at: 0, found: Vec::new() }).links() {
            let text = page.get(link.clone()).and_then(|bytes| std::str::from_utf8(bytes).ok());
            if let Some(new) = text.and_then(|text| self.rewritten(text)) {
                out.extend_from_slice(page.get(kept..link.start).unwrap_or_default());
                out.extend_from_slice(new.as_bytes());
                kept = link.end;
            }
        }
        out.extend_from_slice(page.get(kept..).unwrap_or_default());
        out
    }
}

/// `scheme://host`, host, and the rest.
fn split(link: &str) -> (&str, &str, &str) {
    let authority = match link.split_once("//") {
        Some(("", rest)) => rest,
        Some((scheme, rest)) if is_scheme(scheme) => rest,
        _ => return ("", "", link),
    };
    let host = authority.split(['/', '?', '#']).next().unwrap_or_default();
    let before = link.len() - authority.len() + host.len();
    let (origin, path) = link.split_at(before);
    (origin, host, path)
}

fn is_scheme(text: &str) -> bool {
    text.strip_suffix(':').is_some_and(|scheme| {
        !scheme.is_empty() && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
    })
}

/// Finds where in a page the values of attributes with links are.
struct Scanner<'a> {
    page: &'a [u8],
    at: usize,
    found: Vec<Range<usize>>,
}

impl Scanner<'_> {
    fn links(mut self) -> Vec<Range<usize>> {
        while self.skip_to(b"<") {
            let rest = self.rest();
            if rest.starts_with(b"<!--") {
                self.at += 4;
                self.skip_over(b"-->");
            } else if rest.get(1).is_some_and(u8::is_ascii_alphabetic) {
                self.at += 1;
                self.tag();
            } else {
                self.at += 1;
            }
        }
        self.found
    }

    /// From the name of a start tag to its end, or that of its element if that holds no markup.
    fn tag(&mut self) {
        let name = self.word(b"/>").to_ascii_lowercase();
        let name = String::from_utf8_lossy(&name).into_owned();
        let links = LINKS.iter().find(|(element, _)| *element == name).map_or(&[][..], |(_, links)| links);
        loop {
            self.skip_while(|byte| byte.is_ascii_whitespace() || byte == b'/');
            match self.rest().first() {
                None => return,
                Some(b'>') => break,
                Some(_) => self.attribute(links),
            }
        }
        self.at += 1;
        if RAW.contains(&name.as_str()) {
            while self.skip_to(b"</") {
                let after = self.rest().get(2..2 + name.len()).unwrap_or_default();
                if after.eq_ignore_ascii_case(name.as_bytes()) {
                    return;
                }
                self.at += 2;
            }
        }
    }

    /// One attribute; its value is noted if it is a link.
    fn attribute(&mut self, links: &[&str]) {
        let start = self.at;
        let name = self.word(b"/>=").to_ascii_lowercase();
        if self.at == start {
            // A sign that begins no name.
            self.at += 1;
            return;
        }
        self.skip_while(|byte| byte.is_ascii_whitespace());
        if self.rest().first() != Some(&b'=') {
            return;
        }
        self.at += 1;
        self.skip_while(|byte| byte.is_ascii_whitespace());
        let value = match self.rest().first().copied() {
            Some(quote @ (b'"' | b'\'')) => {
                self.at += 1;
                let start = self.at;
                self.skip_while(|byte| byte != quote);
                let value = start..self.at;
                self.at += 1;
                value
            }
            _ => {
                let start = self.at;
                self.word(b">");
                start..self.at
            }
        };
        if links.iter().any(|link| link.as_bytes() == name) {
            self.found.push(value);
        }
    }

    fn rest(&self) -> &[u8] {
        self.page.get(self.at..).unwrap_or_default()
    }

    /// What stands before the next white space or one of these.
    fn word(&mut self, ends: &[u8]) -> Vec<u8> {
        let start = self.at;
        self.skip_while(|byte| !byte.is_ascii_whitespace() && !ends.contains(&byte));
        self.page.get(start..self.at).unwrap_or_default().to_vec()
    }

    fn skip_while(&mut self, skipped: impl Fn(u8) -> bool) {
        let count = self.rest().iter().take_while(|byte| skipped(**byte)).count();
        self.at += count;
    }

    /// Whether there is one more of these, and to it.
    fn skip_to(&mut self, wanted: &[u8]) -> bool {
        let place = self.rest().windows(wanted.len()).position(|window| window == wanted);
        self.at = place.map_or(self.page.len(), |place| self.at + place);
        place.is_some()
    }

    fn skip_over(&mut self, wanted: &[u8]) {
        if self.skip_to(wanted) {
            self.at += wanted.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Proxy;

    fn proxy() -> Proxy {
        Proxy { prefix: "/p/proxy".into(), backend: "10.0.0.1:80".into(), host: "api:6443".into() }
    }

    #[test]
    fn absolute_paths_of_the_backend_lead_through_the_proxy() {
        for (link, wanted) in [
            ("/a", Some("/p/proxy/a")),
            ("/a/?q=/b#c", Some("/p/proxy/a/?q=/b#c")),
            ("http://10.0.0.1:80/a", Some("/p/proxy/a")),
            ("//10.0.0.1:80/a", Some("/p/proxy/a")),
            ("https://api:6443/a", Some("https://api:6443/p/proxy/a")),
            ("/p/proxy/a", None),
            ("a/b", None),
            ("?to=http://10.0.0.1:80/a", None),
            ("#top", None),
            ("http://example.com/a", None),
            ("mailto:a@example.com", None),
            ("http://10.0.0.1:80", None),
        ] {
            assert_eq!(proxy().rewritten(link).as_deref(), wanted, "{link}");
        }
    }

    #[test]
    fn of_a_page_only_links_change() {
        let page = "<!DOCTYPE html><!-- <a href=\"/x\"> -->\n<A HREF='/a' class=/b title=\"/c\">/d</A><img src=/e/f>\
            <script src=\"/g\">if (a </h/) { \"<a href='/i'>\" }</script><p href=\"/j\"><form action = \"/k\"><a href>\
            <input/src=\"http://10.0.0.1:80/l\"/>\u{e9} a < b";
        let wanted = "<!DOCTYPE html><!-- <a href=\"/x\"> -->\n<A HREF='/p/proxy/a' class=/b title=\"/c\">/d</A>\
            <img src=/p/proxy/e/f><script src=\"/p/proxy/g\">if (a </h/) { \"<a href='/i'>\" }</script><p href=\"/j\">\
            <form action = \"/p/proxy/k\"><a href><input/src=\"/p/proxy/l\"/>\u{e9} a < b";
        assert_eq!(String::from_utf8(proxy().page(page.as_bytes())).unwrap(), wanted);
    }

    #[test]
    fn broken_pages_come_through() {
        for page in ["", "<", "<a", "<a href", "<a href=", "<a href=\"/x", "<a =x>", "<script>", "<!--", "<a href='/x'"]
        {
            let out = proxy().page(page.as_bytes());
            assert!(out.len() >= page.len(), "{page}");
        }
        assert_eq!(proxy().page(b"\xff<a href=/\xfe>\xff"), b"\xff<a href=/\xfe>\xff");
    }
}
