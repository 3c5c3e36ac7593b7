//! AF_XDP: packet memory shared with the kernel, and the sockets that pass frames to and from it.
//!
//! A [`Umem`] is one region cut into chunks; a [`Frame`] *is* the right to one chunk, so it moves and is never copied.
//! A [`Socket`] lends frames to the kernel and claims them back:
//!
//! ```text
//!            refill             (the network)            receive
//!   pool ------------> fill ring --------> receive ring ----------> the journey
//!    ^                                                                   |
//!    |      reclaim                        kick              transmit    |
//!    +-------------- completion ring <------------ transmit ring <-------+
//! ```
//!
//! A packet that is longer than a chunk comes in several, and is gathered in a *long* frame, a run of chunks of its own pool
//! (see `long`); it leaves from there in several descriptors.
//!
//! Every chunk has an entry in the UMEM's ledger that says who has it, so the census of the chunks is exact, and a
//! descriptor that the kernel had no business to send becomes a counter instead of a second owner.
//!
//! This is the only place in the crate with `unsafe`. What its proofs rest on, beside Rust's own rules, are two
//! promises of the kernel (Documentation/networking/af_xdp.rst): it touches a chunk only between the publication of the
//! chunk's address in a fill or transmit ring and its return in a receive or completion ring; and it returns each once.

mod device;
mod error;
mod frame;
mod long;
mod path;
mod ring;
mod shared;
mod socket;
mod sys;
mod umem;

pub use device::Device;
pub use error::{Error, Ring, Step};
pub use frame::{CHUNKS_MAX, Frame, HEADROOM, TAILROOM};
pub use path::{Counts, InKernel};
pub use socket::{Bound, BusyPoll, Kick, Options, Refusal, Remains, Socket, Statistics};
pub use umem::{Census, Umem};

#[cfg(all(test, not(miri)))]
mod loom_model;
#[cfg(test)]
mod ring_tests;
#[cfg(test)]
mod tests;
