//! `make bench`: what this checkout costs on this machine, in one run, against the bare CRI calls of the same pod on the same containerd.
//! Only the ratios mean anything elsewhere.
//!
//! | file | measures |
//! |---|---|
//! | `floor` | RunPodSandbox + CreateContainer + StartContainer, and back, without any Kubernetes |
//! | `pods` | create -> Ready and delete -> gone through the API, one by one and 110 at once |
//! | `cost` | PSS and CPU of processes |
//! | `api` | writes by 1 and by 64 clients |

pub mod api;
pub mod cost;
pub mod floor;
pub mod pods;

use std::time::Duration;

/// Times of one kind, in milliseconds.
#[derive(Debug, Clone, Default)]
pub struct Times(Vec<f64>);

impl Times {
    pub fn add(&mut self, time: Duration) {
        self.0.push(time.as_secs_f64() * 1000.0);
        self.0.sort_by(f64::total_cmp);
    }

    /// The time that a share of all (0 to 1) did not exceed; 0 where there are none.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)] // an index of a short list
    pub fn quantile(&self, share: f64) -> f64 {
        let last = self.0.len().saturating_sub(1);
        self.0.get((last as f64 * share).round() as usize).copied().unwrap_or(0.0)
    }

    #[must_use]
    pub fn p50(&self) -> f64 {
        self.quantile(0.5)
    }

    #[must_use]
    pub fn p99(&self) -> f64 {
        self.quantile(0.99)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_the_sorted_times() {
        let mut times = Times::default();
        (1..=101).rev().for_each(|ms| times.add(Duration::from_millis(ms)));
        assert!((times.p50() - 51.0).abs() < 1e-9 && (times.p99() - 100.0).abs() < 1e-9);
        assert!(Times::default().p50().abs() < 1e-9);
    }
}
