//! `certificates.k8s.io/v1` CertificateSigningRequest.

use jiff::Timestamp;
use serde_json::Value;

use crate::kind::{Column, FieldLabel, Hooks, Kind, Names, Subresource};
use crate::table::{self, human_duration};
use crate::value::Fields;

pub static KIND: Kind = Kind {
    definition: "io.k8s.api.certificates.v1.CertificateSigningRequest",
    short_names: &["csr"],
    subresources: &[
        Subresource {
            name: "approval",
            group: "certificates.k8s.io",
            version: "v1",
            kind: "CertificateSigningRequest",
            verbs: &["get", "patch", "update"],
        },
        Subresource {
            name: "status",
            group: "certificates.k8s.io",
            version: "v1",
            kind: "CertificateSigningRequest",
            verbs: &["get", "patch", "update"],
        },
    ],
    fields: &[FieldLabel::text("spec.signerName", "/spec/signerName")],
    columns: COLUMNS,
    hooks: Hooks { row, ..Hooks::PLAIN },
    ..Kind::cluster("certificates.k8s.io", "v1", NAMES)
};

const NAMES: Names = Names {
    kind: "CertificateSigningRequest",
    list: "CertificateSigningRequestList",
    plural: "certificatesigningrequests",
    singular: "certificatesigningrequest",
};

const COLUMNS: &[Column] = &[
    Column::NAME,
    Column::AGE,
    Column::text("SignerName", "Who is asked to sign"),
    Column::text("Requestor", "Who asks"),
    Column::text("RequestedDuration", "How long the certificate shall be valid"),
    Column::text("Condition", "What has become of the request"),
];

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let spec = object.at("spec");
    let duration = spec.int("expirationSeconds").map(human_duration).unwrap_or_default();
    vec![
        table::name(object),
        table::age(object, now),
        table::or_none(spec.text("signerName")),
        spec.text("username").into(),
        table::or_none(&duration),
        condition(object.at("status")).into(),
    ]
}

fn condition(status: &Value) -> String {
    let has = |kind| table::condition(status, kind).is_some();
    let mut text = if has("Denied") {
        "Denied"
    } else if has("Approved") {
        "Approved"
    } else {
        "Pending"
    }
    .to_string();
    if has("Failed") {
        text.push_str(",Failed");
    }
    if !status.text("certificate").is_empty() {
        text.push_str(",Issued");
    }
    text
}
