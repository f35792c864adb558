mod conversion;
pub(crate) mod horizontal_pod_autoscaler;
pub(crate) mod horizontal_pod_autoscaler_v1;
mod metrics;
pub mod scale;
