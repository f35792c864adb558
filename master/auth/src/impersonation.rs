//! Acting as somebody else, by `Impersonate-*` headers
//! (<https://kubernetes.io/docs/reference/access-authn-authz/user-impersonation/>,
//! `apiserver/pkg/endpoints/filters/impersonation`).

mod modes;

use crate::{Attributes, Authorizer, Refusal, UserInfo, names};

const PREFIX: &str = "impersonate-";
const AUTHENTICATION: &str = "authentication.k8s.io";

/// Whom the headers ask to act as; `None` when they ask for nobody. `headers` are names in lower case with their values.
/// Each part of the identity must be allowed to who sends the request that is `asked`.
pub fn impersonate<'a>(
    asked: &Attributes<'_>,
    headers: impl IntoIterator<Item = (&'a str, &'a [u8])>,
    authorizer: &dyn Authorizer,
) -> Result<Option<UserInfo>, Refusal> {
    let wanted = read(PREFIX, headers)?;
    if wanted == UserInfo::default() {
        return Ok(None);
    }
    if wanted.username.is_empty() {
        let why = "requested impersonation of groups, uid or extra without impersonating a user name";
        return Err(Refusal::bad_request(why));
    }
    modes::permitted(&wanted, asked, authorizer).map(Some)
}

/// The user whom headers of a prefix name, by `user`, `uid`, `group` and `extra-…`. Of several names the first counts.
/// One that is no text is refused: passed over, it would leave the request to another user.
pub(crate) fn read<'a>(
    prefix: &str,
    headers: impl IntoIterator<Item = (&'a str, &'a [u8])>,
) -> Result<UserInfo, Refusal> {
    let mut user = UserInfo::default();
    for (name, value) in headers {
        let Some(field) = name.strip_prefix(prefix) else { continue };
        let value =
            std::str::from_utf8(value).map_err(|_| Refusal::bad_request(format!("the header {name} is not UTF-8")))?;
        match field {
            "user" if user.username.is_empty() => value.clone_into(&mut user.username),
            "uid" if user.uid.is_empty() => value.clone_into(&mut user.uid),
            "group" => user.groups.push(value.to_owned()),
            _ => {
                if let Some(key) = field.strip_prefix("extra-") {
                    user.extra.entry(percent_decoded(key)).or_default().push(value.to_owned());
                }
            }
        }
    }
    Ok(user)
}

fn service_account(username: &str) -> Option<(&str, &str)> {
    username.strip_prefix(names::SERVICE_ACCOUNT_PREFIX)?.split_once(':')
}

/// Adds the group that everybody is in who has authenticated himself, or has not.
pub(crate) fn with_everyone(mut user: UserInfo) -> UserInfo {
    let everyone =
        if user.username == names::ANONYMOUS { names::ALL_UNAUTHENTICATED } else { names::ALL_AUTHENTICATED };
    // Who is said to be nobody in particular has not.
    let is_nobody = user.in_group(names::ALL_UNAUTHENTICATED);
    if !user.in_group(everyone) && !is_nobody {
        user.groups.push(everyone.to_owned());
    }
    user
}

/// Keys of extra may hold what a header's name may not.
fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let decoded = (*first == b'%').then(|| tail.get(..2)).flatten().and_then(hex);
        bytes.push(decoded.unwrap_or(*first));
        rest = if decoded.is_some() { tail.get(2..).unwrap_or_default() } else { tail };
    }
    String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned())
}

fn hex(digits: &[u8]) -> Option<u8> {
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Decision;

    /// Allows what is listed, as `[group/]resource[/subresource] [namespace/]name`.
    struct Listed(&'static [&'static str]);

    impl Authorizer for Listed {
        fn authorize(&self, attributes: &Attributes<'_>) -> Decision {
            let join = |parts: [&str; 3]| parts.into_iter().filter(|p| !p.is_empty()).collect::<Vec<_>>().join("/");
            let what = join([attributes.group, attributes.resource, attributes.subresource]);
            let wanted = format!("{what} {}", join([attributes.namespace, attributes.name, ""]));
            if attributes.verb == "impersonate" && self.0.contains(&wanted.as_str()) {
                Decision::Allow(String::new())
            } else {
                Decision::NoOpinion(String::new())
            }
        }
    }

    fn act(headers: &[(&str, &str)], rights: &'static [&'static str]) -> Result<Option<UserInfo>, Refusal> {
        let headers = headers.iter().map(|(name, value)| (*name, value.as_bytes()));
        impersonate(&Attributes::of(&UserInfo::new("admin", &[]), "get"), headers, &Listed(rights))
    }

    #[test]
    fn without_headers_nobody_is_impersonated() {
        assert_eq!(act(&[("accept", "application/json")], &[]), Ok(None));
    }

    #[test]
    fn every_part_needs_its_right() {
        let headers = [
            ("impersonate-user", "jane"),
            ("impersonate-group", "developers"),
            ("impersonate-extra-acme.com%2fproject", "some"),
            ("impersonate-uid", "1"),
        ];
        let all: &[&str] = &[
            "users jane",
            "groups developers",
            "authentication.k8s.io/userextras/acme.com/project some",
            "authentication.k8s.io/uids 1",
        ];
        let user = act(&headers, all).unwrap().unwrap();
        assert_eq!((user.username.as_str(), user.uid.as_str()), ("jane", "1"));
        assert_eq!(user.groups, ["developers", "system:authenticated"]);
        assert_eq!(user.extra["acme.com/project"], ["some"]);
        assert_eq!(
            act(&headers, &["users jane"]).unwrap_err().message,
            "forbidden: User \"admin\" cannot impersonate-on:user-info:get resource \"\" in API group \"\" at the cluster scope"
        );
    }

    #[test]
    fn a_service_account_brings_its_groups() {
        let headers = [("impersonate-user", "system:serviceaccount:x:app")];
        let user = act(&headers, &["serviceaccounts x/app"]).unwrap().unwrap();
        assert_eq!(user.groups, ["system:serviceaccounts", "system:serviceaccounts:x", "system:authenticated"]);
        act(&headers, &["users system:serviceaccount:x:app"]).unwrap_err();
    }

    #[test]
    fn anonymous_stays_unauthenticated() {
        let user = act(&[("impersonate-user", "system:anonymous")], &["users system:anonymous"]).unwrap().unwrap();
        assert_eq!(user, UserInfo::anonymous());
    }

    #[test]
    fn names_in_any_script_are_names_and_what_is_no_text_is_refused() {
        let user = act(&[("impersonate-user", "j\u{f6}rg")], &["users j\u{f6}rg"]).unwrap().unwrap();
        assert_eq!(user.username, "j\u{f6}rg");
        let admin = UserInfo::new("admin", &[]);
        let asked = Attributes::of(&admin, "get");
        for name in ["impersonate-user", "impersonate-group", "impersonate-extra-a", "impersonate-other"] {
            let refusal = impersonate(&asked, [(name, b"j\xf6rg".as_slice())], &Listed(&[])).unwrap_err();
            assert_eq!((refusal.code, refusal.message), (400, format!("the header {name} is not UTF-8")));
        }
        assert_eq!(impersonate(&asked, [("accept", b"\xff".as_slice())], &Listed(&[])), Ok(None));
    }

    #[test]
    fn groups_without_a_user_are_an_error() {
        assert_eq!(act(&[("impersonate-group", "system:masters")], &[]).unwrap_err().code, 400);
    }
}
