//! The functions that expressions may call: CEL's, cel-go's extensions and Kubernetes' libraries, as
//! `apiserver/pkg/cel/environment` has them on.

use crate::types::Ty;

/// The names of types.
pub(super) const TYPES: &[&str] = &[
    "bool",
    "bytes",
    "double",
    "duration",
    "dyn",
    "int",
    "list",
    "map",
    "null_type",
    "string",
    "timestamp",
    "type",
    "uint",
    "optional_type",
];

/// Name and signature: `receiver.arguments:result`, without `receiver.` of what has none. Letters are types, see [`ty`].
const FUNCTIONS: &[(&str, &str)] = &[
    // CEL itself.
    ("size", "s:i"),
    ("size", "y:i"),
    ("size", "lx:i"),
    ("size", "mx:i"),
    ("size", "s.:i"),
    ("size", "y.:i"),
    ("size", "lx.:i"),
    ("size", "mx.:i"),
    ("contains", "s.s:b"),
    ("startsWith", "s.s:b"),
    ("endsWith", "s.s:b"),
    ("matches", "s.s:b"),
    ("matches", "ss:b"),
    ("type", "x:T"),
    ("dyn", "x:x"),
    ("bool", "b:b"),
    ("bool", "s:b"),
    ("bytes", "y:y"),
    ("bytes", "s:y"),
    ("double", "d:d"),
    ("double", "i:d"),
    ("double", "u:d"),
    ("double", "s:d"),
    ("int", "i:i"),
    ("int", "u:i"),
    ("int", "d:i"),
    ("int", "s:i"),
    ("int", "t:i"),
    ("int", "r:i"),
    ("uint", "u:u"),
    ("uint", "i:u"),
    ("uint", "d:u"),
    ("uint", "s:u"),
    ("string", "s:s"),
    ("string", "b:s"),
    ("string", "i:s"),
    ("string", "u:s"),
    ("string", "d:s"),
    ("string", "y:s"),
    ("string", "t:s"),
    ("string", "r:s"),
    ("string", "I:s"),
    ("string", "C:s"),
    ("duration", "s:r"),
    ("duration", "r:r"),
    ("timestamp", "s:t"),
    ("timestamp", "t:t"),
    ("timestamp", "i:t"),
    ("getFullYear", "t.:i"),
    ("getFullYear", "t.s:i"),
    ("getMonth", "t.:i"),
    ("getMonth", "t.s:i"),
    ("getDayOfYear", "t.:i"),
    ("getDayOfYear", "t.s:i"),
    ("getDayOfMonth", "t.:i"),
    ("getDayOfMonth", "t.s:i"),
    ("getDate", "t.:i"),
    ("getDate", "t.s:i"),
    ("getDayOfWeek", "t.:i"),
    ("getDayOfWeek", "t.s:i"),
    ("getHours", "t.:i"),
    ("getHours", "t.s:i"),
    ("getHours", "r.:i"),
    ("getMinutes", "t.:i"),
    ("getMinutes", "t.s:i"),
    ("getMinutes", "r.:i"),
    ("getSeconds", "t.:i"),
    ("getSeconds", "t.s:i"),
    ("getSeconds", "r.:i"),
    ("getMilliseconds", "t.:i"),
    ("getMilliseconds", "t.s:i"),
    ("getMilliseconds", "r.:i"),
    // Optional values.
    ("optional.of", "x:ox"),
    ("optional.none", ":ox"),
    ("optional.ofNonZeroValue", "x:ox"),
    ("hasValue", "ox.:b"),
    ("value", "ox.:x"),
    ("or", "ox.ox:ox"),
    ("orValue", "ox.x:x"),
    ("optional.unwrap", "lox:lx"),
    ("unwrapOpt", "lox.:lx"),
    // Texts.
    ("charAt", "s.i:s"),
    ("indexOf", "s.s:i"),
    ("indexOf", "s.si:i"),
    ("lastIndexOf", "s.s:i"),
    ("lastIndexOf", "s.si:i"),
    ("lowerAscii", "s.:s"),
    ("upperAscii", "s.:s"),
    ("replace", "s.ss:s"),
    ("replace", "s.ssi:s"),
    ("split", "s.s:ls"),
    ("split", "s.si:ls"),
    ("substring", "s.i:s"),
    ("substring", "s.ii:s"),
    ("trim", "s.:s"),
    ("join", "ls.:s"),
    ("join", "ls.s:s"),
    ("format", "s.lx:s"),
    ("strings.quote", "s:s"),
    ("find", "s.s:s"),
    ("findAll", "s.s:ls"),
    ("findAll", "s.si:ls"),
    // Lists and sets.
    ("isSorted", "lx.:b"),
    ("sum", "lx.:x"),
    ("min", "lx.:x"),
    ("max", "lx.:x"),
    ("indexOf", "lx.x:i"),
    ("lastIndexOf", "lx.x:i"),
    ("slice", "lx.ii:lx"),
    ("flatten", "lx.:lx"),
    ("flatten", "lx.i:lx"),
    ("distinct", "lx.:lx"),
    ("reverse", "lx.:lx"),
    ("sort", "lx.:lx"),
    ("first", "lx.:ox"),
    ("last", "lx.:ox"),
    ("lists.range", "i:li"),
    ("sets.contains", "lxlx:b"),
    ("sets.equivalent", "lxlx:b"),
    ("sets.intersects", "lxlx:b"),
    // URLs, addresses, quantities, versions, formats.
    ("url", "s:U"),
    ("isURL", "s:b"),
    ("getScheme", "U.:s"),
    ("getHost", "U.:s"),
    ("getHostname", "U.:s"),
    ("getPort", "U.:s"),
    ("getEscapedPath", "U.:s"),
    ("getQuery", "U.:mls"),
    ("ip", "s:I"),
    ("isIP", "s:b"),
    ("ip.isCanonical", "s:b"),
    ("family", "I.:i"),
    ("isUnspecified", "I.:b"),
    ("isLoopback", "I.:b"),
    ("isLinkLocalMulticast", "I.:b"),
    ("isLinkLocalUnicast", "I.:b"),
    ("isGlobalUnicast", "I.:b"),
    ("cidr", "s:C"),
    ("isCIDR", "s:b"),
    ("containsIP", "C.s:b"),
    ("containsIP", "C.I:b"),
    ("containsCIDR", "C.s:b"),
    ("containsCIDR", "C.C:b"),
    ("ip", "C.:I"),
    ("prefixLength", "C.:i"),
    ("masked", "C.:C"),
    ("quantity", "s:Q"),
    ("isQuantity", "s:b"),
    ("sign", "Q.:i"),
    ("isGreaterThan", "Q.Q:b"),
    ("isLessThan", "Q.Q:b"),
    ("compareTo", "Q.Q:i"),
    ("asApproximateFloat", "Q.:d"),
    ("asInteger", "Q.:i"),
    ("isInteger", "Q.:b"),
    ("add", "Q.Q:Q"),
    ("add", "Q.i:Q"),
    ("sub", "Q.Q:Q"),
    ("sub", "Q.i:Q"),
    ("semver", "s:V"),
    ("semver", "sb:V"),
    ("isSemver", "s:b"),
    ("isSemver", "sb:b"),
    ("isGreaterThan", "V.V:b"),
    ("isLessThan", "V.V:b"),
    ("compareTo", "V.V:i"),
    ("major", "V.:i"),
    ("minor", "V.:i"),
    ("patch", "V.:i"),
    ("format.named", "s:oF"),
    ("validate", "F.s:ols"),
    ("format.dns1123Label", ":F"),
    ("format.dns1123Subdomain", ":F"),
    ("format.dns1035Label", ":F"),
    ("format.qualifiedName", ":F"),
    ("format.dns1123LabelPrefix", ":F"),
    ("format.dns1123SubdomainPrefix", ":F"),
    ("format.dns1035LabelPrefix", ":F"),
    ("format.labelValue", ":F"),
    ("format.uri", ":F"),
    ("format.uuid", ":F"),
    ("format.byte", ":F"),
    ("format.date", ":F"),
    ("format.datetime", ":F"),
    ("jsonpatch.escapeKey", "s:s"),
    // Who may do what.
    ("path", "A.s:P"),
    ("group", "A.s:G"),
    ("serviceAccount", "A.ss:A"),
    ("resource", "G.s:R"),
    ("subresource", "R.s:R"),
    ("namespace", "R.s:R"),
    ("name", "R.s:R"),
    ("fieldSelector", "R.s:R"),
    ("labelSelector", "R.s:R"),
    ("check", "R.s:D"),
    ("check", "P.s:D"),
    ("errored", "D.:b"),
    ("error", "D.:s"),
    ("allowed", "D.:b"),
    ("reason", "D.:s"),
];

/// The type that a signature goes on with.
fn ty(letters: &mut std::str::Chars<'_>) -> Option<Ty> {
    Some(match letters.next()? {
        'b' => Ty::Bool,
        'd' => Ty::Double,
        'i' => Ty::Int,
        's' => Ty::Text,
        'u' => Ty::Uint,
        'y' => Ty::Bytes,
        't' => Ty::Timestamp,
        'r' => Ty::Duration,
        'T' => Ty::Type,
        'x' => Ty::Dyn,
        'l' => Ty::list(ty(letters)?),
        'm' => Ty::Map(Box::new(Ty::Dyn), Box::new(ty(letters)?)),
        'o' => Ty::Optional(Box::new(ty(letters)?)),
        'U' => Ty::named("kubernetes.URL"),
        'I' => Ty::named("net.IP"),
        'C' => Ty::named("net.CIDR"),
        'Q' => Ty::named("kubernetes.Quantity"),
        'V' => Ty::named("kubernetes.Semver"),
        'F' => Ty::named("kubernetes.NamedFormat"),
        'A' => Ty::named("kubernetes.authorization.Authorizer"),
        'P' => Ty::named("kubernetes.authorization.PathCheck"),
        'G' => Ty::named("kubernetes.authorization.GroupCheck"),
        'R' => Ty::named("kubernetes.authorization.ResourceCheck"),
        'D' => Ty::named("kubernetes.authorization.Decision"),
        _ => return None,
    })
}

fn all(letters: &str) -> Vec<Ty> {
    let mut letters = letters.chars();
    std::iter::from_fn(|| ty(&mut letters)).collect()
}

/// Whether there is a function of this name.
pub(super) fn is_known(name: &str) -> bool {
    FUNCTIONS.iter().any(|(known, _)| *known == name)
}

/// The type of a call's value; `None` where the function is not for these types. Any, where several may be meant.
pub(super) fn result((name, receiver, arguments): (&str, Option<&Ty>, &[Ty])) -> Option<Ty> {
    let mut found: Option<Ty> = None;
    for (_, signature) in FUNCTIONS.iter().filter(|(known, _)| *known == name) {
        let (taken, result) = signature.split_once(':')?;
        let (own, wanted) = taken.split_once('.').map_or((None, taken), |(own, wanted)| (Some(own), wanted));
        let fits_receiver = match (own, receiver) {
            (None, None) => true,
            (Some(own), Some(receiver)) => all(own).first().is_some_and(|own| receiver.fits(own)),
            _ => false,
        };
        let wanted = all(wanted);
        let fits =
            wanted.len() == arguments.len() && arguments.iter().zip(&wanted).all(|(one, wanted)| one.fits(wanted));
        if !fits_receiver || !fits {
            continue;
        }
        let result = all(result).into_iter().next()?;
        match found {
            Some(before) if before != result => return Some(Ty::Dyn),
            _ => found = Some(result),
        }
    }
    found.map(|ty| match name {
        "flatten" => flattened(ty, receiver),
        "unwrapOpt" | "optional.unwrap" => unwrapped(receiver.or(arguments.first())),
        _ => inferred(ty, receiver, arguments),
    })
}

/// What is in the optional values of a list.
fn unwrapped(list: Option<&Ty>) -> Ty {
    let item = match list {
        Some(Ty::List(item)) => match item.as_ref() {
            Ty::Optional(inner) => (**inner).clone(),
            _ => Ty::Dyn,
        },
        _ => Ty::Dyn,
    };
    Ty::list(item)
}

/// The items of lists in a list; of lists further in, where it is said how deep, nothing is known.
fn flattened(ty: Ty, receiver: Option<&Ty>) -> Ty {
    match receiver {
        Some(Ty::List(item)) => match item.as_ref() {
            Ty::List(inner) if !matches!(**inner, Ty::List(_)) => (**item).clone(),
            Ty::List(_) => ty,
            _ => Ty::List(item.clone()),
        },
        _ => ty,
    }
}

/// What a value is taken out of says more than the signature.
fn inferred(ty: Ty, receiver: Option<&Ty>, arguments: &[Ty]) -> Ty {
    match (&ty, receiver) {
        (Ty::Dyn, Some(Ty::Optional(inner))) => (**inner).clone(),
        (Ty::List(item), Some(list @ Ty::List(_))) if item.is_open() => list.clone(),
        (Ty::Optional(inner), Some(Ty::List(item))) if inner.is_open() => Ty::Optional(item.clone()),
        (Ty::Optional(inner), None) if inner.is_open() => match arguments {
            [one] => Ty::Optional(Box::new(one.clone())),
            _ => Ty::Optional(Box::new(Ty::Free)),
        },
        _ => ty,
    }
}
