//! The condition `Dangling` of FlowSchemas: whether the priority level is there that they name.

use std::sync::{Arc, Weak};

use jiff::Timestamp;
use serde_json::{Value, json};
use store::ListRequest;

use super::{GROUP, SCHEMAS};
use crate::hooks::stored_resource;
use crate::objects;
use crate::server::Core;

/// Keeps the condition true until the server is gone.
pub(crate) async fn follow(core: Weak<Core>) {
    loop {
        let Some(strong) = core.upgrade() else { return };
        refresh(&strong).await;
        let flow_control = Arc::clone(&strong.flow_control);
        drop(strong);
        // A notice that nobody waits for is kept.
        flow_control.changed.notified().await;
    }
}

async fn refresh(core: &Core) {
    let Some(kind) = core.kinds.registry().kind(GROUP, "v1", SCHEMAS) else { return };
    let resource = stored_resource(kind);
    let all = ListRequest { resource: &resource, namespace: "", after: None, limit: 0, at: None, filter: None };
    let Ok(page) = core.store.list(&all) else { return };
    for entry in &page.entries {
        let Ok(schema) = objects::parse_stored(kind, entry.json()) else { continue };
        let level = schema["spec"]["priorityLevelConfiguration"]["name"].as_str().unwrap_or_default();
        let has_level = core.flow_control.has_level(level);
        if let Some(judged) = judged(&schema, has_level, Timestamp::now())
            && let Err(problem) = objects::replace(core, kind, entry, judged).await
        {
            tracing::warn!(schema = entry.key.name(), reason = problem.message, "its condition was not written");
        }
    }
}

/// The FlowSchema with the condition; `None` where it says so already.
fn judged(schema: &Value, has_level: bool, now: Timestamp) -> Option<Value> {
    let level = schema["spec"]["priorityLevelConfiguration"]["name"].as_str().unwrap_or_default();
    let (status, reason, end) = match has_level {
        true => ("False", "Found", "and it exists"),
        false => ("True", "NotFound", "but there is no such object"),
    };
    let message = format!("This FlowSchema references the PriorityLevelConfiguration object named {level:?} {end}");
    let conditions = schema["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let (ours, mut rest): (Vec<Value>, Vec<Value>) = conditions.into_iter().partition(|one| one["type"] == "Dangling");
    if ours.iter().any(|one| {
        (&one["status"], &one["reason"], &one["message"]) == (&json!(status), &json!(reason), &json!(message))
    }) {
        return None;
    }
    rest.push(json!({
        "type": "Dangling", "status": status, "reason": reason, "message": message,
        "lastTransitionTime": format!("{now:.0}"),
    }));
    let mut new = schema.clone();
    new["status"]["conditions"] = rest.into();
    Some(new)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::json;

    use super::judged;

    #[test]
    fn a_schema_without_its_level_dangles() {
        let schema = json!({ "metadata": { "name": "s" }, "spec": { "priorityLevelConfiguration": { "name": "l" } } });
        let dangling = judged(&schema, false, Timestamp::UNIX_EPOCH).unwrap();
        let condition = &dangling["status"]["conditions"][0];
        assert_eq!((&condition["status"], &condition["reason"]), (&json!("True"), &json!("NotFound")));
        let wanted =
            "This FlowSchema references the PriorityLevelConfiguration object named \"l\" but there is no such object";
        assert_eq!(condition["message"], wanted);
        assert_eq!(judged(&dangling, false, Timestamp::UNIX_EPOCH), None);
        let found = judged(&dangling, true, Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(found["status"]["conditions"].as_array().unwrap().len(), 1);
        assert_eq!(found["status"]["conditions"][0]["status"], "False");
    }
}
