//! Compiles `pause.c` into a static program without libc.

use std::path::PathBuf;
use std::process::Command;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=pause.c");
    let out = PathBuf::from(std::env::var("OUT_DIR")?).join("pause");
    let cc = std::env::var("CC").unwrap_or_else(|_| "cc".into());
    let status = Command::new(&cc)
        .args(["-Os", "-Wall", "-Wextra", "-Werror", "-static", "-nostdlib", "-nostartfiles", "-fno-stack-protector"])
        .args(["-fno-asynchronous-unwind-tables", "-Wl,--build-id=none", "-Wl,-z,norelro,-z,noseparate-code", "-s"])
        .args(["pause.c", "-o"])
        .arg(&out)
        .status()
        .map_err(|e| format!("{cc}: {e}; install a C compiler (apt-get install build-essential)"))?;
    if !status.success() {
        return Err(format!("{cc} pause.c: {status}").into());
    }
    Ok(())
}
