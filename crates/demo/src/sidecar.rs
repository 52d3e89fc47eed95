//! Sidecars that run beside each service: one for its log file, one for its metrics. They add the
//! labels that only the operator knows: `service_name` and `environment`.

pub mod logs;
pub mod metrics;

/// Labels of the application beside the sidecar.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Identity {
    /// `service_name` on every line and sample.
    pub service_name: String,
    /// `environment` on every line and sample.
    pub environment: String,
}
