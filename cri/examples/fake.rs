//! The runtime in memory at a socket, for programs that are no tests of ours: `cargo run -p cri --example fake -- /tmp/fake.sock`, then
//! e.g. `crictl -r unix:///tmp/fake.sock ps`. `make conformance SUITE=cri` runs upstream's critest against it.

use std::path::Path;

use anyhow::{Context, Result};

#[tokio::main]
async fn main() -> Result<()> {
    let socket = std::env::args().nth(1).context("usage: fake SOCKET")?;
    cri::fake::Fake::default().listen(Path::new(&socket)).await.with_context(|| format!("serve at {socket}"))
}
