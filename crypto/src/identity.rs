//! Who speaks: long-lived keys, and what is computed from them once.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use x25519_dalek::StaticSecret;

/// A Curve25519 public key. It reads and prints as base64, as `wg` does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey(
    /// The u-coordinate, little-endian (RFC 7748).
    pub [u8; 32],
);

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; 44];
        // 32 bytes are always 44 characters, so this can't fail.
        let len = STANDARD.encode_slice(self.0, &mut text).map_err(|_| fmt::Error)?;
        f.write_str(std::str::from_utf8(&text[..len]).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text was not the base64 of 32 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a key: 32 bytes of base64 are 44 characters, of which the last is '='")]
pub struct NotAKey;

impl FromStr for PublicKey {
    type Err = NotAKey;

    fn from_str(text: &str) -> Result<Self, NotAKey> {
        let mut bytes = [0; 32];
        match STANDARD.decode_slice(text, &mut bytes) {
            Ok(32) => Ok(Self(bytes)),
            Ok(_) | Err(_) => Err(NotAKey),
        }
    }
}

/// The hub's own key pair. The private half is wiped from memory when this is dropped, and never printed.
pub struct Identity {
    secret: StaticSecret,
    public: PublicKey,
}

impl Identity {
    /// The identity of this private key. Curve25519 clamps it when it is used, so that any 32 bytes are one.
    pub fn new(private: [u8; 32]) -> Self {
        let private = zeroize::Zeroizing::new(private);
        let secret = StaticSecret::from(*private);
        let public = PublicKey(x25519_dalek::PublicKey::from(&secret).to_bytes());
        Self { secret, public }
    }

    /// What the peers know this hub by.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    pub(crate) fn secret(&self) -> &StaticSecret {
        &self.secret
    }

    /// The same private key under another's public one, as an impostor has it.
    #[cfg(test)]
    pub(crate) fn named(&self, public: PublicKey) -> Self {
        Self { secret: self.secret.clone(), public }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.public)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // RFC 7748, 6.1: Alice's key pair.
    const PRIVATE: [u8; 32] = [
        0x77, 0x07, 0x6d, 0x0a, 0x73, 0x18, 0xa5, 0x7d, 0x3c, 0x16, 0xc1, 0x72, 0x51, 0xb2, 0x66, 0x45, 0xdf, 0x4c,
        0x2f, 0x87, 0xeb, 0xc0, 0x99, 0x2a, 0xb1, 0x77, 0xfb, 0xa5, 0x1d, 0xb9, 0x2c, 0x2a,
    ];
    const PUBLIC: &str = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=";

    #[test]
    fn knows_its_public_key_and_prints_nothing_else() {
        let identity = Identity::new(PRIVATE);
        assert_eq!(identity.public().to_string(), PUBLIC);
        assert_eq!(format!("{identity:?}"), format!("Identity({PUBLIC})"));
    }

    #[test]
    fn a_key_is_read_as_it_is_printed_and_anything_else_refused() {
        let key: PublicKey = PUBLIC.parse().unwrap();
        assert_eq!(key, *Identity::new(PRIVATE).public());
        for wrong in [
            "",
            &PUBLIC[..43],
            &format!("{PUBLIC}="),
            &format!("{PUBLIC} "),
            "AAAA",
            &"A".repeat(48),
            &PUBLIC.replace('=', "A"),
        ] {
            assert_eq!(wrong.parse::<PublicKey>(), Err(NotAKey), "{wrong:?}");
        }
    }
}
