//! Container probes: what is asked, and what the answers amount to.
//!
//! * [`Probe`]: what is asked, how often, and how many answers count.
//! * [`kinds`]: http, tcp, grpc and exec; each asks once and answers an [`Outcome`].
//! * [`verdict`]: outcomes to a [`Verdict`]. Pure.
//! * [`schedule`]: when the next question is asked. Pure.
//! * [`redirect`]: where answers lead. Pure.
//! * [`Prober`]: the task that does all three for one probe of one container.

pub mod kinds;
mod probe;
mod prober;
pub mod redirect;
pub mod schedule;
pub mod verdict;

pub use kinds::exec::{Exec, ExecError, ExecOutput};
pub use probe::{Handler, Kind, Outcome, Probe, Scheme};
pub use prober::{Asked, Prober, Report, Start};
pub use verdict::Verdict;
