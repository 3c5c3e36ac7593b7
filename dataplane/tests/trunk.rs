//! Hubs joined by trunks: what arrives, by which lane, and what the hubs say of it.

mod hubs;

use hubs::{CIPHERS, World, nets, packets};

#[test]
fn all_pairs_of_a_tenant_reach_each_other_and_nobody_else() {
    for cipher in CIPHERS {
        let mut world = World::pair(4, cipher);
        for (hub, t, n) in [0, 1].into_iter().flat_map(|hub| (0..4).map(move |n| (hub, n / 2, n % 2))) {
            for (other, m) in [(0, 0), (0, 1), (1, 0), (1, 1)].into_iter().filter(|to| *to != (hub, n)) {
                let (from, to) = (nets(hub)[n], nets(other)[m]);
                let crossed = if hub == other { 1 } else { 2 };
                for len in [60, 61, 1419, 1432] {
                    for (packet, older) in
                        packets(from, to, 64, len).into_iter().zip(packets(from, to, 64 - crossed, len))
                    {
                        let arrived = world.send(hub, 2 * t + n, &packet);
                        assert_eq!(arrived, [(other, 2 * t + m, older)], "{cipher:?}, {from} to {to}, {len} bytes");
                    }
                }
            }
        }
        for (hub, other) in [(0, 1), (1, 0)] {
            assert_eq!(world.hubs[hub].drops(), []);
            world.lanes_agree(hub, other);
            world.tenants_add_up(hub);
            let rows = &world.hubs[hub].journey.rows;
            for t in 0..2 {
                // Two sites, each to two of the other hub, four lengths of two versions.
                let row = rows.site(world.carried(hub, other, t));
                assert_eq!((row.tx_packets.read(), row.rx_packets.read()), (32, 32));
                let bytes = 2 * 4 * (60 + 61 + 1419 + 1432);
                assert_eq!((row.tx_bytes.read(), row.rx_bytes.read()), (bytes, bytes));
                let now = world.hubs[hub].now.0;
                let [received, sent] = [&row.data_received_at, &row.data_sent_at].map(|at| at.read());
                assert_eq!((received, row.any_received_at.read(), sent, row.any_sent_at.read()), (now, now, now, now));
            }
        }
    }
}
