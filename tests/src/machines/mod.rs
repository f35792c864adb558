//! Real machines: Debian 13 with systemd as PID 1 and cgroup v2, in QEMU, on the LAN of a cluster whose master runs on this machine.
//! Emulated (`-accel tcg`): a virtual CPU is some twenty times slower than a real one, so that what is measured here are only ratios.
//!
//! | file | does |
//! |---|---|
//! | `assets` | QEMU and the Debian disk that `tests/machines/build` makes |
//! | `payload` | a disk with our programs and images |
//! | `machine` | QEMU's command line, power on, power cut |
//! | `guest` | commands in the machine, through QEMU's guest agent: no network is needed for it |
//! | `state` | what is on a machine, before joining and after leaving |

mod assets;
mod guest;
mod machine;
mod payload;
mod state;

pub use assets::Assets;
pub use guest::{Guest, Output};
pub use machine::{Frame, Machine};
pub use payload::Payload;
pub use state::State;

/// What an administrator writes for containerd who follows its own advice for machines with systemd.
pub const SYSTEMD_CGROUP: &str = r#"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
    SystemdCgroup = true
"#;
