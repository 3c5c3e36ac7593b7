/*
 * The statistics segment of an Ekiden hub, /run/ekiden/NAME/stats: layout 1.
 *
 * docs/STATS.md is the contract; this file says the same in C. Everything is a 64-bit integer, least significant byte first; text
 * is UTF-8, padded with zeros, and not always ended by one. Open the file for reading, map it shared, check `magic`, `version` and
 * `file_bytes`, and take every value with ekiden_read(). Never write.
 */
#ifndef EKIDEN_STATS_H
#define EKIDEN_STATS_H

#include <stddef.h>
#include <stdint.h>

#define EKIDEN_STATS_MAGIC UINT64_C(0x7461747364696b65) /* "ekidstat" */
#define EKIDEN_STATS_VERSION 1
#define EKIDEN_STATS_REASONS 128
#define EKIDEN_STATS_BUCKETS 3456

/* Sections, by their place in the table. */
enum ekiden_section {
    EKIDEN_TENANTS,
    EKIDEN_SITES,
    EKIDEN_PORTS,
    EKIDEN_WORKERS,
    EKIDEN_REASONS,
    EKIDEN_SITE_ROWS,
    EKIDEN_TENANT_ROWS,
    EKIDEN_TENANT_DROPS,
    EKIDEN_HUB_DROPS,
    EKIDEN_PORT_ROWS,
    EKIDEN_LOOP_ROWS,
    EKIDEN_LATENCY,
    EKIDEN_RING_TIME,
    EKIDEN_XDP_ROWS,
    EKIDEN_HUB_ROW,
    EKIDEN_WORKER_STATES,
    EKIDEN_SITE_STATES,
    EKIDEN_TENANT_HISTORY,
    EKIDEN_SITE_HISTORY,
    EKIDEN_SITE_HISTORY_LONG,
    EKIDEN_DROP_HISTORY,
    EKIDEN_RULES,
    EKIDEN_RULE_ROWS,
    EKIDEN_SECTIONS
};

/* The first bytes of a segment. All but `state`, `sequence` and what it guards is written before the file has its name. */
struct ekiden_header {
    uint64_t magic; /* `ekidstat`. */
    uint64_t version; /* 1. */
    uint64_t header_bytes; /* Bytes of the header, the table of sections included. */
    uint64_t file_bytes; /* Bytes of the file. */
    uint64_t state; /* 1: live. 2: superseded, a newer file has the name. 3: the hub has ended in order. */
    uint64_t generation; /* 1; one more each time that a hub made its segment anew while it ran, which hubs of today don't. */
    uint64_t boot_id[2]; /* 16 random bytes, others for each start of the hub. */
    uint64_t started_wall_ns; /* When the hub started: ns since 1970. */
    uint64_t started_ns; /* The same by CLOCK_BOOTTIME. */
    uint64_t pid; /* The hub's process. */
    uint64_t sections; /* Entries of the table of sections. */
    uint64_t sequence; /* Guards the directory, `config_hash` and `configured_wall_ns`: odd while they change. */
    uint64_t config_hash; /* Tells configurations apart. */
    uint64_t configured_wall_ns; /* When the directory was last changed: ns since 1970. */
    uint64_t rest;
    uint64_t build[8]; /* The version of the program, as text. */
    uint64_t hub[8]; /* The hub's name, as text. */
    uint64_t rest2[32];
};

/* Where the rows of a kind are: row `r` of block `b` begins at `offset + (b * rows + r) * stride`. */
struct ekiden_section_entry {
    uint64_t offset; /* Bytes from the beginning of the file. */
    uint64_t stride; /* Bytes from one row to the next; at least those that this version knows. */
    uint64_t rows; /* Rows of a block: tenants, sites, ports... */
    uint64_t blocks; /* Blocks: one for each writer. */
    uint64_t depth; /* Places of a ring, in sections of history; else 0. */
    uint64_t period_ns; /* How often a ring may get a record: ns; else 0. */
    uint64_t used; /* Rows of a block that have memory now: behind them nothing is, and looking there takes some. It only grows. 0: all. */
    uint64_t rest;
};

/* A tenant of the directory. */
struct ekiden_tenant_entry {
    uint64_t generation; /* Even: the slot is empty. Another odd number: another tenant, whose counters began at zero. */
    uint64_t id; /* The id of 24 bits. */
    uint64_t rest[6];
    uint64_t service_code[32]; /* The service code; empty if there is none. */
    uint64_t label[32]; /* The label, cut after 256 bytes; empty if there is none. */
};

/* An end of a tenant: a site, or what else its packets come from and go to. Or a lane of a trunk, which is no tenant's. */
struct ekiden_site_entry {
    uint64_t generation; /* Even: the slot is empty. Another odd number: another site, whose counters began at zero. */
    uint64_t tenant; /* The slot of its tenant; 2^64 - 1 for a lane. */
    uint64_t kind; /* 0: a site. 1: an access end. 2: what a trunk carries of the tenant. 3: a lane of a trunk. */
    uint64_t rest[5];
    uint64_t name[32]; /* Its name, unique within its tenant: of what a trunk carries `trunk:NAME`, of a lane `NAME/0`, `NAME/1`... */
};

/* A port of the directory. */
struct ekiden_port_entry {
    uint64_t generation; /* Even: the slot is empty. */
    uint64_t queues; /* Receive queues. */
    uint64_t ring_entries; /* Entries of each of its receive rings: as many frames may wait there. */
    uint64_t rest[5];
    uint64_t name[8]; /* The name of its interface. */
};

/* A worker of the directory. */
struct ekiden_worker_entry {
    uint64_t generation; /* Even: the slot is empty. */
    uint64_t core; /* The core that it runs on. */
    uint64_t chunks; /* Chunks of packet memory that are its own. */
    uint64_t rest[5];
};

/* A drop reason of the directory; its slot is its number. */
struct ekiden_reason_entry {
    uint64_t generation; /* Even: there is no such reason. */
    uint64_t rest[7];
    uint64_t name[8]; /* Its name. */
};

/* A rule of a tenant's filter. The rules of a tenant stand in their order, and behind them what becomes of packets that none of them matches, as a rule by the name `default`. */
struct ekiden_rule_entry {
    uint64_t generation; /* Even: the slot is empty. Another odd number: another rule, whose counters began at zero. */
    uint64_t tenant; /* The slot of its tenant. */
    uint64_t action; /* 1: allow. 2: deny. */
    uint64_t rest[5];
    uint64_t name[32]; /* Its name, unique within its tenant; its place from 1 if it was given none. */
};

/* What one worker did for one site: a cache line for each direction. Inner bytes are IP lengths, as they are billed; outer bytes are whole frames, Ethernet header included. */
struct ekiden_site_row {
    uint64_t rx_packets; /* Packets from the site that were opened and accepted, keepalives not among them. */
    uint64_t rx_bytes; /* Their inner IP bytes. */
    uint64_t rx_outer_packets; /* All frames that were authenticated as the site's, keepalives and what was dropped after that too. */
    uint64_t rx_outer_bytes; /* Their bytes. */
    uint64_t rx_keepalives; /* Keepalives accepted. */
    uint64_t data_received_at; /* When the site last sent a packet with content: nanoseconds since boot, 0 for never. */
    uint64_t any_received_at; /* When anything authenticated last came from the site. */
    uint64_t rx_over_rate; /* Packets from the site that were dropped as above a contracted rate (`rate_*_up`), its own or its tenant's. */
    uint64_t tx_packets; /* Packets sealed for the site, keepalives not among them. */
    uint64_t tx_bytes; /* Their inner IP bytes. */
    uint64_t tx_outer_bytes; /* Bytes of all frames sent to the site, keepalives too. */
    uint64_t tx_keepalives; /* Keepalives sent: with `tx_packets`, all frames sent. */
    uint64_t data_sent_at; /* When a packet with content was last sealed for the site. */
    uint64_t any_sent_at; /* When anything was last sealed for the site. */
    uint64_t staged; /* Packets parked for a session with the site now. */
    uint64_t tx_over_rate; /* Packets for the site that were dropped as above a contracted rate (`rate_*_down`), its own or its tenant's. */
};

/* What one worker did for one tenant: the sums over its sites, those that are gone too. */
struct ekiden_tenant_row {
    uint64_t rx_packets; /* As in [`SiteRow`]. */
    uint64_t rx_bytes; /* As in [`SiteRow`]. */
    uint64_t rx_outer_packets; /* As in [`SiteRow`]. */
    uint64_t rx_outer_bytes; /* As in [`SiteRow`]. */
    uint64_t rx_keepalives; /* As in [`SiteRow`]. */
    uint64_t rest[3];
    uint64_t tx_packets; /* As in [`SiteRow`]. */
    uint64_t tx_bytes; /* As in [`SiteRow`]. */
    uint64_t tx_outer_bytes; /* As in [`SiteRow`]. */
    uint64_t tx_keepalives; /* As in [`SiteRow`]. */
    uint64_t rest2[4];
};

/* Drops by reason: for each number its packets, then their frame bytes. */
struct ekiden_drop_row {
    uint64_t counts[256];
};

/* What one worker moved through one port. */
struct ekiden_port_row {
    uint64_t rx_frames; /* Frames taken from receive rings. */
    uint64_t rx_bytes; /* Their bytes. */
    uint64_t completed_frames; /* Frames that the kernel reported complete. */
    uint64_t ring_lost; /* Frames that XDP gave to this worker's sockets and that the kernel lost before the ring (`XDP_STATISTICS`): no free chunk, or a full ring. As of the last time that the worker was idle, or 4,096 turns ago at the most. */
    uint64_t tx_frames; /* Frames put into transmit rings. */
    uint64_t tx_bytes; /* Their bytes. */
    uint64_t ring_fill; /* Frames in the receive rings when the worker last looked at `ring_lost`. */
    uint64_t rest;
};

/* What one worker's loop did. */
struct ekiden_loop_row {
    uint64_t turns; /* Turns of the loop; a worker that is alive makes one a second at the least. */
    uint64_t batches; /* Batches that were not empty. */
    uint64_t frames; /* Frames in them. */
    uint64_t generated; /* Packets that the hub made itself: ICMP answers, handshake messages, keepalives. */
    uint64_t to_control; /* Handshake messages and fragments that were copied to control, their chunks recycled. */
    uint64_t keepalives; /* Keepalives of sites: accepted, and at their end here. */
    uint64_t reassembled; /* Datagrams that control put together from fragments and gave back. */
    uint64_t staged; /* Frames parked for a session now, over all sites. */
    uint64_t chunks_free; /* Free chunks in the worker's pool. */
    uint64_t busy_ns; /* Nanoseconds in turns of the loop that found work. */
    uint64_t asleep_ns; /* Nanoseconds asleep. */
    uint64_t helped_frames; /* Frames of other workers' rings that this one took through the stages. */
    uint64_t rest[4];
};

/* Times, in the buckets of an `HdrHistogram` with two significant digits, from 1 ns to 8.6 s. */
struct ekiden_histogram_row {
    uint64_t sum_ns; /* The sum of what was recorded, in nanoseconds. */
    uint64_t rest[7];
    uint64_t counts[3456];
};

/* What XDP did on one port, as control last read it. */
struct ekiden_xdp_row {
    uint64_t seen_frames; /* Frames that XDP saw. */
    uint64_t seen_bytes; /* Their bytes. */
    uint64_t passed_frames; /* Frames left to the kernel. */
    uint64_t passed_bytes; /* Their bytes. */
    uint64_t redirected_frames; /* Frames given to a ring. */
    uint64_t redirected_bytes; /* Their bytes. */
    uint64_t dropped_frames; /* Frames dropped, over all reasons. */
    uint64_t dropped_bytes; /* Their bytes. */
};

/* What control says of the hub. */
struct ekiden_hub_row {
    uint64_t ticked_ns; /* When control last wrote its rows: ns since boot. Older than some seconds: the hub is gone or stuck. */
    uint64_t ticked_wall_ns; /* The same, ns since 1970. */
    uint64_t sessions; /* Sessions now. */
    uint64_t session_capacity; /* Sessions that there is room for. */
    uint64_t clock_synchronised; /* Whether the kernel's clock is synchronised (`adjtimex`): 1 yes, 2 no, 0 unknown. */
    uint64_t handshakes_begun; /* Initiations that the hub sent, repetitions too. */
    uint64_t handshakes_answered; /* Initiations of sites that the hub answered. */
    uint64_t handshakes_completed; /* Handshakes that ended in a session, whoever began. */
    uint64_t handshakes_given_up; /* Handshakes that the hub began and gave up. */
    uint64_t cookies_sent; /* Cookies sent instead of an answer. Handshake messages that were refused are drops, `handshake_*`. */
    uint64_t paths; /* Prefixes of tenants to which there are several ways now. */
    uint64_t paths_other; /* Of these, how many go by another way than the preferred one. */
    uint64_t paths_dead; /* Of these, how many have no way that is alive. */
    uint64_t rest[3];
};

/* What control says of a worker. */
struct ekiden_worker_state {
    uint64_t busy_ppm; /* The share of the last second in turns that found work: in millionths. */
    uint64_t batch_milliframes; /* Frames in a batch, on the average of the last second: in thousandths. */
    uint64_t rest[6];
};

/* What control says of a site; from `up` on, of a lane alone. */
struct ekiden_site_state {
    uint64_t session; /* 0 none, 1 handshake under way, 2 live, 3 live and the next under way, 4 expired, 5 an access end whose port is up, or what a trunk carries, a lane of which is up. */
    uint64_t last_handshake_at; /* When the last handshake was completed: ns since boot, 0 for never. */
    uint64_t handshakes; /* Handshakes completed, whoever began. */
    uint64_t located; /* Whether it is known where the site is: 1 yes, 0 no. */
    uint64_t shed_packets; /* Frames that named a session of it and that XDP dropped, since it had its share of a ring that ran full. */
    uint64_t up; /* Whether the other hub answers by this lane: 1 yes, 0 no. */
    uint64_t rtt_us; /* The round trip of probes, smoothed, in microseconds; 0 before the first answer. */
    uint64_t jitter_us; /* How much that varies, smoothed, in microseconds. */
    uint64_t probes_sent; /* Probes sent. */
    uint64_t probes_lost; /* Probes that were not answered in time. */
    uint64_t loss_ppm; /* Of the last 100 probes, those not answered: in millionths. */
    uint64_t changes; /* How often `up` has changed. */
    uint64_t since_ns; /* Since when `up` is what it is: ns since boot. */
    uint64_t mtu; /* The largest inner packet that the lane takes; 0 while it has no way. */
    uint64_t rest[2];
};

/* What one worker let one rule of a filter decide. */
struct ekiden_rule_row {
    uint64_t packets; /* Packets. */
    uint64_t bytes; /* Their inner IP bytes. */
    uint64_t rest[6];
};

/* What a ring of history begins with; its places follow, 64 bytes each. */
struct ekiden_ring_head {
    uint64_t next; /* Records that the ring ever got: the number of the next one. Record `n` is in place `n % depth`. */
    uint64_t first; /* The number of the first record of the slot's present generation: earlier ones are another's. */
    uint64_t rest[6];
};
/* A record of history; `sequence` is 2 * (number + 1), and odd while the record is written. */
struct ekiden_record {
    uint64_t sequence;
    uint64_t boot;
    uint64_t ns;
    uint64_t wall_ns;
    uint64_t rx_packets;
    uint64_t rx_bytes;
    uint64_t tx_packets;
    uint64_t tx_bytes;
};

/* A value that its writer may change at any moment: whole, and with everything that was written before it. */
static inline uint64_t ekiden_read(const uint64_t *value)
{
    return __atomic_load_n(value, __ATOMIC_ACQUIRE);
}

/* The entry of a section. */
static inline const struct ekiden_section_entry *ekiden_section(const void *base, enum ekiden_section section)
{
    return (const struct ekiden_section_entry *)((const char *)base + sizeof(struct ekiden_header)) + section;
}

/* Rows of a block that are worth a look: below that are all that anybody has, now. */
static inline uint64_t ekiden_rows(const void *base, enum ekiden_section section)
{
    const struct ekiden_section_entry *entry = ekiden_section(base, section);
    uint64_t used = ekiden_read(&entry->used);
    return used != 0 && used < entry->rows ? used : entry->rows;
}

/* Row `row` of block `block`. For rows that there are: below `rows` and `blocks` of the section. */
static inline const void *ekiden_row(const void *base, enum ekiden_section section, uint64_t block, uint64_t row)
{
    const struct ekiden_section_entry *entry = ekiden_section(base, section);
    return (const char *)base + entry->offset + (block * entry->rows + row) * entry->stride;
}

#endif
