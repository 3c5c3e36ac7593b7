use aes_gcm::Aes256Gcm;
use aes_gcm::aead::{AeadInOut, KeyInit};

use super::*;
use crate::aead::tests::{hex, key_and_counter, open as open_by, seal as seal_by};
use crate::aead::{Cipher, Library, SALT, single};

fn schedule(key: &[u8; 32]) -> Schedule {
    Schedule::new(Vaes::found().expect("these tests are for a CPU with AVX-512, VAES and VPCLMULQDQ"), key)
}

/// Whether this CPU has what is tested; where it hasn't, says so.
fn here() -> bool {
    let found = Vaes::found().is_some();
    if !found {
        eprintln!("NOT CHECKED: this CPU has no AVX-512 with VAES and VPCLMULQDQ");
    }
    found
}

/// McGrew and Viega, "The Galois/Counter Mode of Operation", appendix B: the cases of AES-256 with nonces of 96 bits.
const VECTORS: [[&str; 6]; 4] = [
    [
        "0000000000000000000000000000000000000000000000000000000000000000",
        "000000000000000000000000",
        "",
        "",
        "",
        "530f8afbc74536b9a963b4f1c4cb738b",
    ],
    [
        "0000000000000000000000000000000000000000000000000000000000000000",
        "000000000000000000000000",
        "",
        "00000000000000000000000000000000",
        "cea7403d4d606b6e074ec5d3baf39d18",
        "d0d1c8a799996bf0265b98b5d48ab919",
    ],
    [
        "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308",
        "cafebabefacedbaddecaf888",
        "",
        "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72\
         1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b391aafd255",
        "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa\
         8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662898015ad",
        "b094dac5d93471bdec1a502270e3cc6c",
    ],
    [
        "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308",
        "cafebabefacedbaddecaf888",
        "feedfacedeadbeeffeedfacedeadbeefabaddad2",
        "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72\
         1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
        "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa\
         8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662",
        "76fc6ece0f4e1768cddf8853bb2d551b",
    ],
];

#[test]
fn vectors_of_the_authors() {
    if !here() {
        return;
    }
    for [key, nonce, aad, text, sealed, tag] in VECTORS.map(|vector| vector.map(hex)) {
        let key = schedule(key[..].try_into().expect("32 bytes"));
        let nonce = nonce[..].try_into().expect("12 bytes");
        let right = [sealed, tag].concat();
        let mut data = [&text[..], &[0; TAG]].concat();
        seal(&key, nonce, &aad, &mut data);
        assert_eq!(data, right);
        assert!(open(&key, nonce, &aad, &mut data));
        assert_eq!(data[..text.len()], text);
    }
}

/// FIPS 197, A.3.
#[test]
fn the_key_expands_as_the_standard_says() {
    if !here() {
        return;
    }
    let key = hex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4");
    let rounds = schedule(key[..].try_into().expect("32 bytes")).rounds();
    assert_eq!(rounds[..2].as_flattened(), key);
    assert_eq!(rounds[2].to_vec(), hex("9ba354118e6925afa51a8b5f2067fcde"));
    assert_eq!(rounds[14].to_vec(), hex("fe4890d1e6188d0b046df344706c631e"));
}

/// Random bytes, the same in every run.
fn bytes(seed: &mut u64, len: usize) -> Vec<u8> {
    let mut byte = || {
        *seed = seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (*seed >> 56) as u8
    };
    (0..len).map(|_| byte()).collect()
}

/// Every length of text with AAD of every length up to four blocks, and some of more, at every alignment: as three others do it, and
/// nothing beside the message is written.
#[test]
fn every_length_as_others_do_it() {
    if !here() {
        return;
    }
    const AROUND: usize = 80;
    let seed = &mut 1;
    let texts = (0..=2100).map(|text| (text, [text * 7 % 65, 16]));
    let aads = (0..=400).flat_map(|aad| [0, 1, 64, 255, 256, 257, 600].map(|text| (text, [aad, 65 + aad])));
    for (len, aads) in texts.chain(aads) {
        for aad in aads {
            let at = format!("{len} bytes, {aad} of AAD");
            let key: [u8; 32] = bytes(seed, 32).try_into().expect("32 bytes");
            let nonce: [u8; 12] = bytes(seed, 12).try_into().expect("12 bytes");
            let (aad, text) = (bytes(seed, aad), bytes(seed, len));
            let mut right = text.clone();
            let tag =
                Aes256Gcm::new(&key.into()).encrypt_inout_detached(&nonce.into(), &aad, right.as_mut_slice().into());
            right.extend_from_slice(&tag.expect("short enough"));
            for library in Library::ALL {
                let (key, counter) = key_and_counter(library, Cipher::Aes256Gcm, &key, &nonce);
                assert_eq!(seal_by(single(), &key, counter, &aad, &text), right, "{at}: {library:?}");
            }
            let key = schedule(&key);
            let before = AROUND - (len + aad.len()) % 67;
            let mut memory = [&vec![0xcc; before][..], &text, &[0xee; TAG + AROUND]].concat();
            let mut expected = [&vec![0xcc; before][..], &right, &[0xee; AROUND]].concat();
            let message = before..before + len + TAG;
            seal(&key, nonce, &aad, &mut memory[message.clone()]);
            assert_eq!(memory, expected, "{at}: sealed");
            assert!(open(&key, nonce, &aad, &mut memory[message]), "{at}");
            expected[before..before + len].copy_from_slice(&text);
            assert_eq!(memory, expected, "{at}: opened");
        }
    }
}

/// Whatever bit of a message is another: it isn't verified, and zeros are what is left of its text.
#[test]
fn no_bit_may_differ() {
    if !here() {
        return;
    }
    let seed = &mut 2;
    let key = schedule(&bytes(seed, 32).try_into().expect("32 bytes"));
    let nonce: [u8; 12] = bytes(seed, 12).try_into().expect("12 bytes");
    for (len, aad) in [(0, 0), (1, 1), (16, 16), (64, 16), (100, 65), (257, 20), (600, 16), (800, 130)] {
        let (aad, mut sealed) = (bytes(seed, aad), bytes(seed, len + TAG));
        seal(&key, nonce, &aad, &mut sealed);
        let refused = |nonce, aad: &[u8], mut data: Vec<u8>| {
            assert!(!open(&key, nonce, aad, &mut data), "{len} bytes");
            let text = data.len().saturating_sub(TAG);
            data.len() < TAG || data[..text].iter().all(|byte| *byte == 0)
        };
        let flipped = |bytes: &[u8], bit: usize| {
            let mut bytes = bytes.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            bytes
        };
        for bit in 0..8 * sealed.len() {
            assert!(refused(nonce, &aad, flipped(&sealed, bit)), "bit {bit} of {len} bytes");
        }
        for bit in 0..8 * aad.len() {
            assert!(refused(nonce, &flipped(&aad, bit), sealed.clone()), "bit {bit} of AAD");
        }
        for bit in 0..8 * nonce.len() {
            assert!(
                refused(flipped(&nonce, bit).try_into().expect("12"), &aad, sealed.clone()),
                "bit {bit} of the nonce"
            );
        }
        for shorter in 0..sealed.len() {
            assert!(refused(nonce, &aad, sealed[..shorter].to_vec()), "{shorter} of {len} bytes");
        }
        // Zeros that fill up the last block are told from zeros that were sent.
        assert!(refused(nonce, &[&aad[..], &[0]].concat(), sealed.clone()), "a byte more of AAD");
        assert!(open(&key, nonce, &aad, &mut sealed), "and whole it opens");
    }
}

/// Keys of the other cipher are a library's, whatever was asked for.
#[test]
fn chacha_has_no_code_of_its_own_here() {
    let Some(own) = Library::own(Cipher::Aes256Gcm).filter(|_| here()) else { return };
    assert_eq!(Library::own(Cipher::ChaCha20Poly1305), None);
    let key = |library| crate::aead::Key::by(library, Cipher::ChaCha20Poly1305, &[3; 32], [1; SALT]);
    let sealed = seal_by(single(), &key(own), 7, b"aad", b"text");
    assert_eq!(sealed, seal_by(single(), &key(Library::Ring), 7, b"aad", b"text"));
    assert!(open_by(single(), &key(own), 7, b"aad", &sealed).0);
}
