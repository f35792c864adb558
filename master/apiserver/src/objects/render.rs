//! Objects in the form that the client asked for: as they are, as a Table, as metadata only.

use bytes::Bytes;
use http::{Response, StatusCode};
use jiff::Timestamp;
use schema::{Kind, Priority, protobuf};
use serde_json::{Map, Value, json};

use super::codec::is_own_storage;
use crate::body::{self, Body};
use crate::conversion;
use crate::problem::Result;
use crate::request::{Format, Shape};
use crate::road::Call;
use crate::server::Core;

/// One object, given as it is stored.
pub(crate) async fn render(core: &Core, call: &Call, status: StatusCode, json: &Bytes) -> Result<Response<Body>> {
    let view = View::of(call);
    match call.accept.format {
        Format::Json if view.is_as_stored() => Ok(body::respond(status, body::JSON, json.clone())),
        Format::Protobuf if view.is_as_stored() => {
            body::protobuf(status, protobuf::transcode(&call.kind.api_version(), call.kind.kind, json))
        }
        format => body::value(format, status, &view.object(conversion::shown(core, call.kind, json).await?)),
    }
}

/// How one client looks at objects of one kind.
#[derive(Clone)]
pub(super) struct View {
    pub kind: &'static Kind,
    pub shape: Shape,
    include: Include,
}

/// `includeObject` of a Table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Include {
    Nothing,
    Metadata,
    Object,
}

impl View {
    pub(super) fn of(call: &Call) -> Self {
        let include = match call.query.get("includeObject") {
            "None" => Include::Nothing,
            "Object" => Include::Object,
            _ => Include::Metadata,
        };
        View { kind: call.kind, shape: call.accept.shape, include }
    }

    /// Whether stored bytes are what this client sees.
    pub(super) fn is_as_stored(&self) -> bool {
        self.shape == Shape::Object && is_own_storage(self.kind)
    }

    pub(super) fn object(&self, object: Value) -> Value {
        match self.shape {
            Shape::Object => object,
            Shape::Partial(version) => partial(version, &object),
            Shape::Table(version) => {
                let metadata = json!({ "resourceVersion": object.pointer("/metadata/resourceVersion") });
                self.table(version, metadata, vec![object], true)
            }
        }
    }

    /// An object of a watch: only the first Table carries its columns.
    pub(super) fn event(&self, object: Value, first: bool) -> Value {
        match self.shape {
            Shape::Table(version) => {
                let metadata = json!({ "resourceVersion": object.pointer("/metadata/resourceVersion") });
                self.table(version, metadata, vec![object], first)
            }
            _ => self.object(object),
        }
    }

    /// Says only how far a watch has come.
    pub(super) fn bookmark(&self, revision: u64, annotations: Option<Value>) -> Value {
        let mut metadata = json!({ "resourceVersion": revision.to_string() });
        if let Some(annotations) = annotations {
            metadata["annotations"] = annotations;
        }
        match self.shape {
            Shape::Table(version) => self.table(version, metadata, Vec::new(), false),
            Shape::Partial(version) => json!({
                "kind": "PartialObjectMetadata", "apiVersion": format!("meta.k8s.io/{version}"), "metadata": metadata,
            }),
            Shape::Object => {
                json!({ "kind": self.kind.kind, "apiVersion": self.kind.api_version(), "metadata": metadata })
            }
        }
    }

    pub(super) fn list(&self, metadata: Value, objects: Vec<Value>) -> Value {
        match self.shape {
            Shape::Table(version) => self.table(version, metadata, objects, true),
            Shape::Partial(version) => json!({
                "kind": "PartialObjectMetadataList",
                "apiVersion": format!("meta.k8s.io/{version}"),
                "metadata": metadata,
                "items": objects.iter().map(|object| partial(version, object)).collect::<Vec<_>>(),
            }),
            Shape::Object => json!({
                "kind": self.kind.list_kind, "apiVersion": self.kind.api_version(),
                "metadata": metadata, "items": objects.into_iter().map(without_type).collect::<Vec<_>>(),
            }),
        }
    }

    fn table(&self, version: &str, metadata: Value, objects: Vec<Value>, columns: bool) -> Value {
        let now = Timestamp::now();
        let rows: Vec<Value> = objects.into_iter().map(|object| self.row(version, object, now)).collect();
        let definitions: Vec<Value> = if columns { self.columns() } else { Vec::new() };
        json!({
            "kind": "Table", "apiVersion": format!("meta.k8s.io/{version}"), "metadata": metadata,
            "columnDefinitions": definitions, "rows": rows,
        })
    }

    fn columns(&self) -> Vec<Value> {
        let column = |c: &schema::Column| {
            let priority = if c.priority == Priority::Wide { 1 } else { 0 };
            json!({
                "name": c.name, "type": c.kind, "format": c.format, "description": c.description, "priority": priority,
            })
        };
        self.kind.columns().iter().map(column).collect()
    }

    fn row(&self, version: &str, object: Value, now: Timestamp) -> Value {
        let cells = self.kind.table_row(&object, now);
        match self.include {
            Include::Nothing => json!({ "cells": cells, "object": null }),
            Include::Metadata => json!({ "cells": cells, "object": partial(version, &object) }),
            Include::Object => json!({ "cells": cells, "object": object }),
        }
    }
}

fn partial(version: &str, object: &Value) -> Value {
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": format!("meta.k8s.io/{version}"),
        "metadata": object.get("metadata").cloned().unwrap_or_else(|| Value::Object(Map::new())),
    })
}

fn without_type(mut object: Value) -> Value {
    if let Value::Object(members) = &mut object {
        members.remove("kind");
        members.remove("apiVersion");
    }
    object
}
