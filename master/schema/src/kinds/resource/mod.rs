mod claim_rules;
pub mod device_class;
mod device_rules;
mod policy_rules;
pub mod resource_claim;
pub mod resource_claim_template;
pub mod resource_slice;
mod rules;
