//! The hashes that name ReplicaSets and ControllerRevisions.

use k8s_openapi::api::core::v1::PodTemplateSpec;
use sha2::{Digest, Sha256};

const LENGTH: usize = 10;

/// A short name for a pod template, different for each collision count. The same template always has the same hash:
/// it is computed over the JSON form, in which fields and map keys have a fixed order.
#[must_use]
pub fn template_hash(template: &PodTemplateSpec, collisions: i32) -> String {
    let json = serde_json::to_vec(template).unwrap_or_default();
    encode(&json, collisions)
}

fn encode(bytes: &[u8], collisions: i32) -> String {
    let mut hasher = Sha256::new();
    hasher.update(bytes);
    if collisions > 0 {
        hasher.update(collisions.to_be_bytes());
    }
    let digest = hasher.finalize();
    api::names::letters(digest.iter().take(LENGTH).map(|byte| u32::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stable_and_different_after_a_collision() {
        let template: PodTemplateSpec =
            serde_json::from_value(serde_json::json!({"metadata": {"labels": {"a": "b"}}})).unwrap();
        let hash = template_hash(&template, 0);
        assert_eq!(hash, template_hash(&template.clone(), 0));
        assert_ne!(hash, template_hash(&template, 1));
        assert_eq!(hash.len(), LENGTH);
        assert!(hash.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()));
    }
}
