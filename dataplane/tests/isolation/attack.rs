//! What sites, and who stands on the path, try: each attack makes one frame, and says what it knows of it.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crypto::aead::{SealJob, TAG};
use ekiden_dataplane::rehearsal::Rehearsal;

use crate::model::{Claim, Model, Shot, sum_up};

macro_rules! attacks {
    ($($name:ident $weight:literal $doc:literal)*) => {
        /// One thing to try.
        #[derive(Clone, Copy, Debug)]
        pub(crate) enum Attack { $(#[doc = $doc] $name),* }

        impl Attack {
            pub(crate) const ALL: &[Attack] = &[$(Attack::$name),*];
            /// How often each is tried, against each other.
            pub(crate) const WEIGHTS: &[u64] = &[$($weight),*];
        }
    };
}

attacks! {
    Honest4 300 "To another site of the tenant."
    Honest6 200 "The same, IPv6."
    ToItself 20 "To the sender's own network."
    ToOwnPrefix 20 "To the network that no other tenant has, from inside the tenant."
    Moved 20 "Honest, from another port."
    Late 30 "Honest, some batches later than it was sealed."
    Jump 5 "Honest, and thousands of packets after it are lost."
    Junk 10 "Honest, with junk in its padding."
    Keepalive 10 "Nothing inside."
    SpoofNeighbour 20 "From the address of another site of the tenant."
    SpoofStranger 20 "From an address that no site has."
    SpoofHub 20 "From an address of the hub."
    Foreign 20 "To the network that another tenant alone has."
    Underlay 20 "To an address of the underlay."
    Nested 10 "A whole sealed message of another tenant, to the hub's port, inside."
    MartianSource 20 "From an address that is nobody's."
    MartianDestination 20 "To an address that is nobody's."
    WrongIndex 20 "Under the index of another tenant's site."
    ForeignKey 20 "The same, from that site's outer address."
    GuessedIndex 10 "Under an index that nobody has."
    FlippedPacket 20 "A bit of the sealed packet or its tag is flipped."
    FlippedCounter 10 "A bit of the counter is flipped."
    FlippedIndex 10 "A bit of the index is flipped."
    FlippedKind 10 "A bit of the message's kind is flipped."
    FlippedOuter 10 "A bit of the outer IP header is flipped."
    Truncated 20 "The frame ends early."
    Replay 40 "A frame that was sent before."
    ReplayMoved 10 "The same, from elsewhere."
    TooOld 10 "Under a counter behind the window."
    Limit 10 "Under a counter beyond the limit."
    LastHop 30 "With one hop left."
    TooLong 10 "Longer than the way takes."
    Malformed 20 "A header that contradicts its packet."
    Runt 10 "Shorter than a header."
    Congested 10 "Marked as congested on the way."
    Handshake 5 "A handshake message."
}

/// Random numbers that are the same each time (SplitMix64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.roll() % end as u64) as usize
    }

    fn one_of<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }

    fn weighted(&mut self, weights: &[u64]) -> usize {
        let mut at = self.roll() % weights.iter().sum::<u64>();
        weights
            .iter()
            .position(|weight| at.checked_sub(*weight).map(|left| at = left).is_none())
            .expect("below the sum")
    }
}

/// All who send, and what they remember.
pub(crate) struct Villains {
    dice: Dice,
    sent: u64,
    /// Frames that were sent.
    recorded: VecDeque<(Shot, Vec<u8>)>,
    /// Frames that are sealed and not sent yet.
    held_back: VecDeque<(Shot, Vec<u8>)>,
}

const MEMORY: usize = 2000;

impl Villains {
    pub(crate) fn new(seed: u64) -> Self {
        Self { dice: Dice(seed), sent: 0, recorded: VecDeque::new(), held_back: VecDeque::new() }
    }

    pub(crate) fn choose(&mut self) -> Attack {
        Attack::ALL[self.dice.weighted(Attack::WEIGHTS)]
    }

    /// Makes the frame of an attack.
    pub(crate) fn play(&mut self, attack: Attack, model: &mut Model, hub: &Rehearsal) -> (Shot, Vec<u8>) {
        self.sent += 1;
        let site = self.dice.below(model.sites());
        let tenant = model.tenant_of(site);
        let v6 = self.dice.below(3) == 0;
        let (mut from, mut to) = (self.address_in(site % 3, v6), self.address_in((site + 1) % 3, v6));
        let mut length = match self.dice.below(20) {
            0 => 1200 + self.dice.below(241),
            _ => 48 + self.dice.below(150),
        };
        let mut hops = 2 + self.dice.below(250) as u8;
        match attack {
            Attack::Honest4 => (from, to) = (self.address_in(site % 3, false), self.address_in((site + 2) % 3, false)),
            Attack::Honest6 => (from, to) = (self.address_in(site % 3, true), self.address_in((site + 2) % 3, true)),
            Attack::ToItself => to = self.address_in(site % 3, v6),
            Attack::ToOwnPrefix => (from, to) = (self.address_in(site % 3, false), own_prefix(tenant, 1)),
            Attack::SpoofNeighbour => from = self.address_in((site + 1) % 3, v6),
            Attack::SpoofStranger => from = if v6 { v6_of(0xfd00_0009_0077 << 80 | 1) } else { v4_of([10, 9, 77, 1]) },
            Attack::SpoofHub if v6 => {
                from = self.dice.one_of(&[v6_of(0xfd00_0009 << 96 | 1), v6_of(0x2001_0db8 << 96 | 1)])
            }
            Attack::SpoofHub => from = self.dice.one_of(&[v4_of([192, 0, 0, 8]), v4_of([192, 0, 2, 1])]),
            Attack::Foreign => {
                let other = (tenant + 1 + self.dice.below(model.tenants() - 1)) % model.tenants();
                (from, to) = (self.address_in(site % 3, false), own_prefix(other, 9));
            }
            Attack::Underlay | Attack::Nested => {
                from = self.address_in(site % 3, false);
                to = self.dice.one_of(&[v4_of([192, 0, 2, 1]), v4_of([198, 18, 0, 7])]);
            }
            Attack::MartianSource => from = self.martian(v6),
            Attack::MartianDestination => to = self.martian(v6),
            Attack::LastHop => hops = self.dice.below(2) as u8,
            Attack::TooLong => length = 1441 + self.dice.below(200),
            _ => {}
        }
        let mut inner = self.packet(from, to, hops, length, tenant);
        match attack {
            Attack::Keepalive => inner.clear(),
            Attack::Malformed => self.damage(&mut inner),
            Attack::Runt => inner.truncate(1 + self.dice.below(19)),
            Attack::Junk => inner.resize(inner.len() + 1 + self.dice.below(15), 0xdb),
            Attack::Nested => {
                let other = self.other_tenants_site(site, model);
                let (counter, _) = model.counter(other);
                let message = &seal(hub, other, counter, &self.packet(to, from, 64, 60, tenant))[42..];
                inner.truncate(20);
                let length = (28 + message.len()) as u16;
                inner[2..4].copy_from_slice(&length.to_be_bytes());
                sum_up(&mut inner);
                inner.extend([0xca, 0x6c, 0xca, 0x6c]); // port 51820, both ways
                inner.extend((length - 20).to_be_bytes());
                inner.extend([0, 0]);
                inner.extend(message);
            }
            _ => {}
        }
        // One tenant alone draws half of all ICMP, so that its bucket runs dry.
        let site = if matches!(attack, Attack::LastHop) && self.dice.below(2) == 0 { 15 + site % 3 } else { site };
        self.send(attack, site, inner, model, hub)
    }

    /// Seals the packet, and does to the frame what the attack does to frames.
    fn send(
        &mut self,
        attack: Attack,
        site: usize,
        inner: Vec<u8>,
        model: &mut Model,
        hub: &Rehearsal,
    ) -> (Shot, Vec<u8>) {
        match attack {
            Attack::Late if self.held_back.len() >= 300 => {
                let clear = |(shot, _): &(Shot, Vec<u8>)| {
                    let Claim::Data { counter, .. } = shot.claim else { return false };
                    model.is_clear(shot.site, counter)
                };
                let at = self.held_back.iter().position(clear).expect("most of them");
                return self.held_back.remove(at).expect("it was found");
            }
            Attack::Replay | Attack::ReplayMoved if self.recorded.len() == MEMORY => {
                let at = self.dice.below(MEMORY);
                let (mut shot, mut frame) = self.recorded[at].clone();
                if let Attack::ReplayMoved = attack {
                    self.move_away(&mut shot, &mut frame);
                }
                return (shot, frame);
            }
            _ => {}
        }
        let (mut counter, too_old) = model.counter(site);
        match attack {
            Attack::Jump => model.jump(site),
            Attack::TooOld => counter = too_old.unwrap_or(counter),
            Attack::Limit => counter |= 1 << (45 + self.dice.below(19)),
            _ => {}
        }
        let mut frame = seal(hub, site, counter, &inner);
        let mut shot = Shot {
            site,
            from: hub.far[site].remote,
            claim: Claim::Data { index: hub.far[site].session.remote_index(), counter, whole: true, inner },
            congested: false,
        };
        let Claim::Data { index, counter, whole, .. } = &mut shot.claim else { unreachable!("just made") };
        match attack {
            Attack::WrongIndex | Attack::ForeignKey => {
                let victim = self.other_tenants_site(site, model);
                *index = hub.far[victim].session.remote_index();
                frame[46..50].copy_from_slice(&index.to_le_bytes());
                *whole = false;
                if let Attack::ForeignKey = attack {
                    frame = hub.frame(victim, &frame[42..]);
                    shot.from = hub.far[victim].remote;
                }
            }
            Attack::GuessedIndex => {
                *index = self.dice.roll() as u32;
                frame[46..50].copy_from_slice(&index.to_le_bytes());
                *whole = false;
            }
            Attack::FlippedPacket => {
                let bit = 58 * 8 + self.dice.below((frame.len() - 58) * 8);
                flip(&mut frame, bit);
                *whole = false;
            }
            Attack::FlippedCounter => {
                let bit = self.dice.below(64);
                flip(&mut frame, 50 * 8 + bit);
                (*counter, *whole) = (*counter ^ 1 << bit, false);
            }
            Attack::FlippedIndex => {
                let bit = self.dice.below(32);
                flip(&mut frame, 46 * 8 + bit);
                (*index, *whole) = (*index ^ 1 << bit, false);
            }
            Attack::FlippedKind => {
                let bit = 42 * 8 + self.dice.below(32);
                flip(&mut frame, bit);
                // One of the bits makes of it what hubs say to each other.
                shot.claim = if frame[42] == 0x14 { Claim::OfHubs } else { Claim::NoMessage };
            }
            Attack::FlippedOuter => {
                let bit = 14 * 8 + self.dice.below(160);
                flip(&mut frame, bit);
                shot.claim = Claim::NoDatagram;
            }
            Attack::Truncated => {
                frame.truncate(self.dice.below(frame.len()));
                shot.claim = Claim::NoDatagram;
            }
            Attack::Congested => {
                frame[15] |= 3;
                sum_up(&mut frame[14..34]);
                shot.congested = true;
            }
            Attack::Handshake => {
                let length = self.dice.one_of(&[(1, 148), (2, 92), (3, 64)]);
                frame = hub.frame(site, &[&[length.0, 0, 0, 0][..], &vec![0x77; length.1 - 4]].concat());
                shot.claim = Claim::Handshake;
            }
            Attack::Moved => self.move_away(&mut shot, &mut frame),
            _ => {}
        }
        if let Attack::Late = attack {
            self.held_back.push_back((shot, frame));
            return self.play(Attack::Honest4, model, hub);
        }
        if let Claim::Data { whole: true, .. } = shot.claim {
            self.recorded.push_back((shot.clone(), frame.clone()));
            if self.recorded.len() > MEMORY {
                self.recorded.pop_front();
            }
        }
        (shot, frame)
    }

    /// The same frame from another port, which no checksum covers.
    fn move_away(&mut self, shot: &mut Shot, frame: &mut [u8]) {
        let port = 1024 + self.dice.below(40_000) as u16;
        frame[34..36].copy_from_slice(&port.to_be_bytes());
        shot.from.set_port(port);
    }

    fn other_tenants_site(&mut self, site: usize, model: &Model) -> usize {
        let other = (model.tenant_of(site) + 1 + self.dice.below(model.tenants() - 1)) % model.tenants();
        let sites = model.of_tenant(other);
        self.dice.one_of(sites)
    }

    /// An address of the site with this number in its tenant: the same in every tenant.
    fn address_in(&mut self, number: usize, v6: bool) -> IpAddr {
        let host = 1 + self.dice.below(250) as u8;
        match v6 {
            false => v4_of([10, 9, number as u8 + 1, host]),
            true => v6_of(0xfd00_0009_0001 << 80 | (number as u128) << 80 | u128::from(host)),
        }
    }

    fn martian(&mut self, v6: bool) -> IpAddr {
        const V4: [&str; 8] = [
            "0.0.0.0",
            "0.1.2.3",
            "127.0.0.1",
            "169.254.169.254",
            "224.0.0.251",
            "239.255.255.250",
            "240.0.0.1",
            "255.255.255.255",
        ];
        const V6: [&str; 7] = ["::", "::1", "::ffff:10.9.2.1", "fe80::1", "ff02::1", "ff05::1:3", "ff0e::1"];
        self.dice.one_of(if v6 { &V6[..] } else { &V4[..] }).parse().expect("an address")
    }

    fn packet(&self, from: IpAddr, to: IpAddr, hops: u8, length: usize, tenant: usize) -> Vec<u8> {
        let mut packet = vec![0x5a; length];
        match (from, to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                packet[..12].copy_from_slice(&[0x45, 0, 0, 0, 0, 0, 0x40, 0, hops, 17, 0, 0]);
                packet[2..4].copy_from_slice(&(length as u16).to_be_bytes());
                packet[12..16].copy_from_slice(&from.octets());
                packet[16..20].copy_from_slice(&to.octets());
                sum_up(&mut packet);
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                packet[..8].copy_from_slice(&[0x60, 0, 0, 0, 0, 0, 17, hops]);
                packet[4..6].copy_from_slice(&(length as u16 - 40).to_be_bytes());
                packet[8..24].copy_from_slice(&from.octets());
                packet[24..40].copy_from_slice(&to.octets());
            }
            _ => panic!("a packet has one family"),
        }
        // Whose it is, and which: at its end, so that the shortest has it as well.
        let mark = [(tenant as u32).to_be_bytes(), (self.sent as u32).to_be_bytes()].concat();
        packet[length - 8..].copy_from_slice(&mark);
        packet
    }

    /// One thing in the header that contradicts the rest.
    fn damage(&mut self, packet: &mut [u8]) {
        let v4 = packet[0] >> 4 == 4;
        match self.dice.below(if v4 { 5 } else { 3 }) {
            0 => packet[0] = packet[0] & 15 | self.dice.one_of(&[0u8, 1, 5, 7, 15]) << 4,
            1 | 2 if !v4 => packet[4] = 0x40, // a length beyond everything
            1 => {
                packet[2] = 0x40;
                sum_up(packet);
            }
            2 => {
                packet[0] = 0x44; // a header shorter than there is
                sum_up(packet);
            }
            3 => packet[10] ^= 0x10,
            _ => packet[16] ^= 0x01, // an address that its checksum does not know
        }
    }
}

fn seal(hub: &Rehearsal, site: usize, counter: u64, inner: &[u8]) -> Vec<u8> {
    let far = &hub.far[site];
    let mut message = [4, 0, 0, 0].to_vec();
    message.extend(far.session.remote_index().to_le_bytes());
    message.extend(counter.to_le_bytes());
    message.extend(inner);
    message.resize(16 + inner.len().next_multiple_of(16) + TAG, 0);
    let job = SealJob { key: far.session.seal_key(), counter, aad: &[], data: &mut message[16..] };
    crypto::aead::single().seal_batch(&mut [job]);
    hub.frame(site, &message)
}

fn flip(frame: &mut [u8], bit: usize) {
    frame[bit / 8] ^= 1 << (bit % 8);
}

fn v4_of(octets: [u8; 4]) -> IpAddr {
    Ipv4Addr::from(octets).into()
}

fn v6_of(bits: u128) -> IpAddr {
    Ipv6Addr::from_bits(bits).into()
}

fn own_prefix(tenant: usize, host: u8) -> IpAddr {
    v4_of([10, 64 + (tenant / 256) as u8, (tenant % 256) as u8, host])
}
