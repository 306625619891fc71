/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* The few kernel structures that our programs look into. Only names must match: where a field lies is found when a
 * program is loaded, from the running kernel's own description (BTF, CO-RE), so that no kernel headers are needed.
 */
#ifndef FABRICLAB_KERNEL_H
#define FABRICLAB_KERNEL_H

#include <linux/bpf.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

typedef __u8 u8;
typedef __u16 u16;
typedef __u32 u32;
typedef __u64 u64;
typedef __s32 s32;

#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define KERNELS __attribute__((preserve_access_index))

struct gnet_stats_queue {
	u32 backlog;
} KERNELS;

struct Qdisc {
	struct gnet_stats_queue qstats;
} KERNELS;

struct net_device {
	struct Qdisc *qdisc;
} KERNELS;

struct sk_buff {
	struct net_device *dev;
} KERNELS;

struct sock {
	unsigned long sk_pacing_rate, sk_max_pacing_rate;
} KERNELS;

struct inet_connection_sock {
	u8 icsk_ca_state : 5;
	struct {
		u8 pending;
	} icsk_ack;
	u64 icsk_ca_priv[13];
} KERNELS;

struct tcp_sock {
	u32 rcv_nxt, snd_nxt, snd_una, snd_cwnd, snd_cwnd_clamp;
	u32 delivered, delivered_ce, high_seq, mss_cache, srtt_us, packets_out, sacked_out, lost_out, retrans_out;
	u8 is_cwnd_limited : 1;
	u8 ecn_flags;
} KERNELS;

struct rate_sample {
	u32 acked_sacked;
} KERNELS;

enum tcp_ca_event {
	CA_EVENT_TX_START,
	CA_EVENT_CWND_RESTART,
	CA_EVENT_COMPLETE_CWR,
	CA_EVENT_LOSS,
	CA_EVENT_ECN_NO_CE,
	CA_EVENT_ECN_IS_CE,
};

struct tcp_congestion_ops {
	u32 (*ssthresh)(struct sock *sk);
	void (*cwnd_event)(struct sock *sk, enum tcp_ca_event event);
	void (*cong_control)(struct sock *sk, u32 ack, int flag, const struct rate_sample *sample);
	u32 (*undo_cwnd)(struct sock *sk);
	void (*init)(struct sock *sk);
	char name[16];
	u32 flags;
};

/* include/net/tcp.h, net/ipv4/tcp_ecn.c, include/net/inet_connection_sock.h */
#define TCP_CONG_NON_RESTRICTED 0x1 /* a namespace may choose it by sysctl */
#define TCP_CONG_NEEDS_ECN 0x2      /* negotiate ECN, and send everything as ECT */
#define TCP_ECN_OK 0x1
#define TCP_ECN_DEMAND_CWR 0x4 /* the receiver is to echo congestion (ECE) */
#define ICSK_ACK_TIMER 0x2
#define ICSK_ACK_NOW 0x10
enum { CA_OPEN, CA_DISORDER, CA_CWR, CA_RECOVERY, CA_LOSS };

#endif
