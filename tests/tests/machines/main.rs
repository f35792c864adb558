//! Worker machines as they are outside: Debian 13 (or 12, with `KEELSON_DEBIAN=12`) with systemd and cgroup v2, virtual (QEMU, emulated), joined
//! to a master on this machine. `make machines`; `cargo test -p keelson-tests --test machines -- FILTER` runs some. The tests are the life of one
//! machine and run in their order: each leaves it as the next expects it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test fails by them

mod bare;
mod context;
mod joining;
mod life;
mod own_master;
mod pages;
mod pods;
mod told;
mod trouble;
mod upgrading;

use std::process::ExitCode;
use std::sync::Arc;

use keelson_tests::harness::cluster::{Silent, end};
use keelson_tests::harness::{Cluster, Layout, Options};
use keelson_tests::machines::{Assets, Frame, Machine, Payload};
use libtest_mimic::{Arguments, Trial};

use context::Context;

type Test = (&'static str, fn(&Context) -> anyhow::Result<()>);

fn main() -> ExitCode {
    let mut args = Arguments::from_args();
    args.test_threads = Some(1);
    let tests: Vec<Test> = [
        joining::TESTS,
        life::JOINING,
        pods::TESTS,
        told::TESTS,
        life::TROUBLE,
        trouble::TESTS,
        upgrading::TESTS,
        life::LEAVING,
        pages::TESTS,
        life::AGAIN,
        own_master::TESTS,
        bare::TESTS,
    ]
    .concat();
    if args.list {
        return libtest_mimic::run(&args, trials(&tests, None)).exit_code();
    }
    let base = std::env::temp_dir().join(format!("keelson-vm-{}", std::process::id()));
    let layout = Layout::new(format!("v{}", std::process::id() % 100_000), &base);
    let context = match up(&layout) {
        Ok(context) => Arc::new(context),
        Err(error) => {
            eprintln!("the machines did not start: {error:#}\nlogs are in {}", base.join("log").display());
            return if keep() { ExitCode::FAILURE } else { end(layout, false) };
        }
    };
    let passed = !libtest_mimic::run(&args, trials(&tests, Some(&context))).has_failed();
    if !passed && keep() {
        eprintln!("KEELSON_KEEP is set: the machine runs until you press Ctrl-C; see {}", base.display());
        std::thread::park();
    }
    drop(context);
    end(layout, passed)
}

fn keep() -> bool {
    std::env::var_os("KEELSON_KEEP").is_some()
}

/// A control plane on this machine, and one virtual worker machine that has not joined.
fn up(layout: &Layout) -> anyhow::Result<Context> {
    let assets = Assets::build()?;
    let mut options = Options::nodes(0);
    options.master_args = vec!["--node-monitor-grace-period".into(), "60s".into()];
    let cluster = Cluster::up(layout.clone(), options, &mut Silent)?;
    let payload = Payload::make(&layout.base, &assets)?;
    let machine = Machine::install(&cluster, &assets, &payload, Frame::small(1))?;
    Ok(Context::new(cluster, machine))
}

fn trials(tests: &[Test], context: Option<&Arc<Context>>) -> Vec<Trial> {
    tests
        .iter()
        .map(|(name, test)| {
            let (test, context) = (*test, context.map(Arc::clone));
            Trial::test(*name, move || match context {
                Some(context) => test(&context).map_err(|error| format!("{error:#}").into()),
                None => Err("no machine".into()),
            })
        })
        .collect()
}
