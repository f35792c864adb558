//! Names of container images (the reference grammar of the distribution project).

/// The registry of names that have none.
const DEFAULT_DOMAIN: &str = "docker.io";
/// Its folder for images without one.
const DEFAULT_FOLDER: &str = "library/";

/// A name that is not an image reference.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("couldn't parse image name {name:?}: invalid reference format")]
pub struct InvalidName {
    /// The name.
    pub name: String,
}

/// An image name taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// Registry with path: `docker.io/library/nginx`.
    pub repository: String,
    /// The tag, without colon.
    pub tag: Option<String>,
    /// The digest: `sha256:…`.
    pub digest: Option<String>,
}

impl Reference {
    /// Reads a name and fills in the default registry and folder; tag and digest stay as given.
    ///
    /// # Errors
    /// When the name does not follow the grammar.
    pub fn parse(name: &str) -> Result<Self, InvalidName> {
        Self::read(name).ok_or_else(|| InvalidName { name: name.to_owned() })
    }

    fn read(name: &str) -> Option<Self> {
        let (name, digest) = match name.split_once('@') {
            Some((name, digest)) => (name, Some(digest)),
            None => (name, None),
        };
        let (path, tag) = match name.rsplit_once(':') {
            Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
            _ => (name, None),
        };
        let (domain, rest) = split_domain(path);
        let folder = if domain == DEFAULT_DOMAIN && !rest.contains('/') { DEFAULT_FOLDER } else { "" };
        let valid = is_domain(domain)
            && rest.split('/').all(is_component)
            && tag.is_none_or(is_tag)
            && digest.is_none_or(is_digest);
        valid.then(|| Self {
            repository: format!("{domain}/{folder}{rest}"),
            tag: tag.map(str::to_owned),
            digest: digest.map(str::to_owned),
        })
    }

    /// The full name; without tag and digest it is that of `latest`.
    #[must_use]
    pub fn normalised(&self) -> String {
        let mut name = self.repository.clone();
        match (&self.tag, &self.digest) {
            (None, None) => name.push_str(":latest"),
            (tag, digest) => {
                name.extend(tag.iter().flat_map(|tag| [":", tag]));
                name.extend(digest.iter().flat_map(|digest| ["@", digest]));
            }
        }
        name
    }
}

/// The full name of an image: `nginx` is `docker.io/library/nginx:latest`.
///
/// # Errors
/// When the name does not follow the grammar.
pub fn normalise(name: &str) -> Result<String, InvalidName> {
    Ok(Reference::parse(name)?.normalised())
}

/// `imagePullPolicy` when none is given: `Always` for `latest` and untagged names, else `IfNotPresent`.
#[must_use]
pub fn default_pull_policy(name: &str) -> &'static str {
    match Reference::parse(name) {
        Ok(Reference { tag: Some(tag), .. }) if tag == "latest" => "Always",
        Ok(Reference { tag: None, digest: None, .. }) => "Always",
        _ => "IfNotPresent",
    }
}

fn split_domain(path: &str) -> (&str, &str) {
    match path.split_once('/') {
        Some(("index.docker.io", rest)) => (DEFAULT_DOMAIN, rest),
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (first, rest),
        Some((first, rest)) if first.bytes().any(|byte| byte.is_ascii_uppercase()) => (first, rest),
        _ => (DEFAULT_DOMAIN, path),
    }
}

fn is_domain(domain: &str) -> bool {
    let (host, port) = match domain.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (domain, None),
    };
    let port = port.is_none_or(|port| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()));
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host = match bracketed {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => host.split('.').all(|label| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        }),
    };
    host && port
}

/// Lower case words with one `.`, one or two `_`, or any number of `-` between them.
fn is_component(component: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = component.as_bytes();
    let ends = |byte: Option<&u8>| byte.is_some_and(|byte| word(*byte));
    ends(bytes.first())
        && ends(bytes.last())
        && bytes.iter().all(|byte| word(*byte) || matches!(byte, b'.' | b'_' | b'-'))
        && component
            .split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            .all(|separator| matches!(separator, "" | "." | "_" | "__") || separator.bytes().all(|byte| byte == b'-'))
}

fn is_tag(tag: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    (1..=128).contains(&tag.len())
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|byte| word(byte) || matches!(byte, b'.' | b'-'))
}

fn is_digest(digest: &str) -> bool {
    digest.split_once(':').is_some_and(|(algorithm, hex)| {
        algorithm.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic())
            && algorithm.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+._-".contains(&byte))
            && hex.len() >= 32
            && hex.bytes().all(|byte| byte.is_ascii_hexdigit())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for (name, expected) in [
            ("nginx", "docker.io/library/nginx:latest"),
            ("nginx:1.27", "docker.io/library/nginx:1.27"),
            ("me/app", "docker.io/me/app:latest"),
            ("localhost/app:x", "localhost/app:x"),
            ("host:5000/a/b", "host:5000/a/b:latest"),
            ("registry.k8s.io/pause:3.10", "registry.k8s.io/pause:3.10"),
            ("index.docker.io/nginx", "docker.io/library/nginx:latest"),
            (&format!("nginx@{digest}"), &format!("docker.io/library/nginx@{digest}")),
        ] {
            assert_eq!(normalise(name).unwrap(), expected, "{name}");
        }
        for name in ["", "Nginx", "a//b", "a:b:c", "nginx:", "nginx@sha256:short", "a_-b", "-a", "a b", "host:x/a"] {
            assert!(normalise(name).is_err(), "{name}");
        }
        assert_eq!(default_pull_policy("a"), "Always");
        assert_eq!(default_pull_policy("a:latest"), "Always");
        assert_eq!(default_pull_policy("a:1"), "IfNotPresent");
        assert_eq!(default_pull_policy(&format!("a@{digest}")), "IfNotPresent");
    }
}
