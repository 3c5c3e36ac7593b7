/*
 * Prints a statistics segment, with nothing but its header file:
 *
 *     cc -o stats_read -I stats/include stats/examples/stats_read.c && ./stats_read /run/ekiden/NAME/stats
 */
#include <ekiden_stats.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

static const char *base;
static FILE *out;

static uint64_t rows(enum ekiden_section section)
{
    return ekiden_rows(base, section);
}

/* Outputs first, then inputs: what left is never more than what came. */
static void print_traffic(enum ekiden_section section, uint64_t slot)
{
    uint64_t tx_packets = 0, tx_bytes = 0, tx_outer = 0, rx_packets = 0, rx_bytes = 0, rx_outer = 0;
    uint64_t workers = rows(EKIDEN_WORKERS);
    for (int rx = 0; rx < 2; rx++)
        for (uint64_t w = 0; w < workers; w++) {
            /* Up to `tx_keepalives` the fields of a tenant's row are those of a site's. */
            const struct ekiden_tenant_row *row = ekiden_row(base, section, w, slot);
            if (rx) {
                rx_packets += ekiden_read(&row->rx_packets);
                rx_bytes += ekiden_read(&row->rx_bytes);
                rx_outer += ekiden_read(&row->rx_outer_bytes);
            } else {
                tx_packets += ekiden_read(&row->tx_packets);
                tx_bytes += ekiden_read(&row->tx_bytes);
                tx_outer += ekiden_read(&row->tx_outer_bytes);
            }
        }
    fprintf(out, " rx %" PRIu64 " %" PRIu64 " %" PRIu64 " tx %" PRIu64 " %" PRIu64 " %" PRIu64 "\n", rx_packets, rx_bytes, rx_outer,
           tx_packets, tx_bytes, tx_outer);
}

static void print_histogram(const char *name, const struct ekiden_histogram_row *row)
{
    uint64_t count = 0;
    for (int i = 0; i < EKIDEN_STATS_BUCKETS; i++)
        count += ekiden_read(&row->counts[i]);
    fprintf(out, " %s %" PRIu64 " %" PRIu64, name, count, ekiden_read(&row->sum_ns));
}

static void print_all(void)
{
    const struct ekiden_header *header = (const void *)base;
    fprintf(out, "hub %.64s build %.64s generation %" PRIu64 "\n", (const char *)header->hub, (const char *)header->build,
           ekiden_read(&header->generation));
    for (uint64_t t = 0; t < rows(EKIDEN_TENANTS); t++) {
        const struct ekiden_tenant_entry *entry = ekiden_row(base, EKIDEN_TENANTS, 0, t);
        if (ekiden_read(&entry->generation) % 2 == 0)
            continue;
        fprintf(out, "tenant %" PRIu64 " %.256s (%.256s)", ekiden_read(&entry->id), (const char *)entry->service_code,
               (const char *)entry->label);
        print_traffic(EKIDEN_TENANT_ROWS, t);
    }
    for (uint64_t s = 0; s < rows(EKIDEN_SITES); s++) {
        const struct ekiden_site_entry *entry = ekiden_row(base, EKIDEN_SITES, 0, s);
        if (ekiden_read(&entry->generation) % 2 == 0)
            continue;
        /* A lane has no tenant: what it says of one is the number of none. */
        if (ekiden_read(&entry->kind) == 3) {
            const struct ekiden_site_state *state = ekiden_row(base, EKIDEN_SITE_STATES, 0, s);
            fprintf(out, "lane %.256s up %" PRIu64 " rtt %" PRIu64 " lost %" PRIu64, (const char *)entry->name,
                    ekiden_read(&state->up), ekiden_read(&state->rtt_us), ekiden_read(&state->probes_lost));
            print_traffic(EKIDEN_SITE_ROWS, s);
            continue;
        }
        const struct ekiden_tenant_entry *tenant = ekiden_row(base, EKIDEN_TENANTS, 0, ekiden_read(&entry->tenant));
        fprintf(out, "site %" PRIu64 " %.256s", ekiden_read(&tenant->id), (const char *)entry->name);
        print_traffic(EKIDEN_SITE_ROWS, s);
    }
    for (uint64_t p = 0; p < rows(EKIDEN_PORTS); p++) {
        const struct ekiden_port_entry *entry = ekiden_row(base, EKIDEN_PORTS, 0, p);
        if (ekiden_read(&entry->generation) % 2 == 1)
            fprintf(out, "port %.64s queues %" PRIu64 " entries %" PRIu64 "\n", (const char *)entry->name,
                    ekiden_read(&entry->queues), ekiden_read(&entry->ring_entries));
    }
    for (uint64_t r = 0; r < rows(EKIDEN_REASONS); r++) {
        const struct ekiden_reason_entry *entry = ekiden_row(base, EKIDEN_REASONS, 0, r);
        uint64_t packets = 0, bytes = 0;
        for (int kind = EKIDEN_TENANT_DROPS; kind <= EKIDEN_HUB_DROPS; kind++)
            for (uint64_t b = 0; b < ekiden_section(base, kind)->blocks; b++)
                for (uint64_t slot = 0; slot < rows(kind); slot++) {
                    const struct ekiden_drop_row *row = ekiden_row(base, kind, b, slot);
                    packets += ekiden_read(&row->counts[2 * r]);
                    bytes += ekiden_read(&row->counts[2 * r + 1]);
                }
        if (packets > 0)
            fprintf(out, "drop %.64s %" PRIu64 " %" PRIu64 "\n", (const char *)entry->name, packets, bytes);
    }
    for (uint64_t w = 0; w < rows(EKIDEN_WORKERS); w++) {
        const struct ekiden_loop_row *row = ekiden_row(base, EKIDEN_LOOP_ROWS, w, 0);
        fprintf(out, "worker %" PRIu64 " %" PRIu64, w, ekiden_read(&row->frames));
        print_histogram("latency", ekiden_row(base, EKIDEN_LATENCY, w, 0));
        print_histogram("ring_time", ekiden_row(base, EKIDEN_RING_TIME, w, 0));
        fputc('\n', out);
    }
    for (uint64_t t = 0; t < rows(EKIDEN_TENANTS); t++) {
        const struct ekiden_ring_head *head = ekiden_row(base, EKIDEN_TENANT_HISTORY, 0, t);
        const struct ekiden_record *places = (const void *)(head + 1);
        uint64_t depth = ekiden_section(base, EKIDEN_TENANT_HISTORY)->depth, next = ekiden_read(&head->next);
        for (uint64_t n = next > depth ? next - depth : 0; n < next; n++) {
            const struct ekiden_record *place = &places[n % depth];
            uint64_t sequence = ekiden_read(&place->sequence);
            uint64_t ns = ekiden_read(&place->ns), rx = ekiden_read(&place->rx_bytes), tx = ekiden_read(&place->tx_bytes);
            if (sequence == 2 * (n + 1) && ekiden_read(&place->sequence) == sequence)
                fprintf(out, "record %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 "\n", t, n, ns, rx, tx);
        }
    }
}

int main(int argc, char **argv)
{
    struct stat stat;
    int file = argc == 2 ? open(argv[1], O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0 || fstat(file, &stat) != 0 || stat.st_size < 4096) {
        fprintf(stderr, "usage: stats_read FILE, a segment that may be read\n");
        return 1;
    }
    base = mmap(NULL, (size_t)stat.st_size, PROT_READ, MAP_SHARED, file, 0);
    const struct ekiden_header *header = (const void *)base;
    if (base == MAP_FAILED || header->magic != EKIDEN_STATS_MAGIC || header->version != EKIDEN_STATS_VERSION ||
        header->file_bytes != (uint64_t)stat.st_size || header->sections < EKIDEN_SECTIONS) {
        fprintf(stderr, "stats_read: no segment of layout 1\n");
        return 1;
    }
    /* The directory may change meanwhile: then what was found is forgotten, and looked for again. */
    for (int attempt = 0; attempt < 100; attempt++) {
        uint64_t sequence = ekiden_read(&header->sequence);
        char *text = NULL;
        size_t length = 0;
        out = open_memstream(&text, &length);
        if (sequence % 2 == 0)
            print_all();
        fclose(out);
        if (sequence % 2 == 0 && ekiden_read(&header->sequence) == sequence) {
            fwrite(text, 1, length, stdout);
            return 0;
        }
        free(text);
    }
    fprintf(stderr, "stats_read: the directory does not stand still\n");
    return 1;
}
