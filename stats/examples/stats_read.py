#!/usr/bin/env python3
"""Prints a statistics segment, with nothing but the standard library: stats_read.py /run/ekiden/NAME/stats"""

import mmap
import os
import struct
import sys

SECTIONS = """tenants sites ports workers reasons site_rows tenant_rows tenant_drops hub_drops port_rows loop_rows latency
ring_time xdp_rows hub_row worker_states site_states tenant_history site_history site_history_long drop_history rules
rule_rows""".split()


class Segment:
    def __init__(self, path):
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size < 4096:
                raise ValueError("too short for a segment")
            self.map = mmap.mmap(file.fileno(), size, mmap.MAP_SHARED, mmap.PROT_READ)
        # An item of this view is loaded as one 64-bit word; a slice of bytes might be copied while it changes.
        self.words = memoryview(self.map).cast("Q")
        if self.map[:8] != b"ekidstat" or self.word(8) != 1 or self.word(24) != size:
            raise ValueError("no segment of layout 1")
        self.sections = {
            name: struct.unpack_from("<6Q", self.map, 512 + 64 * at) for at, name in enumerate(SECTIONS)
        }
        self.table = {name: 512 + 64 * at for at, name in enumerate(SECTIONS)}

    def word(self, offset):
        return self.words[offset // 8]

    def text(self, offset, length):
        return self.map[offset : offset + length].split(b"\0")[0].decode("utf-8", "replace")

    def rows(self, section):
        """Those that are used: behind them there is nothing yet."""
        rows, used = self.sections[section][2], self.word(self.table[section] + 48)
        return min(rows, used) if used else rows

    def blocks(self, section):
        return self.sections[section][3]

    def at(self, section, block, row):
        offset, stride, rows, *_ = self.sections[section]
        return offset + (block * rows + row) * stride

    def occupied(self, section):
        """The slots of a directory that are in use, and where their entries are."""
        entries = ((slot, self.at(section, 0, slot)) for slot in range(self.rows(section)))
        return ((slot, at) for slot, at in entries if self.word(at) % 2 == 1)

    def sum(self, section, slot, *fields):
        """The same fields of all workers."""
        places = [self.at(section, block, slot) for block in range(self.blocks(section))]
        return [sum(self.word(at + field) for at in places) for field in fields]

    def traffic(self, section, slot):
        # Outputs first, then inputs: what left is never more than what came.
        tx = self.sum(section, slot, 64, 72, 80)
        rx = self.sum(section, slot, 0, 8, 24)
        return "rx {} {} {} tx {} {} {}".format(*rx, *tx)

    def lines(self):
        yield f"hub {self.text(192, 64)} build {self.text(128, 64)} generation {self.word(40)}"
        ids = {}
        for slot, at in self.occupied("tenants"):
            ids[slot] = self.word(at + 8)
            code, label = self.text(at + 64, 256), self.text(at + 320, 256)
            yield f"tenant {ids[slot]} {code} ({label}) {self.traffic('tenant_rows', slot)}"
        for slot, at in self.occupied("sites"):
            name, traffic = self.text(at + 64, 256), self.traffic("site_rows", slot)
            if self.word(at + 16) == 3:  # A lane has no tenant.
                state = self.at("site_states", 0, slot)
                up, rtt, lost = (self.word(state + field) for field in (40, 48, 72))
                yield f"lane {name} up {up} rtt {rtt} lost {lost} {traffic}"
            else:
                yield f"site {ids[self.word(at + 8)]} {name} {traffic}"
        for _, at in self.occupied("ports"):
            yield f"port {self.text(at + 64, 64)} queues {self.word(at + 8)} entries {self.word(at + 16)}"
        drops = [self.at(s, b, r) for s in ("tenant_drops", "hub_drops") for b in range(self.blocks(s)) for r in range(self.rows(s))]
        for number, at in self.occupied("reasons"):
            packets = sum(self.word(row + 16 * number) for row in drops)
            if packets > 0:
                yield f"drop {self.text(at + 64, 64)} {packets} {sum(self.word(row + 16 * number + 8) for row in drops)}"
        for worker, _ in self.occupied("workers"):
            line = f"worker {worker} {self.word(self.at('loop_rows', worker, 0) + 16)}"
            for section in ("latency", "ring_time"):
                histogram = self.at(section, worker, 0)
                count = sum(self.word(histogram + 64 + 8 * bucket) for bucket in range(3456))
                line += f" {section} {count} {self.word(histogram)}"
            yield line
        depth = self.sections["tenant_history"][4]
        for slot in range(self.rows("tenant_history")):
            head = self.at("tenant_history", 0, slot)
            following = self.word(head)
            for number in range(max(0, following - depth), following):
                place = head + 64 * (1 + number % depth)
                sequence = self.word(place)
                ns, rx, tx = (self.word(place + field) for field in (16, 40, 56))
                if sequence == 2 * (number + 1) and self.word(place) == sequence:
                    yield f"record {slot} {number} {ns} {rx} {tx}"

    def read(self):
        for _ in range(100):
            sequence = self.word(96)
            if sequence % 2 == 0:
                lines = list(self.lines())
                if self.word(96) == sequence:
                    return lines
        raise ValueError("the directory does not stand still")


if __name__ == "__main__":
    try:
        print("\n".join(Segment(sys.argv[1]).read()))
    except (IndexError, OSError, ValueError) as error:
        sys.exit(f"stats_read.py: {error}")
