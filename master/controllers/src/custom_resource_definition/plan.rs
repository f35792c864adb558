//! Which names a definition gets, and whether its kind is served
//! (`apiextensions-apiserver/pkg/controller/{status,establish}`).

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceDefinitionCondition, CustomResourceDefinitionNames,
    CustomResourceDefinitionStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// Names that others of the group have.
#[derive(Debug, Default)]
pub(super) struct Taken {
    resources: BTreeSet<String>,
    kinds: BTreeSet<String>,
}

impl Taken {
    /// What other definitions of the group were given.
    pub fn by<'a>(others: impl Iterator<Item = &'a CustomResourceDefinition>) -> Self {
        let mut taken = Taken::default();
        for names in others.filter_map(|other| other.status.as_ref()?.accepted_names.as_ref()) {
            taken.resources.insert(names.plural.clone());
            taken.resources.extend(names.singular.clone());
            taken.resources.extend(names.short_names.iter().flatten().cloned());
            taken.kinds.insert(names.kind.clone());
            taken.kinds.extend(names.list_kind.clone());
        }
        taken
    }
}

/// The other definitions of its group.
pub(super) fn others<'a>(
    definition: &'a CustomResourceDefinition,
    all: impl Iterator<Item = &'a CustomResourceDefinition>,
) -> impl Iterator<Item = &'a CustomResourceDefinition> {
    all.filter(|one| one.spec.group == definition.spec.group && one.metadata.name != definition.metadata.name)
}

/// Whether a name that was asked for is another's.
pub(super) fn is_refused(status: &CustomResourceDefinitionStatus) -> bool {
    status
        .conditions
        .iter()
        .flatten()
        .any(|condition| condition.type_ == "NamesAccepted" && condition.status == "False")
}

/// The status that a definition should have; `None` where it has it.
pub(super) fn status(
    definition: &CustomResourceDefinition,
    taken: &Taken,
    now: Timestamp,
) -> Option<CustomResourceDefinitionStatus> {
    let old = definition.status.clone().unwrap_or_default();
    let (names, conflict) = names(definition, &old.accepted_names.clone().unwrap_or_default(), taken);
    let accepted = match &conflict {
        Some((reason, message)) => condition("NamesAccepted", "False", (reason, message), now),
        None => condition("NamesAccepted", "True", ("NoConflicts", "no conflicts found"), now),
    };
    let was_established = old.conditions.iter().flatten().any(|c| c.type_ == "Established" && c.status == "True");
    let established = match (was_established, &conflict) {
        (true, _) => None,
        (false, None) => {
            let why = ("InitialNamesAccepted", "the initial names have been accepted");
            Some(condition("Established", "True", why, now))
        }
        (false, Some(_)) => Some(condition("Established", "False", ("NotAccepted", "not all names are accepted"), now)),
    };
    let mut new = CustomResourceDefinitionStatus { accepted_names: Some(names), ..old.clone() };
    let conditions = new.conditions.get_or_insert_default();
    set(conditions, accepted);
    if let Some(established) = established {
        set(conditions, established);
    }
    (new != old).then_some(new)
}

/// Each name that is asked for and free; otherwise the one it had. With why the last that is not is not.
fn names(
    definition: &CustomResourceDefinition,
    old: &CustomResourceDefinitionNames,
    taken: &Taken,
) -> (CustomResourceDefinitionNames, Option<(&'static str, String)>) {
    let asked = &definition.spec.names;
    let mut new = CustomResourceDefinitionNames { categories: asked.categories.clone(), ..old.clone() };
    let mut conflict = None;
    let in_use = |name: &str| format!("{name:?} is already in use");
    let is_free = |wanted: &str, had: &str, used: &BTreeSet<String>| wanted == had || !used.contains(wanted);
    let text = |name: &Option<String>| name.clone().unwrap_or_default();
    if is_free(&asked.plural, &old.plural, &taken.resources) {
        new.plural.clone_from(&asked.plural);
    } else {
        conflict = Some(("PluralConflict", in_use(&asked.plural)));
    }
    if is_free(&text(&asked.singular), &text(&old.singular), &taken.resources) {
        new.singular.clone_from(&asked.singular);
    } else {
        conflict = Some(("SingularConflict", in_use(&text(&asked.singular))));
    }
    let had = old.short_names.clone().unwrap_or_default();
    let short = asked.short_names.iter().flatten().filter(|name| !had.contains(name));
    let used: Vec<String> = short.filter(|name| taken.resources.contains(*name)).map(|name| in_use(name)).collect();
    match used.as_slice() {
        [] => new.short_names.clone_from(&asked.short_names),
        [one] => conflict = Some(("ShortNamesConflict", one.clone())),
        many => conflict = Some(("ShortNamesConflict", format!("[{}]", many.join(", ")))),
    }
    if is_free(&asked.kind, &old.kind, &taken.kinds) {
        new.kind.clone_from(&asked.kind);
    } else {
        conflict = Some(("KindConflict", in_use(&asked.kind)));
    }
    if is_free(&text(&asked.list_kind), &text(&old.list_kind), &taken.kinds) {
        new.list_kind.clone_from(&asked.list_kind);
    } else {
        conflict = Some(("ListKindConflict", in_use(&text(&asked.list_kind))));
    }
    (new, conflict)
}

pub(super) fn condition(
    kind: &str,
    status: &str,
    (reason, message): (&str, &str),
    now: Timestamp,
) -> CustomResourceDefinitionCondition {
    CustomResourceDefinitionCondition {
        type_: kind.into(),
        status: status.into(),
        reason: Some(reason.into()),
        message: Some(message.into()),
        last_transition_time: Some(Time(now)),
        observed_generation: None,
    }
}

/// Puts a condition in its place; its time stays while its status does.
pub(super) fn set(conditions: &mut Vec<CustomResourceDefinitionCondition>, mut new: CustomResourceDefinitionCondition) {
    match conditions.iter_mut().find(|old| old.type_ == new.type_) {
        Some(old) => {
            if old.status == new.status {
                new.last_transition_time.clone_from(&old.last_transition_time);
            }
            *old = new;
        }
        None => conditions.push(new),
    }
}
