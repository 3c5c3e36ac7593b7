//! The handshake: Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s, written out as in section 5.4 of the WireGuard paper ("WG"), for sites and trunks.
//!
//! Both ends keep a transcript: a chaining key `C`, into which every shared secret is mixed, and a hash `H`, which absorbs every byte
//! that was sent and authenticates it as additional data. The names in the recipes are the paper's:
//! `S` is a static key pair, `E` an ephemeral one, `i` the initiator, `r` the responder, `Q` the pre-shared key.
//!
//! Nothing here knows of time, of MACs (`cookie`), or of replay (`peer`).

use blake2::digest::{Digest, FixedOutput, KeyInit, Update, consts::U16};
use blake2::{Blake2s256, Blake2sMac};
use chacha20poly1305::ChaCha20Poly1305;
use chacha20poly1305::aead::AeadInOut;
use x25519_dalek::StaticSecret;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::message::{Initiation, Response};
use crate::profile::{CONSTRUCTION, suite_cipher};
use crate::tai64n::Tai64n;
use crate::{HandshakeError, Identity, Profile, Protocol, PublicKey};

/// 32 bytes that nobody else may know. Wiped when dropped.
pub(crate) type Secret = Zeroizing<[u8; 32]>;

/// The two keys of a new session, as this side uses them.
pub(crate) struct Keys {
    pub(crate) send: Secret,
    pub(crate) receive: Secret,
}

/// What the initiator keeps from its initiation until the response comes.
pub(crate) struct Initiator {
    transcript: Transcript,
    ephemeral: StaticSecret,
}

/// WG 5.4.2, first message, at the initiator.
///
/// `static_static` is `DH(S_i, S_r)`, which never changes and is worth keeping; `ephemeral` 32 fresh random bytes.
pub(crate) fn initiate(
    profile: Profile,
    identity: &Identity,
    responder: &PublicKey,
    static_static: &Secret,
    timestamp: Tai64n,
    ephemeral: &Secret,
    sender: u32,
) -> Result<(Initiator, [u8; crate::message::INITIATION]), HandshakeError> {
    // 1. C := Hash(construction);  H := Hash(Hash(C || prologue) || S_r)
    let mut transcript = Transcript::new(profile, responder);

    // 2. E_i := a fresh key pair;  C := Kdf1(C, E_i);  H := Hash(H || E_i)
    let ephemeral = StaticSecret::from(**ephemeral);
    let ephemeral_public = x25519_dalek::PublicKey::from(&ephemeral).to_bytes();
    transcript.mix(&ephemeral_public);
    transcript.absorb(&ephemeral_public);

    // 3. (C, k) := Kdf2(C, DH(E_i, S_r));  static := Aead(k, 0, S_i, H);  H := Hash(H || static)
    let key = transcript.mix_key(&dh(&ephemeral, &responder.0)?);
    let mut sealed_static = [0; 48];
    transcript.seal(&key, &identity.public().0, &mut sealed_static);

    // 4. (C, k) := Kdf2(C, DH(S_i, S_r));  timestamp := Aead(k, 0, TAI64N, H);  H := Hash(H || timestamp)
    let key = transcript.mix_key(static_static);
    let mut sealed_timestamp = [0; 28];
    transcript.seal(&key, &timestamp.0, &mut sealed_timestamp);

    let message = Initiation::emit(profile, sender, &ephemeral_public, &sealed_static, &sealed_timestamp);
    Ok((Initiator { transcript, ephemeral }, message))
}

/// An initiation whose sender has shown which static key is its own, though not yet that it holds the private half, nor that the
/// message is new: both come with the time stamp, in [`crate::Peer::on_initiation`].
pub struct OpenedInitiation {
    profile: Profile,
    transcript: Transcript,
    ephemeral: [u8; 32],
    remote: PublicKey,
    sealed_timestamp: [u8; 28],
    sender: u32,
}

/// WG 5.4.2, first message, at the responder, up to the initiator's static key.
///
/// One scalar multiplication: all that a stranger's initiation costs. MAC1, and MAC2 under load, have been checked before by
/// [`crate::cookie::Checker`].
pub fn open_initiation(identity: &Identity, datagram: &[u8]) -> Result<OpenedInitiation, HandshakeError> {
    let message = Initiation::parse(Protocol::WireGuard, datagram).ok_or(HandshakeError::Malformed)?;
    open(identity, Profile::WireGuard, message)
}

/// The same of a trunk, by the suite and for the lane that its head offers: which of them the peer is to have, [`crate::Peer`] says. A head
/// that was changed on the way makes another transcript, under which nothing opens.
///
/// A suite that is unknown here is refused as [`HandshakeError::Suite`]. That says no more than MAC1 does: the sender, whoever it
/// is, knows our public key. Who it is could be read only by the suite that is unknown.
pub fn open_trunk_initiation(identity: &Identity, datagram: &[u8]) -> Result<OpenedInitiation, HandshakeError> {
    let message = Initiation::parse(Protocol::Trunk, datagram).ok_or(HandshakeError::Malformed)?;
    let cipher = suite_cipher(message.suite()).ok_or(HandshakeError::Suite { offered: message.suite() })?;
    open(identity, Profile::Trunk { cipher, lane: message.lane() }, message)
}

fn open(identity: &Identity, profile: Profile, message: Initiation<'_>) -> Result<OpenedInitiation, HandshakeError> {
    // 1. C := Hash(construction);  H := Hash(Hash(C || prologue) || S_r)
    let mut transcript = Transcript::new(profile, identity.public());

    // 2. C := Kdf1(C, E_i);  H := Hash(H || E_i)
    transcript.mix(message.ephemeral());
    transcript.absorb(message.ephemeral());

    // 3. (C, k) := Kdf2(C, DH(S_r, E_i));  S_i := open(k, 0, static, H);  H := Hash(H || static)
    let key = transcript.mix_key(&dh(identity.secret(), message.ephemeral())?);
    let mut remote = [0; 32];
    transcript.open(&key, message.sealed_static(), &mut remote)?;

    Ok(OpenedInitiation {
        profile,
        transcript,
        ephemeral: *message.ephemeral(),
        remote: PublicKey(remote),
        sealed_timestamp: *message.sealed_timestamp(),
        sender: message.sender(),
    })
}

impl OpenedInitiation {
    /// What the initiator offers. Like the key, it is only claimed until the time stamp has been opened.
    pub fn profile(&self) -> Profile {
        self.profile
    }

    /// The static key that the initiator claims: by it the caller finds the peer.
    pub fn remote(&self) -> &PublicKey {
        &self.remote
    }

    /// The index by which the initiator wants to be answered.
    pub(crate) fn sender(&self) -> u32 {
        self.sender
    }

    /// WG 5.4.2, the rest: only who holds the initiator's private key could have sealed the time stamp.
    pub(crate) fn timestamp(&mut self, static_static: &Secret) -> Result<Tai64n, HandshakeError> {
        // 4. (C, k) := Kdf2(C, DH(S_r, S_i));  TAI64N := open(k, 0, timestamp, H);  H := Hash(H || timestamp)
        let key = self.transcript.mix_key(static_static);
        let mut timestamp = [0; 12];
        self.transcript.open(&key, &self.sealed_timestamp, &mut timestamp)?;
        Ok(Tai64n(timestamp))
    }

    /// WG 5.4.3, second message, at the responder. `ephemeral` is 32 fresh random bytes.
    pub(crate) fn respond(
        mut self,
        psk: &Secret,
        ephemeral: &Secret,
        sender: u32,
    ) -> Result<(Keys, [u8; crate::message::RESPONSE]), HandshakeError> {
        let transcript = &mut self.transcript;

        // 5. E_r := a fresh key pair;  C := Kdf1(C, E_r);  H := Hash(H || E_r)
        let ephemeral = StaticSecret::from(**ephemeral);
        let ephemeral_public = x25519_dalek::PublicKey::from(&ephemeral).to_bytes();
        transcript.mix(&ephemeral_public);
        transcript.absorb(&ephemeral_public);

        // 6. C := Kdf1(C, DH(E_r, E_i));  C := Kdf1(C, DH(E_r, S_i))
        transcript.mix(&*dh(&ephemeral, &self.ephemeral)?);
        transcript.mix(&*dh(&ephemeral, &self.remote.0)?);

        // 7. (C, t, k) := Kdf3(C, Q);  H := Hash(H || t);  empty := Aead(k, 0, "", H);  H := Hash(H || empty)
        let key = transcript.mix_psk(psk);
        let mut sealed_empty = [0; 16];
        transcript.seal(&key, &[], &mut sealed_empty);

        // 8. (initiator's key, responder's key) := Kdf2(C, "")
        let (receive, send) = transcript.split();
        Ok((
            Keys { send, receive },
            Response::emit(self.profile.protocol(), sender, self.sender, &ephemeral_public, &sealed_empty),
        ))
    }
}

impl Initiator {
    /// WG 5.4.3, second message, at the initiator. A response that fails changes nothing: the true one may follow it.
    pub(crate) fn finish(
        &self,
        identity: &Identity,
        psk: &Secret,
        response: Response<'_>,
    ) -> Result<Keys, HandshakeError> {
        let mut transcript = self.transcript.clone();

        // 5. C := Kdf1(C, E_r);  H := Hash(H || E_r)
        transcript.mix(response.ephemeral());
        transcript.absorb(response.ephemeral());

        // 6. C := Kdf1(C, DH(E_i, E_r));  C := Kdf1(C, DH(S_i, E_r))
        transcript.mix(&*dh(&self.ephemeral, response.ephemeral())?);
        transcript.mix(&*dh(identity.secret(), response.ephemeral())?);

        // 7. (C, t, k) := Kdf3(C, Q);  H := Hash(H || t);  "" = open(k, 0, empty, H);  H := Hash(H || empty)
        let key = transcript.mix_psk(psk);
        transcript.open(&key, response.sealed_empty(), &mut [])?;

        // 8. (initiator's key, responder's key) := Kdf2(C, "")
        let (send, receive) = transcript.split();
        Ok(Keys { send, receive })
    }
}

/// The chaining key `C` and the hash `H`.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
struct Transcript {
    chain: [u8; 32],
    hash: [u8; 32],
}

impl Transcript {
    /// The prologue is the identifier, and after it, in a trunk, the head of the initiation: so that the suite and the lane in it are
    /// authentic, too.
    fn new(profile: Profile, responder: &PublicKey) -> Self {
        let chain = hash(&[CONSTRUCTION]);
        let head = profile.head();
        let bound: &[u8] = match profile.protocol() {
            Protocol::WireGuard => &[],
            Protocol::Trunk => &head,
        };
        let mut transcript = Self { chain, hash: hash(&[&chain, profile.identifier(), bound]) };
        transcript.absorb(&responder.0);
        transcript
    }

    /// `H := Hash(H || data)`
    fn absorb(&mut self, data: &[u8]) {
        self.hash = hash(&[&self.hash, data]);
    }

    /// `C := Kdf1(C, input)`
    fn mix(&mut self, input: &[u8; 32]) {
        let [chain] = kdf(&self.chain, input);
        self.chain = *chain;
    }

    /// `(C, k) := Kdf2(C, input)`
    fn mix_key(&mut self, input: &Secret) -> Secret {
        let [chain, key] = kdf(&self.chain, &**input);
        self.chain = *chain;
        key
    }

    /// `(C, t, k) := Kdf3(C, psk);  H := Hash(H || t)`
    fn mix_psk(&mut self, psk: &Secret) -> Secret {
        let [chain, absorbed, key] = kdf(&self.chain, &**psk);
        self.chain = *chain;
        self.absorb(&*absorbed);
        key
    }

    /// `Kdf2(C, "")`: the initiator's sending key, and the responder's.
    fn split(&self) -> (Secret, Secret) {
        let [initiator, responder] = kdf(&self.chain, &[]);
        (initiator, responder)
    }

    /// `sealed := Aead(key, 0, plain, H);  H := Hash(H || sealed)`. `sealed` is 16 bytes longer than `plain`.
    fn seal(&mut self, key: &Secret, plain: &[u8], sealed: &mut [u8]) {
        let (text, tag) = sealed.split_at_mut(plain.len());
        text.copy_from_slice(plain);
        let computed = ChaCha20Poly1305::new((&**key).into())
            .encrypt_inout_detached(&[0; 12].into(), &self.hash, text.into())
            .expect("a message of a handshake is far shorter than 256 GiB");
        tag.copy_from_slice(&computed);
        self.absorb(sealed);
    }

    /// `plain := open(key, 0, sealed, H);  H := Hash(H || sealed)`. `sealed` is 16 bytes longer than `plain`.
    fn open(&mut self, key: &Secret, sealed: &[u8], plain: &mut [u8]) -> Result<(), HandshakeError> {
        let (text, tag) = sealed.split_last_chunk::<16>().ok_or(HandshakeError::Malformed)?;
        plain.copy_from_slice(text);
        ChaCha20Poly1305::new((&**key).into())
            .decrypt_inout_detached(&[0; 12].into(), &self.hash, plain.into(), tag.into())
            .map_err(|_| HandshakeError::Auth)?;
        self.absorb(sealed);
        Ok(())
    }
}

/// `DH(secret, public)`, refused if it is zero: a public key of low order would make the "shared" secret known to everyone.
pub(crate) fn dh(secret: &StaticSecret, public: &[u8; 32]) -> Result<Secret, HandshakeError> {
    let shared = secret.diffie_hellman(&x25519_dalek::PublicKey::from(*public));
    if shared.was_contributory() { Ok(Zeroizing::new(shared.to_bytes())) } else { Err(HandshakeError::Auth) }
}

/// `Hash`: BLAKE2s with 32 bytes of output, of the parts joined.
pub(crate) fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut state = Blake2s256::new();
    for part in parts {
        Digest::update(&mut state, part);
    }
    state.finalize().into()
}

/// `Mac`: keyed BLAKE2s with 16 bytes of output, of the parts joined. The key has 1 to 32 bytes.
pub(crate) fn mac(key: &[u8], parts: &[&[u8]]) -> [u8; 16] {
    let mut state = Blake2sMac::<U16>::new_from_slice(key).expect("keys of MACs have 16 or 32 bytes");
    for part in parts {
        Update::update(&mut state, part);
    }
    state.finalize_fixed().into()
}

/// `Kdf_n`: HKDF with HMAC-BLAKE2s, `n` outputs.
///
/// 1. `t0 := Hmac(key, input)`
/// 2. `t1 := Hmac(t0, 1)`
/// 3. `t(i+1) := Hmac(t0, t(i) || i+1)`
fn kdf<const N: usize>(key: &[u8; 32], input: &[u8]) -> [Secret; N] {
    let extracted = hmac(key, &[input]);
    let mut outputs = std::array::from_fn(|_| Secret::default());
    for i in 0..N {
        let previous = if i == 0 { &[][..] } else { &outputs[i - 1][..] };
        let output = hmac(&extracted, &[previous, &[i as u8 + 1]]);
        outputs[i] = output;
    }
    outputs
}

/// `Hmac`: HMAC (RFC 2104) over BLAKE2s, whose block is 64 bytes, of the parts joined.
fn hmac(key: &[u8; 32], parts: &[&[u8]]) -> Secret {
    const BLOCK: usize = 64;
    let pad = |with: u8| {
        let mut block = Zeroizing::new([with; BLOCK]);
        block.iter_mut().zip(key).for_each(|(byte, key)| *byte ^= key);
        block
    };
    let mut inner = Blake2s256::new_with_prefix(&pad(0x36)[..]);
    for part in parts {
        Digest::update(&mut inner, part);
    }
    let inner = Zeroizing::new(<[u8; 32]>::from(inner.finalize()));
    Zeroizing::new(hash(&[&*pad(0x5c), &*inner]))
}

#[cfg(test)]
mod tests;
