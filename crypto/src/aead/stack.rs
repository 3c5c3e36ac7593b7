//! Keys leave no copy on the stack, though compilers move values through it and assembly spills its registers there.

use std::hint::black_box;

/// Does `work` on keys, then overwrites `DEPTH` bytes of the stack that it ran on, from its frame downwards.
///
/// `work` returns no key. It is called and not inlined, so that all it uses lies below this function's own frame, where the overwriting
/// begins. How deep it goes is measured: the test of erasure finds what escapes.
#[inline(never)]
pub(crate) fn leaving_no_trace<const DEPTH: usize>(work: impl FnOnce()) {
    called(work);
    scrub::<DEPTH>();
}

#[inline(never)]
fn called(work: impl FnOnce()) {
    work();
}

#[inline(never)]
fn scrub<const DEPTH: usize>() {
    let mut below = [0u8; DEPTH];
    // Somebody might look at it, as far as the compiler knows: so it is really written.
    black_box(&mut below);
}
