"""Every bad experiment file gets one line: the place, the key path, what was got, what is accepted, what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from fabric import plugins
from fabric.errors import RequestError
from fabric.experiment import load_experiment

GOOD = {
    "question": "question: Is ECMP enough?",
    "topology": "topology: {use: fat-tree, k: 4}",
    "links": "links: {mbps: 20}",
    "controller": "controller: {use: ecmp}",
    "collective": "collective: {use: ring-allreduce, nbytes: 64KiB}",
}

FILES = {
    "plug.py": """
from typing import Literal
from fabric import plugins
from fabric.errors import RequestError
from fabric.graph import FabricBuilder
from fabric.load import Flow

def line(n: int, *, shape: Literal["thin", "thick"] = "thin", spare: int | None = None):
    if n < 2:
        raise RequestError(f"topology.n: got {n}; accepted: 2 or more; a line has two ends")
    build = FabricBuilder("line", {"n": n})
    switch = build.switch("s1")
    for index in range(n):
        build.link(build.host(f"h{index}"), switch)
    return build.fabric()

def broken(x: float = 1):
    return 1 / x

def even(ranks: int, elements: int):
    if ranks % 2:
        raise RequestError(f"collective.ranks: got {ranks}; accepted: an even number; add or remove one")

def shift(hosts, rng, *, by: int):
    if by == 0:
        raise RequestError("load.by: got 0; accepted: another number; write by: 1")
    return [Flow(hosts[0], f"h{by}")]
""",
    "typo.py": "import no_such_thing\n",
    "one.py": "class One(FabricApp):\n    PARAMETERS = {'margin': 0.1}\n",
    "text.o": "no object\n",
    "two.py": "class One(RyuApp):\n    pass\n\nclass Another(app_manager.RyuApp):\n    pass\n",
}


def changed(**lines: str) -> str:
    """The good file with some of its lines replaced, dropped where empty, or added: in this order."""
    return "\n".join(line for line in {**GOOD, **lines}.values() if line) + "\n"


CASES: dict[str, tuple[str, str]] = {
    "empty": (
        "# nothing\n",
        "bad.yaml:1: got an empty file; accepted: key: value lines; start with e.g. question: Is ECMP enough?",
    ),
    "not a mapping": (
        "- question: Is ECMP enough?\n",
        "bad.yaml:1: got [{question: 'Is ECMP enough?'}]; accepted: key: value lines; start with e.g. "
        "question: Is ECMP enough?",
    ),
    "requests of two sizes": (
        changed(requests="requests: [{servers: [p0e0h0], request: 4, rate_hz: 5, response: 4, sizes: websearch}]"),
        "bad.yaml:6: requests.0.sizes: got both of response and sizes; accepted: one of them; remove sizes",
    ),
    "requests of no size": (
        changed(requests="requests: [{servers: [p0e0h0], request: 4, rate_hz: 5}]"),
        "bad.yaml:6: requests.0: got neither of response and sizes; accepted: one of them; add e.g. response: 64KiB",
    ),
    "requests at two rates": (
        changed(requests="requests: [{servers: [p0e0h0], request: 4, rate_hz: 5, load: 0.5, response: 4}]"),
        "bad.yaml:6: requests.0.load: got both of rate_hz and load; accepted: one of them; remove load",
    ),
    "requests at no rate": (
        changed(requests="requests: [{servers: [p0e0h0], request: 4, response: 4}]"),
        "bad.yaml:6: requests.0: got neither of rate_hz and load; accepted: one of them; add e.g. rate_hz: 5",
    ),
    "requests of unknown sizes": (
        changed(requests="requests: [{servers: [p0e0h0], request: 4, rate_hz: 5, sizes: web}]"),
        "bad.yaml:6: requests.0.sizes: got web; accepted: websearch, data-mining, or a file, ./sizes.csv; write one of those",
    ),
    "a scale of nothing": (
        changed(requests="requests: [{servers: [p0e0h0], request: 4, rate_hz: 5, response: 4, scale: 0.1}]"),
        "bad.yaml:6: requests.0.scale: got 0.1; accepted: none without sizes; remove it, or write e.g. sizes: websearch",
    ),
    "a periodic load": (
        changed(requests="requests: [{servers: [p0e0h0], request: 4, load: 0.5, response: 4, arrivals: periodic}]"),
        "bad.yaml:6: requests.0.load: got 0.5; accepted: none beside arrivals: periodic, which are everybody's at once; write arrivals: poisson",
    ),
    "too many connections": (
        changed(topology="topology: {use: fat-tree, k: 8}", requests="requests: [{servers: all, request: 4, rate_hz: 5, response: 4}]"),
        "bad.yaml:6: requests.0.clients: got 16256 connections, one from each client to each server; accepted: at most 2000; name fewer clients",
    ),
    "an expectation of no figure": (
        changed(expect="expect: [{measure: p50ms, below: 1}]"),
        "bad.yaml:6: expect.0.measure: got 'p50ms'; accepted: a figure of a row, see docs/measures.md; did you mean p50_ms?",
    ),
    "an expectation of nobody": (
        changed(expect="expect: [{measure: p50_ms, arm: adaptive, below: 1}]"),
        "bad.yaml:6: expect.0.arm: got 'adaptive'; accepted: an arm: ecmp; write one of those",
    ),
    "an expectation without a limit": (
        changed(expect="expect: [{measure: p50_ms}]"),
        "bad.yaml:6: expect.0: got neither below nor above; accepted: one of them, or both; add e.g. below: 0.7",
    ),
    "an expectation of an arm over itself": (
        changed(expect="expect: [{measure: p50_ms, arm: ecmp, over: ecmp, below: 1}]"),
        "bad.yaml:6: expect.0.over: got 'ecmp'; accepted: an arm beside another arm; add e.g. arm: adaptive",
    ),
    "an expectation that is swept": (
        changed(sweep="sweep: {expect.0.below: [1, 2]}"),
        "bad.yaml:6: sweep.expect.0.below: got a key path that cannot be swept; accepted: one that begins with topology, links, controller, collective, jobs,"
        " workload, load, requests, events, duration_s, transport, telemetry; write e.g. controller.use",
    ),
    "a text alone": (
        "just words\n",
        "bad.yaml:1: got 'just words'; accepted: key: value lines; start with e.g. question: Is ECMP enough?",
    ),
    "not YAML": (
        changed(links="links: {mbps: 20"),
        "bad.yaml:4: not YAML: while parsing a flow mapping, expected ',' or '}', but got ':'; accepted: YAML"
        " 1.1; check quotes and indentation",
    ),
    "a tab as indentation": (
        "links:\n\tmbps: 20\n",
        "bad.yaml:2: not YAML: while scanning for the next token, found character '\\t' that cannot start any "
        "token; accepted: YAML 1.1; check quotes and indentation",
    ),
    "two documents": (
        changed(more="---\nquestion: two"),
        "bad.yaml:6: not YAML: expected a single document in the stream, but found another document; "
        "accepted: YAML 1.1; check quotes and indentation",
    ),
    "a control character": (
        "question: a\x07b\n",
        "bad.yaml:1: not YAML: a character that YAML forbids (special characters are not allowed); accepted: "
        "YAML 1.1; check quotes and indentation",
    ),
    "nested too deeply": (
        "question: " + "[" * 600,
        "bad.yaml:1: not YAML: brackets nested too deeply; accepted: YAML 1.1; check quotes and indentation",
    ),
    "an alias of itself": (
        changed(load="load: &a [*a]"),
        "bad.yaml:6: load.0: got an alias of what it stands in; accepted: a tree of values of a person's "
        "size; write the values out",
    ),
    "aliases that explode": (
        changed(
            a="a: &a [1,1,1,1,1,1,1,1,1,1]",
            b="b: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]",
            c="c: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]",
            d="d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]",
            e="e: [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]",
        ),
        "bad.yaml:6: e.0.6.8.7.8: got more than 20000 values; accepted: a tree of values of a person's size; "
        "write the values out",
    ),
    "a key twice": (
        changed(more="links: {mbps: 5}"),
        "bad.yaml:6: links: got the key twice, first at line 3; accepted: each key once; remove one",
    ),
    "a nested key twice": (
        changed(links="links: {mbps: 20, mbps: 5}"),
        "bad.yaml:3: links.mbps: got the key twice, first at line 3; accepted: each key once; remove one",
    ),
    "a number as key": (
        changed(more="7: seed"),
        "bad.yaml:6: got the key !!int 7; accepted: a word as key; quote it if it is one",
    ),
    "a mapping as key": (
        changed(more="? {a: 1}\n: 2"),
        "bad.yaml:6: got the key !!map; accepted: a word as key; quote it if it is one",
    ),
    "a merge key": (
        changed(links="links: {<<: {mbps: 20}}"),
        "bad.yaml:3: links: got !!merge <<; accepted: text, finite numbers, true, false, null; quote it if it is text",
    ),
    "a date": (
        changed(question="question: 2024-05-01"),
        "bad.yaml:1: question: got !!timestamp 2024-05-01; accepted: text, finite numbers, true, false, null;"
        " quote it if it is text",
    ),
    "a foreign tag": (
        changed(question="question: !!python/object:os.system x"),
        "bad.yaml:1: question: got !!python/object:os.system x; accepted: text, finite numbers, true, false, "
        "null; quote it if it is text",
    ),
    "not a number": (
        changed(links="links: {mbps: .nan}"),
        "bad.yaml:3: links.mbps: got !!float .nan; accepted: text, finite numbers, true, false, null; quote "
        "it if it is text",
    ),
    "an unknown key": (
        changed(more="hope: {a: 1}"),
        "bad.yaml:6: hope: got an unknown key; accepted: question, seed, repeat, topology, links, "
        "controller, collective, jobs, workload, load, requests, events, duration_s, transport, telemetry, expect, sweep; remove it",
    ),
    "a misspelt key": (
        changed(links="", lnks="lnks: {mbps: 20}"),
        "bad.yaml:5: lnks: got an unknown key; accepted: question, seed, repeat, topology, links, controller,"
        " collective, jobs, workload, load, requests, events, duration_s, transport, telemetry, expect, sweep; did you mean links?",
    ),
    "a misspelt inner key": (
        changed(links="links: {mbps: 20, queue_packet: 50}"),
        "bad.yaml:3: links.queue_packet: got an unknown key; accepted: mbps, mtu, queue_packets, queue_bytes,"
        " delay_ms, loss_percent, priority_floor, ecn; did you mean queue_packets?",
    ),
    "no question": (
        changed(question=""),
        "bad.yaml:1: question: got nothing; accepted: a sentence; add e.g. question: Is ECMP enough?",
    ),
    "an empty question": (
        changed(question='question: " "'),
        "bad.yaml:1: question: got ' '; accepted: a sentence; write e.g. question: Is ECMP enough?",
    ),
    "no topology": (
        changed(topology=""),
        "bad.yaml:1: topology: got nothing; accepted: a mapping with use; add e.g. topology: {use: fat-tree, k: 4}",
    ),
    "no links": (
        changed(links=""),
        "bad.yaml:1: links: got nothing; accepted: a mapping with mbps; add e.g. links: {mbps: 20}",
    ),
    "no mbps": (
        changed(links="links: {mtu: 9000}"),
        "bad.yaml:3: links.mbps: got nothing; accepted: a number above 0 and at most 100000; add e.g. mbps: 20",
    ),
    "no controller": (
        changed(controller=""),
        "bad.yaml:1: controller: got nothing; accepted: a mapping with use; add e.g. controller: {use: ecmp}",
    ),
    "neither collective nor load": (
        changed(collective=""),
        "bad.yaml:1: collective: got none of collective, jobs, workload, load and requests; accepted: one of the first three, the others beside it or alone; add e.g. "
        "collective: {use: ring-allreduce, nbytes: 1MiB}",
    ),
    "requests of a host that is none": (
        changed(more="requests: [{servers: [p0e0h9], rate_hz: 5, request: 4KiB, response: 64KiB}]"),
        "bad.yaml:6: requests.0.servers: got 'p0e0h9'; accepted: hosts of this topology: p0e0h0, p0e0h1, p0e1h0, p0e1h1, ...; did you mean p0e0h1?",
    ),
    "requests of oneself": (
        changed(more="requests: [{servers: [p0e0h0], clients: [p0e0h0], rate_hz: 5, request: 4KiB, response: 64KiB}]"),
        "bad.yaml:6: requests.0.clients: got ['p0e0h0']; accepted: hosts beside the servers; name clients that are no servers, or other servers",
    ),
    "requests that never come": (
        changed(more="requests: [{servers: [p0e0h0], rate_hz: 0, request: 4KiB, response: 64KiB}]"),
        "bad.yaml:6: requests.0.rate_hz: got 0; accepted: a number above 0 and at most 10000; write e.g. rate_hz: 5",
    ),
    "a straggler that is no host": (
        changed(collective="collective: {use: ring-allreduce, nbytes: 1MiB, late_ms: {p0e0h9: 50}}"),
        "bad.yaml:5: collective.late_ms.p0e0h9: got a host without a rank; accepted: p0e0h0, p0e0h1, p0e1h0, p0e1h1, ...; did you mean p0e0h1?",
    ),
    "a straggler that is early": (
        changed(collective="collective: {use: ring-allreduce, nbytes: 1MiB, late_ms: {p0e0h1: -5}}"),
        "bad.yaml:5: collective.late_ms: got {p0e0h1: -5}; accepted: a mapping of hosts to milliseconds, 0 to 600000; write e.g. late_ms: {p0e0h1: 50}",
    ),
    "steps without a collective": (
        changed(collective="load: [{use: stride, step: 8}]", more="duration_s: 5\ntelemetry: {steps: true}"),
        "bad.yaml:7: telemetry.steps: got true; accepted: false without a collective, and with compute_ms, whose jobs have no iteration in common; remove it",
    ),
    "a program beside a collective": (
        changed(more="workload: {use: command, command: ./bench}"),
        "bad.yaml:6: workload: got './bench'; accepted: none beside a collective, as both have ranks; remove workload or collective",
    ),
    "a program for a time": (
        changed(collective="workload: {use: command, command: ./bench}", more="duration_s: 5"),
        "bad.yaml:6: duration_s: got 5; accepted: none beside a program, whose end ends the run; write workload.timeout_s for how long it may take",
    ),
    "a workload of another kind": (
        changed(collective="workload: {use: comand, command: ./bench}"),
        "bad.yaml:5: workload.use: got 'comand'; accepted: command; write e.g. use: command",
    ),
    "a program without a command": (
        changed(collective="workload: {use: command}"),
        "bad.yaml:5: workload.command: got nothing; accepted: a command line for the shell; add e.g. command: python3 ./bench.py",
    ),
    "a program on a host that is none": (
        changed(collective="workload: {use: command, command: ./bench, ranks: [p0e0h0, p0e0h9]}"),
        "bad.yaml:5: workload.ranks: got 'p0e0h9'; accepted: hosts of this topology: p0e0h0, p0e0h1, p0e1h0, p0e1h1, ...; did you mean p0e0h1?",
    ),
    "a program on one host twice": (
        changed(collective="workload: {use: command, command: ./bench, ranks: [p0e0h0, p0e0h0]}"),
        "bad.yaml:5: workload.ranks: got ['p0e0h0', 'p0e0h0']; accepted: two or more host names, each once; write e.g. ranks: all",
    ),
    "a program on servers": (
        changed(topology="topology: {use: rail-only, servers: 2, rails: 2}", collective="workload: {use: command, command: ./bench}"),
        "bad.yaml:5: workload.command: got './bench'; accepted: none where the NICs of a server share a namespace; use a topology without servers",
    ),
    "a negative seed": (
        changed(more="seed: -1"),
        "bad.yaml:6: seed: got -1; accepted: a whole number from 0, below 2^63; write e.g. seed: 7",
    ),
    "a seed that is true": (
        changed(more="seed: true"),
        "bad.yaml:6: seed: got true; accepted: a whole number from 0, below 2^63; write e.g. seed: 7",
    ),
    "too many repeats": (
        changed(more="repeat: 1001"),
        "bad.yaml:6: repeat: got 1001; accepted: a whole number from 1 to 1000; write e.g. repeat: 5",
    ),
    "a negative rate": (
        changed(links="links: {mbps: -5}"),
        "bad.yaml:3: links.mbps: got -5; accepted: a number above 0 and at most 100000; write e.g. mbps: 20",
    ),
    "a rate in words": (
        changed(links="links: {mbps: 20Mb}"),
        "bad.yaml:3: links.mbps: got '20Mb'; accepted: a number above 0 and at most 100000; write e.g. mbps: 20",
    ),
    "a small mtu": (
        changed(links="links: {mbps: 20, mtu: 500}"),
        "bad.yaml:3: links.mtu: got 500; accepted: a whole number from 576 to 9216; write e.g. mtu: 9000",
    ),
    "a fractional queue": (
        changed(links="links: {mbps: 20, queue_packets: 2.5}"),
        "bad.yaml:3: links.queue_packets: got 2.5; accepted: a whole number from 1 to 100000; write e.g. "
        "queue_packets: 50",
    ),
    "two queues": (
        changed(links="links: {mbps: 20, queue_packets: 50, queue_bytes: 75000}"),
        "bad.yaml:3: links.queue_bytes: got 75000; accepted: queue_packets or queue_bytes; remove one of them",
    ),
    "a queue below one frame": (
        changed(links="links: {mbps: 20, mtu: 9000, queue_bytes: 9000}"),
        "bad.yaml:3: links.queue_bytes: got 9000; accepted: at least mtu + 14 = 9014, one frame; write e.g. "
        "queue_bytes: 450700",
    ),
    "loss of everything": (
        changed(links="links: {mbps: 20, loss_percent: 100}"),
        "bad.yaml:3: links.loss_percent: got 100; accepted: a number from 0, below 100; write e.g. loss_percent: 0.1",
    ),
    "a negative delay": (
        changed(links="links: {mbps: 20, delay_ms: -1}"),
        "bad.yaml:3: links.delay_ms: got -1; accepted: a number from 0 to 10000; write e.g. delay_ms: 1",
    ),
    "ecn without an end": (
        changed(links="links: {mbps: 20, ecn: {min_packets: 5}}"),
        "bad.yaml:3: links.ecn.max_packets: got nothing; accepted: a whole number from 1 to 100000; add e.g. "
        "max_packets: 5",
    ),
    "ecn in bytes without a beginning": (
        changed(links="links: {mbps: 20, ecn: {max_bytes: 30000}}"),
        "bad.yaml:3: links.ecn.min_bytes: got nothing; accepted: a whole number from 1 to 2^30; add e.g. min_bytes: 30000",
    ),
    "ecn without thresholds": (
        changed(links="links: {mbps: 20, ecn: {headroom: 0.95}}"),
        "bad.yaml:3: links.ecn.min_packets: got nothing; accepted: min_packets and max_packets, or min_bytes and max_bytes; "
        "add e.g. min_packets: 20 and max_packets: 20",
    ),
    "ecn in packets and in bytes": (
        changed(links="links: {mbps: 20, ecn: {min_packets: 5, max_bytes: 30000}}"),
        "bad.yaml:3: links.ecn.max_bytes: got 30000; accepted: min_packets and max_packets, or min_bytes and max_bytes, "
        "not some of each; remove max_bytes, or the thresholds in packets",
    ),
    "ecn of no bytes": (
        changed(links="links: {mbps: 20, ecn: {min_bytes: 0, max_bytes: 30000}}"),
        "bad.yaml:3: links.ecn.min_bytes: got 0; accepted: a whole number from 1 to 2^30; write e.g. min_bytes: 30000",
    ),
    "ecn in bytes upside down": (
        changed(links="links: {mbps: 20, ecn: {min_bytes: 9000, max_bytes: 5000}}"),
        "bad.yaml:3: links.ecn.max_bytes: got 5000; accepted: at least min_bytes, which is 9000; write e.g. max_bytes: 9000",
    ),
    "ecn in bytes above a queue in packets": (
        changed(links="links: {mbps: 20, queue_packets: 10, ecn: {min_bytes: 15141, max_bytes: 15141}}"),
        "bad.yaml:3: links.ecn.min_bytes: got 15141; accepted: at most the queue, which is 15140 bytes, or nothing is ever "
        "marked; lower it",
    ),
    "ecn in packets above a queue in bytes": (
        changed(links="links: {mbps: 20, queue_bytes: 15140, ecn: {min_packets: 11, max_packets: 11}}"),
        "bad.yaml:3: links.ecn.min_packets: got 11; accepted: at most queue_bytes, which is 10 full frames, or nothing is ever "
        "marked; lower it",
    ),
    "ecn upside down": (
        changed(links="links: {mbps: 20, ecn: {min_packets: 9, max_packets: 5}}"),
        "bad.yaml:3: links.ecn.max_packets: got 5; accepted: at least min_packets, which is 9; write e.g. "
        "max_packets: 9",
    ),
    "ecn above the queue": (
        changed(links="links: {mbps: 20, ecn: {min_packets: 60, max_packets: 60}}"),
        "bad.yaml:3: links.ecn.min_packets: got 60; accepted: at most queue_packets, which is 50, or nothing "
        "is ever marked; lower it",
    ),
    "a headroom that is more than the link": (
        changed(links="links: {mbps: 20, ecn: {min_packets: 5, max_packets: 5, headroom: 1.5}}"),
        "bad.yaml:3: links.ecn.headroom: got 1.5; accepted: a number above 0 and at most 1; write e.g. headroom: 0.95",
    ),
    "dctcp without marks": (
        changed(more="transport: {tcp: dctcp}"),
        "bad.yaml:6: transport.tcp: got 'dctcp'; accepted: another one, or queues that mark: without marks it is but reno; "
        "add e.g. links.ecn: {min_packets: 20, max_packets: 20}",
    ),
    "dctcp that may not hear marks": (
        changed(links="links: {mbps: 20, ecn: {min_packets: 5, max_packets: 5}}", more="transport: {tcp: dctcp, ecn: false}"),
        "bad.yaml:6: transport.ecn: got false; accepted: true beside dctcp, which lives on marks; remove it",
    ),
    "ecn where nothing marks": (
        changed(more="transport: {ecn: true}"),
        "bad.yaml:6: transport.ecn: got true; accepted: false where no queue marks; remove it, or add e.g. "
        "links.ecn: {min_packets: 20, max_packets: 20}",
    ),
    "a delay that is neither measured nor not": (
        changed(more="telemetry: {queueing_delay: 5}"),
        "bad.yaml:6: telemetry.queueing_delay: got 5; accepted: true or false; write e.g. queueing_delay: true",
    ),
    "probes too often": (
        changed(more="telemetry: {probes: {hz: 5000}}"),
        "bad.yaml:6: telemetry.probes.hz: got 5000; accepted: a whole number from 1 to 1000; write e.g. hz: 100",
    ),
    "probes of one host": (
        changed(more="telemetry: {probes: {pairs: [[p0e0h0]]}}"),
        "bad.yaml:6: telemetry.probes.pairs: got [['p0e0h0']]; accepted: auto, or a list of 1 to 64 lists of two hosts; "
        "write e.g. pairs: [[p0e0h0, p1e0h0]]",
    ),
    "probes of nobody": (
        changed(more="telemetry: {probes: {pairs: [[p0e0h0, p9e0h0]]}}"),
        "bad.yaml:6: telemetry.probes.pairs.0: got ['p0e0h0', 'p9e0h0']; accepted: two different hosts of this topology: "
        "p0e0h0, p0e0h1, p0e1h0, p0e1h1, ...; did you mean p3e0h0?",
    ),
    "probes to oneself": (
        changed(more="telemetry: {probes: {pairs: [[p0e0h0, p1e0h0], [p0e0h0, p0e0h0]]}}"),
        "bad.yaml:6: telemetry.probes.pairs.1: got ['p0e0h0', 'p0e0h0']; accepted: two different hosts of this topology: "
        "p0e0h0, p0e0h1, p0e1h0, p0e1h1, ...; name another one",
    ),
    "probes of no pairs": (
        changed(more="telemetry: {probes: {pairs: some}}"),
        "bad.yaml:6: telemetry.probes.pairs: got 'some'; accepted: auto, or a list of 1 to 64 lists of two hosts; "
        "write e.g. pairs: [[p0e0h0, p1e0h0]]",
    ),
    "a dctcp job without marks": (
        changed(collective="collective: {use: ring-allreduce, nbytes: 64KiB, transport: {tcp: dctcp}}"),
        "bad.yaml:5: collective.transport.tcp: got 'dctcp'; accepted: another one, or queues that mark: without marks it is but "
        "reno; add e.g. links.ecn: {min_packets: 20, max_packets: 20}",
    ),
    "a dctcp load without marks": (
        changed(load="load: [{use: stride, step: 1, transport: {tcp: dctcp}}]"),
        "bad.yaml:6: load.0.transport.tcp: got 'dctcp'; accepted: another one, or queues that mark: without marks it is but "
        "reno; add e.g. links.ecn: {min_packets: 20, max_packets: 20}",
    ),
    "a dctcp job where marks may not be heard": (
        changed(links="links: {mbps: 20, ecn: {min_packets: 5, max_packets: 5}}", more="transport: {ecn: false}",
                collective="collective: {use: ring-allreduce, nbytes: 64KiB, transport: {tcp: dctcp}}"),
        "bad.yaml:6: transport.ecn: got false; accepted: true beside dctcp, which lives on marks; remove it",
    ),
    "dctcp at one end": (
        changed(links="links: {mbps: 20, ecn: {min_packets: 5, max_packets: 5}}", more="transport: {hosts: {p0e0h0: {tcp: dctcp}}}"),
        "bad.yaml:6: transport.hosts.p0e0h0: got 'dctcp'; accepted: one and the same at both ends where marks are needed: p0e0h0 "
        "exchanges data with p0e0h1, which has cubic, in collective; write e.g. collective.transport: {tcp: dctcp}",
    ),
    "a host that is not there": (
        changed(more="transport: {hosts: {p0e0h9: {tcp: reno}}}"),
        "bad.yaml:6: transport.hosts.p0e0h9: got 'p0e0h9'; accepted: hosts of this topology: p0e0h0, p0e0h1, p0e1h0, p0e1h1, ...; "
        "did you mean p0e0h1?",
    ),
    "a host with an unknown key": (
        changed(more="transport: {hosts: {p0e0h0: {rto_ms: 5}}}"),
        "bad.yaml:6: transport.hosts.p0e0h0.rto_ms: got an unknown key; accepted: tcp, rto_min_ms, initcwnd, cwnd_clamp; did you mean rto_min_ms?",
    ),
    "a host with a bad value": (
        changed(more="transport: {hosts: {p0e0h0: {initcwnd: 0}}}"),
        "bad.yaml:6: transport.hosts.p0e0h0.initcwnd: got 0; accepted: a whole number from 1 to 100000; write e.g. initcwnd: 4",
    ),
    "a host as a word": (
        changed(more="transport: {hosts: {p0e0h0: reno}}"),
        "bad.yaml:6: transport.hosts.p0e0h0: got 'reno'; accepted: a mapping of tcp, rto_min_ms, initcwnd, cwnd_clamp; write e.g. "
        "p0e0h0: {tcp: reno}",
    ),
    "a job's transport as a word": (
        changed(load="load: [{use: stride, step: 1, transport: reno}]"),
        "bad.yaml:6: load.0.transport: got 'reno'; accepted: a mapping of tcp, rto_min_ms, initcwnd and cwnd_clamp; write e.g. "
        "transport: {tcp: reno}",
    ),
    "a job with a key of the run": (
        changed(load="load: [{use: stride, step: 1, transport: {ecn: false}}]"),
        "bad.yaml:6: load.0.transport.ecn: got an unknown key; accepted: tcp, rto_min_ms, initcwnd, cwnd_clamp; remove it",
    ),
    "a first window over the largest": (
        changed(more="transport: {initcwnd: 9, cwnd_clamp: 8}"),
        "bad.yaml:6: transport.initcwnd: got 9; accepted: at most cwnd_clamp, which is 8 there; write e.g. initcwnd: 8",
    ),
    "a largest window below the first of the run": (
        changed(collective="collective: {use: ring-allreduce, nbytes: 64KiB, transport: {cwnd_clamp: 8}}", more="transport: {initcwnd: 9}"),
        "bad.yaml:5: collective.transport.cwnd_clamp: got 8; accepted: at least initcwnd, which is 9 there; write e.g. cwnd_clamp: 9",
    ),
    "a congestion control whose file is not there": (
        changed(more="transport: {tcp: ./my_cc.bpf.c}"),
        "bad.yaml:6: transport.tcp: got './my_cc.bpf.c': no file <folder>/my_cc.bpf.c; accepted: a BPF program in C or its object; "
        "it is looked up from the experiment's folder",
    ),
    "an object that is none": (
        changed(more="transport: {hosts: {p0e0h0: {tcp: ./text.o}}}"),
        "bad.yaml:6: transport.hosts.p0e0h0.tcp: got './text.o': text.o is no BPF object with BTF (it is not a 64-bit little-endian "
        "ELF file); accepted: what clang -g -target bpf makes; compile it anew",
    ),
    "telemetry that is too fast": (
        changed(more="telemetry: {period_ms: 1}"),
        "bad.yaml:6: telemetry.period_ms: got 1; accepted: a whole number from 5 to 1000; write e.g. period_ms: 10",
    ),
    "links as a number": (
        changed(links="links: 20"),
        "bad.yaml:3: links: got 20; accepted: a mapping with mbps; write e.g. links: {mbps: 20}",
    ),
    "topology as a name": (
        changed(topology="topology: fat-tree"),
        "bad.yaml:2: topology: got 'fat-tree'; accepted: a mapping with use; write e.g. topology: {use: "
        "fat-tree, k: 4}",
    ),
    "an unknown topology": (
        changed(topology="topology: {use: fattree}"),
        "bad.yaml:2: topology.use: got 'fattree'; accepted: <topology>, pkg.module:attr, or ./file.py[:attr];"
        " did you mean fat-tree?",
    ),
    "an odd fat-tree": (
        changed(topology="topology: {use: fat-tree, k: 3}"),
        "bad.yaml:2: topology.k: got 3; accepted: an even number from 2 to 254; a fat-tree halves every switch's ports",
    ),
    "a fat-tree of text": (
        changed(topology="topology: {use: fat-tree, k: four}"),
        "bad.yaml:2: topology.k: got 'four'; accepted: a whole number; write e.g. k: 4",
    ),
    "a misspelt topology parameter": (
        changed(topology="topology: {use: single-switch, host: 4}"),
        "bad.yaml:2: topology.host: got an unknown key; accepted: use, hosts; did you mean hosts?",
    ),
    "a topology file that is not there": (
        changed(topology="topology: {use: ./mine.py}"),
        "bad.yaml:2: topology.use: got './mine.py': no file <folder>/mine.py; a file is looked up from the "
        "experiment's folder",
    ),
    "a topology that is no module": (
        changed(topology="topology: {use: no_such.module:f}"),
        "bad.yaml:2: topology.use: got 'no_such.module:f': cannot be imported: ModuleNotFoundError: No module"
        " named 'no_such'; mend no_such.module",
    ),
    "a topology that gives no fabric": (
        changed(topology="topology: {use: 'builtins:list'}"),
        "bad.yaml:2: topology.use: got a list from builtins:list; accepted: a Fabric; return build.fabric()",
    ),
    "an unknown controller": (
        changed(controller="controller: {use: ecpm}"),
        "bad.yaml:4: controller.use: got 'ecpm'; accepted: <controller>, pkg.module:attr, or "
        "./file.py[:attr]; did you mean ecmp?",
    ),
    "an unknown controller parameter": (
        changed(controller="controller: {use: ecmp, pol_ms: 50}"),
        "bad.yaml:4: controller.pol_ms: got an unknown key; accepted: use, poll_ms; did you mean poll_ms?",
    ),
    "a controller asked too often": (
        changed(controller="controller: {use: ecmp, poll_ms: 1}"),
        "bad.yaml:4: controller.poll_ms: got 1; accepted: a whole number from 10 to 5000; write e.g. poll_ms: 100",
    ),
    "a policy misspelt": (
        changed(controller="controller: {use: adaptive, policy: exakt}"),
        "bad.yaml:4: controller.policy: got 'exakt'; accepted: annealing, combined, ecn-tuner, exact, first-fit, incast-guard, interleave, "
        "least-loaded, max-min, priority, weighted, "
        "pkg.module:attr, or ./file.py[:attr]; did you mean exact?",
    ),
    "an option the policy has not": (
        changed(controller="controller: {use: adaptive, policy: least-loaded, options: {budget: 3}}"),
        "bad.yaml:4: controller.options: got the option 'budget'; accepted: margin; remove it",
    ),
    "hints to a controller that takes none": (
        changed(collective="collective: {use: ring-allreduce, nbytes: 1KiB, hints: true}"),
        "bad.yaml:5: collective.hints: got true; accepted: false, as ecmp takes no hints; remove hints, or write e.g. "
        "controller: {use: adaptive}",
    ),
    "a policy without the hints that it goes by": (
        changed(
            controller="controller: {use: congestion, policy: priority}", collective="collective: {use: ring-allreduce, nbytes: 1KiB, hints: false}"
        ),
        "bad.yaml:5: collective.hints: got false; accepted: one that priority can go by; write e.g. hints: true, or choose another policy",
    ),
    "jobs to interleave that have no clock": (
        changed(
            controller="controller: {use: congestion, policy: interleave}", collective="collective: {use: ring-allreduce, nbytes: 1KiB, hints: true}"
        ),
        "bad.yaml:5: collective.compute_ms: got nothing; accepted: one that interleave can go by; write e.g. compute_ms: 500, "
        "or choose another policy",
    ),
    "clocks for ranks that do not wait for each other": (
        changed(collective="collective: {use: incast, nbytes: 1KiB, compute_ms: 100}"),
        "bad.yaml:5: collective.compute_ms: got 100; accepted: none with incast, whose ranks do not wait for each other; remove it",
    ),
    "jobs that begin apart and have no clock": (
        changed(collective="collective: {use: ring-allreduce, nbytes: 1KiB, stagger_ms: 100}"),
        "bad.yaml:5: collective.stagger_ms: got 100; accepted: none where all ranks begin together; add e.g. compute_ms: 500, or remove it",
    ),
    "an empty name": (
        changed(controller="controller: {use: ''}"),
        "bad.yaml:4: controller.use: got ''; accepted: a name, pkg.module:attr, or ./file.py[:attr]; write "
        "e.g. use: ecmp",
    ),
    "a collective without sizes": (
        changed(collective="collective: {use: ring-allreduce}"),
        "bad.yaml:5: collective.nbytes: got nothing; accepted: one or a list of multiples of 4 from 4 to "
        "1GiB, in bytes or with B, KiB, MiB, GiB, kB, MB, GB; add e.g. nbytes: [64KiB, 1MiB]",
    ),
    "a size that is no multiple of 4": (
        changed(collective="collective: {use: ring-allreduce, nbytes: [64KiB, 6]}"),
        "bad.yaml:5: collective.nbytes.1: got 6; accepted: one or a list of multiples of 4 from 4 to 1GiB, in"
        " bytes or with B, KiB, MiB, GiB, kB, MB, GB; write e.g. nbytes: [64KiB, 1MiB]",
    ),
    "a size in a wrong unit": (
        changed(collective="collective: {use: ring-allreduce, nbytes: 64KB}"),
        "bad.yaml:5: collective.nbytes: got '64KB'; accepted: one or a list of multiples of 4 from 4 to 1GiB,"
        " in bytes or with B, KiB, MiB, GiB, kB, MB, GB; write e.g. nbytes: [64KiB, 1MiB]",
    ),
    "a size too large": (
        changed(collective="collective: {use: ring-allreduce, nbytes: 2GiB}"),
        "bad.yaml:5: collective.nbytes: got '2GiB'; accepted: one or a list of multiples of 4 from 4 to 1GiB,"
        " in bytes or with B, KiB, MiB, GiB, kB, MB, GB; write e.g. nbytes: [64KiB, 1MiB]",
    ),
    "no sizes": (
        changed(collective="collective: {use: ring-allreduce, nbytes: []}"),
        "bad.yaml:5: collective.nbytes: got []; accepted: one or a list of multiples of 4 from 4 to 1GiB, in "
        "bytes or with B, KiB, MiB, GiB, kB, MB, GB; write e.g. nbytes: [64KiB, 1MiB]",
    ),
    "a size twice": (
        changed(collective="collective: {use: ring-allreduce, nbytes: [1KiB, 1024]}"),
        "bad.yaml:5: collective.nbytes: got 1024 bytes twice; accepted: each size once; remove one",
    ),
    "more ranks than hosts": (
        changed(collective="collective: {use: ring-allreduce, nbytes: 1KiB, ranks: 17}"),
        "bad.yaml:5: collective.ranks: got 17; accepted: at most 16, the hosts of this topology; use fewer, "
        "or a larger topology",
    ),
    "one rank": (
        changed(collective="collective: {use: ring-allreduce, nbytes: 1KiB, ranks: 1}"),
        "bad.yaml:5: collective.ranks: got 1; accepted: all, a number of 2 or more, or a list of two or more "
        "host names; write e.g. ranks: all",
    ),
    "a rank on no host": (
        changed(collective="collective: {use: ring-allreduce, nbytes: 1KiB, ranks: [p0e0h0, p0e0h9]}"),
        "bad.yaml:5: collective.ranks: got 'p0e0h9'; accepted: hosts of this topology: p0e0h0, p0e0h1, "
        "p0e1h0, p0e1h1, ...; did you mean p0e0h1?",
    ),
    "a host twice": (
        changed(collective="collective: {use: ring-allreduce, nbytes: 1KiB, ranks: [p0e0h0, p0e0h0]}"),
        "bad.yaml:5: collective.ranks: got ['p0e0h0', 'p0e0h0']; accepted: two or more host names, each once;"
        " write e.g. ranks: all",
    ),
    "a random order of a given one": (
        changed(
            collective="collective: {use: ring-allreduce, nbytes: 1KiB, ranks: [p0e0h0, p0e0h1], placement: random}"
        ),
        "bad.yaml:5: collective.placement: got 'random'; accepted: ranked beside a list of hosts, whose order"
        " is the ranks'; remove placement",
    ),
    "a parameter the collective has not": (
        changed(collective="collective: {use: ring-allreduce, nbytes: 1KiB, iteration: 5}"),
        "bad.yaml:5: collective.iteration: got an unknown key; accepted: use, ranks, placement, nbytes, "
        "channels, dtype, iterations, warmup, check, hints, late_ms, compute_ms, stagger_ms, transport, groups; did you mean iterations?",
    ),
    "groups that do not divide the ranks": (
        changed(collective="collective: {use: ring-allreduce, nbytes: 1KiB, ranks: 12, groups: 5}"),
        "bad.yaml:5: collective.groups: got 5; accepted: 1, 2, 3, 4, 6 for 12 ranks, two or more in each",
    ),
    "groups in words": (
        changed(collective="collective: {use: ring-allreduce, nbytes: 1KiB, groups: two}"),
        "bad.yaml:5: collective.groups: got 'two'; accepted: a whole number; write e.g. groups: 1",
    ),
    "zero iterations": (
        changed(collective="collective: {use: ring-allreduce, nbytes: 1KiB, iterations: 0}"),
        "bad.yaml:5: collective.iterations: got 0; accepted: a whole number from 1 to 100000; write e.g. "
        "iterations: 20",
    ),
    "another dtype": (
        changed(collective="collective: {use: ring-allreduce, nbytes: 1KiB, dtype: float16}"),
        "bad.yaml:5: collective.dtype: got 'float16'; accepted: float32 or int32; write e.g. dtype: float32",
    ),
    "check in words": (
        changed(collective="collective: {use: ring-allreduce, nbytes: 1KiB, check: maybe}"),
        "bad.yaml:5: collective.check: got 'maybe'; accepted: true or false; write e.g. check: true",
    ),
    "a duration beside a collective": (
        changed(more="duration_s: 10"),
        "bad.yaml:6: duration_s: got 10; accepted: none beside a collective, whose iterations end the run; "
        "remove duration_s or collective",
    ),
    "a load without duration": (
        changed(collective="", load="load: [{use: stride, step: 8}]"),
        "bad.yaml:1: duration_s: got nothing; accepted: a number above 0 and at most 3600, as no collective "
        "ends the run; add e.g. duration_s: 10",
    ),
    "a load that is a mapping": (
        changed(load="load: {use: stride, step: 8}"),
        "bad.yaml:6: load: got {use: 'stride', step: 8}; accepted: a list of mappings with use; write e.g. "
        "load: [{use: stride, step: 8}]",
    ),
    "a load without its step": (
        changed(load="load: [{use: stride}]"),
        "bad.yaml:6: load.0.step: got nothing; accepted: a whole number; add e.g. step: 1",
    ),
    "a step in words": (
        changed(load="load:\n  - {use: permutation}\n  - {use: stride, step: far}"),
        "bad.yaml:8: load.1.step: got 'far'; accepted: a whole number; write e.g. step: 1",
    ),
    "a step onto itself": (
        changed(load="load:\n  - {use: permutation}\n  - {use: stride,\n     step: 16}"),
        "bad.yaml:9: load.1.step: got 16; accepted: 1 to 15 for 16 hosts, none to itself",
    ),
    "a load of no rate": (
        changed(load="load: [{use: permutation, mbps: 0}]"),
        "bad.yaml:6: load.0.mbps: got 0; accepted: a number above 0 and at most 100000; write e.g. mbps: 5",
    ),
    "a load of a negative seed": (
        changed(load="load: [{use: permutation, seed: -1}]"),
        "bad.yaml:6: load.0.seed: got -1; accepted: a whole number from 0, below 2^63; write e.g. seed: 7",
    ),
    "a load of a seed in words": (
        changed(load="load:\n  - {use: permutation}\n  - {use: permutation, seed: mine}"),
        "bad.yaml:8: load.1.seed: got 'mine'; accepted: a whole number from 0, below 2^63; write e.g. seed: 7",
    ),
    "a load of a fractional seed": (
        changed(load="load: [{use: permutation, seed: 1.5}]"),
        "bad.yaml:6: load.0.seed: got 1.5; accepted: a whole number from 0, below 2^63; write e.g. seed: 7",
    ),
    "an incast of everyone": (
        changed(load="load: [{use: incast, senders: 16}]"),
        "bad.yaml:6: load.0.senders: got 16; accepted: 1 to 15 for 16 hosts, one receives",
    ),
    "a staggered load without its shares": (
        changed(load="load: [{use: staggered, edge: 0.5}]"),
        "bad.yaml:6: load.0.pod: got nothing; accepted: a number; add e.g. pod: 1.5",
    ),
    "a staggered load that is told its fabric": (
        changed(load="load: [{use: staggered, edge: 0.5, pod: 0.3, fabric: fat-tree}]"),
        "bad.yaml:6: load.0.fabric: got an unknown key; accepted: use, mbps, hosts, seed, transport, edge, pod; remove it",
    ),
    "a staggered load of more than everything": (
        changed(load="load: [{use: staggered, edge: 0.8, pod: 0.3}]"),
        "bad.yaml:6: load.0.pod: got 0.3; accepted: 0 to 0.2 beside edge: 0.8, both are shares of 1",
    ),
    "a staggered load where no pod is": (
        changed(topology="topology: {use: single-switch}", load="load: [{use: staggered, edge: 0.75, pod: 0}]"),
        "bad.yaml:6: load.0.pod: got a probability of 0.25 outside the pod of h0, where this load has no other host; "
        "accepted: 0 there; change edge and pod, or the hosts",
    ),
    "an event of nothing": (
        changed(events="events: [{at_s: 1, do: down}]"),
        "bad.yaml:6: events.0: got neither link, switch nor controller; accepted: one of link, switch and controller; "
        "add e.g. link: [p0a0, g0c0]",
    ),
    "an event of two things": (
        changed(events="events: [{at_s: 1, do: down, link: [p0a0, g0c0], switch: g0c0}]"),
        "bad.yaml:6: events.0: got link and switch; accepted: one of link, switch and controller; remove switch",
    ),
    "an event without its time": (
        changed(events="events: [{do: down, switch: g0c0}]"),
        "bad.yaml:6: events.0.at_s: got nothing; accepted: a number from 0 to 3600; add e.g. at_s: 5",
    ),
    "an event that does what none does": (
        changed(events="events: [{at_s: 1, do: flap, switch: g0c0}]"),
        "bad.yaml:6: events.0.do: got 'flap'; accepted: down, up or rate; write e.g. do: down",
    ),
    "a link of one node": (
        changed(events="events: [{at_s: 1, do: down, link: [p0a0]}]"),
        "bad.yaml:6: events.0.link: got ['p0a0']; accepted: a list of two nodes; write e.g. link: [p0a0, g0c0]",
    ),
    "a link to nowhere": (
        changed(events="events: [{at_s: 1, do: down, link: [p0a0, spine]}]"),
        "bad.yaml:6: events.0.link: got 'spine'; accepted: nodes of this topology: g0c0, g0c1, g1c0, g1c1, ...; "
        "take the names from the topology",
    ),
    "a link that is not there": (
        changed(events="events: [{at_s: 1, do: down, link: [p0a0, p1a0]}]"),
        "bad.yaml:6: events.0.link: got ['p0a0', 'p1a0']; accepted: two nodes with a link; p0a0 has links to p0e0, p0e1, g0c0, "
        "g0c1; name one of these",
    ),
    "an event of a switch that is a host": (
        changed(events="events: [{at_s: 1, do: down, switch: p0e0h0}]"),
        "bad.yaml:6: events.0.switch: got 'p0e0h0'; accepted: switches of this topology: g0c0, g0c1, g1c0, g1c1, ...; "
        "did you mean p0e0?",
    ),
    "the rate of a switch": (
        changed(events="events: [{at_s: 1, do: rate, mbps: 5, switch: g0c0}]"),
        "bad.yaml:6: events.0.do: got 'rate'; accepted: down or up of a switch or of the controller; write do: down, or name "
        "a link",
    ),
    "a rate that is not said": (
        changed(events="events: [{at_s: 1, do: rate, link: [p0a0, g0c0]}]"),
        "bad.yaml:6: events.0.mbps: got nothing; accepted: the link's new rate beside do: rate; add e.g. mbps: 5",
    ),
    "a rate of what goes down": (
        changed(events="events: [{at_s: 1, do: down, mbps: 5, link: [p0a0, g0c0]}]"),
        "bad.yaml:6: events.0.mbps: got 5.0; accepted: none beside another do than rate; remove it, or write do: rate",
    ),
    "flaps without a rhythm": (
        changed(events="events: [{at_s: 1, do: down, link: [p0a0, g0c0], times: 10}]"),
        "bad.yaml:6: events.0.every_s: got nothing; accepted: the seconds from one time to the next; add e.g. every_s: 2",
    ),
    "a rhythm of one": (
        changed(events="events: [{at_s: 1, do: down, link: [p0a0, g0c0], every_s: 2}]"),
        "bad.yaml:6: events.0.every_s: got 2.0; accepted: none for an event that happens once; remove it, or add e.g. "
        "times: 10",
    ),
    "an event after the end": (
        changed(
            collective="", load="load: [{use: stride, step: 8}]", duration_s="duration_s: 10",
            events="events: [{at_s: 4, do: down, link: [p0a0, g0c0], times: 4, every_s: 2}]",
        ),
        "bad.yaml:7: events.0.at_s: got one at 10 s; accepted: events before duration_s, which is 10; let it come earlier, or "
        "last longer",
    ),
    "a controller that is false": (
        changed(events="events: [{at_s: 1, do: down, controller: false}]"),
        "bad.yaml:6: events.0.controller: got false; accepted: true; write e.g. controller: true",
    ),
    "no idle host": (
        changed(load="load: [{use: permutation, hosts: idle}]"),
        "bad.yaml:6: load.0.hosts: got 'idle'; accepted: hosts with two or more free of ranks; use fewer "
        "ranks, or write hosts: all",
    ),
    "a congestion control that cannot be": (
        changed(more="transport: {tcp: Cubic}"),
        "bad.yaml:6: transport.tcp: got 'Cubic'; accepted: reno, cubic, bbr, dctcp, another kernel name, or a file of yours, ./my_cc.bpf.c or .o; "
        "write e.g. tcp: cubic",
    ),
    "a timeout of zero": (
        changed(more="transport: {rto_min_ms: 0}"),
        "bad.yaml:6: transport.rto_min_ms: got 0; accepted: a whole number from 1 to 10000; write e.g. rto_min_ms: 200",
    ),
    "the first of two errors": (
        changed(links="links: {mtu: 1}", more="seed: -1"),
        "bad.yaml:3: links.mtu: got 1; accepted: a whole number from 576 to 9216; write e.g. mtu: 9000",
    ),
    "a sweep that is a list": (
        changed(sweep="sweep: [1, 2]"),
        "bad.yaml:6: sweep: got [1, 2]; accepted: a mapping of key paths to lists of values; write e.g. "
        "sweep: {controller.use: [ecmp]}",
    ),
    "a sweep of nothing": (
        changed(sweep="sweep: {links.mbps: []}"),
        "bad.yaml:6: sweep.links.mbps: got []; accepted: a list of one or more values; write e.g. links.mbps: [1, 2]",
    ),
    "a sweep of one value": (
        changed(sweep="sweep: {links.mbps: 5}"),
        "bad.yaml:6: sweep.links.mbps: got 5; accepted: a list of one or more values; write e.g. links.mbps: [1, 2]",
    ),
    "a sweep of the seed": (
        changed(sweep="sweep: {seed: [1, 2]}"),
        "bad.yaml:6: sweep.seed: got a key path that cannot be swept; accepted: one that begins with "
        "topology, links, controller, collective, jobs, workload, load, requests, events, duration_s, transport, telemetry; write e.g. controller.use",
    ),
    "a sweep of no key": (
        changed(sweep="sweep: {link.mbps: [1, 2]}"),
        "bad.yaml:6: sweep.link.mbps: got a key path that cannot be swept; accepted: one that begins with "
        "topology, links, controller, collective, jobs, workload, load, requests, events, duration_s, transport, telemetry; did you mean links?",
    ),
    "a bad value late in a sweep": (
        changed(sweep="sweep:\n  controller.use: [ecmp, two-level]\n  links.mbps:\n    - 5\n    - -5"),
        "bad.yaml:10: links.mbps: got -5; accepted: a number above 0 and at most 100000; write e.g. mbps: 20",
    ),
    "a sweep that breaks another key": (
        changed(
            controller="controller: {use: ecmp, poll_ms: 50}",
            collective=GOOD["collective"][:-1] + ", ranks: 16}",
            sweep="sweep:\n  topology.k: [4, 2]",
        ),
        "bad.yaml:5: collective.ranks: got 16; accepted: at most 2, the hosts of this topology; use fewer, or"
        " a larger topology [in the sweep, at topology.k: 2 (line 7)]",
    ),
    "a sweep past the end of a list": (
        changed(load="load: [{use: permutation}]", sweep="sweep: {load.3.mbps: [5]}"),
        "bad.yaml:7: load: got [{use: 'permutation'}]; accepted: an index from 0 to 0; write the key path as "
        "it stands in the file, e.g. load.0.step",
    ),
    "a sweep into a number": (
        changed(sweep="sweep: {links.mbps.fast: [5]}"),
        "bad.yaml:6: links.mbps: got 20; accepted: a mapping, which links.mbps.fast can go into; write the "
        "key path as it stands in the file, e.g. load.0.step",
    ),
    "a point twice": (
        changed(sweep="sweep: {links.mbps: [5, 20, 5.0]}"),
        "bad.yaml:6: sweep.links.mbps.2: got the point mbps=5.0 twice; accepted: points that differ; remove one",
    ),
    "too many variants": (
        changed(
            more="repeat: 2",
            sweep="sweep: {links.mbps: &n [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11], links.mtu: *n, load: *n, transport: *n}",
        ),
        "bad.yaml:7: sweep: got 14641 variants; accepted: at most 10000; sweep less",
    ),
    "too many points": (
        changed(more="repeat: 1000", sweep="sweep: {links.mbps: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]}"),
        "bad.yaml:6: repeat: got 11000 points in all; accepted: at most 10000; repeat or sweep less",
    ),
    "a topology file of its own that refuses": (
        changed(topology="topology: {use: './plug.py:line', n: 1}"),
        "bad.yaml:2: topology.n: got 1; accepted: 2 or more; a line has two ends",
    ),
    "a topology without a needed parameter": (
        changed(topology="topology: {use: './plug.py:line'}"),
        "bad.yaml:2: topology.n: got nothing; accepted: a whole number; add e.g. n: 1",
    ),
    "a topology of a wrong choice": (
        changed(topology="topology: {use: './plug.py:line', n: 4, shape: wide}"),
        "bad.yaml:2: topology.shape: got 'wide'; accepted: thin or thick; write e.g. shape: thin",
    ),
    "a topology with neither type of a union": (
        changed(topology="topology: {use: './plug.py:line', n: 4, spare: many}"),
        "bad.yaml:2: topology.spare: got 'many'; accepted: a whole number or null; write e.g. spare: 1",
    ),
    "a topology that crashes": (
        changed(topology="topology: {use: './plug.py:broken', x: 0}"),
        "bad.yaml:2: topology.use: got './plug.py:broken', which failed with ZeroDivisionError: division by "
        "zero; accepted: a plug-in that can be called; mend it or its parameters",
    ),
    "a function that is not in the file": (
        changed(topology="topology: {use: './plug.py:cube'}"),
        "bad.yaml:2: topology.use: got './plug.py:cube': <folder>/plug.py has no 'cube'; it has line, broken,"
        " even, shift",
    ),
    "a file with many functions": (
        changed(topology="topology: {use: ./plug.py}"),
        "bad.yaml:2: topology.use: got './plug.py': the module defines line, broken, even, shift; say which "
        "one, as ./plug.py:NAME",
    ),
    "a file that does not import": (
        changed(topology="topology: {use: ./typo.py}"),
        "bad.yaml:2: topology.use: got './typo.py': cannot be imported: ModuleNotFoundError: No module named "
        "'no_such_thing'; mend <folder>/typo.py",
    ),
    "a collective of a wrong signature": (
        changed(collective="collective: {use: './plug.py:broken', nbytes: 1KiB}"),
        "bad.yaml:5: collective.use: got './plug.py:broken': it takes (x: float = 1); accepted: (ranks, "
        "elements, ...); mend the plug-in",
    ),
    "a collective that refuses its ranks": (
        changed(collective="collective: {use: './plug.py:even', ranks: 3, nbytes: 1KiB}"),
        "bad.yaml:5: collective.ranks: got 3; accepted: an even number; add or remove one",
    ),
    "a load that refuses its parameter": (
        changed(load="load:\n  - use: ./plug.py:shift\n    by: 0"),
        "bad.yaml:8: load.0.by: got 0; accepted: another number; write by: 1",
    ),
    "a load to nowhere": (
        changed(load="load: [{use: ./plug.py:shift, by: 99}]"),
        "bad.yaml:6: load.0.use: got a flow from p0e0h0 to h99; accepted: flows between two hosts; mend the plug-in",
    ),
    "a controller of two apps": (
        changed(controller="controller: {use: ./two.py}"),
        "bad.yaml:4: controller.use: got './two.py': <folder>/two.py:4: got the app classes One (line 1), "
        "Another (line 4); accepted: one class of RyuApp or FabricApp; move the others to files of their own;"
        " Ryu runs only the first by alphabet",
    ),
    "a parameter the controller has not": (
        changed(controller="controller: {use: ./one.py, margn: 0.2}"),
        "bad.yaml:4: controller.margn: got an unknown key; accepted: use, poll_ms, margin; did you mean margin?",
    ),
    "a controller parameter of a wrong type": (
        changed(controller="controller: {use: ./one.py, margin: wide}"),
        "bad.yaml:4: controller.margin: got 'wide'; accepted: a number; write e.g. margin: 0.1",
    ),
    "a name too long for a file": (
        changed(controller="controller: {use: ./" + "é" * 190 + ".py}"),
        "bad.yaml:4: controller.use: got './" + "é" * 74 + "...; accepted: a name, pkg.module:attr, or "
        "./file.py[:attr]; shorten it",
    ),
    "a name no file can have": (
        changed(controller='controller: {use: "./a\\0b.py"}'),
        "bad.yaml:4: controller.use: got './a\\x00b.py'; accepted: a name, pkg.module:attr, or "
        "./file.py[:attr]; write e.g. use: ecmp",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_bad_file_gets_exactly_its_line(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message is the whole of it: one line, no traceback, nothing in pydantic's words."""
    monkeypatch.chdir(tmp_path)
    for name, source in FILES.items():
        Path(name).write_text(source)
    text, message = CASES[case]
    for kind in ("topology", "controller"):
        message = message.replace(f"<{kind}>", ", ".join(plugins.names(kind)))
    Path("bad.yaml").write_text(text)
    with pytest.raises(RequestError) as caught:
        load_experiment(Path("bad.yaml"))
    assert str(caught.value) == message.replace("<folder>", str(tmp_path))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """The path is told as it was given."""
    with pytest.raises(RequestError) as caught:
        load_experiment(tmp_path / "none.yaml")
    what = "cannot be read: No such file or directory; accepted: an experiment file; check the path"
    assert str(caught.value) == f"{tmp_path}/none.yaml: {what}"


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    """A folder gets the line that a file without permission would get."""
    with pytest.raises(RequestError, match="cannot be read: Is a directory; accepted: an experiment file"):
        load_experiment(tmp_path)


def test_a_file_in_another_encoding_is_refused_with_its_line(tmp_path: Path) -> None:
    """The line of the first byte that is not UTF-8."""
    (tmp_path / "latin.yaml").write_bytes("seed: 1\nquestion: Grüße?\n".encode("latin-1"))
    with pytest.raises(RequestError) as caught:
        load_experiment(tmp_path / "latin.yaml")
    what = "got the byte 0xfc; accepted: UTF-8 text; save the file as UTF-8"
    assert str(caught.value) == f"{tmp_path}/latin.yaml:2: {what}"


def test_the_first_error_of_several_is_told(tmp_path: Path) -> None:
    """In file order, whatever order the model has; what is missing counts at the end of its mapping."""
    (tmp_path / "bad.yaml").write_text("seed: -1\nlinks: {mbps: -5}\nquestion: 7\n")
    with pytest.raises(RequestError, match=r"bad\.yaml:1: seed: got -1;"):
        load_experiment(tmp_path / "bad.yaml")


def test_the_table_is_long_and_every_message_one_line() -> None:
    """Every message begins with its place and stays one line."""
    messages = [message for _, message in CASES.values()]
    assert len(messages) >= 100
    assert all(message.startswith("bad.yaml:") and "\n" not in message for message in messages)
