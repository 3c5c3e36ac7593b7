//! What takes messages one by one, libraries and code of our own, and which of them computes a cipher in this process.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use super::{Backend, Cipher, Key, OpenJob, SALT, SealJob, TAG, single};
#[cfg(target_arch = "x86_64")]
use crate::gcm::Vaes;

/// A library with both ciphers, and assembly for the common CPUs; or what is our own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Library {
    /// `ring`.
    Ring,
    /// `aws-lc-rs`: AWS-LC.
    AwsLc,
    /// AES-256-GCM of our own, where the CPU has the instructions; keys of the other cipher are for `ring`.
    #[cfg(target_arch = "x86_64")]
    Own(Vaes),
}

impl Library {
    /// Those that an operator can wish for, on every machine; the first is taken where nothing tells them apart.
    pub const ALL: [Self; 2] = [Self::Ring, Self::AwsLc];

    /// What is our own for a cipher, if it is for this CPU.
    pub fn own(cipher: Cipher) -> Option<Self> {
        #[cfg(target_arch = "x86_64")]
        return Vaes::found().filter(|_| cipher == Cipher::Aes256Gcm).map(Self::Own);
        #[cfg(not(target_arch = "x86_64"))]
        return None;
    }

    /// As the operator writes and reads it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ring => "ring",
            Self::AwsLc => "aws-lc",
            #[cfg(target_arch = "x86_64")]
            Self::Own(_) => "own (AVX-512)",
        }
    }

    /// The one that keys of a cipher are for: the first of all, until [`choose`](super::choose) has chosen.
    pub fn of(cipher: Cipher) -> Self {
        CHOSEN.get().map_or(Self::ALL[0], |chosen| chosen.of(cipher))
    }
}

/// A library for each cipher.
#[derive(Debug, Clone, Copy)]
struct Chosen {
    chacha20_poly1305: Library,
    aes_256_gcm: Library,
}

impl Chosen {
    fn of(self, cipher: Cipher) -> Library {
        match cipher {
            Cipher::ChaCha20Poly1305 => self.chacha20_poly1305,
            Cipher::Aes256Gcm => self.aes_256_gcm,
        }
    }
}

/// What the operator wants; what is `None` the measurement decides.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Wish {
    /// One by one by this library, and not in lanes.
    pub chacha20_poly1305: Option<Library>,
    /// By this library.
    pub aes_256_gcm: Option<Library>,
}

static CHOSEN: OnceLock<Chosen> = OnceLock::new();

/// Decides for good.
pub(super) fn settle(wish: &Wish) {
    CHOSEN.get_or_init(|| Chosen {
        chacha20_poly1305: wish.chacha20_poly1305.unwrap_or_else(|| fastest(Cipher::ChaCha20Poly1305)),
        aes_256_gcm: wish.aes_256_gcm.unwrap_or_else(|| fastest(Cipher::Aes256Gcm)),
    });
}

/// Lengths that stand for what a hub carries: small, middling, full packets.
const LENGTHS: [usize; 3] = [64, 576, 1424];
/// How often each is measured, and the fastest taken: what else the machine does only ever makes slower.
const SAMPLES: usize = 60;
/// By how much another has to be faster than the first to be taken, as one part in so many: less is chance.
const MARGIN: u32 = 32;

/// What seals and opens messages of all lengths together in the least time.
fn fastest(cipher: Cipher) -> Library {
    let libraries: Vec<_> = Library::ALL.into_iter().chain(Library::own(cipher)).collect();
    let keys: Vec<_> = libraries.iter().map(|library| Key::by(*library, cipher, &[7; 32], [0; SALT])).collect();
    let mut least = vec![[Duration::MAX; LENGTHS.len()]; libraries.len()];
    let mut data = [0; LENGTHS[LENGTHS.len() - 1] + TAG];
    for _ in 0..SAMPLES {
        // In turn, so that whatever else goes on meets all of them.
        for (key, least) in keys.iter().zip(&mut least) {
            for (len, least) in LENGTHS.into_iter().zip(least) {
                *least = (*least).min(seal_and_open(key, &mut data[..len + TAG]));
            }
        }
    }
    let took: Vec<_> = least.iter().map(|least| least.iter().sum::<Duration>()).collect();
    let mut best = 0;
    for other in 1..took.len() {
        if took[other] + took[best] / MARGIN < took[best] {
            best = other;
        }
    }
    libraries[best]
}

fn seal_and_open(key: &Key, data: &mut [u8]) -> Duration {
    let start = Instant::now();
    single::Single.seal_batch(&mut [SealJob { key, counter: 0, aad: &[], data }]);
    single::Single.open_batch(&mut [OpenJob { key, counter: 0, aad: &[], data, verified: false }]);
    start.elapsed()
}
