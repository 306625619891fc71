// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* DCTCP (RFC 8257) for kernels without the module; section numbers below are the RFC's. Registers as `bpf_dctcp`.
 *
 * The window is kept in our own state and set anew on every acknowledgement, by cong_control(), which gives nothing
 * back. A kernel that skips one of our calls (one was met where TCP's ssthresh() then gave what lay on the stack, and
 * windows of a billion packets) loses no more than one step by it. Needs Linux 6.10, where cong_control() has four
 * arguments.
 */
#include "kernel.h"

#define ONE (1u << 16) /* alpha is kept in 2^-16 */
#define GAIN_SHIFT 4   /* g = 1/16, as 4.2 recommends */
#define SMALLEST 2     /* packets */
#define NO_LIMIT 0x7fffffff

/* What is known of a connection; it lies in the 104 bytes that TCP keeps for a congestion control. */
struct flow {
	u32 window_end;		  /* 3.3: the observation window ends when this is acknowledged */
	u32 alpha;		  /* 3.3: the estimated share of marked bytes */
	u32 delivered, marked;	  /* both when the window began */
	u32 cwnd, ssthresh, part; /* `part` of a packet that the window has grown by */
	u32 cut_until;		  /* one reduction a window: none before this is acknowledged */
	u32 marked_so_far;
	u32 state, high_seq; /* of TCP's recovery, at the last acknowledgement */
	u32 receiver_ce;     /* 3.2: DCTCP.CE */
	u32 receiver_next;   /* up to where the receiver had everything when the last segment came */
	u32 ecn;	     /* negotiated */
};

static __always_inline struct flow *flow_of(struct sock *sk)
{
	return (struct flow *)((struct inet_connection_sock *)sk)->icsk_ca_priv;
}

static __always_inline int reached(u32 sequence, u32 goal)
{
	return (s32)(sequence - goal) >= 0;
}

static __always_inline void begin_window(struct tcp_sock *tp, struct flow *flow)
{
	flow->window_end = tp->snd_nxt;
	flow->delivered = tp->delivered;
	flow->marked = tp->delivered_ce;
}

SEC("struct_ops/init")
void BPF_PROG(dctcp_init, struct sock *sk)
{
	struct tcp_sock *tp = (struct tcp_sock *)sk;
	struct flow *flow = flow_of(sk);

	flow->ecn = tp->ecn_flags & TCP_ECN_OK; /* 3.5: without it, as any TCP */
	flow->alpha = ONE;			/* 3.3 */
	flow->cwnd = tp->snd_cwnd;
	flow->ssthresh = NO_LIMIT;
	flow->part = 0;
	flow->cut_until = tp->snd_una;
	flow->marked_so_far = tp->delivered_ce;
	flow->state = CA_OPEN;
	flow->high_seq = tp->high_seq;
	flow->receiver_ce = 0;
	flow->receiver_next = tp->rcv_nxt;
	begin_window(tp, flow);
}

/* 3.3: once a window, alpha = (1 - g) alpha + g M, with M the share that was marked. */
static __always_inline void estimate(struct tcp_sock *tp, struct flow *flow)
{
	u32 delivered = tp->delivered - flow->delivered, marked = tp->delivered_ce - flow->marked, decay;

	if (!reached(tp->snd_una, flow->window_end))
		return;
	if (delivered) {
		if (marked > delivered)
			marked = delivered;
		decay = flow->alpha >> GAIN_SHIFT;
		flow->alpha -= decay ? decay : flow->alpha; /* or it would never come to 0 */
		flow->alpha += (u32)(((u64)marked << 16) / delivered) >> GAIN_SHIFT;
		if (flow->alpha > ONE)
			flow->alpha = ONE;
	}
	begin_window(tp, flow);
}

static __always_inline void reduce(struct tcp_sock *tp, struct flow *flow, u32 window)
{
	flow->cwnd = flow->ssthresh = window < SMALLEST ? SMALLEST : window;
	flow->part = 0;
	flow->cut_until = tp->snd_nxt;
}

/* As Reno: by one packet for each one acknowledged in slow start, afterwards by one a window. */
static __always_inline void grow(struct tcp_sock *tp, struct flow *flow, u32 acked)
{
	u32 limited = BPF_CORE_READ_BITFIELD(tp, is_cwnd_limited);

	if (flow->cwnd < flow->ssthresh) {
		if (limited || flow->cwnd < 2 * tp->packets_out)
			flow->cwnd += acked;
		if (flow->cwnd > flow->ssthresh)
			flow->cwnd = flow->ssthresh;
	} else if (limited) {
		flow->part += acked;
		if (flow->part >= flow->cwnd) {
			flow->part -= flow->cwnd;
			flow->cwnd++;
		}
	}
}

SEC("struct_ops/cong_control")
void BPF_PROG(dctcp_control, struct sock *sk, u32 ack, int flag, const struct rate_sample *sample)
{
	struct tcp_sock *tp = (struct tcp_sock *)sk;
	struct flow *flow = flow_of(sk);
	u32 state = BPF_CORE_READ_BITFIELD((struct inet_connection_sock *)sk, icsk_ca_state);
	u32 marked = tp->delivered_ce - flow->marked_so_far;
	int anew = flow->high_seq != tp->high_seq; /* one recovery may follow another without a gap */

	flow->marked_so_far = tp->delivered_ce;
	if (flow->ecn)
		estimate(tp, flow);
	if (state == CA_LOSS && (flow->state != CA_LOSS || anew)) { /* 3.4: a timeout */
		flow->ssthresh = flow->cwnd / 2 > SMALLEST ? flow->cwnd / 2 : SMALLEST;
		flow->cwnd = 1;
		flow->part = 0;
		flow->cut_until = tp->snd_nxt;
	} else if (state == CA_RECOVERY && (flow->state < CA_RECOVERY || anew)) { /* 3.4: a loss */
		reduce(tp, flow, flow->cwnd / 2);
	} else if (flow->ecn && marked && state < CA_RECOVERY && reached(tp->snd_una, flow->cut_until)) {
		/* 3.3: cwnd = cwnd (1 - alpha / 2), once a window */
		reduce(tp, flow, flow->cwnd - (u32)(((u64)flow->cwnd * flow->alpha) >> 17));
	} else if (state != CA_RECOVERY) {
		grow(tp, flow, sample->acked_sacked);
	}
	flow->state = state;
	flow->high_seq = tp->high_seq;
	if (flow->cwnd > tp->snd_cwnd_clamp) /* transport.cwnd_clamp */
		flow->cwnd = tp->snd_cwnd_clamp;
	tp->snd_cwnd = flow->cwnd;
	if (tp->srtt_us) { /* what TCP does itself for others: twice the rate in slow start, else 1.2 times (8 is srtt's unit) */
		u64 rate = (u64)tp->mss_cache * 8000000ULL * flow->cwnd / tp->srtt_us;

		rate = flow->cwnd < flow->ssthresh / 2 ? 2 * rate : rate + rate / 5;
		/* A limit of the application's (SO_MAX_PACING_RATE): who has a cong_control must see to it himself. */
		sk->sk_pacing_rate = MIN(rate, sk->sk_max_pacing_rate);
	}
}

/* Both must be there, and what they give is overruled by the next acknowledgement. */
SEC("struct_ops/ssthresh")
u32 BPF_PROG(dctcp_ssthresh, struct sock *sk)
{
	return flow_of(sk)->ssthresh;
}

SEC("struct_ops/undo_cwnd")
u32 BPF_PROG(dctcp_undo, struct sock *sk)
{
	return flow_of(sk)->cwnd;
}

static __always_inline void echo(struct tcp_sock *tp, u32 ce)
{
	if (ce)
		tp->ecn_flags |= TCP_ECN_DEMAND_CWR;
	else
		tp->ecn_flags &= ~TCP_ECN_DEMAND_CWR;
}

/* 3.2, at the receiver: where marks begin or end, what came before is acknowledged at once and by itself. */
SEC("struct_ops/cwnd_event")
void BPF_PROG(dctcp_event, struct sock *sk, enum tcp_ca_event event)
{
	struct inet_connection_sock *connection = (struct inet_connection_sock *)sk;
	struct tcp_sock *tp = (struct tcp_sock *)sk;
	struct flow *flow = flow_of(sk);
	u32 ce = event == CA_EVENT_ECN_IS_CE;

	if (event != CA_EVENT_ECN_IS_CE && event != CA_EVENT_ECN_NO_CE)
		return;
	if (ce != flow->receiver_ce) {
		if (connection->icsk_ack.pending & ICSK_ACK_TIMER) {
			echo(tp, flow->receiver_ce);
			bpf_tcp_send_ack(tp, flow->receiver_next);
		}
		connection->icsk_ack.pending |= ICSK_ACK_NOW;
		flow->receiver_ce = ce;
	}
	flow->receiver_next = tp->rcv_nxt;
	echo(tp, ce);
}

SEC(".struct_ops")
struct tcp_congestion_ops bpf_dctcp = {
	.init = (void *)dctcp_init,
	.ssthresh = (void *)dctcp_ssthresh,
	.cwnd_event = (void *)dctcp_event,
	.cong_control = (void *)dctcp_control,
	.undo_cwnd = (void *)dctcp_undo,
	.flags = TCP_CONG_NEEDS_ECN | TCP_CONG_NON_RESTRICTED,
	.name = "bpf_dctcp",
};

char LICENSE[] SEC("license") = "Dual MIT/GPL";
