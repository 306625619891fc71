// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* A congestion control to copy: slow start, then one packet more a round trip, and half of it after a loss (AIMD, as Reno).
 * Run it by `transport: {tcp: ./my_cc.bpf.c}`, judge it by `fabriclab check-cc ./my_cc.bpf.c`. Needs Linux 6.10.
 *
 * The window is kept in `struct flow`, at most 104 bytes, and set on every acknowledgement. For marks see fabric/bpf/dctcp.bpf.c.
 */
#include "kernel.h"

struct flow {
	u32 cwnd, ssthresh, part; /* packets; `part` of one that the window has grown by */
	u32 state, high_seq;	  /* of TCP's recovery, at the last acknowledgement */
};

#define FLOW(sk) ((struct flow *)((struct inet_connection_sock *)(sk))->icsk_ca_priv)

SEC("struct_ops/init")
void BPF_PROG(my_init, struct sock *sk)
{
	struct flow *flow = FLOW(sk);

	*flow = (struct flow){ .cwnd = ((struct tcp_sock *)sk)->snd_cwnd, .ssthresh = 0x7fffffff };
}

SEC("struct_ops/cong_control")
void BPF_PROG(my_control, struct sock *sk, u32 ack, int flag, const struct rate_sample *sample)
{
	struct tcp_sock *tp = (struct tcp_sock *)sk;
	struct flow *flow = FLOW(sk);
	u32 state = BPF_CORE_READ_BITFIELD((struct inet_connection_sock *)sk, icsk_ca_state), flight, grown;

	if (state >= CA_RECOVERY && (flow->state < state || flow->high_seq != tp->high_seq)) { /* a loss, once a window */
		flow->ssthresh = flow->cwnd / 2 > 2 ? flow->cwnd / 2 : 2;
		flow->cwnd = state == CA_LOSS ? 1 : flow->ssthresh; /* 1: after a timeout */
	} else if (state != CA_RECOVERY && BPF_CORE_READ_BITFIELD(tp, is_cwnd_limited)) {
		flow->part += flow->cwnd < flow->ssthresh ? flow->cwnd * sample->acked_sacked : sample->acked_sacked;
		grown = flow->part / flow->cwnd;
		flow->part -= grown * flow->cwnd;
		flow->cwnd += grown;
	}
	flow->state = state;
	flow->high_seq = tp->high_seq;
	flow->cwnd = flow->cwnd < tp->snd_cwnd_clamp ? flow->cwnd : tp->snd_cwnd_clamp;
	/* Where much was lost, one out for one in (as RFC 6937): the whole window at once would be lost again, then timeouts. */
	flight = tp->packets_out - tp->sacked_out - tp->lost_out + tp->retrans_out + sample->acked_sacked + 1;
	tp->snd_cwnd = state == CA_RECOVERY && flight < flow->cwnd ? flight : flow->cwnd;
	/* 1.2 windows a round trip; srtt is in eighths of microseconds. At most what a load or a controller allows. */
	sk->sk_pacing_rate = MIN((u64)tp->mss_cache * 9600000ULL * flow->cwnd / (tp->srtt_us | 1), sk->sk_max_pacing_rate);
}

SEC("struct_ops/ssthresh") /* TCP asks for both, and the next acknowledgement overrules them */
u32 BPF_PROG(my_ssthresh, struct sock *sk) { return FLOW(sk)->ssthresh; }

SEC("struct_ops/undo_cwnd")
u32 BPF_PROG(my_undo, struct sock *sk) { return FLOW(sk)->cwnd; }

SEC(".struct_ops")
struct tcp_congestion_ops my_cc = { .init = (void *)my_init, .cong_control = (void *)my_control, .ssthresh = (void *)my_ssthresh,
	.undo_cwnd = (void *)my_undo, .flags = TCP_CONG_NON_RESTRICTED, .name = "my_cc" };

char LICENSE[] SEC("license") = "Dual MIT/GPL";
