//! Objects of custom kinds in other versions than they were written in: a webhook converts them, where the definition names
//! one (`apiextensions-apiserver/pkg/apiserver/conversion`).

use bytes::Bytes;
use schema::Kind;
use serde_json::{Value, json};

use crate::objects::parse_stored;
use crate::problem::{Problem, Result};
use crate::server::Core;
use crate::webhooks;

/// How long a webhook may take.
const PATIENCE: u64 = 30;
/// How much is converted by one call, in bytes: of the answer, four times as much is read.
const AT_ONCE: usize = 4 * 1024 * 1024;

/// A stored object as `kind` shows it.
pub(crate) async fn shown(core: &Core, kind: &Kind, json: &Bytes) -> Result<Value> {
    let mut one = [parse_stored(kind, json)?];
    convert(core, kind, &kind.api_version(), &mut one).await?;
    let [object] = one;
    Ok(kind.from_storage(object))
}

/// Stored objects as `kind` shows them: those that are to be converted are converted by one call.
pub(crate) async fn all_shown(core: &Core, kind: &Kind, stored: impl Iterator<Item = &Bytes>) -> Result<Vec<Value>> {
    let mut objects = stored.map(|json| parse_stored(kind, json)).collect::<Result<Vec<_>>>()?;
    convert(core, kind, &kind.api_version(), &mut objects).await?;
    Ok(objects.into_iter().map(|object| kind.from_storage(object)).collect())
}

/// An object as it is stored.
pub(crate) async fn to_storage(core: &Core, kind: &Kind, object: Value) -> Result<Value> {
    let mut one = [object];
    if kind.custom.is_some_and(|custom| custom.conversion.is_some()) {
        let version = format!("{}/{}", kind.storage.group, kind.storage.version);
        convert(core, kind, &version, &mut one).await?;
    }
    let [object] = one;
    Ok(kind.to_storage(object))
}

/// An object of one version as another shows it.
pub(crate) async fn between(core: &Core, from: &Kind, to: &Kind, object: &Value) -> Result<Value> {
    if std::ptr::eq(from, to) {
        return Ok(object.clone());
    }
    let mut one = [to_storage(core, from, object.clone()).await?];
    convert(core, to, &to.api_version(), &mut one).await?;
    let [object] = one;
    Ok(to.from_storage(object))
}

/// Has those that are of another version converted in their places, as many at once as [`AT_ONCE`] allows.
async fn convert(core: &Core, kind: &Kind, wanted: &str, objects: &mut [Value]) -> Result<()> {
    let Some(webhook) = kind.custom.and_then(|custom| custom.conversion.as_ref()) else { return Ok(()) };
    let mut others: Vec<&mut Value> = objects.iter_mut().filter(|object| object["apiVersion"] != wanted).collect();
    let Some(first) = others.first() else { return Ok(()) };
    let what = format!("{}, Kind={}", first["apiVersion"].as_str().unwrap_or_default(), kind.kind);
    let failed = |why: String| Problem::untold(&format!("conversion webhook for {what} {why}"));
    let mut done = 0;
    while let Some(rest) = others.get_mut(done..).filter(|rest| !rest.is_empty()) {
        let asked = texts(rest);
        let converted = ask(core, webhook, wanted, &asked).await?.map_err(|why| failed(format!("failed: {why}")))?;
        if converted.len() != asked.len() {
            return Err(failed(format!("returned {} objects, expected {}", converted.len(), asked.len())));
        }
        for (object, converted) in rest.iter_mut().zip(converted) {
            **object = accepted(object, converted, (wanted, kind.kind))
                .map_err(|why| failed(format!("returned invalid converted object at index {done}: {why}")))?;
            done += 1;
        }
    }
    Ok(())
}

/// As many objects as are converted at once, at least one.
fn texts(objects: &[&mut Value]) -> Vec<String> {
    let mut size = 0;
    let texts = objects.iter().map(ToString::to_string);
    let fitting = texts.enumerate().take_while(|(index, text)| {
        size += text.len();
        *index == 0 || size <= AT_ONCE
    });
    fitting.map(|(_, text)| text).collect()
}

/// What a webhook makes of objects; why it made nothing of them.
async fn ask(
    core: &Core,
    webhook: &Value,
    wanted: &str,
    objects: &[String],
) -> Result<std::result::Result<Vec<Value>, String>> {
    let version = review_version(webhook).ok_or_else(|| Problem::untold("no supported conversion review versions"))?;
    let uid = auth::random_uuid();
    // Objects are large, and were written once to know how large.
    let objects = objects.join(",");
    let request = format!(r#"{{"uid":{},"desiredAPIVersion":{},"objects":[{objects}]}}"#, json!(uid), json!(wanted));
    let review =
        format!(r#"{{"kind":"ConversionReview","apiVersion":"apiextensions.k8s.io/{version}","request":{request}}}"#);
    let answer = webhooks::post(core, &webhook["clientConfig"], PATIENCE, review).await;
    Ok(answer.map_err(|error| error.to_string()).and_then(|answer| read(answer, version, &uid)))
}

/// The first version of reviews that this server speaks.
fn review_version(webhook: &Value) -> Option<&str> {
    let known = webhook["conversionReviewVersions"].as_array()?.iter().filter_map(Value::as_str);
    known.into_iter().find(|version| ["v1", "v1beta1"].contains(version))
}

/// The objects of an answer.
fn read(mut answer: Value, version: &str, uid: &str) -> Result<Vec<Value>, String> {
    // Those of the older version were never asked who they are.
    let is_strict = version == "v1";
    let said = |field: &str| answer[field].as_str().unwrap_or_default();
    if is_strict && (said("apiVersion"), said("kind")) != ("apiextensions.k8s.io/v1", "ConversionReview") {
        let (version, kind) = (said("apiVersion"), said("kind"));
        let wanted = "apiextensions.k8s.io/v1, Kind=ConversionReview";
        return Err(format!("expected webhook response of {wanted}, got {version}, Kind={kind}"));
    }
    let response = &mut answer["response"];
    if response.is_null() {
        return Err("no response provided".to_owned());
    }
    if is_strict && response["uid"] != uid {
        return Err(format!("expected response.uid={uid:?}, got {:?}", response["uid"].as_str().unwrap_or_default()));
    }
    let result = &response["result"];
    let status = result["status"].as_str().unwrap_or_default();
    if status != "Success" {
        let message = result["message"].as_str().filter(|message| !message.is_empty());
        return Err(
            message.map_or_else(|| format!("response.result.status was '{status}', not 'Success'"), ToOwned::to_owned)
        );
    }
    match response["convertedObjects"].take() {
        Value::Array(objects) => Ok(objects),
        _ => Ok(Vec::new()),
    }
}

/// What a webhook made of an object: of its metadata, only labels and annotations may be new.
fn accepted(original: &Value, mut converted: Value, (version, kind): (&str, &str)) -> Result<Value, String> {
    let text = |object: &Value, field: &str| object[field].as_str().unwrap_or_default().to_owned();
    let (got, got_kind) = (text(&converted, "apiVersion"), text(&converted, "kind"));
    if got != version {
        return Err(format!("invalid groupVersion (expected {version}, received {got})"));
    }
    if got_kind != kind {
        return Err(format!("invalid kind (expected {kind}, received {got_kind})"));
    }
    for (field, shown) in [("name", "name"), ("namespace", "namespace"), ("uid", "UID")] {
        let (wanted, got) = (text(&original["metadata"], field), text(&converted["metadata"], field));
        if wanted != got {
            return Err(format!("must have the same {shown}: {wanted} != {got}"));
        }
    }
    let Value::Object(said) = converted["metadata"].take() else {
        return Err("missing metadata in converted object".to_owned());
    };
    let mut metadata = original["metadata"].clone();
    for field in ["labels", "annotations"] {
        let new = said.get(field).filter(|value| !value.is_null());
        let texts = new.map(|value| value.as_object().filter(|map| map.values().all(Value::is_string)));
        match (metadata.as_object_mut(), texts) {
            (_, Some(None)) => return Err(format!("invalid metadata.{field} in converted object")),
            (Some(metadata), Some(Some(map))) => {
                metadata.insert(field.to_owned(), map.clone().into());
            }
            (Some(metadata), None) => {
                metadata.remove(field);
            }
            (None, _) => {}
        }
    }
    converted["metadata"] = metadata;
    Ok(converted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_checked() {
        let answer = |response: Value| json!({ "apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview", "response": response });
        let done = json!({ "uid": "u", "result": { "status": "Success" }, "convertedObjects": [{ "a": 1 }] });
        assert_eq!(read(answer(done.clone()), "v1", "u"), Ok(vec![json!({ "a": 1 })]));
        assert_eq!(read(answer(done), "v1", "w"), Err("expected response.uid=\"w\", got \"u\"".to_owned()));
        let refused = json!({ "uid": "u", "result": { "status": "Failure", "message": "no" } });
        assert_eq!(read(answer(refused), "v1", "u"), Err("no".to_owned()));
        assert_eq!(read(answer(Value::Null), "v1", "u"), Err("no response provided".to_owned()));
        let other = json!({ "response": { "result": {} } });
        assert_eq!(
            read(other.clone(), "v1", "u"),
            Err("expected webhook response of apiextensions.k8s.io/v1, Kind=ConversionReview, got , Kind=".to_owned())
        );
        assert_eq!(read(other, "v1beta1", "u"), Err("response.result.status was '', not 'Success'".to_owned()));
    }

    #[test]
    fn of_metadata_labels_and_annotations_may_be_new() {
        let original = json!({ "apiVersion": "g/v1", "kind": "K", "metadata": {
            "name": "n", "uid": "u", "generation": 3, "labels": { "a": "b" }, "annotations": { "c": "d" } } });
        let converted =
            |metadata: Value| json!({ "apiVersion": "g/v2", "kind": "K", "metadata": metadata, "new": true });
        let made =
            accepted(&original, converted(json!({ "name": "n", "uid": "u", "labels": { "x": "y" } })), ("g/v2", "K"));
        let wanted = json!({ "name": "n", "uid": "u", "generation": 3, "labels": { "x": "y" } });
        assert_eq!(made, Ok(converted(wanted)));
        let renamed = accepted(&original, converted(json!({ "name": "m", "uid": "u" })), ("g/v2", "K"));
        assert_eq!(renamed, Err("must have the same name: n != m".to_owned()));
        let wrong = accepted(&original, converted(json!({ "name": "n", "uid": "u" })), ("g/v3", "K"));
        assert_eq!(wrong, Err("invalid groupVersion (expected g/v3, received g/v2)".to_owned()));
        let numbers = converted(json!({ "name": "n", "uid": "u", "labels": { "x": 1 } }));
        assert_eq!(
            accepted(&original, numbers, ("g/v2", "K")),
            Err("invalid metadata.labels in converted object".to_owned())
        );
    }
}
