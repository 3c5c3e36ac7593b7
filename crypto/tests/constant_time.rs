//! No branch and no address depends on a secret: keys and texts are marked as undefined memory, and valgrind reports every use of what
//! was computed from them in a condition or an address. The idea is ctgrind's.
//!
//! Valgrind knows AVX2, and says so to who asks the CPU; so it is those lanes that run here.
#![allow(unsafe_code, reason = "what valgrind is told, it is told by an instruction sequence of its own")]
#![cfg(target_arch = "x86_64")]

use std::arch::asm;
use std::env;
use std::hint::black_box;
use std::process::{Command, Output};

use crypto::aead::{Backend, Cipher, Key, OpenJob, SealJob, TAG, lanes};

/// From memcheck.h: `VG_USERREQ_TOOL_BASE('M', 'C')` and the two that follow.
const MAKE_UNDEFINED: usize = 0x4d43_0001;
const MAKE_DEFINED: usize = 0x4d43_0002;
/// From valgrind.h.
const RUNNING_ON_VALGRIND: usize = 0x1001;

/// Tells valgrind something: outside of it, nothing happens, and the answer is 0.
fn tell(request: usize, bytes: &[u8]) -> usize {
    let arguments = [request, bytes.as_ptr() as usize, bytes.len(), 0, 0, 0];
    let mut answer = 0;
    // SAFETY: four rotations that add up to 128 bits and an exchange of a register with itself change nothing but flags. Under valgrind
    // they make it read the six words of `arguments`, change its own record of `bytes`, and answer in rdx.
    unsafe {
        asm!(
            "rol rdi, 3", "rol rdi, 13", "rol rdi, 61", "rol rdi, 51", "xchg rbx, rbx",
            in("rax") arguments.as_ptr(), inout("rdx") answer,
        );
    }
    answer
}

/// What the child shall do.
const CHILD: &str = "EKIDEN_CONSTANT_TIME";

#[test]
fn no_branch_and_no_address_depends_on_a_secret() {
    let run = under_valgrind("lanes");
    assert!(run.status.success(), "{}", said(&run));
    // That it was looked for, and that what may be known was the only thing that was found.
    assert!(said(&run).contains("verdict"), "the suppressed use of the verdict isn't counted: {}", said(&run));
}

#[test]
fn a_branch_on_a_secret_is_found() {
    let run = under_valgrind("branch");
    assert!(run.status.code() == Some(99), "valgrind found nothing: {}", said(&run));
}

fn under_valgrind(child: &str) -> Output {
    let suppressions = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/constant_time.supp");
    Command::new("valgrind")
        .args(["--error-exitcode=99", "--leak-check=no", "-v", &format!("--suppressions={suppressions}")])
        .arg(env::current_exe().expect("a test has a path"))
        .args(["--exact", "child", "--test-threads=1"])
        .env(CHILD, child)
        .output()
        .expect("valgrind is installed (Debian: valgrind; scripts/setup.sh)")
}

fn said(run: &Output) -> String {
    [&run.stdout[..], &run.stderr].concat().utf8_chunks().map(|chunk| chunk.valid()).collect()
}

/// What runs under valgrind; elsewhere it is a test like others.
#[test]
fn child() {
    match env::var(CHILD).as_deref() {
        Ok("branch") => {
            let secret = vec![7; 32];
            tell(MAKE_UNDEFINED, &secret);
            assert!(black_box(&secret)[3] < 9);
        }
        asked => {
            assert_eq!(asked.is_ok(), tell(RUNNING_ON_VALGRIND, &[]) > 0, "asked to run where it can't be seen");
            let lanes = lanes().into_iter().filter(|backend| asked.is_err() || backend.name().contains("AVX2"));
            assert!(lanes.map(seal_and_open).count() > 0, "no lanes here");
        }
    }
}

/// Batches that fill lanes and that don't, with texts and AAD of whole blocks and of parts; every third message is forged.
fn seal_and_open(backend: &'static dyn Backend) {
    for count in [1, 3, 4, 9, 33] {
        let lengths = |n: usize| [0, 1, 16, 31, 64, 65, 200, 1424][n % 8];
        let secret: Vec<[u8; 32]> = (0..count).map(|n| [n as u8; 32]).collect();
        for secret in &secret {
            tell(MAKE_UNDEFINED, secret);
        }
        let keys: Vec<_> = secret.iter().map(|secret| Key::new(Cipher::ChaCha20Poly1305, secret)).collect();
        let mut texts: Vec<_> = (0..count).map(|n| vec![n as u8; lengths(n) + TAG]).collect();
        for text in &texts {
            tell(MAKE_UNDEFINED, text);
        }
        let aad = [5; 20];
        let of = |n: usize| &aad[..n % 2 * 20];
        let jobs = keys.iter().zip(&mut texts).enumerate();
        let mut jobs: Vec<_> = jobs.map(|(n, (key, data))| SealJob { key, counter: 1, aad: of(n), data }).collect();
        backend.seal_batch(&mut jobs);
        // What is sent is no secret any more.
        for text in &texts {
            tell(MAKE_DEFINED, text);
        }
        texts.iter_mut().skip(2).step_by(3).for_each(|text| text[0] ^= 1);
        let jobs = keys.iter().zip(&mut texts).enumerate();
        let mut jobs: Vec<_> = jobs
            .map(|(n, (key, data))| OpenJob { key, counter: 1, aad: of(n), data: data.as_mut_slice(), verified: false })
            .collect();
        backend.open_batch(&mut jobs);
        for (n, job) in jobs.iter().enumerate() {
            assert_eq!(job.verified, n % 3 != 2, "{n} of {count}");
        }
    }
}
