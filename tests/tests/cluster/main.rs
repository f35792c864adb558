//! End to end: the real kubectl against a real cluster of three nodes on real containerd: two have the machine's, one has containerd 2. All
//! tests share the cluster; each has a namespace of its own. `cargo test -p keelson-tests --test cluster -- FILTER` runs some of them.
//!
//! The long ones (crashes by the dozen) run a few rounds here; `KEELSON_ROUNDS=200` makes them thorough.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test fails by them

mod admission;
mod api;
mod context;
mod custom;
mod disruption;
mod inspect;
mod kubectl;
mod load;
mod network;
mod node;
mod operate;
mod runtime;
mod sessions;
mod storage;
mod workloads;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use keelson_tests::harness::cluster::{Silent, end};
use keelson_tests::harness::upstream::Upstream;
use keelson_tests::harness::{Cluster, Layout, Options};
use libtest_mimic::{Arguments, Trial};

use context::Context;

type Test = (&'static str, fn(&Context) -> anyhow::Result<()>);

fn main() -> ExitCode {
    let mut args = Arguments::from_args();
    // What disrupts the cluster must not do so under another test.
    args.test_threads = Some(1);
    let tests: Vec<Test> = [
        admission::TESTS,
        api::TESTS,
        custom::TESTS,
        kubectl::TESTS,
        sessions::TESTS,
        workloads::TESTS,
        node::TESTS,
        storage::TESTS,
        runtime::TESTS,
        network::TESTS,
        inspect::TESTS,
        operate::TESTS,
        disruption::TESTS,
    ]
    .concat();
    if args.list {
        return libtest_mimic::run(&args, trials(&tests, None)).exit_code();
    }
    let base = std::env::temp_dir().join(format!("keelson-e2e-{}", std::process::id()));
    let layout = Layout::new(format!("e{}", std::process::id() % 100_000), &base);
    let mut options = Options::nodes(3);
    options.master_args = vec!["--node-monitor-grace-period".into(), "12s".into()];
    let cluster = Upstream::containerd().and_then(|containerd| {
        options.containerd_of.insert(runtime::NODE, containerd);
        Cluster::up(layout.clone(), options, &mut Silent)
    });
    let cluster = match cluster {
        Ok(cluster) => cluster,
        Err(error) => {
            eprintln!("the cluster did not start: {error:#}\nits logs are in {}", base.join("log").display());
            return end(layout, false);
        }
    };
    let context = Arc::new(Context::new(cluster));
    let conclusion = libtest_mimic::run(&args, trials(&tests, Some(&context)));
    let passed = !conclusion.has_failed();
    if !passed && std::env::var_os("KEELSON_KEEP").is_some() {
        eprintln!("KEELSON_KEEP is set: the cluster stays, see {}", base.display());
        return ExitCode::FAILURE;
    }
    drop(context);
    end(layout, passed)
}

fn trials(tests: &[Test], context: Option<&Arc<Context>>) -> Vec<Trial> {
    tests
        .iter()
        .map(|(name, test)| {
            let (name, test, context) = (*name, *test, context.map(Arc::clone));
            Trial::test(name, move || match context {
                Some(context) => twice(name, || test(&context)).map_err(|e| format!("{e:#}").into()),
                None => Err("no cluster".into()),
            })
        })
        .collect()
}

/// More red tests than this are no accident: the rest is not tried again.
const SECOND_TRIES: u32 = 4;

/// These machines are shared: a test that is red is tried once more, and said so; red twice is red.
fn twice(name: &str, test: impl Fn() -> anyhow::Result<()>) -> anyhow::Result<()> {
    static USED: AtomicU32 = AtomicU32::new(0);
    let Err(error) = test() else { return Ok(()) };
    if USED.fetch_add(1, Ordering::Relaxed) >= SECOND_TRIES {
        return Err(error);
    }
    eprintln!("{name} is red, once more: {error:#}");
    test()
}
