//! `certificates.k8s.io/v1` CertificateSigningRequest.

use crate::kind::{Kind, Names, Subresource};

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
    ..Kind::cluster("certificates.k8s.io", "v1", NAMES)
};

const NAMES: Names = Names {
    kind: "CertificateSigningRequest",
    list: "CertificateSigningRequestList",
    plural: "certificatesigningrequests",
    singular: "certificatesigningrequest",
};
