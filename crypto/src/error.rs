//! Why a handshake message was refused.

/// Why a handshake message was refused. Only [`HandshakeError::NoIndex`] leaves a trace in a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum HandshakeError {
    /// It is not the message it should be: its type, a reserved byte, or its length is wrong.
    #[error("not a handshake message of the kind expected")]
    Malformed,
    /// Its MAC1 is not made with our public key: the sender doesn't know whom it speaks to.
    #[error("wrong MAC1")]
    Mac1,
    /// It does not decrypt, or a public key in it is of low order: a wrong key, a wrong pre-shared key, or a forgery.
    #[error("not authentic")]
    Auth,
    /// It offers another cipher suite than the one that is configured here, or one that is not known.
    ///
    /// From [`crate::Peer::on_initiation`]: the peer itself offered it, just now. From [`crate::open_trunk_initiation`]: somebody did who
    /// knows our public key.
    #[error("another cipher suite: number {offered}")]
    Suite {
        /// The number that was offered.
        offered: u8,
    },
    /// Its time stamp is not greater than the last that was accepted.
    #[error("time stamp not newer than the last")]
    Replayed,
    /// It came less than 20 ms after the last that was accepted.
    #[error("too soon after the last initiation")]
    Rate,
    /// It answers nothing that we sent, or nothing that still waits for an answer.
    #[error("answers no message of ours")]
    Unsolicited,
    /// There is no receiver index left for the new session. The message itself was good, so its time stamp counts as used.
    #[error("no receiver index left")]
    NoIndex,
}
