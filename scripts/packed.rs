//! The build script of the programs. Addresses that are put right when a program starts take a bit each in it, rather than 24 bytes (DT_RELR, which
//! glibc knows since 2.36 and musl since 1.2.4): 1.5 MiB of an idle agent's memory.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=../scripts/packed.rs");
    let is = |name: &str, value: &str| env::var(name).is_ok_and(|found| found == value);
    if is("CARGO_CFG_TARGET_OS", "linux") && is("PROFILE", "release") {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}
