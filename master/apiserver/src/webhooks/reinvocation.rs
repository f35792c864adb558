//! Who is asked once more, because others changed the object after him (KEP-492; `webhookReinvokeContext`,
//! `policyReinvokeContext`). Pure.

use std::collections::BTreeSet;

use serde_json::Value;

/// Those who may change an object, in their first and their second round.
#[derive(Default)]
pub(super) struct Reinvocation {
    is_second: bool,
    /// Asked before, and wishing to be asked again.
    willing: BTreeSet<String>,
    /// To be asked in the second round.
    due: BTreeSet<String>,
    /// The object as it was left.
    left: Option<Value>,
}

impl Reinvocation {
    /// The second round begins, with the object as it came out of what went before.
    pub fn again(&mut self, object: &Value) {
        self.is_second = true;
        if self.left.as_ref().is_some_and(|left| left != object) {
            self.due.append(&mut self.willing);
        }
    }

    pub fn is_due(&self, key: &str) -> bool {
        !self.is_second || self.due.contains(key)
    }

    /// Notes who was asked, whether he changed the object, and whether he wishes to see it again.
    pub fn asked(&mut self, key: String, changed: bool, willing: bool) {
        if changed {
            self.due.append(&mut self.willing);
        }
        if willing {
            self.willing.insert(key);
        }
    }

    /// The object as the first round left it. Nobody asked means nobody to ask again.
    pub fn done(&mut self, object: &Value) {
        self.left = (!self.willing.is_empty() || !self.due.is_empty()).then(|| object.clone());
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::Reinvocation;

    #[test]
    fn who_wishes_is_asked_again_when_others_change_the_object_after_him() {
        let mut round = Reinvocation::default();
        for (key, changed, willing) in [("a", true, true), ("b", true, false), ("c", false, true)] {
            assert!(round.is_due(key));
            round.asked(key.to_owned(), changed, willing);
        }
        round.done(&json!(1));
        round.again(&json!(1));
        assert_eq!(["a", "b", "c"].map(|key| round.is_due(key)), [true, false, false]);
    }

    #[test]
    fn what_changes_between_the_rounds_counts_too() {
        let mut round = Reinvocation::default();
        round.asked("a".into(), true, true);
        round.asked("b".into(), false, false);
        round.done(&json!(1));
        round.again(&json!(2));
        assert_eq!(["a", "b"].map(|key| round.is_due(key)), [true, false]);
    }
}
