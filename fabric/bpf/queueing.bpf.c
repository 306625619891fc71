// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* How long each packet waits in a port's queue: noted where it leaves the stack (egress hook, before the queue), read where it
 * comes out of the wire (ingress hook of the veth peer, after the queue). A veth pair hands over the same packet, so that its
 * address names it. No tracing is needed, and no look into the kernel's structures.
 *
 * A port is known by the number that its filters carry as class: interface numbers repeat across namespaces. The delays of a
 * port are counted in a histogram of its own: below 64 units of 128 ns a bucket a unit, from there on 64 buckets between two
 * powers of two. So a bucket is at most 1/64 of its delay wide, and its middle at most 0.8 % away. Nothing goes to
 * user space for each packet.
 *
 * Notes are kept in sets of four, a set being found by a hash of the address, and the oldest of a full set goes. That costs less than half of what a hash
 * map with eviction (LRU) did. Two processors that write into one set within the same nanoseconds may lose a note, which is
 * then missed, and counted.
 */
#include "kernel.h"

#define NEXT_PROGRAM (-1) /* TC_ACT_UNSPEC */
#define UNIT_SHIFT 7      /* 128 ns */
#define OCTAVE_SHIFT 6    /* 64 buckets between two powers of two */
#define LINEAR (1 << OCTAVE_SHIFT)
#define OCTAVES 21 /* the last one ends at OLDEST */
#define OLDEST (1ULL << 34) /* ns, 17 s: an older note was left behind by a packet that was dropped */
#define BUCKETS (LINEAR * (OCTAVES + 1))
#define SETS_SHIFT 16
#define WAYS 4 /* notes in a set: a cache line */
#define GOLDEN 0x9e3779b97f4a7c15ULL /* 2^64 over the golden ratio: Knuth's multiplicative hash */
#define TRIES 4

/* A packet's note: 48 bits that are its address's own, over its port's number. */
struct note {
	u64 who; /* 0: nobody */
	u64 since; /* ns */
};

struct set {
	struct note notes[WAYS];
};

struct port {
	u64 offered; /* packets noted before the queue */
	u64 packets; /* of them seen again, and counted below */
	u64 missed;  /* came out without a note */
	u64 stale;   /* came out with one that cannot be its own: of another port, or older than can be counted */
	u64 sum_ns, most_ns;
	u64 buckets[BUCKETS];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1 << SETS_SHIFT);
	__type(key, u32);
	__type(value, struct set);
} waiting SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1); /* as many as there are ports, set by who loads it */
	__type(key, u32);
	__type(value, struct port);
} ports SEC(".maps");

static __always_inline u32 log2_of(u64 value)
{
	u32 found = 0;

	if (value >> 32) { value >>= 32; found += 32; }
	if (value >> 16) { value >>= 16; found += 16; }
	if (value >> 8) { value >>= 8; found += 8; }
	if (value >> 4) { value >>= 4; found += 4; }
	if (value >> 2) { value >>= 2; found += 2; }
	return found + (value >> 1);
}

static __always_inline u32 bucket_of(u64 ns)
{
	u64 units = ns >> UNIT_SHIFT;
	u32 octave, bucket;

	if (units < LINEAR)
		return units;
	octave = log2_of(units) - OCTAVE_SHIFT;
	bucket = octave * LINEAR + (u32)(units >> octave);
	return bucket < BUCKETS ? bucket : BUCKETS - 1;
}

/* The verifier lets nobody calculate with an address, but tell how far two are apart; one of them is always the same here. */
static __always_inline u64 address_of(struct __sk_buff *packet)
{
	u32 first = 0;
	struct port *base = bpf_map_lookup_elem(&ports, &first);

	return base ? ((unsigned long)packet - (unsigned long)base) << 16 >> 16 : 0;
}

static __always_inline struct set *set_of(u64 address)
{
	u32 number = address * GOLDEN >> (64 - SETS_SHIFT);

	return bpf_map_lookup_elem(&waiting, &number);
}

/* Where a packet's note is to go: in place of one that its address left behind, else where there is room, else over the oldest. */
static __always_inline struct note *place_in(struct set *set, u64 address)
{
	struct note *oldest = &set->notes[0];

#pragma unroll
	for (int n = 0; n < WAYS; n++) {
		struct note *one = &set->notes[n];

		if (one->who >> 16 == address)
			return one;
		if (!one->who ? oldest->who != 0 : oldest->who && one->since < oldest->since)
			oldest = one;
	}
	return oldest;
}

SEC("tc")
int note(struct __sk_buff *packet)
{
	u64 address = address_of(packet);
	u32 number = packet->tc_classid;
	struct port *port = bpf_map_lookup_elem(&ports, &number);
	struct set *set = set_of(address);
	struct note *mine;

	if (!port || !set)
		return NEXT_PROGRAM;
	__sync_fetch_and_add(&port->offered, 1);
	/* What the queue dropped leaves its note behind; whoever gets the address next writes a new one here. */
	mine = place_in(set, address);
	mine->since = bpf_ktime_get_ns();
	mine->who = address << 16 | number;
	return NEXT_PROGRAM;
}

SEC("tc")
int take(struct __sk_buff *packet)
{
	u64 address = address_of(packet), ns, most;
	u32 number = packet->tc_classid, bucket;
	struct port *port = bpf_map_lookup_elem(&ports, &number);
	struct set *set = set_of(address);
	struct note *mine = 0;

	if (!port || !set)
		return NEXT_PROGRAM;
#pragma unroll
	for (int n = 0; n < WAYS; n++)
		if (set->notes[n].who >> 16 == address)
			mine = &set->notes[n];
	if (!mine) {
		__sync_fetch_and_add(&port->missed, 1);
		return NEXT_PROGRAM;
	}
	ns = bpf_ktime_get_ns() - mine->since;
	if ((mine->who & 0xffff) != number || ns >= OLDEST) {
		__sync_fetch_and_add(&port->stale, 1);
	} else {
		bucket = bucket_of(ns);
		if (bucket < BUCKETS)
			__sync_fetch_and_add(&port->buckets[bucket], 1);
		__sync_fetch_and_add(&port->packets, 1);
		__sync_fetch_and_add(&port->sum_ns, ns);
		most = port->most_ns;
		for (int n = 0; n < TRIES && ns > most; n++) {
			u64 found = __sync_val_compare_and_swap(&port->most_ns, most, ns);

			if (found == most)
				break;
			most = found;
		}
	}
	mine->who = 0;
	return NEXT_PROGRAM;
}

char LICENSE[] SEC("license") = "Dual MIT/GPL";
