//! One file a kind.

mod admissionregistration;
mod apiextensions;
mod apiregistration;
pub(crate) mod apps;
mod authentication;
mod authorization;
mod autoscaling;
mod batch;
mod certificates;
mod coordination;
pub(crate) mod core;
mod discovery;
mod events;
mod flowcontrol;
mod meta;
mod networking;
mod node;
mod policy;
mod rbac;
mod resource;
mod scheduling;
pub(crate) mod storage;

use crate::kind::Kind;

/// Every kind, in the order of discovery.
pub(crate) static ALL: &[&Kind] = &[
    &core::namespace::KIND,
    &core::node::KIND,
    &core::pod::KIND,
    &core::service::KIND,
    &core::endpoints::KIND,
    &core::config_map::KIND,
    &core::secret::KIND,
    &core::service_account::KIND,
    &core::event::KIND,
    &core::binding::KIND,
    &core::persistent_volume::KIND,
    &core::persistent_volume_claim::KIND,
    &core::limit_range::KIND,
    &core::resource_quota::KIND,
    &core::replication_controller::KIND,
    &core::pod_template::KIND,
    &apiregistration::api_service::KIND,
    &apps::replica_set::KIND,
    &apps::deployment::KIND,
    &apps::daemon_set::KIND,
    &apps::stateful_set::KIND,
    &apps::controller_revision::KIND,
    &autoscaling::horizontal_pod_autoscaler::KIND,
    &autoscaling::horizontal_pod_autoscaler_v1::KIND,
    &batch::job::KIND,
    &batch::cron_job::KIND,
    &discovery::endpoint_slice::KIND,
    &coordination::lease::KIND,
    &events::event::KIND,
    &rbac::role::KIND,
    &rbac::role_binding::KIND,
    &rbac::cluster_role::KIND,
    &rbac::cluster_role_binding::KIND,
    &certificates::certificate_signing_request::KIND,
    &authentication::token_review::KIND,
    &authentication::self_subject_review::KIND,
    &authentication::token_request::KIND,
    &authorization::subject_access_review::KIND,
    &authorization::local_subject_access_review::KIND,
    &authorization::self_subject_access_review::KIND,
    &authorization::self_subject_rules_review::KIND,
    &scheduling::priority_class::KIND,
    &networking::ingress::KIND,
    &networking::ingress_class::KIND,
    &networking::network_policy::KIND,
    &networking::ip_address::KIND,
    &networking::service_cidr::KIND,
    &node::runtime_class::KIND,
    &storage::storage_class::KIND,
    &storage::csi_driver::KIND,
    &storage::csi_node::KIND,
    &storage::csi_storage_capacity::KIND,
    &storage::volume_attachment::KIND,
    &storage::volume_attributes_class::KIND,
    &policy::pod_disruption_budget::KIND,
    &apiextensions::custom_resource_definition::KIND,
    &flowcontrol::flow_schema::KIND,
    &flowcontrol::priority_level_configuration::KIND,
    &admissionregistration::validating_webhook_configuration::KIND,
    &admissionregistration::mutating_webhook_configuration::KIND,
    &admissionregistration::validating_admission_policy::KIND,
    &admissionregistration::validating_admission_policy_binding::KIND,
    &resource::device_class::KIND,
    &resource::resource_claim::KIND,
    &resource::resource_claim_template::KIND,
    &resource::resource_slice::KIND,
    &admissionregistration::mutating_admission_policy::KIND,
    &admissionregistration::mutating_admission_policy_binding::KIND,
    &policy::eviction::KIND,
    &autoscaling::scale::KIND,
    &meta::delete_options::KIND,
];
