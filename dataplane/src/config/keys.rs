//! Keys as the configuration holds them, and the files that secret ones come from.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::{Zeroize, Zeroizing};

pub use crypto::PublicKey;

macro_rules! secret {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq)]
        pub struct $name([u8; 32]);

        impl $name {
            /// These bytes as a key; wiped when it is dropped.
            pub fn new(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// The key's bytes. A copy of them is the caller's to wipe.
            pub fn bytes(&self) -> &[u8; 32] {
                &self.0
            }

            /// The key as `wg` writes it.
            pub fn base64(&self) -> Zeroizing<String> {
                Zeroizing::new(STANDARD.encode(self.0))
            }
        }

        impl Drop for $name {
            fn drop(&mut self) {
                self.0.zeroize();
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(secret)"))
            }
        }
    };
}

secret! {
    /// A Curve25519 private key. It is wiped when it is dropped, and no format prints it.
    PrivateKey
}
secret! {
    /// A key that a site and the hub share besides their key pairs. It is wiped when it is dropped, and no format
    /// prints it.
    PresharedKey
}

impl PrivateKey {
    /// A new key from the kernel's random numbers, clamped as `wg genkey` clamps.
    pub fn random() -> io::Result<Self> {
        let mut key = Self([0; 32]);
        getrandom::fill(&mut key.0).map_err(io::Error::other)?;
        key.0[0] &= 0b1111_1000;
        key.0[31] = key.0[31] & 0b0111_1111 | 0b0100_0000;
        Ok(key)
    }

    /// The key pair, ready for handshakes.
    pub fn identity(&self) -> crypto::Identity {
        crypto::Identity::new(self.0)
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        *self.identity().public()
    }
}

/// What 32 bytes of base64 look like, for messages.
const RULE: &str = "a key is 32 bytes, which base64 writes as 44 characters ending in \"=\"";

/// A public key as `wg pubkey` prints it.
pub(super) fn public_key(text: &str) -> Result<PublicKey, String> {
    decode(text).map(|bytes| PublicKey(*bytes))
}

/// The 32 bytes, or what is wrong with the text; the text itself is not repeated, since it may be a secret.
fn decode(text: &str) -> Result<Zeroizing<[u8; 32]>, String> {
    let mut decoded = Zeroizing::new([0; 48]); // room for the nearest misses
    let length = match STANDARD.decode_slice(text, decoded.as_mut_slice()) {
        Ok(length) => length,
        Err(_) if text.len() == 44 => return Err(format!("not base64; {RULE}")),
        Err(_) => return Err(format!("{} characters that are no key; {RULE}", text.chars().count())),
    };
    match decoded[..length].first_chunk::<32>() {
        Some(key) if length == 32 && *key == [0; 32] => Err("all zeros, which is nobody's key".to_owned()),
        Some(key) if length == 32 => Ok(Zeroizing::new(*key)),
        _ => Err(format!("{length} bytes; {RULE}")),
    }
}

/// Whether a text that should name a file is a key itself.
pub(super) fn looks_like_a_key(text: &str) -> bool {
    decode(text.trim()).is_ok()
}

/// The key in a file, as `wg genkey` and `wg genpsk` write it; `make` is the command that makes such a file.
pub(super) fn read_key_file(path: &Path, make: &str) -> Result<Zeroizing<[u8; 32]>, String> {
    const LONGEST: usize = 128; // a key, a newline, and some blanks of an editor

    let shown = path.display();
    // Not blocking: a named pipe would hang here for want of a writer.
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let file = opened.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => format!("there is no {shown}; make it by: umask 077; {make} > {shown}"),
        io::ErrorKind::PermissionDenied => {
            format!("this process may not read {shown}; its owner must be the hub's user")
        }
        _ => format!("{shown} can't be opened: {error}"),
    })?;
    let metadata = file.metadata().map_err(|error| format!("{shown} can't be examined: {error}"))?;
    if !metadata.is_file() {
        return Err(format!("{shown} is no regular file; a file with the key in it is right"));
    }
    let mode = metadata.mode() & 0o777;
    if mode & 0o066 != 0 {
        return Err(format!("{shown} may be read or written by others (mode {mode:04o}); chmod 600 {shown}"));
    }

    let mut text = Zeroizing::new([0; LONGEST]);
    let length = read_up_to(file, &mut text[..]).map_err(|error| format!("{shown} can't be read: {error}"))?;
    if length == LONGEST {
        return Err(format!("{shown} is too long for a key; it is right as {make} writes it"));
    }
    let text = std::str::from_utf8(&text[..length]).map_err(|_| format!("{shown} holds no text; {RULE}"))?;
    decode(text.trim()).map_err(|wrong| format!("{shown} holds {wrong}"))
}

fn read_up_to(mut file: File, into: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < into.len() {
        match file.read(&mut into[filled..]) {
            Ok(0) => break,
            Ok(more) => filled += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
