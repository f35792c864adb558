//! containerd's own configuration, where it keeps CRI off: Docker's packages bring it so. No drop-in can turn it on, as files that containerd
//! imports only add to its list of disabled plugins; and the file is the administrator's.

/// Where it is.
const CONFIG: &str = "/etc/containerd/config.toml";
/// What CRI is called there, by version of the file.
const CRI: [&str; 3] = ["cri", "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime"];

/// What turns it on.
pub fn remedy() -> String {
    const RESTART: &str = "systemctl restart containerd";
    match std::fs::read_to_string(CONFIG).ok().as_deref().and_then(without_cri) {
        Some((number, line)) => format!("sed -i '{number}s/.*/{line}/' {CONFIG} && {RESTART}"),
        None => {
            format!("take \"cri\" out of disabled_plugins in {CONFIG} (or in a file that it imports), and {RESTART}")
        }
    }
}

/// The line that names CRI among the disabled plugins, counted from one, and how it is without it. `None` where that is not one plain line.
fn without_cri(text: &str) -> Option<(usize, String)> {
    let (index, list) = text.lines().enumerate().find_map(|(index, line)| {
        let value = line.trim().strip_prefix("disabled_plugins")?.trim_start().strip_prefix('=')?;
        Some((index, value.trim().strip_prefix('[')?.strip_suffix(']')?))
    })?;
    let plugins = || list.split(',').map(|name| name.trim().trim_matches(['"', '\''])).filter(|name| !name.is_empty());
    let is_plain = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte));
    if !plugins().all(is_plain) || !plugins().any(|name| CRI.contains(&name)) {
        return None;
    }
    let left: Vec<String> = plugins().filter(|name| !CRI.contains(name)).map(|name| format!("\"{name}\"")).collect();
    Some((index + 1, format!("disabled_plugins = [{}]", left.join(", "))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_that_keeps_cri_off_is_named_with_what_it_should_be() {
        let of = |line: &str| without_cri(&format!("# comment\n\n{line}\n[grpc]\n"));
        let is = |line: &str| Some((3, format!("disabled_plugins = [{line}]")));
        assert_eq!(of("disabled_plugins = [\"cri\"]"), is(""));
        assert_eq!(of("disabled_plugins=['io.containerd.grpc.v1.cri', \"aufs\",]"), is("\"aufs\""));
        for other in [
            "disabled_plugins = []",
            "disabled_plugins = [",
            "#disabled_plugins = [\"cri\"]",
            "",
            "disabled_plugins = [\"cri\", \"a/b\"]",
        ] {
            assert_eq!(of(other), None, "{other}");
        }
    }
}
