//! Why a packet ended here: one enum, one counter and one line of documentation a reason. There is no "other".

/// Declares the enum, its names and its documentation from one list, so that none can be forgotten.
macro_rules! drop_reasons {
    ($($number:literal $name:ident $text:literal $doc:literal)*) => {
        /// The reason for which a packet, or a handshake message, was dropped.
        ///
        /// Numbers are part of the statistics' contract: never reused, only added. Those below 32 are counted by the
        /// XDP program; `bpf/steer.bpf.c` names the same numbers and a test compares the two through BTF.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u8)]
        pub enum DropReason {
            $(#[doc = $doc] $name = $number,)*
        }

        /// Every reason, in the order of their numbers.
        pub const DROP_REASONS: &[DropReason] = &[$(DropReason::$name,)*];

        impl DropReason {
            /// The name in statistics, status and metrics: lower case, words joined by `_`.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// One line for the operator: what happened, and what it usually means.
            pub const fn doc(self) -> &'static str {
                match self { $(Self::$name => $doc,)* }
            }
        }
    };
}

drop_reasons! {
    // Counted by XDP, before a frame reaches a ring.
    1 XdpMalformed "xdp_malformed" "A frame for the hub's UDP port whose lengths contradict each other; damaged, or made by hand."
    2 XdpNotWireguard "xdp_not_wireguard" "UDP to the hub's port that is no WireGuard message (type, reserved bytes or length); scanners do this."
    3 XdpSessionUnknown "xdp_session_unknown" "A message for a receiver index that is not live; a site that still uses a session from before a restart, or a guess."
    4 XdpInitiationKnown "xdp_initiation_known" "A handshake initiation above the rate of a source that authenticated lately."
    5 XdpInitiationStranger "xdp_initiation_stranger" "A handshake initiation of an unknown source while strangers' initiations exceed their common rate; a flood, or many sites starting at once."
    6 XdpNoSocket "xdp_no_socket" "No worker listened on this queue: the hub is starting, stopping or dead. Nothing is passed to the kernel instead."
    7 XdpFragmentRate "xdp_fragment_rate" "A fragment of a UDP datagram to the hub above the rate at which fragments are reassembled."
    8 XdpShed "xdp_shed" "A worker's receive ring was more than half full, and this site (or strangers' handshakes, or fragments) had its share of it already: more than the worker can do, most likely of one site."
    9 XdpVlanUnknown "xdp_vlan_unknown" "A frame on an access port of a VLAN that no tenant has there; untagged ones are meant where no tenant has them. A switch port with too many VLANs, a missing [[tenant.access]], or somebody who tries VLANs."
    10 XdpNotGateway "xdp_not_gateway" "A frame on a tenant's VLAN that is not for the hub: to another station, which a switch floods while it learns, or to a group, as router solicitations and multicast DNS are."
    11 XdpNotIp "xdp_not_ip" "A frame for the hub on a tenant's VLAN that is neither IPv4, IPv6 nor ARP."
    12 XdpNeighbourRate "xdp_neighbour_rate" "ARP or neighbour discovery above the rate of its VLAN (100 a second, burst 200); a flood, or a host that scans."
    13 XdpNoHeadroom "xdp_no_headroom" "A frame whose VLAN tag lay beside it, and the driver left no room to put the tag in."

    // The outer packet, as a worker reads it again.
    32 OuterMalformed "outer_malformed" "An outer IP or UDP header that contradicts its length, or an IPv4 header whose checksum is wrong; damaged on the way."
    33 OuterNotWireguard "outer_not_wireguard" "A frame in the ring that is no WireGuard message; XDP should have dropped it, so its program and the hub disagree."
    34 SessionUnknown "session_unknown" "A data message whose session ended between XDP and the worker."
    35 SessionExpired "session_expired" "A data message of a session older than Reject-After-Time (180 s)."
    36 CounterTooOld "counter_too_old" "A data message further behind the newest one than the replay window is wide (8128)."
    37 CounterReplayed "counter_replayed" "A data message whose counter was accepted before: a duplicate of the path, or a replay."
    38 CounterLimit "counter_limit" "A data message with a counter of 2^45 or more, which no honest sender reaches in the life of a session."
    39 AuthFailed "auth_failed" "A data message whose tag does not verify; damaged on the way, or forged."

    // The inner packet.
    40 InnerMalformed "inner_malformed" "The decrypted payload is no IPv4 or IPv6 packet, or its header contradicts its length."
    41 SourceNotAllowed "source_not_allowed" "The inner source address is not among the prefixes of the site that sent it."
    42 NoRoute "no_route" "No site of this tenant has the inner destination among its prefixes."
    43 TtlExpired "ttl_expired" "The inner TTL or hop limit ended here; the source is told by ICMP."
    44 TooLarge "too_large" "The packet, sealed, would exceed the MTU of the path to its site; the source is told by ICMP if it may be."
    45 IcmpRate "icmp_rate" "An ICMP answer that the hub owed to a source was not sent, above the tenant's rate of ICMP answers."

    46 EcnNotCapable "ecn_not_capable" "The path marked congestion on a packet whose transport does not understand the mark: it is dropped as the signal (RFC 6040, 4.2)."
    47 Martian "martian" "The inner source or destination is one that no router forwards: unspecified, loopback, link-local, multicast, broadcast, IPv4-mapped or reserved."

    // The way out.
    50 SiteNoEndpoint "site_no_endpoint" "The destination site has no known endpoint: it has never connected, and none is configured."
    51 SiteDown "site_down" "The packet waited for a session with its site, and the handshake was given up."
    52 StagedOverflow "staged_overflow" "The packet was the oldest of too many that waited for a session with its site, its tenant or in all."
    53 NonceLimit "nonce_limit" "The sending session has used all its counters; a new one is being made."
    54 UnderlayNoRoute "underlay_no_route" "The kernel has no route through a WAN port to the site's endpoint."
    55 NextHopUnresolved "next_hop_unresolved" "The kernel is still resolving, or could not resolve, the MAC address of the next hop."
    56 PortDown "port_down" "The port through which the site is reached is down or gone."
    57 TxRingFull "tx_ring_full" "The port's transmit ring had no room: more arrives than the port takes."
    58 NoChunk "no_chunk" "All chunks of packet memory were in use, so a packet of the hub's own could not be made."
    59 MultiBuffer "multi_buffer" "A received packet in several chunks, and no frame to put it together in: all were in use, or it is longer than the ports' MTU."
    60 BadDescriptor "bad_descriptor" "A descriptor of the kernel's for a chunk that it was not lent; a fault of the driver."

    // Handshakes and fragments, in control.
    64 ControlBusy "control_busy" "A handshake message or fragment found the queue to control full."
    65 HandshakeMac1 "handshake_mac1" "A handshake message whose MAC1 is not under the hub's key: not meant for this hub, or damaged."
    66 HandshakeCookieSent "handshake_cookie_sent" "A handshake message without a valid MAC2 while the hub is under load; a cookie was sent instead of an answer."
    67 HandshakeAuth "handshake_auth" "A handshake message that does not decrypt: another key, another preshared key, or forged."
    68 HandshakePeerUnknown "handshake_peer_unknown" "A valid initiation by a public key that no site has."
    69 HandshakeReplayed "handshake_replayed" "An initiation whose timestamp is not newer than the last one of this site: a replay, or a site whose clock went back."
    70 HandshakeRate "handshake_rate" "An initiation less than 20 ms after the last one of the same site."
    71 HandshakeUnsolicited "handshake_unsolicited" "A response or cookie reply that nothing waited for."
    72 HandshakeNoSession "handshake_no_session" "An initiation that could not be answered because the table of sessions is full."
    73 FragmentOverlap "fragment_overlap" "A fragment that overlaps or contradicts another of its datagram: the whole datagram is dropped (RFC 5722). Or an exact duplicate, dropped alone."
    74 FragmentTimeout "fragment_timeout" "A fragment whose datagram was not complete in time."
    75 FragmentLimit "fragment_limit" "A fragment beyond the memory for reassembly, or the largest datagram that fits a frame."
    76 FragmentUseless "fragment_useless" "A datagram made whole from fragments that is no data message to the hub's port: handshake messages are never so long, and other services on the hub's addresses get no fragmented datagrams."

    // Access ports.
    80 AccessUnknown "access_unknown" "A frame in the ring of a VLAN that no tenant has; XDP should have dropped it, so its program and the hub disagree."
    81 GatewaySource "gateway_source" "A packet from a tenant's VLAN whose source is the hub's own address there: forged, or another station has the gateway's address."
    82 GatewayNotPing "gateway_not_ping" "A packet to the hub's own address on a tenant's VLAN that is no ping: the hub answers nothing else there."
    83 NeighbourUnresolved "neighbour_unresolved" "A packet to an access port whose neighbour (the host, or the next hop of its prefix) did not answer three times in three seconds."
    84 NeighbourLimit "neighbour_limit" "A packet to an access port whose neighbour could not be asked for: too many of this tenant are known or being asked for."
    85 GatewayClaimed "gateway_claimed" "ARP or neighbour discovery of a station that claims the hub's own address on its VLAN: the hub defends it, and says in its log who it was."
    86 NeighbourForeign "neighbour_foreign" "ARP or neighbour discovery from an address outside the networks of its VLAN."
    87 NeighbourConflict "neighbour_conflict" "ARP or neighbour discovery by which a station claims the address of another that was there a moment ago, or is configured: the hub asks that one first, and takes the new one only if it is silent."
    88 NeighbourIgnored "neighbour_ignored" "ARP or neighbour discovery on a tenant's VLAN that neither asked for the hub nor answered it, as hosts ask for each other."
    89 NeighbourMalformed "neighbour_malformed" "ARP or neighbour discovery that contradicts itself or its specification (RFC 826; RFC 4861, 7.1)."

    // What a tenant's contract and its own rules say.
    90 FilterUnreadable "filter_unreadable" "A packet of a tenant with a filter that hides what a rule may ask for: a header cut short or spread over fragments, a fragment over another's TCP flags, too many extension headers (RFC 1858, 3128, 7112)."
    91 RateSiteUp "rate_site_up" "A packet from a site above the rate that the site may send."
    92 RateSiteDown "rate_site_down" "A packet for a site above the rate that the site may receive."
    93 RateTenantUp "rate_tenant_up" "A packet above the rate that all sites of the tenant together may send."
    94 RateTenantDown "rate_tenant_down" "A packet above the rate that all sites of the tenant together may receive."
    95 FilterDenied "filter_denied" "A rule of the tenant's filter, or its default, denies the packet; the rules' own counters tell which."

    // Trunks.
    96 TrunkTagMalformed "trunk_tag_malformed" "What another hub sent begins with no tag that this version knows, or the packet behind it is not what its tag says; hubs of different versions, or a fault of the other hub."
    97 TrunkTenantUnknown "trunk_tenant_unknown" "A packet from a trunk with the tag of a tenant that this hub does not have."
    98 TrunkTenantDenied "trunk_tenant_denied" "A packet from a trunk with the tag of a tenant that this trunk may not carry (its `tenants`)."
    99 TrunkSource "trunk_source" "A packet from a trunk whose inner source is not behind that trunk in its tenant's routes: a missing [[tenant.route]], or a swapped tag."
    100 SplitHorizon "split_horizon" "A packet that came by a trunk would leave by a trunk, and the one it came by has no transit = true."
    101 TrunkControl "trunk_control" "A message of another hub for this one that says nothing this version knows."
    102 HandshakeSuite "handshake_suite" "An authentic handshake message of another hub that offers another cipher than is configured for its trunk; the log names both."
    103 HandshakeLane "handshake_lane" "A handshake message for another lane of a trunk than the one of the UDP port it came to, or a site's for a port that is not listen_port."
}

impl DropReason {
    /// One more than the largest number: the length of a table indexed by reason.
    pub const LIMIT: usize = DROP_REASONS[DROP_REASONS.len() - 1] as usize + 1;

    /// The reason with this number, if there is one.
    pub fn from_number(number: u8) -> Option<Self> {
        DROP_REASONS.iter().copied().find(|reason| *reason as u8 == number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_rise_and_names_are_unique_and_fit_a_metric() {
        assert!(DROP_REASONS.windows(2).all(|w| (w[0] as u8) < w[1] as u8));
        let names: std::collections::HashSet<_> = DROP_REASONS.iter().map(|r| r.name()).collect();
        assert_eq!(names.len(), DROP_REASONS.len());
        assert!(names.iter().all(|n| n.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')));
    }

    #[test]
    fn a_number_leads_back_to_its_reason() {
        for reason in DROP_REASONS {
            assert_eq!(DropReason::from_number(*reason as u8), Some(*reason));
        }
        assert_eq!(DropReason::from_number(0), None);
        assert_eq!(DropReason::from_number(31), None);
    }
}
