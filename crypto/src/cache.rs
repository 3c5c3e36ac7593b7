//! What will be needed soon is asked for now: the caches fetch many lines at once, where a thread that needs one waits for it.
#![allow(unsafe_code, reason = "the instruction takes an address")]

/// The bytes that a cache fetches at once.
const LINE: usize = 64;

/// Asks for the memory of a value. It changes nothing, is never wrong, and costs an instruction a line.
#[inline]
pub fn foresee<T: ?Sized>(value: &T) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let (first, len) = ((&raw const *value).cast::<i8>(), size_of_val(value));
        let skew = first as usize % LINE;
        for at in (0..len + skew).step_by(LINE) {
            // SAFETY: every x86-64 CPU has the instruction; it reads nothing as far as the program can tell, faults at no address, and
            // the address is computed without a claim that it lies in the value.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(first.wrapping_add(at).wrapping_sub(skew)) };
        }
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = (value, LINE);
}
