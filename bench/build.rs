//! Compiles the hub's XDP program as ordinary C, for the count of its instructions, and the programs of the load lab for the
//! kernel.

use std::env;
use std::path::PathBuf;
use std::process::Command;

use libbpf_cargo::SkeletonBuilder;

const LAB: &str = "src/lab/lab.bpf.c";

fn main() {
    let rustc = env::var_os("RUSTC").expect("cargo sets RUSTC");
    let version = Command::new(rustc).arg("--version").output().expect("the compiler says which it is");
    println!("cargo::rustc-env=EKIDEN_RUSTC={}", String::from_utf8_lossy(&version.stdout).trim());
    println!("cargo::rerun-if-changed=native");
    println!("cargo::rerun-if-changed=../bpf/steer.bpf.c");
    cc::Build::new()
        .file("native/steer.c")
        .include("native")
        .opt_level(2)
        .warnings(false) // without `const` there are many
        .compile("steer_native");
    lab();
}

fn lab() {
    println!("cargo::rerun-if-changed={LAB}");
    println!("cargo::rerun-if-env-changed=CLANG");
    let skeleton = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("lab.skel.rs");
    let arch = env::var("CARGO_CFG_TARGET_ARCH").expect("cargo sets CARGO_CFG_TARGET_ARCH");
    let mut builder = SkeletonBuilder::new();
    if let Some(clang) = env::var_os("CLANG") {
        builder.clang(clang);
    }
    // Debian keeps <asm/types.h> of linux-libc-dev in the directory of the architecture.
    let words = ["-Wall", "-Wextra", "-Werror", "-mcpu=v3", &format!("-I/usr/include/{arch}-linux-gnu")];
    if let Err(error) = builder.source(LAB).clang_args(words).build_and_generate(&skeleton) {
        panic!("{LAB} did not compile (it needs clang and linux-libc-dev; CLANG names another clang): {error:?}");
    }
}
