//! Taints and tolerations.

use k8s_openapi::api::core::v1::{Taint, Toleration};

/// Whether a toleration tolerates a taint (API doc of `Toleration`).
#[must_use]
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let effect = toleration.effect.as_deref().unwrap_or_default();
    let key = toleration.key.as_deref().unwrap_or_default();
    if !effect.is_empty() && effect != taint.effect {
        return false;
    }
    if !key.is_empty() && key != taint.key {
        return false;
    }
    let wanted = toleration.value.as_deref().unwrap_or_default();
    let value = taint.value.as_deref().unwrap_or_default();
    match toleration.operator.as_deref().unwrap_or_default() {
        "" | "Equal" => wanted == value,
        "Exists" => true,
        "Gt" => compares(value, wanted, |value, wanted| value > wanted),
        "Lt" => compares(value, wanted, |value, wanted| value < wanted),
        _ => false,
    }
}

/// Numeric operators (KEP-5471): the taint's value against the toleration's.
fn compares(value: &str, wanted: &str, holds: impl Fn(i64, i64) -> bool) -> bool {
    matches!((value.parse(), wanted.parse()), (Ok(value), Ok(wanted)) if holds(value, wanted))
}

/// The first taint with one of the effects that no toleration tolerates.
#[must_use]
pub fn first_untolerated<'a>(taints: &'a [Taint], tolerations: &[Toleration], effects: &[&str]) -> Option<&'a Taint> {
    taints
        .iter()
        .filter(|taint| effects.contains(&taint.effect.as_str()))
        .find(|taint| !tolerations.iter().any(|toleration| tolerates(toleration, taint)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taint(key: &str, value: &str, effect: &str) -> Taint {
        Taint { key: key.into(), value: Some(value.into()), effect: effect.into(), time_added: None }
    }

    fn toleration(key: &str, operator: &str, value: &str, effect: &str) -> Toleration {
        Toleration {
            key: Some(key.into()),
            operator: Some(operator.into()),
            value: Some(value.into()),
            effect: Some(effect.into()),
            toleration_seconds: None,
        }
    }

    #[test]
    fn table() {
        let dedicated = taint("dedicated", "gpu", "NoSchedule");
        for (toleration, expected) in [
            (toleration("dedicated", "Equal", "gpu", "NoSchedule"), true),
            (toleration("dedicated", "", "gpu", ""), true),
            (toleration("dedicated", "Equal", "cpu", ""), false),
            (toleration("dedicated", "Exists", "", "NoExecute"), false),
            (toleration("", "Exists", "", ""), true),
            (toleration("other", "Exists", "", ""), false),
        ] {
            assert_eq!(tolerates(&toleration, &dedicated), expected, "{toleration:?}");
        }
        let taints = [taint("a", "", "PreferNoSchedule"), dedicated];
        assert_eq!(first_untolerated(&taints, &[], &["NoSchedule"]).unwrap().key, "dedicated");
    }
}
