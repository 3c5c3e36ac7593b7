//! Which library a process takes is decided once, for all of it: so this test has a process of its own.

use crypto::aead::{Cipher, Key, Library, OpenJob, SALT, SealJob, TAG, Wish, choose};

#[test]
fn the_operators_wish_counts_and_the_first_for_all() {
    let ciphers = [Cipher::ChaCha20Poly1305, Cipher::Aes256Gcm];
    assert_eq!(ciphers.map(Library::of), [Library::Ring; 2], "nobody has chosen");
    let early = Key::new(Cipher::Aes256Gcm, &[1; 32]);
    let wish = Wish { chacha20_poly1305: Some(Library::Ring), aes_256_gcm: Some(Library::AwsLc) };
    let backend = choose(&wish);
    assert_eq!(backend.name(), "one by one", "a library was asked for, and no lanes");
    assert_eq!(ciphers.map(Library::of), [Library::Ring, Library::AwsLc]);
    let second = choose(&Wish { chacha20_poly1305: Some(Library::AwsLc), aes_256_gcm: Some(Library::Ring) });
    assert_eq!((second.name(), ciphers.map(Library::of)), (backend.name(), [Library::Ring, Library::AwsLc]));

    // Keys from before go on as they are, in one batch with later ones.
    let later = Key::new(Cipher::Aes256Gcm, &[1; 32]);
    let rings = Key::by(Library::Ring, Cipher::Aes256Gcm, &[1; 32], [0; SALT]);
    let mut data = [[7; 100 + TAG]; 2];
    let mut jobs: Vec<_> =
        data.iter_mut().zip([&early, &later]).map(|(data, key)| SealJob { key, counter: 5, aad: b"", data }).collect();
    backend.seal_batch(&mut jobs);
    assert_eq!(data[0], data[1], "two libraries, one cipher");
    for data in &mut data {
        let mut job = [OpenJob { key: &rings, counter: 5, aad: b"", data, verified: false }];
        backend.open_batch(&mut job);
        assert!(job[0].verified);
    }
}
