//! Generates the CRI client and server (the server is for `fake`) and the few containerd calls beside CRI. No protoc needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let cri = protox::compile(["proto/runtime.proto"], ["proto"])?;
    tonic_prost_build::configure().build_server(true).generate_default_stubs(true).compile_fds(cri)?;
    let containerd = protox::compile(
        ["content", "images", "leases", "events"].map(|s| format!("proto/containerd.{s}.proto")),
        ["proto"],
    )?;
    tonic_prost_build::configure().build_server(false).compile_fds(containerd)?;
    Ok(())
}
