//! What is read back from a cgroup: the figures that cAdvisor and the kubelet's statistics are made of.

mod parse;
mod v1;
mod v2;

pub use parse::{Pressure, Stall};
pub(crate) use v1::read as read_v1;
pub(crate) use v2::read as read_v2;

/// How much is read. Every file costs some ten microseconds, and a node has hundreds of cgroups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// CPU time and memory, with its limits.
    Brief,
    /// Everything.
    Full,
}

/// Use of one cgroup, everything below it included. What the kernel has no file for is zero, or `None`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Stats {
    pub cpu: Cpu,
    pub memory: Memory,
    /// Only in [`Depth::Full`].
    pub tasks: Tasks,
    /// Only in [`Depth::Full`].
    pub io: Io,
}

/// CPU time since the cgroup was made, and what limits it.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Cpu {
    /// Nanoseconds.
    pub usage: u64,
    /// Nanoseconds in programs.
    pub user: u64,
    /// Nanoseconds in the kernel.
    pub system: u64,
    /// CFS periods that have passed.
    pub periods: u64,
    /// CFS periods in which the quota was used up.
    pub throttled_periods: u64,
    /// Nanoseconds of waiting for the next period.
    pub throttled: u64,
    /// `cpu.shares`, on v2 as converted from `cpu.weight`.
    pub shares: u64,
    /// Microseconds of CPU time in a period; `None` for no limit.
    pub quota: Option<u64>,
    /// Microseconds.
    pub period: u64,
    pub pressure: Option<Pressure>,
}

/// Memory in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Memory {
    /// Page cache included.
    pub usage: u64,
    /// What cannot be given back easily: usage less inactive page cache (cAdvisor's rule).
    pub working_set: u64,
    /// Anonymous memory.
    pub rss: u64,
    /// Page cache.
    pub cache: u64,
    pub mapped_file: u64,
    pub active_file: u64,
    pub inactive_file: u64,
    /// The kernel's own, on behalf of the cgroup.
    pub kernel: u64,
    pub swap: u64,
    pub page_faults: u64,
    pub major_page_faults: u64,
    /// The most that was ever used.
    pub max_usage: u64,
    /// How often the limit was hit (v1).
    pub limit_hits: u64,
    /// `None` for no limit.
    pub limit: Option<u64>,
    /// Swap that may be used, on v1 together with memory; `None` for no limit.
    pub swap_limit: Option<u64>,
    /// What is kept for the cgroup when memory is short; `None` for nothing.
    pub reservation: Option<u64>,
    /// Processes that the kernel killed here for want of memory.
    pub oom_kills: u64,
    pub pressure: Option<Pressure>,
}

/// Tasks of the cgroup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tasks {
    /// Threads.
    pub current: u64,
    /// `None` for no limit.
    pub max: Option<u64>,
}

/// Traffic with block devices.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Io {
    pub devices: Vec<DeviceIo>,
    pub pressure: Option<Pressure>,
}

/// Traffic with one block device since the cgroup was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DeviceIo {
    pub major: u32,
    pub minor: u32,
    pub reads: u64,
    pub read_bytes: u64,
    pub writes: u64,
    pub written_bytes: u64,
}

impl Memory {
    /// What is left until the limit; `None` where there is none.
    #[must_use]
    pub fn available(&self) -> Option<u64> {
        self.limit.map(|limit| limit.saturating_sub(self.working_set))
    }
}
