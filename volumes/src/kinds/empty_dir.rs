//! `emptyDir`: a folder, or a tmpfs, that lives as long as the pod (pkg/volume/emptydir).

use std::collections::BTreeSet;
use std::path::Path;

use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, PodSpec};

use super::{Kind, Medium};
use crate::{Error, fs, mounts};

/// Everyone may use the scratch space of a pod.
pub(crate) const MODE: u32 = 0o777;
const PAGES: &str = "HugePages";
const PAGES_OF: &str = "HugePages-";

/// Why there is no telling which pages are meant.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PagesError {
    #[error("medium {0}: hugePages storage requested, but there is no resource request for huge pages")]
    None(String),
    #[error("medium: {0} can't be used if container requests multiple huge page sizes")]
    Several(String),
}

pub(super) fn of(source: Option<&EmptyDirVolumeSource>, spec: &PodSpec) -> Kind {
    let medium = match source.and_then(|s| s.medium.as_deref()).unwrap_or_default() {
        "" => Medium::Disk,
        "Memory" => Medium::Memory,
        other if other == PAGES || other.starts_with(PAGES_OF) => huge_pages(other, spec),
        other => Medium::Unknown(other.to_owned()),
    };
    Kind::EmptyDir { medium, size_limit: source.and_then(|s| s.size_limit.as_ref()).map(|q| q.0.clone()) }
}

/// The pages of a medium: of the size that it names, or of the one that the pod asks for.
fn huge_pages(medium: &str, spec: &PodSpec) -> Medium {
    let asked = asked_pages(spec);
    let pages = match medium.strip_prefix(PAGES_OF) {
        Some(size) => bytes(size).filter(|size| asked.contains(size)),
        None if asked.len() > 1 => return Medium::NoPages(PagesError::Several(medium.to_owned())),
        None => asked.first().copied(),
    };
    pages.map_or_else(|| Medium::NoPages(PagesError::None(medium.to_owned())), Medium::HugePages)
}

/// The sizes of huge pages that a pod asks for, in bytes.
fn asked_pages(spec: &PodSpec) -> BTreeSet<u64> {
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let all = containers.filter_map(|container| container.resources.as_ref()).chain(&spec.resources);
    let names = all.flat_map(|resources| resources.requests.iter().flat_map(|requests| requests.keys()));
    names.filter_map(|name| bytes(name.strip_prefix("hugepages-")?)).collect()
}

fn bytes(size: &str) -> Option<u64> {
    u64::try_from(size.parse::<api::quantity::Quantity>().ok()?.value()).ok()
}

/// Makes the folder. What is in it already stays. `max` caps a tmpfs whose own limit is higher or unset. Answers whether
/// something was mounted on it now: after a reboot the folder is there, and what was in memory is not.
pub(crate) fn set_up(folder: &Path, medium: &Medium, limit: Option<u64>, max: Option<u64>) -> Result<bool, Error> {
    fs::make_dir(folder)?;
    match medium {
        Medium::Disk => Ok(false),
        Medium::Memory => mounts::tmpfs(folder, limit.into_iter().chain(max).min()),
        Medium::HugePages(size) => mounts::huge_pages(folder, *size),
        Medium::NoPages(error) => Err(error.clone().into()),
        Medium::Unknown(name) => Err(Error::Medium(name.clone())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn huge_pages_are_of_the_size_that_is_asked_for() {
        const MIB: u64 = 1024 * 1024;
        let medium = |medium: &str, asked: &[&str]| {
            let requests: serde_json::Map<_, _> =
                asked.iter().map(|size| (format!("hugepages-{size}"), json!("1Gi"))).collect();
            let container = json!({"name": "c", "resources": {"requests": requests}});
            let spec: PodSpec = serde_json::from_value(json!({"containers": [container]})).unwrap();
            let source = EmptyDirVolumeSource { medium: Some(medium.to_owned()), size_limit: None };
            let Kind::EmptyDir { medium, .. } = of(Some(&source), &spec) else { panic!("no emptyDir") };
            medium
        };
        assert_eq!(medium("HugePages", &["2Mi"]), Medium::HugePages(2 * MIB));
        assert_eq!(medium("HugePages-1Gi", &["2Mi", "1Gi"]), Medium::HugePages(1024 * MIB));
        let told = |found: Medium| match found {
            Medium::NoPages(error) => error.to_string(),
            other => format!("{other:?}"),
        };
        let several = "medium: HugePages can't be used if container requests multiple huge page sizes";
        assert_eq!(told(medium("HugePages", &["2Mi", "1Gi"])), several);
        for (name, asked) in [("HugePages", &[][..]), ("HugePages-1Gi", &["2Mi"])] {
            let text = "hugePages storage requested, but there is no resource request for huge pages";
            assert_eq!(told(medium(name, asked)), format!("medium {name}: {text}"));
        }
    }
}
