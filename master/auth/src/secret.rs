use std::fmt;

use ring::hmac;

/// A credential in memory: printing it shows nothing, comparing it takes the same time for every guess.
#[derive(Clone)]
pub struct SecretText(String);

impl SecretText {
    pub fn new(text: impl Into<String>) -> Self {
        SecretText(text.into())
    }

    /// The text itself; for writing it where it belongs, never into a log.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Constant-time comparison: both sides are hashed under one key first, so that neither length nor a common prefix
    /// shows in the time taken.
    pub fn matches(&self, guess: &str) -> bool {
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"keelson secret comparison");
        let tag = hmac::sign(&key, self.0.as_bytes());
        hmac::verify(&key, guess.as_bytes(), tag.as_ref()).is_ok()
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretText(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::SecretText;

    #[test]
    fn compares_whole_and_hides_itself() {
        let secret = SecretText::new("0123456789abcdef");
        assert!(secret.matches("0123456789abcdef"));
        for guess in ["", "0123456789abcde", "0123456789abcdeF", "0123456789abcdef0"] {
            assert!(!secret.matches(guess), "{guess}");
        }
        assert_eq!(format!("{secret:?}"), "SecretText(..)");
    }
}
