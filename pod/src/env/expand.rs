//! `$(VAR)` in values, commands and arguments (API reference: `EnvVar.value`, `Container.command`).

/// Replaces `$(NAME)` by what `lookup` knows; a name that it does not know stays as it is, and `$$` is a dollar sign.
#[must_use]
pub fn expand(text: &str, lookup: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            out.push('$');
            rest = after;
            continue;
        }
        let name = after.strip_prefix('(').and_then(|a| a.split_once(')'));
        let Some((name, after_name)) = name else {
            out.push('$');
            rest = after;
            continue;
        };
        match lookup(name) {
            Some(value) => out.push_str(&value),
            None => {
                out.push_str("$(");
                out.push_str(name);
                out.push(')');
            }
        }
        rest = after_name;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::expand;

    #[test]
    fn expands_as_the_api_reference_says() {
        let lookup = |name: &str| (name == "A").then(|| "1$(A)".to_owned());
        for (given, expected) in [
            ("$(A)", "1$(A)"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$1$(A)"),
            ("x$(B)y", "x$(B)y"),
            ("$", "$"),
            ("$A", "$A"),
            ("$(A", "$(A"),
            ("$()", "$()"),
            ("a$$b", "a$b"),
        ] {
            assert_eq!(expand(given, lookup), expected, "{given}");
        }
    }
}
