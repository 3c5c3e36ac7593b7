//! Compiles the XDP program as ordinary C, for the count of its instructions.

use std::env;
use std::process::Command;

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
}
