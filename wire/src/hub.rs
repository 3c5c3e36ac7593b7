//! What two hubs say to each other inside a trunk: what follows a tag with the O bit (`docs/WIRE.md`, 8).
//!
//! ```text
//!  0        1        2                 4
//! +--------+--------+-----------------+-------------------------------
//! |  Type  |   0    |     Length      |  as the type has it
//! +--------+--------+-----------------+-------------------------------
//! ```
//!
//! Numbers are little-endian. The length is that of the message, from its type on: padding may follow it. A message may be longer than
//! this version knows: what is behind what it knows is not looked at. What means something else gets another type, and a type that is
//! not known is dropped. Nothing here allocates to read, and any bytes are safe.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::{Malformed, TenantId, geneve};

/// Bytes of what every message begins with.
const COMMON: usize = 4;
const PROBE: u8 = 1;
const REPLY: u8 = 2;
const PROGRESS: u8 = 3;
const STATE: u8 = 4;

const PROBE_LEN: usize = 64;
const PROGRESS_LEN: usize = 48;
/// Bytes of a state before its entries.
const STATE_LEN: usize = 44;

/// The shortest plaintext, with its tag, that any message of announcements fits: a state with one entry of the longest kind.
pub const LONGEST_MIN: usize = geneve::HEADER + STATE_LEN + ENTRY_MAX;
/// Hops that an announcement may have come by: what has come further is not said again.
pub const HOPS_MAX: u8 = 7;

/// A plaintext is padded to a multiple of this.
const PADDING: usize = 16;

/// Flags, length and hops.
const ENTRY: usize = 3;
const TENANT: usize = 3;
const OWNER: usize = 32 + 12;
const ENTRY_MAX: usize = ENTRY + TENANT + 16 + OWNER;

const FLAG_V6: u8 = 1;
const FLAG_GONE: u8 = 2;
const FLAG_OWNER: u8 = 4;
const FLAG_TENANT: u8 = 8;

/// A message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Message<'a> {
    /// Wants an answer.
    Probe(Probe),
    /// Is that.
    Reply(Probe),
    /// How far each has heard the other, when that has moved.
    Progress(Progress),
    /// What is alive behind the sender.
    State(State<'a>),
}

impl<'a> Message<'a> {
    /// Reads what follows the tag.
    pub fn parse(payload: &'a [u8]) -> Result<Self, Malformed> {
        let (&[kind, zero, low, high], _) = payload.split_first_chunk::<COMMON>().ok_or(Malformed::Short)?;
        let len = usize::from(u16::from_le_bytes([low, high]));
        let message = payload.get(..len).ok_or(Malformed::TotalLength)?;
        let known = match kind {
            PROBE | REPLY => PROBE_LEN,
            PROGRESS => PROGRESS_LEN,
            STATE => STATE_LEN,
            _ => return Err(Malformed::Protocol),
        };
        if zero != 0 {
            return Err(Malformed::Reserved);
        }
        if len < known {
            return Err(Malformed::TotalLength);
        }
        Ok(match kind {
            PROBE => Self::Probe(Probe::parse(message)?),
            REPLY => Self::Reply(Probe::parse(message)?),
            PROGRESS if u32_at(message, 4) != 0 => return Err(Malformed::Reserved),
            PROGRESS => Self::Progress(Progress::parse(&message[8..])),
            _ => Self::State(State::parse(message)?),
        })
    }
}

/// How far a hub's announcements have come.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Position {
    /// Drawn by the hub that announces, when it started; 0: nothing is known of it.
    pub epoch: u64,
    /// How often it has begun to say everything, in this epoch.
    pub round: u32,
    /// The change up to which, of those that it numbers from 1 in this epoch.
    pub number: u64,
}

/// What every hub says of both directions.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Progress {
    /// What the sender has said, or wants to say.
    pub said: Position,
    /// What the sender has heard of the receiver's, without a gap.
    pub heard: Position,
}

impl Progress {
    /// Of bytes that are long enough.
    fn parse(bytes: &[u8]) -> Self {
        let position = |at, round| Position {
            epoch: u64_at(bytes, at),
            number: u64_at(bytes, at + 8),
            round: u32_at(bytes, round),
        };
        Self { said: position(0, 32), heard: position(16, 36) }
    }

    fn emit(&self, out: &mut Vec<u8>) {
        for position in [self.said, self.heard] {
            out.extend(position.epoch.to_le_bytes());
            out.extend(position.number.to_le_bytes());
        }
        out.extend(self.said.round.to_le_bytes());
        out.extend(self.heard.round.to_le_bytes());
    }

    /// The whole plaintext, with its tag.
    pub fn plain(&self) -> Vec<u8> {
        let mut plain = begin(PROGRESS, PROGRESS_LEN);
        plain.extend([0; 4]);
        self.emit(&mut plain);
        padded(plain, usize::MAX)
    }
}

/// A probe, or the reply to one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Probe {
    /// Of a probe: how long the plaintext was made, with tag and padding; 0: no longer than it is. Of a reply: how long it was when it came.
    pub size: u16,
    /// The sender of the probe has numbered it; the reply repeats it.
    pub number: u64,
    /// What the sender of the probe likes to be told again.
    pub clock: u64,
    /// How far each has heard the other.
    pub progress: Progress,
}

impl Probe {
    /// Bytes of a probe without a size, and of a reply, with tag and padding.
    pub const LEN: usize = (geneve::HEADER + PROBE_LEN).next_multiple_of(PADDING);

    fn parse(message: &[u8]) -> Result<Self, Malformed> {
        if u16_at(message, 6) != 0 {
            return Err(Malformed::Reserved);
        }
        Ok(Self {
            size: u16_at(message, 4),
            number: u64_at(message, 8),
            clock: u64_at(message, 16),
            progress: Progress::parse(&message[24..]),
        })
    }

    /// The whole plaintext of a probe, with its tag, padded to `size` if there is one.
    pub fn plain(&self) -> Vec<u8> {
        let mut plain = self.emit(PROBE);
        plain.resize(Self::LEN.max(self.size.into()), 0);
        plain
    }

    /// The whole plaintext of the reply to a probe that came in `received` bytes of plaintext, tag included. It is short, whatever came.
    pub fn reply(&self, received: usize, progress: Progress) -> Vec<u8> {
        let size = u16::try_from(received).unwrap_or(u16::MAX);
        padded(Self { size, progress, ..*self }.emit(REPLY), usize::MAX)
    }

    fn emit(&self, kind: u8) -> Vec<u8> {
        let mut plain = begin(kind, PROBE_LEN);
        plain.extend(self.size.to_le_bytes());
        plain.extend([0; 2]);
        plain.extend(self.number.to_le_bytes());
        plain.extend(self.clock.to_le_bytes());
        self.progress.emit(&mut plain);
        plain
    }
}

/// A prefix of a tenant's addresses: no bit is set beyond its length.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Prefix {
    address: IpAddr,
    len: u8,
}

impl Prefix {
    /// `None` if it is longer than an address, or has a bit beyond its length.
    pub fn new(address: IpAddr, len: u8) -> Option<Self> {
        let (bits, most) = match address {
            IpAddr::V4(v4) => (u128::from(v4.to_bits()) << 96, 32),
            IpAddr::V6(v6) => (v6.to_bits(), 128),
        };
        let beyond = bits.checked_shl(len.into()).unwrap_or(0);
        (len <= most && beyond == 0).then_some(Self { address, len })
    }

    /// Its first address.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// Bits that its addresses have in common.
    #[expect(clippy::len_without_is_empty, reason = "not a number of elements")]
    pub fn len(&self) -> u8 {
        self.len
    }
}

/// Whose site it is, as one hub knows: it authenticated there, lately.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Owner {
    /// The site's public key.
    pub key: [u8; 32],
    /// The TAI64N of its last initiation there.
    pub stamp: [u8; 12],
}

/// What there is to say of a prefix that is alive.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Alive {
    /// Hubs between the one that says so and the end: 0 to [`HOPS_MAX`].
    pub hops: u8,
    /// The site that has this prefix, if it is one.
    pub owner: Option<Owner>,
}

/// One prefix of one tenant: alive, or alive no longer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Entry {
    /// The tenant.
    pub tenant: TenantId,
    /// The prefix.
    pub prefix: Prefix,
    /// None: not alive any more.
    pub alive: Option<Alive>,
}

/// Where a [`State`] belongs among all that the sender says.
///
/// The sender numbers every change of a prefix. Of a prefix the last change alone counts. So who knows all changes up to `from`, and
/// reads this, knows all up to `to`, of those that were not overtaken.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Place {
    /// The sender's; never 0.
    pub epoch: u64,
    /// Each begins with the whole state, from 0.
    pub round: u32,
    /// All changes after this one are in it …
    pub from: u64,
    /// … up to this one.
    pub to: u64,
    /// The newest change that there was when this was made.
    pub head: u64,
}

/// A part of what is alive behind a hub: checked as a whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct State<'a> {
    /// Where it belongs.
    pub place: Place,
    count: u16,
    entries: &'a [u8],
}

impl<'a> State<'a> {
    fn parse(message: &'a [u8]) -> Result<Self, Malformed> {
        let place = Place {
            round: u32_at(message, 4),
            epoch: u64_at(message, 8),
            from: u64_at(message, 16),
            to: u64_at(message, 24),
            head: u64_at(message, 32),
        };
        if place.epoch == 0 || place.from > place.to || place.to > place.head {
            return Err(Malformed::Value);
        }
        if u16_at(message, 42) != 0 {
            return Err(Malformed::Reserved);
        }
        let state = Self { place, count: u16_at(message, 40), entries: &message[STATE_LEN..] };
        let mut reader = Entries { bytes: state.entries, left: state.count, tenant: None };
        while reader.left > 0 {
            reader.read()?;
        }
        Ok(state)
    }

    /// A copy that outlives what it was read from.
    pub fn keep(&self) -> Kept {
        Kept { place: self.place, count: self.count, entries: self.entries.into() }
    }

    /// What it says, in the order in which it changed.
    pub fn entries(&self) -> Entries<'a> {
        Entries { bytes: self.entries, left: self.count, tenant: None }
    }
}

/// A [`State`] that is kept until those before it have come.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Kept {
    place: Place,
    count: u16,
    entries: Box<[u8]>,
}

impl Kept {
    /// As it was.
    pub fn state(&self) -> State<'_> {
        State { place: self.place, count: self.count, entries: &self.entries }
    }
}

/// The entries of a [`State`].
#[derive(Clone, Debug)]
pub struct Entries<'a> {
    bytes: &'a [u8],
    left: u16,
    tenant: Option<TenantId>,
}

impl<'a> Entries<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.bytes.split_at_checked(len).ok_or(Malformed::TotalLength)?;
        self.bytes = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.bytes.split_first_chunk().ok_or(Malformed::TotalLength)?;
        self.bytes = rest;
        Ok(*taken)
    }

    fn read(&mut self) -> Result<Entry, Malformed> {
        self.left = self.left.saturating_sub(1);
        let [flags, len, hops] = self.array()?;
        if flags & !(FLAG_V6 | FLAG_GONE | FLAG_OWNER | FLAG_TENANT) != 0 {
            return Err(Malformed::Reserved);
        }
        if flags & FLAG_TENANT != 0 {
            let [low, middle, high] = self.array()?;
            self.tenant = Some(TenantId::of_bits([high, middle, low]));
        }
        let tenant = self.tenant.ok_or(Malformed::Value)?;
        let mut octets = [0; 16];
        let significant = usize::from(len.div_ceil(8));
        octets.get_mut(..significant).ok_or(Malformed::Value)?.copy_from_slice(self.take(significant)?);
        let address = match octets {
            _ if flags & FLAG_V6 != 0 => IpAddr::V6(Ipv6Addr::from(octets)),
            [a, b, c, d, ..] => IpAddr::V4(Ipv4Addr::new(a, b, c, d)),
        };
        let prefix = Prefix::new(address, len).ok_or(Malformed::Value)?;
        let owner = match flags & FLAG_OWNER {
            0 => None,
            _ => Some(Owner { key: self.array()?, stamp: self.array()? }),
        };
        let alive = match flags & FLAG_GONE {
            0 if hops <= HOPS_MAX => Some(Alive { hops, owner }),
            FLAG_GONE if hops == 0 && owner.is_none() => None,
            _ => return Err(Malformed::Value),
        };
        Ok(Entry { tenant, prefix, alive })
    }
}

impl Iterator for Entries<'_> {
    type Item = Entry;

    fn next(&mut self) -> Option<Entry> {
        if self.left == 0 {
            return None;
        }
        // All were read before, by `State::parse`.
        self.read().ok()
    }
}

/// Writes a [`State`], with its tag, up to a length.
#[derive(Debug)]
pub struct Writer {
    plain: Vec<u8>,
    longest: usize,
    tenant: Option<TenantId>,
    count: u16,
}

impl Writer {
    /// One whose plaintext, tag included, has at most `longest` bytes; but at least [`LONGEST_MIN`].
    pub fn new(longest: usize) -> Self {
        let longest = longest.clamp(LONGEST_MIN, usize::from(u16::MAX));
        let mut plain = Vec::with_capacity(longest);
        plain.resize(geneve::HEADER + STATE_LEN, 0);
        Self { plain, longest, tenant: None, count: 0 }
    }

    /// Appends an entry; `false` if there is no room for it. More hops than may be said are said as the most.
    pub fn push(&mut self, entry: &Entry) -> bool {
        let mut bytes = [0; ENTRY_MAX];
        let mut len = ENTRY;
        let mut put = |part: &[u8]| {
            bytes[len..][..part.len()].copy_from_slice(part);
            len += part.len();
        };
        let (mut flags, mut hops) = (0, 0);
        if self.tenant != Some(entry.tenant) {
            flags |= FLAG_TENANT;
            put(&entry.tenant.as_u32().to_le_bytes()[..TENANT]);
        }
        let significant = usize::from(entry.prefix.len.div_ceil(8));
        match entry.prefix.address {
            IpAddr::V4(v4) => put(&v4.octets()[..significant]),
            IpAddr::V6(v6) => {
                flags |= FLAG_V6;
                put(&v6.octets()[..significant]);
            }
        }
        match &entry.alive {
            None => flags |= FLAG_GONE,
            Some(alive) => {
                hops = alive.hops.min(HOPS_MAX);
                if let Some(owner) = &alive.owner {
                    flags |= FLAG_OWNER;
                    put(&owner.key);
                    put(&owner.stamp);
                }
            }
        }
        bytes[..ENTRY].copy_from_slice(&[flags, entry.prefix.len, hops]);
        if self.plain.len() + len > self.longest {
            return false;
        }
        self.plain.extend_from_slice(&bytes[..len]);
        (self.tenant, self.count) = (Some(entry.tenant), self.count + 1);
        true
    }

    /// The whole plaintext, with its tag.
    pub fn finish(mut self, place: &Place) -> Vec<u8> {
        let mut head = begin(STATE, self.plain.len() - geneve::HEADER);
        head.extend(place.round.to_le_bytes());
        for number in [place.epoch, place.from, place.to, place.head] {
            head.extend(number.to_le_bytes());
        }
        head.extend(self.count.to_le_bytes());
        head.extend([0; 2]);
        self.plain[..head.len()].copy_from_slice(&head);
        padded(self.plain, self.longest)
    }
}

/// A plaintext with zeros up to a multiple of [`PADDING`], but not beyond what may be sent.
fn padded(mut plain: Vec<u8>, most: usize) -> Vec<u8> {
    plain.resize(plain.len().next_multiple_of(PADDING).min(most), 0);
    plain
}

/// The tag, and what every message begins with.
fn begin(kind: u8, len: usize) -> Vec<u8> {
    let mut tag = [0; geneve::HEADER];
    geneve::Fields { tenant: TenantId::of_bits([0; 3]), payload: geneve::Payload::Control }.emit(&mut tag);
    // All lengths come from `Writer`, which keeps below this.
    let [low, high] = (len as u16).to_le_bytes();
    [&tag[..], &[kind, 0, low, high]].concat()
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

#[cfg(test)]
mod tests;
