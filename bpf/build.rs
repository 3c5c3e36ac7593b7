//! Compiles the XDP program and generates its skeleton: maps, read-only data, and the Rust types of both, from BTF.
#![allow(clippy::print_stdout, reason = "a build script talks to cargo by printing")]

use std::env;
use std::path::PathBuf;

use libbpf_cargo::SkeletonBuilder;

const SOURCE: &str = "steer.bpf.c";

fn main() {
    println!("cargo::rerun-if-changed={SOURCE}");
    println!("cargo::rerun-if-env-changed=CLANG");
    let skeleton = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("steer.skel.rs");
    let arch = env::var("CARGO_CFG_TARGET_ARCH").expect("cargo sets CARGO_CFG_TARGET_ARCH");
    let mut builder = SkeletonBuilder::new();
    if let Some(clang) = env::var_os("CLANG") {
        builder.clang(clang);
    }
    let built = builder
        .source(SOURCE)
        .clang_args([
            "-Wall".to_owned(),
            "-Wextra".to_owned(),
            "-Werror".to_owned(),
            // The third instruction set has compare-and-swap, which the token buckets need (Linux 5.12).
            "-mcpu=v3".to_owned(),
            // Debian keeps <asm/types.h> of linux-libc-dev in the directory of the architecture.
            format!("-I/usr/include/{arch}-linux-gnu"),
        ])
        .build_and_generate(&skeleton);
    if let Err(error) = built {
        panic!("{SOURCE} did not compile (it needs clang and linux-libc-dev; CLANG names another clang): {error:?}");
    }
}
