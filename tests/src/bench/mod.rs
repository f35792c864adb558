//! Measuring: ours alone (`make bench`), or beside the stock components of Kubernetes on the same machine (`make bench-beside`).
//!
//! A *section* is measured in *rounds*, in each round once for either *side*, in a cluster of its own. What one such *run* measured are
//! *figures*, kept as they are; *rows* say what is compared and how, *goals* what was promised.
//!
//! | file | does |
//! |---|---|
//! | `section` | names the sections and sides, and which processes of a side count |
//! | `sizes` | how much is measured |
//! | `kbench` | builds and runs the measuring client, `tests/bench/kbench` |
//! | `run` | one run: a cluster of a side, measured and ended |
//! | `node`, `control`, `proxy`, `cni`, `flat` | measure a section |
//! | `cost` | PSS and CPU of processes |
//! | `figures` | what a run measured |
//! | `rows` | what is compared (data) |
//! | `goals` | what was promised (data), and whether it is kept |
//! | `compare` | rows over all rounds, with their spread (pure) |
//! | `table`, `plot`, `page` | Markdown, SVG, and their place in docs/benchmarks.md (pure) |
//! | `store` | runs that are finished, on disk |
//! | `machine` | what machine this is, and how busy |
//! | `machines` | a virtual machine as a node, beside kubeadm and the kubelet: a command of its own, `cargo xtask bench-machines` |

pub mod cni;
pub mod compare;
pub mod control;
pub mod cost;
pub mod figures;
pub mod flat;
pub mod goals;
pub mod kbench;
pub mod machine;
pub mod machines;
pub mod node;
pub mod page;
pub mod plot;
pub mod proxy;
pub mod rows;
pub mod run;
pub mod section;
pub mod sizes;
pub mod store;
pub mod table;

pub use figures::Figures;
pub use section::{Section, Side};
pub use sizes::Sizes;
