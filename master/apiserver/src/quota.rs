//! ResourceQuota admission: last of all, what an object uses is charged to the quotas of its namespace
//! (`apiserver/pkg/admission/plugin/resourcequota`). It stands here because it writes: the quotas' status counts what was
//! let in, so that two requests at once cannot both take the last place. What is refused by one quota is charged to none, and
//! what then comes to nothing is taken back.

use std::collections::BTreeSet;
use std::sync::Arc;

use api::quantity::Quantity;
use api::quota;
use api::resources::ResourceList;
use auth::Refusal;
use schema::{Kind, Registry};
use serde_json::{Map, Value};
use store::{Entry, ListRequest};

use crate::hooks;
use crate::objects;
use crate::problem::{Problem, Result};
use crate::server::Core;

/// How often a quota is charged anew when others change it meanwhile.
const ATTEMPTS: usize = 16;

/// A new or changed object.
pub(crate) struct Charge<'a> {
    pub kind: &'static Kind,
    pub namespace: &'a str,
    pub object: &'a Value,
    /// What the object was before.
    pub old: Option<&'a Value>,
    pub dry_run: bool,
}

/// What was charged for a write that is under way.
#[must_use = "what comes to nothing must be taken back"]
pub(crate) struct Charged {
    namespace: String,
    /// Which quota has how much more now.
    quotas: Vec<(String, ResourceList)>,
}

impl Charged {
    /// Hands on what became of the write; the charge stays only if it was made.
    pub(crate) async fn unless_made<T>(self, core: &Core, done: Result<Option<T>>) -> Result<Option<T>> {
        if !matches!(done, Ok(Some(_))) {
            self.take_back(core).await;
        }
        done
    }

    async fn take_back(self, core: &Core) {
        for (name, delta) in &self.quotas {
            let less = delta.iter().map(|(name, amount)| (name.clone(), Quantity::ZERO.minus(amount))).collect();
            if let Err(problem) = change(core, (&self.namespace, name), &less).await {
                // Until the controller counts anew.
                let namespace = &self.namespace;
                tracing::warn!(namespace, quota = name, error = problem.message, "a charge was not taken back");
            }
        }
    }
}

/// The quotas that a write of such an object may be charged to.
pub(crate) fn due(core: &Core, kind: &Kind, namespace: &str, is_new: bool) -> Result<Vec<Arc<Entry>>> {
    if counts(kind, is_new) { entries(core, self::kind()?, namespace) } else { Ok(Vec::new()) }
}

/// Does `work` whole, where it may be charged for: a client that goes away ends its request, but not what was begun for it, which
/// would leave a charge for nothing.
pub(crate) async fn whole<T: Send + 'static>(
    may_charge: bool,
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    if !may_charge {
        return work.await;
    }
    tokio::spawn(work).await.unwrap_or_else(|error| {
        tracing::error!(%error, "a write ended early");
        Err(Problem::internal("the request could not be handled"))
    })
}

/// Adds to what is used of a quota, if it is still there.
async fn change(core: &Core, (namespace, name): (&str, &str), more: &ResourceList) -> Result<()> {
    let kind = kind()?;
    let key = hooks::key(kind, namespace, name);
    for _ in 0..ATTEMPTS {
        let Some(entry) = core.store.get(&key) else { return Ok(()) };
        let quota = objects::stored(kind, entry.json())?;
        if objects::replace(core, kind, &entry, with(&quota, more)).await?.is_some() {
            return Ok(());
        }
    }
    Err(Problem::modified(kind, name))
}

/// Whether such an object uses more of anything, once it is made or changed.
fn counts(kind: &Kind, is_new: bool) -> bool {
    let changes_use = || matches!((kind.group, kind.plural), ("", "pods" | "services" | "persistentvolumeclaims"));
    kind.namespaced && (is_new || changes_use())
}

/// Charges what an object uses beyond what it used to all quotas that count it, or refuses it.
pub(crate) async fn charge(core: &Core, due: Vec<Arc<Entry>>, charge: &Charge<'_>) -> Result<Charged> {
    let mut charged = Charged { namespace: charge.namespace.to_owned(), quotas: Vec::new() };
    match charge_all(core, due, charge, &mut charged).await {
        Ok(()) => Ok(charged),
        Err(refused) => {
            charged.take_back(core).await;
            Err(refused)
        }
    }
}

/// Those that others change meanwhile are asked again.
async fn charge_all(core: &Core, mut left: Vec<Arc<Entry>>, charge: &Charge<'_>, charged: &mut Charged) -> Result<()> {
    for _ in 0..ATTEMPTS {
        let missed = charge_some(core, left, charge, charged).await?;
        if missed.is_empty() {
            return Ok(());
        }
        left = missed.iter().filter_map(|entry| core.store.get(&entry.key)).collect();
    }
    Err(Problem::modified(kind()?, charge.namespace))
}

fn kind() -> Result<&'static Kind> {
    Registry::builtin().kind("", "v1", "resourcequotas").ok_or_else(|| Problem::internal("no kind ResourceQuota"))
}

fn entries(core: &Core, kind: &Kind, namespace: &str) -> Result<Vec<Arc<Entry>>> {
    let resource = hooks::stored_resource(kind);
    let request = ListRequest { resource: &resource, namespace, after: None, limit: 0, at: None, filter: None };
    let page = core.store.list(&request).map_err(|error| Problem::internal(&error.to_string()))?;
    Ok(page.entries)
}

/// Asks all quotas before it writes any. Answers with those that could not be written.
async fn charge_some(
    core: &Core,
    quotas: Vec<Arc<Entry>>,
    charge: &Charge<'_>,
    charged: &mut Charged,
) -> Result<Vec<Arc<Entry>>> {
    let (kind, mut due, mut missed) = (kind()?, Vec::new(), Vec::new());
    for entry in quotas {
        let quota = objects::stored(kind, entry.json())?;
        if let Some(delta) = judge(&quota, charge)? {
            due.push((entry, with(&quota, &delta), delta));
        }
    }
    if charge.dry_run {
        return Ok(missed);
    }
    for (entry, new, delta) in due {
        if objects::replace(core, kind, &entry, new).await?.is_some() {
            charged.quotas.push((entry.key.name().to_owned(), delta));
        } else {
            missed.push(entry);
        }
    }
    Ok(missed)
}

fn amounts(list: &Value) -> ResourceList {
    let entries = list.as_object().into_iter().flatten();
    entries.filter_map(|(name, amount)| Some((name.clone(), amount.as_str()?.parse().ok()?))).collect()
}

/// The quota with so much more used.
fn with(quota: &Value, more: &ResourceList) -> Value {
    let sum = |(name, used): (String, Quantity)| {
        let sum = used.plus(&more.get(&name).copied().unwrap_or_default());
        // Somebody may have counted anew before something was taken back.
        let shown = if sum < Quantity::ZERO { Quantity::ZERO } else { sum }.to_string();
        (name, shown.into())
    };
    let total: Map<String, Value> = amounts(&quota["status"]["used"]).into_iter().map(sum).collect();
    let mut new = quota.clone();
    new["status"]["used"] = total.into();
    new
}

/// What is to be charged to the quota; `None` where it does not count the object.
fn judge(quota: &Value, charge: &Charge<'_>) -> Result<Option<ResourceList>> {
    let (kind, object) = (charge.kind, charge.object);
    let place = (kind.group, kind.plural);
    let (hard, used) = (amounts(&quota["status"]["hard"]), amounts(&quota["status"]["used"]));
    let about = |name: &String| quota::counts(name) == place || *name == quota::count_name(kind.group, kind.plural);
    let counted: BTreeSet<String> = hard.keys().filter(|name| about(name)).cloned().collect();
    if counted.is_empty() || !quota::is_in_scope(quota, place, object) {
        return Ok(None);
    }
    let name = quota["metadata"]["name"].as_str().unwrap_or_default();
    let refuse = |why: &str| -> Problem {
        let object = object["metadata"]["name"].as_str().unwrap_or_default();
        Refusal::forbidden(kind.group, kind.plural, object, why).into()
    };
    if place == ("", "pods")
        && charge.old.is_none()
        && let Some(unsaid) = quota::unsaid(&counted, object)
    {
        return Err(refuse(&format!("failed quota: {name}: must specify {unsaid}")));
    }
    let delta = delta(&counted, charge);
    if delta.is_empty() {
        return Ok(None);
    }
    let unknown: Vec<&str> = counted.iter().filter(|name| !used.contains_key(*name)).map(String::as_str).collect();
    if !unknown.is_empty() {
        return Err(refuse(&format!("status unknown for quota: {name}, resources: {}", unknown.join(","))));
    }
    let sum =
        |name: &String| used.get(name).copied().unwrap_or_default().plus(&delta.get(name).copied().unwrap_or_default());
    let grows = |name: &&String| delta.get(*name).is_some_and(|amount| *amount > Quantity::ZERO);
    let exceeded: BTreeSet<String> = delta
        .keys()
        .filter(grows)
        .filter(|name| hard.get(*name).is_some_and(|hard| sum(name) > *hard))
        .cloned()
        .collect();
    if !exceeded.is_empty() {
        let part = |list: &ResourceList| quota::shown(&quota::only(list, &exceeded));
        return Err(refuse(&format!(
            "exceeded quota: {name}, requested: {}, used: {}, limited: {}",
            part(&delta),
            part(&used),
            part(&hard)
        )));
    }
    Ok(Some(delta))
}

/// What the change adds to what is counted; what stays the same is left out.
fn delta(counted: &BTreeSet<String>, charge: &Charge<'_>) -> ResourceList {
    let usage = |object: &Value| quota::only(&quota::usage(charge.kind.group, charge.kind.plural, object), counted);
    let before = charge.old.map(usage).unwrap_or_default();
    let mut delta = usage(charge.object);
    for (name, amount) in before {
        let left = delta.get(&name).copied().unwrap_or_default().minus(&amount);
        delta.insert(name, left);
    }
    delta.retain(|_, amount| !amount.is_zero());
    delta
}

#[cfg(test)]
mod tests {
    use schema::Registry;
    use serde_json::{Value, json};

    use super::{Charge, judge, with};

    fn ask(hard: Value, used: Value, object: &Value, old: Option<&Value>) -> Result<Option<Value>, String> {
        let quota = json!({ "metadata": { "name": "q" }, "status": { "hard": hard, "used": used } });
        let kind = Registry::builtin().kind("", "v1", "pods").unwrap();
        let charge = Charge { kind, namespace: "default", object, old, dry_run: false };
        let used = |more| with(&quota, &more)["status"]["used"].clone();
        judge(&quota, &charge).map(|delta| delta.map(used)).map_err(|p| p.message)
    }

    fn pod(cpu: &str) -> Value {
        let resources = json!({ "requests": { "cpu": cpu } });
        json!({ "metadata": { "name": "p" }, "spec": { "containers": [{ "name": "c", "resources": resources }] } })
    }

    #[test]
    fn what_is_used_is_charged_until_nothing_is_left() {
        let hard = json!({ "pods": "2", "requests.cpu": "1" });
        let taken = ask(hard.clone(), json!({ "pods": "1", "requests.cpu": "500m" }), &pod("500m"), None);
        assert_eq!(taken, Ok(Some(json!({ "pods": "2", "requests.cpu": "1" }))));
        let refused =
            ask(hard.clone(), json!({ "pods": "1", "requests.cpu": "600m" }), &pod("500m"), None).unwrap_err();
        let wanted = "pods \"p\" is forbidden: exceeded quota: q, requested: requests.cpu=500m, used: requests.cpu=600m, \
                      limited: requests.cpu=1";
        assert_eq!(refused, wanted);
        let less = ask(hard.clone(), json!({ "pods": "2", "requests.cpu": "1" }), &pod("100m"), Some(&pod("500m")));
        assert_eq!(less, Ok(Some(json!({ "pods": "2", "requests.cpu": "600m" }))));
        assert_eq!(ask(json!({ "secrets": "0" }), json!({}), &pod("1"), None), Ok(None));
        let unknown = ask(hard, json!({}), &pod("1"), None).unwrap_err();
        assert!(unknown.ends_with("status unknown for quota: q, resources: pods,requests.cpu"), "{unknown}");
        let silent = ask(json!({ "limits.cpu": "1" }), json!({}), &pod("1"), None).unwrap_err();
        assert!(silent.ends_with("failed quota: q: must specify limits.cpu for: c"), "{silent}");
    }
}
