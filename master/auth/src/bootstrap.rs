//! Bootstrap tokens: Secrets of one type in kube-system that let a machine ask for its first certificate.
//! Rules: <https://kubernetes.io/docs/reference/access-authn-authz/bootstrap-tokens/>.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use rand::Rng as _;
use serde_json::{Value, json};

use crate::{SecretText, UserInfo, names};

pub(crate) const NAMESPACE: &str = "kube-system";
/// What a bootstrap token's Secret is called, before the token's id.
pub const SECRET_PREFIX: &str = "bootstrap-token-";
const SECRET_TYPE: &str = "bootstrap.kubernetes.io/token";
const ID_LENGTH: usize = 6;
const SECRET_LENGTH: usize = 16;
/// The group that the default roles let ask for node certificates, as kubeadm names it.
const DEFAULT_EXTRA_GROUP: &str = "system:bootstrappers:kubeadm:default-node-token";

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BootstrapTokenError {
    #[error("the bootstrap token {0:?} was not of the form \"\\A([a-z0-9]{{6}})\\.([a-z0-9]{{16}})\\z\"")]
    Form(String),
    #[error("invalid bootstrap usage string: {0}, valid usage options: signing,authentication")]
    Usage(String),
    #[error("bootstrap group {0:?} is invalid (must match \\Asystem:bootstrappers:[a-z0-9:-]{{0,255}}[a-z0-9]\\z)")]
    Group(String),
    #[error("token groups cannot be specified unless --usages includes \"authentication\"")]
    GroupsWithoutAuthentication,
}

/// A bootstrap token, `ID.SECRET`; its Debug shows the id only.
#[derive(Debug, Clone)]
pub struct BootstrapToken {
    id: String,
    secret: SecretText,
    expiration: Expiration,
    for_authentication: bool,
    for_signing: bool,
    description: String,
    extra_groups: Vec<String>,
}

/// What a token is for, as `kubeadm token create` takes it.
#[derive(Debug, Clone, Default)]
pub struct TokenPurpose {
    /// `signing`, `authentication`; both where there is none.
    pub usages: Vec<String>,
    /// Beside `system:bootstrappers`; the one that may ask for node certificates where there is none.
    pub groups: Vec<String>,
    pub description: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expiration {
    Never,
    At(Timestamp),
    /// What stands there is no time: upstream then takes the token for expired.
    Unreadable,
}

impl BootstrapToken {
    /// A new random token for joining nodes.
    pub fn generate(expires: Option<Timestamp>) -> Self {
        BootstrapToken {
            id: random_text(ID_LENGTH),
            secret: SecretText::new(random_text(SECRET_LENGTH)),
            expiration: expires.map_or(Expiration::Never, Expiration::At),
            for_authentication: true,
            for_signing: true,
            description: String::new(),
            extra_groups: vec![DEFAULT_EXTRA_GROUP.to_owned()],
        }
    }

    /// The same with a text that somebody chose.
    pub fn chosen(text: &str, expires: Option<Timestamp>) -> Result<Self, BootstrapTokenError> {
        let (id, secret) = Self::parse(text)?;
        Ok(BootstrapToken { id: id.to_owned(), secret: SecretText::new(secret), ..Self::generate(expires) })
    }

    /// The token, for this purpose. Texts of errors are kubeadm's.
    pub fn purposed(self, purpose: TokenPurpose) -> Result<Self, BootstrapTokenError> {
        let TokenPurpose { usages, groups, description } = purpose;
        let unknown: Vec<&str> =
            usages.iter().map(String::as_str).filter(|usage| !["signing", "authentication"].contains(usage)).collect();
        if !unknown.is_empty() {
            return Err(BootstrapTokenError::Usage(unknown.join(",")));
        }
        if let Some(group) = groups.iter().find(|group| !is_bootstrap_group(group)) {
            return Err(BootstrapTokenError::Group(group.clone()));
        }
        let is_for = |usage: &str| usages.is_empty() || usages.iter().any(|one| one == usage);
        let (for_authentication, for_signing) = (is_for("authentication"), is_for("signing"));
        if !for_authentication && !groups.is_empty() {
            return Err(BootstrapTokenError::GroupsWithoutAuthentication);
        }
        let extra_groups = match (for_authentication, groups.is_empty()) {
            (false, _) => Vec::new(),
            (true, true) => self.extra_groups,
            (true, false) => groups,
        };
        Ok(BootstrapToken { for_authentication, for_signing, description, extra_groups, ..self })
    }

    /// Splits `ID.SECRET`. The error names the id only: the rest may be a secret with a typing error in it.
    pub fn parse(text: &str) -> Result<(&str, &str), BootstrapTokenError> {
        let wrong =
            || BootstrapTokenError::Form(text.split('.').next().unwrap_or_default().chars().take(ID_LENGTH).collect());
        let (id, secret) = text.split_once('.').ok_or_else(wrong)?;
        let plain =
            |part: &str, length| part.len() == length && part.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9'));
        if plain(id, ID_LENGTH) && plain(secret, SECRET_LENGTH) { Ok((id, secret)) } else { Err(wrong()) }
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    /// `ID.SECRET`, to be shown to whoever may join a node.
    pub fn reveal(&self) -> String {
        format!("{}.{}", self.id, self.secret.reveal())
    }

    /// The groups that this token gives beside `system:bootstrappers`.
    pub fn extra_groups(&self) -> &[String] {
        &self.extra_groups
    }

    /// What it is good for while it lasts, in the order of their names.
    pub fn usages(&self) -> Vec<&'static str> {
        let usages = [(self.for_authentication, "authentication"), (self.for_signing, "signing")];
        usages.into_iter().filter(|(is, _)| *is).map(|(_, usage)| usage).collect()
    }

    /// For people.
    pub fn description(&self) -> &str {
        &self.description
    }

    /// Whether it lets a machine authenticate, now.
    pub fn is_usable(&self, now: Timestamp) -> bool {
        self.for_authentication && !self.is_expired(now)
    }

    pub fn expires(&self) -> Option<Timestamp> {
        match self.expiration {
            Expiration::At(at) => Some(at),
            Expiration::Never | Expiration::Unreadable => None,
        }
    }

    pub fn is_expired(&self, now: Timestamp) -> bool {
        match self.expiration {
            Expiration::Never => false,
            Expiration::At(at) => at <= now,
            Expiration::Unreadable => true,
        }
    }

    /// Reads a token from its Secret; `None` when that is of another type, incomplete or being deleted.
    pub fn from_secret(secret: &Value) -> Option<Self> {
        if secret.get("type").and_then(Value::as_str) != Some(SECRET_TYPE)
            || secret.pointer("/metadata/deletionTimestamp").is_some_and(|at| !at.is_null())
        {
            return None;
        }
        let data = |key: &str| {
            let encoded = secret.get("data")?.get(key)?.as_str()?;
            String::from_utf8(STANDARD.decode(encoded).ok()?).ok()
        };
        let id = data("token-id")?;
        if secret.pointer("/metadata/name")?.as_str()? != format!("{SECRET_PREFIX}{id}") {
            return None;
        }
        let expiration = match data("expiration") {
            None => Expiration::Never,
            Some(text) if text.is_empty() => Expiration::Never,
            Some(text) => text.parse().map_or(Expiration::Unreadable, Expiration::At),
        };
        let extra_groups = data("auth-extra-groups").unwrap_or_default();
        let extra_groups: Vec<String> =
            extra_groups.split(',').map(str::trim).filter(|g| !g.is_empty()).map(str::to_owned).collect();
        // One group outside the reserved prefix spoils the token, as upstream has it.
        let groups_are_valid = extra_groups.iter().all(|group| is_bootstrap_group(group));
        Some(BootstrapToken {
            id,
            secret: SecretText::new(data("token-secret").filter(|secret| !secret.is_empty())?),
            expiration,
            for_authentication: groups_are_valid && data("usage-bootstrap-authentication").as_deref() == Some("true"),
            for_signing: data("usage-bootstrap-signing").as_deref() == Some("true"),
            description: data("description").unwrap_or_default(),
            extra_groups,
        })
    }

    /// The Secret that this token is kept in.
    pub fn to_secret(&self) -> Value {
        let mut data = json!({
            "token-id": STANDARD.encode(&self.id),
            "token-secret": STANDARD.encode(self.secret.reveal()),
        });
        for usage in self.usages() {
            data[format!("usage-bootstrap-{usage}")] = json!(STANDARD.encode("true"));
        }
        for (key, text) in
            [("auth-extra-groups", self.extra_groups.join(",")), ("description", self.description.clone())]
        {
            if !text.is_empty() {
                data[key] = json!(STANDARD.encode(text));
            }
        }
        if let Expiration::At(at) = self.expiration {
            data["expiration"] = json!(STANDARD.encode(whole_seconds(at)));
        }
        json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": { "name": format!("{SECRET_PREFIX}{}", self.id), "namespace": NAMESPACE },
            "type": SECRET_TYPE,
            "data": data,
        })
    }

    /// The user that presents `secret`, if this token is good for that now.
    pub(crate) fn authenticate(&self, secret: &str, now: Timestamp) -> Option<UserInfo> {
        if !self.secret.matches(secret) || !self.is_usable(now) {
            return None;
        }
        let mut groups = vec![names::BOOTSTRAPPERS_GROUP.to_owned()];
        groups.extend(self.extra_groups.iter().cloned());
        groups.push(names::ALL_AUTHENTICATED.to_owned());
        Some(UserInfo {
            username: format!("{}{}", names::BOOTSTRAP_USER_PREFIX, self.id),
            groups,
            ..UserInfo::default()
        })
    }
}

/// `\Asystem:bootstrappers:[a-z0-9:-]{0,255}[a-z0-9]\z`
fn is_bootstrap_group(group: &str) -> bool {
    let Some(rest) = group.strip_prefix("system:bootstrappers:") else { return false };
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    (1..=256).contains(&rest.len())
        && rest.bytes().all(|b| plain(b) || b == b':' || b == b'-')
        && rest.bytes().last().is_some_and(plain)
}

fn whole_seconds(at: Timestamp) -> String {
    Timestamp::from_second(at.as_second()).unwrap_or(at).to_string()
}

fn random_text(length: usize) -> String {
    const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let mut random = rand::rng();
    (0..length).filter_map(|_| ALPHABET.get(random.random_range(0..ALPHABET.len()))).map(|b| char::from(*b)).collect()
}

#[cfg(test)]
mod tests;
