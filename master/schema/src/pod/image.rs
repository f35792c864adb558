//! Image references, as far as defaults hang on them.

/// The tag of an image, `latest` where the reference names none; `None` where a digest pins it.
pub(crate) fn tag(image: &str) -> Option<&str> {
    let (name, digest) = image.split_once('@').map_or((image, None), |(name, digest)| (name, Some(digest)));
    // A colon before the last slash belongs to the registry's port.
    let last = name.rsplit('/').next().unwrap_or(name);
    match (last.split_once(':'), digest) {
        (Some((_, tag)), _) => Some(tag),
        (None, Some(_)) => None,
        (None, None) => Some("latest"),
    }
}

#[cfg(test)]
mod tests {
    use super::tag;

    #[test]
    fn tags() {
        assert_eq!(tag("nginx"), Some("latest"));
        assert_eq!(tag("nginx:1.2"), Some("1.2"));
        assert_eq!(tag("localhost:5000/nginx"), Some("latest"));
        assert_eq!(tag("localhost:5000/nginx:v1"), Some("v1"));
        assert_eq!(tag("nginx@sha256:00"), None);
    }
}
