//! Key bytes are nowhere in this process's memory once the key is dropped, and a session's are gone with it.
//!
//! The kernel lends the eyes: all writable memory is read through `/proc/self/mem`, heap and stacks alike. The keys sought are never
//! whole in memory but where the crate put them, since each is kept as two halves that make it by XOR. One test alone in its binary, so
//! that no other's memory moves meanwhile.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, mpsc};
use std::thread;

use crypto::aead::{Backend, Cipher, Key, Library, OpenJob, SALT, SealJob, TAG, Wish, choose, lanes, single};
use crypto::{Role, Session, Time};
use zeroize::Zeroizing;

/// A secret of which memory holds no copy.
struct Split {
    left: [u8; 32],
    right: [u8; 32],
}

impl Split {
    fn new(seed: u64) -> Self {
        // Any bytes do that nothing else holds: a multiplicative generator of 64 bits.
        let mut state = seed;
        let mut byte = || {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            (state >> 56) as u8
        };
        Self { left: std::array::from_fn(|_| byte()), right: std::array::from_fn(|_| byte()) }
    }

    /// A secret that is known, in two halves, each byte changed by 0x5a.
    fn known(changed: [u128; 2]) -> Self {
        let [first, second] = changed.map(u128::to_be_bytes);
        Self { left: std::array::from_fn(|n| if n < 16 { first[n] } else { second[n - 16] }), right: [0x5a; 32] }
    }

    /// Lends the secret whole, in a heap block that is wiped afterwards.
    #[inline(never)]
    fn lend<T>(&self, to: impl FnOnce(&[u8; 32]) -> T) -> T {
        let mut whole = Zeroizing::new(vec![0; 32]);
        for (n, byte) in whole.iter_mut().enumerate() {
            *byte = self.left[n] ^ self.right[n];
        }
        to(whole.as_slice().try_into().expect("32 bytes"))
    }

    /// Whether half of the secret, either half, stands at the start of `bytes`.
    fn starts(&self, bytes: &[u8]) -> bool {
        [0..16, 16..32].into_iter().any(|half| {
            let mut pairs = half.zip(bytes);
            bytes.len() >= 16 && pairs.all(|(n, byte)| self.left[n] ^ self.right[n] == *byte)
        })
    }

    /// How many times half of the secret or more occurs in writable memory.
    fn sightings(&self) -> usize {
        const OVERLAP: usize = 16;
        let memory = File::open("/proc/self/mem").expect("a process may read itself");
        let maps = fs::read_to_string("/proc/self/maps").expect("a process may see its maps");
        let mut buffer = vec![0u8; 1 << 16];
        let own = buffer.as_ptr_range();
        let own = own.start as u64..own.end as u64;
        let mut seen = 0;
        for line in maps.lines() {
            let mut fields = line.split_ascii_whitespace();
            let (range, rights) = (fields.next().unwrap_or(""), fields.next().unwrap_or(""));
            let Some((start, end)) = range.split_once('-').filter(|_| rights.starts_with("rw")) else { continue };
            let parse = |hex| u64::from_str_radix(hex, 16).expect("addresses are hexadecimal");
            let (mut at, end) = (parse(start), parse(end));
            while at + (OVERLAP as u64) < end {
                if own.contains(&at) {
                    at = own.end; // what was read last is no copy of the crate's
                    continue;
                }
                let mut stop = end.min(at + buffer.len() as u64);
                if own.start > at {
                    stop = stop.min(own.start);
                }
                let len = (stop - at) as usize;
                memory.read_exact_at(&mut buffer[..len], at).unwrap_or_else(|e| panic!("{line}: {e}"));
                seen += (0..len).filter(|n| self.starts(&buffer[*n..len])).count();
                at = if stop == end || stop == own.start { stop } else { stop - OVERLAP as u64 + 1 };
            }
        }
        seen
    }
}

/// Does `work` on a thread of its own, and counts sightings of both secrets while that thread's stack is still as the work left it.
fn on_a_worker<T: Send>(secrets: [&Split; 2], work: impl FnOnce() -> T + Send) -> (T, [usize; 2]) {
    let (done, when_done) = mpsc::channel();
    let (leave, stay) = mpsc::channel::<()>();
    thread::scope(|scope| {
        let worker = scope.spawn(move || {
            let result = work();
            drop(done);
            let _ = stay.recv();
            result
        });
        let _: Result<(), _> = when_done.recv(); // over when `done` is dropped, by a panic, too
        let sightings = secrets.map(Split::sightings);
        drop(leave);
        (worker.join().expect("the worker doesn't panic"), sightings)
    })
}

/// Enough for every lane, and one more.
const BATCH: usize = 17;

fn seal(backend: &dyn Backend, session: &Session) {
    seal_under(backend, session.seal_key());
}

fn seal_under(backend: &dyn Backend, key: &Key) {
    let mut data = [[7; 1_420 + TAG]; BATCH];
    let job = |data| SealJob { key, counter: 1, aad: b"", data };
    backend.seal_batch(&mut data.each_mut().map(|data| job(data)));
}

fn open(backend: &dyn Backend, session: &Session) {
    open_under(backend, session.open_key());
}

fn open_under(backend: &dyn Backend, key: &Key) {
    let mut data = [[7; 1_420 + TAG]; BATCH];
    single().seal_batch(&mut data.each_mut().map(|data| SealJob { key, counter: 1, aad: b"", data }));
    let job = |data| OpenJob { key, counter: 1, aad: b"", data, verified: false };
    let mut jobs = data.each_mut().map(|data| job(data));
    backend.open_batch(&mut jobs);
    assert!(jobs.iter().all(|job| job.verified));
}

#[test]
fn dropped_keys_are_nowhere_in_memory() {
    let secrets = [&Split::new(1), &Split::new(2)];
    let send = secrets[0];
    assert_eq!(secrets.map(Split::sightings), [0, 0], "before there was a key");

    send.lend(|_| assert_eq!(secrets.map(Split::sightings), [2, 0], "what is there must be seen, by both halves"));
    assert_eq!(secrets.map(Split::sightings), [0, 0], "after the test wiped its own copy");

    // Block 0 of ChaCha20 under each key and counter 1: the keys of Poly1305.
    let mac_keys = [
        &Split::known([0x9250_986b_0746_4ffb_8b40_0f2c_ace4_94e4, 0x53eb_b1d4_e81c_3d4b_e320_2699_0dca_d9c9]),
        &Split::known([0x3702_51e5_c29a_e0cd_4a7f_58a1_6b91_a10c, 0x82f0_9287_87a2_3ed3_f20f_a756_5161_6ff5]),
    ];
    mac_keys[0].lend(|_| assert_eq!(mac_keys.map(Split::sightings), [2, 0], "both halves of this, too"));

    sessions_leave_nothing(secrets, mac_keys);
    // From here on, keys are for the other library.
    let other = Some(Library::AwsLc);
    choose(&Wish { chacha20_poly1305: other, aes_256_gcm: other });
    sessions_leave_nothing(secrets, mac_keys);
    if let Some(own) = Library::own(Cipher::Aes256Gcm) {
        own_keys_leave_nothing(own, secrets);
    } else {
        eprintln!("NOT CHECKED: this CPU has no AVX-512 with VAES and VPCLMULQDQ");
    }
}

/// Keys of AES-256-GCM of our own: beside the key itself, what follows from it.
fn own_keys_leave_nothing(own: Library, secrets: [&Split; 2]) {
    // Under the first secret and counter 1, the first two blocks of key stream; H, and what hides the tag; and the powers H^2 / x and
    // H / x as they stand in the key.
    let stream = &Split::known([0xcc89_7818_f3a1_7538_7495_c6eb_988b_a6c4, 0x23fd_ea99_a250_a668_f30e_0e9b_06e7_58bd]);
    let hidden = &Split::known([0x5670_d95d_4f31_278d_d9d4_c212_794c_50e7, 0xa674_db12_a2f3_1d37_2702_bd65_f180_29da]);
    let powers = &Split::known([0x92e6_c0ae_2a24_2542_4c2b_843e_e4a0_10b4, 0x204f_761c_ca6a_475d_f5a1_8c70_545c_0f42]);
    let [secret, other] = secrets;
    for known in [stream, hidden, powers] {
        known.lend(|_| assert_eq!(known.sightings(), 2, "what is there must be seen"));
    }
    // Twice the key, and once its powers.
    let by = |secret: &Split| secret.lend(|bytes| Key::by(own, Cipher::Aes256Gcm, bytes, [0; SALT]));
    let (key, sightings) = on_a_worker([secret, powers], || by(secret));
    assert_eq!(sightings, [4, 2], "when made");
    assert_eq!([stream, hidden].map(Split::sightings), [0, 0], "when made");
    for backend in [single()].into_iter().chain(lanes()) {
        let at = backend.name();
        assert_eq!(on_a_worker([secret, powers], || seal_under(backend, &key)).1, [4, 2], "{at} after sealing");
        assert_eq!(on_a_worker([secret, powers], || open_under(backend, &key)).1, [4, 2], "{at} after opening");
        assert_eq!(on_a_worker([stream, hidden], || seal_under(backend, &key)).1, [0, 0], "{at} after sealing");
        assert_eq!(on_a_worker([stream, hidden], || open_under(backend, &key)).1, [0, 0], "{at} after opening");
    }
    assert_eq!(on_a_worker([secret, powers], || drop(key)).1, [0, 0], "after the key was dropped");
    // And keys of one batch leave nothing for each other.
    let keys = [by(secret), by(other)];
    assert_eq!(on_a_worker(secrets, || keys.each_ref().map(|key| seal_under(single(), key))).1, [4, 4]);
    drop(keys);
    assert_eq!([secret, other, powers].map(Split::sightings), [0; 3], "after both were dropped");
}

/// Sessions under both secrets, by each cipher and backend, with the library of this moment.
fn sessions_leave_nothing(secrets: [&Split; 2], mac_keys: [&Split; 2]) {
    let [send, receive] = secrets;
    for cipher in [Cipher::ChaCha20Poly1305, Cipher::Aes256Gcm] {
        // The key is kept twice, for lanes and for the library (of AES the schedule, which begins with the key): no copy beside them on
        // heap or stack.
        let kept = [4, 4];
        let (session, sightings) = on_a_worker(secrets, || {
            send.lend(|send| {
                receive.lend(|receive| Session::new(0, 1, 2, Role::Initiator, send, receive, cipher, Time(0)))
            })
        });
        assert_eq!(sightings, kept, "{cipher:?} by {:?} when made", Library::of(cipher));
        let session = Arc::new(session);
        for backend in [single()].into_iter().chain(lanes()) {
            let at = format!("{cipher:?} by {} and {:?}", backend.name(), Library::of(cipher));
            assert_eq!(on_a_worker(secrets, || seal(backend, &session)).1, kept, "{at} after sealing");
            assert_eq!(on_a_worker(secrets, || open(backend, &session)).1, kept, "{at} after opening");
            let both = || (seal(backend, &session), open(backend, &session));
            assert_eq!(on_a_worker(mac_keys, both).1, [0, 0], "{at}: keys of Poly1305");
        }
        assert_eq!(on_a_worker(secrets, || drop(session)).1, [0, 0], "{cipher:?} after the session was dropped");
    }
}
