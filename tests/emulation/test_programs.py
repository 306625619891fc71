"""Programs as the workload: what they are told, what they live in, and each way in which they can go wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.emulation

PROGRAMS = Path(__file__).parents[2] / "experiments" / "programs"
FILE = """
question: Does a program of anybody's run in the hosts?
topology: {use: fat-tree, k: 2}
links: {mbps: 20, mtu: 9000}
controller: {use: ecmp}
workload: {use: command, command: "python3 program.py", timeout_s: 20}
"""
RING = """
import json, os, socket, sys, threading, time
rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
hosts = os.environ["FABRICLAB_ADDRESSES"].split(",")
server = socket.create_server((hosts[rank], 7000))
for _ in range(200):
    try:
        ahead = socket.create_connection((hosts[(rank + 1) % world], 7000))
        break
    except OSError:
        time.sleep(0.02)
behind, _ = server.accept()

def send():
    for _ in range(50):
        ahead.sendall(bytes(40_000))
    ahead.close()

sending = threading.Thread(target=send)
sending.start()
got = 0
while data := behind.recv(65536):
    got += len(data)
sending.join()
names = {line.split()[1]: line.split()[0] for line in open("/etc/hosts").read().splitlines()}
print(json.dumps({"name": socket.gethostname(), "address": names[socket.gethostname()], "got": got, "interfaces": os.listdir("/sys/class/net"),
                  "processes": [name for name in os.listdir("/proc") if name.isdigit()], "argument": sys.argv[1:]}))
if rank == 0:
    json.dump({"got": got}, open(os.environ["FABRICLAB_REPORT"], "w"))
"""


def run(fabriclab: Any, file: str) -> list[dict[str, Any]]:
    """The rows of programs, be they refused; output is in the command's folder."""
    (fabriclab.folder / "program.py").write_text(RING)
    done = fabriclab.alone("run", str(fabriclab.file(file)), "--json", "--out", str(fabriclab.folder))
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == all(row["refused"] for row in rows), done.stderr
    return rows


def left_over(word: str) -> list[str]:
    """Processes whose command line has the word."""
    found = []
    for one in Path("/proc").iterdir():
        if one.name.isdigit() and int(one.name) != os.getpid():
            try:
                line = (one / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if word in line:
                found.append(line)
    return found


def test_a_program_runs_in_every_rank_s_host(fabriclab: Any, state: Any) -> None:
    """It has a host's name, addresses and interfaces, sees its own processes only, and its bytes are on the NICs."""
    before = state()
    (row,) = run(fabriclab, FILE.replace("program.py", "program.py --deep"))
    (output,) = fabriclab.folder.glob("*/points/*/programs")
    assert row["refused"] is None and row["reported"] == {"got": 2_000_000}
    assert (row["workload"], row["ranks"], row["collective"]) == ("python3 program.py --deep", 2, None)
    for rank, name in enumerate(("p0e0h0", "p1e0h0")):
        said = json.loads((output / f"rank-{rank:03d}.out").read_text())
        assert (said["name"], said["got"], said["argument"]) == (name, 2_000_000, ["--deep"])
        assert said["address"].startswith("10.") and sorted(said["interfaces"]) == ["lo", f"{name}-eth0"]
        assert len(said["processes"]) <= 3  # the first one, the shell, and the program
    # 2 MB from each of two, with 66 bytes of headers for each 8948, and as many acknowledgements at most
    assert 4_000_000 * 1.007 <= row["nic_bytes"] <= 4_000_000 * 1.02
    assert row["program_s"] >= 2_000_000 * 8 / 20e6
    assert state() == before


def test_beside_a_load(fabriclab: Any) -> None:
    """Which runs as long as the program does."""
    file = FILE.replace("k: 2", "k: 4").replace("timeout_s", "ranks: [p0e0h0, p1e0h0], timeout_s") + "load: [{use: stride, step: 8, hosts: idle}]\n"
    (row,) = run(fabriclab, file)
    assert row["refused"] is None and row["load_goodput_mbps"] > 0 and row["load_share_predicted"] is None
    (folder,) = fabriclab.folder.glob("tiny-*")
    told = fabriclab.call("explain", str(folder))
    assert told.returncode == 0 and "slowest flow" in told.stdout, told.stdout + told.stderr


STALLS = "import os, subprocess, time\nsubprocess.Popen(['sleep', '86411'], start_new_session=True)\nos.environ['RANK'] == '1' and time.sleep(3600)\n"
WRONG = {  # by name: the program, how long it may take, and what is said of it
    "fails": ("import os\nassert os.environ['RANK'] != '1', 'no GPU'", 20, "rank 1 on p1e0h0 ended with code 1: AssertionError: no GPU; see programs/rank-001.err"),
    "is_killed": ("import os\nos.environ['RANK'] == '1' and os.kill(os.getpid(), 9)", 20, "rank 1 on p1e0h0 ended with code 137 (signal 9): "),
    "is_alone": ("print('hello')", 20, "the program put no bytes on the NICs of its hosts: have it use the interface in FABRICLAB_INTERFACE"),
    "reports_nonsense": (RING.replace('json.dump({"got": got}', "json.dump([got]"), 20, "what rank 0 reported is no JSON object; see programs/rank-000.json"),
    "chooses_another": (RING.replace("def send():", "ahead.setsockopt(6, 13, b'reno')\ndef send():"), 20, "rank 0 on p0e0h0 used reno, asked for cubic"),
    "stalls": (STALLS, 2, "rank 1 on p1e0h0 still ran after 2 s: it printed no error; see programs/rank-001.err"),
    "is_waited_for": (STALLS + "raise SystemExit(3)", 600, "rank 0 on p0e0h0 ended with code 3: it printed no error; see programs/rank-000.err"),
}


def test_what_goes_wrong_is_told(fabriclab: Any) -> None:
    """By rank and host, with the last thing that it said, and in time: where one has failed nobody waits for the others."""
    variants = []
    for name, (program, timeout_s, _) in WRONG.items():
        (fabriclab.folder / f"{name}.py").write_text(program)
        variants.append({"use": "command", "command": f"python3 {name}.py", "timeout_s": timeout_s})
    started = time.monotonic()
    rows = run(fabriclab, f"{FILE}sweep: {{workload: {json.dumps(variants)}}}\n")
    said = {row["workload"].removeprefix("python3 ").removesuffix(".py"): row["refused"] for row in rows}
    assert said.keys() == WRONG.keys()
    assert all((said[name] or "").startswith(words) for name, (_, _, words) in WRONG.items()), said
    assert time.monotonic() - started < 120
    assert not left_over("86411")


def test_mpi_speaks_over_the_network(fabriclab: Any) -> None:
    """mpirun starts on rank 0, its daemons on the others; a table in OSU's form; all bytes are on the NICs."""
    command = f"python3 {PROGRAMS / 'mpirun.py'} /usr/bin/python3 {PROGRAMS / 'mpi_latency.py'} --most 32768 --iterations 5"
    (row,) = run(fabriclab, FILE.replace("python3 program.py", command).replace("k: 2", "k: 4").replace("timeout_s", "ranks: 3, timeout_s"))
    assert row["refused"] is None, row["refused"]
    (output,) = fabriclab.folder.glob("*/points/*/programs")
    lines = (output / "rank-000.out").read_text().splitlines()
    assert lines[1] == "# Size          Latency (us)" and [int(line.split()[0]) for line in lines[2:]] == [1 << power for power in range(16)]
    assert len(row["reported"]) == 16 and row["reported"]["32768 B, us"] >= (32768 - 2 * 9014) * 8 / 20  # idle links pass two frames at once
    assert row["nic_bytes"] > 2 * 7 * 65535  # what both ranks of each ping-pong sent


def test_pytorch_trains_alike_on_every_rank(fabriclab: Any) -> None:
    """The same loss and, to the last bit, the same parameters; and its own all-reduces are right."""
    if subprocess.run([sys.executable, "-c", "import torch.distributed"], capture_output=True, check=False).returncode:
        pytest.skip('PyTorch is not installed: pip install "fabriclab[torch]"')
    file = FILE.replace("k: 2", "k: 4").replace("timeout_s: 20", "timeout_s: 120, ranks: 4")
    (row,) = run(fabriclab, file.replace("python3 program.py", f"python3 {PROGRAMS / 'torch_ddp.py'} --steps 4 --width 64"))
    assert row["refused"] is None, row["refused"]
    said = {path.read_text().split(": ")[1] for path in fabriclab.folder.glob("*/points/*/programs/*.out")}
    assert len(said) == 1 and row["reported"]["parameters"] in said.pop() and row["reported"]["last loss"] < row["reported"]["first loss"]
    (row,) = run(fabriclab, file.replace("python3 program.py", f"python3 {PROGRAMS / 'torch_allreduce.py'} --sizes 65536 --iterations 2"))
    assert row["refused"] is None and 0 < row["reported"]["65536 B, busbw Mb/s"] < 20
    assert row["nic_bytes"] > 4 * 4 * 2 * 3 / 4 * 65536  # four all-reduces of four ranks


def test_nothing_is_left_when_the_run_is_killed(fabriclab: Any, start_alone: Any) -> None:
    """Programs end with the run, whatever they do."""
    (fabriclab.folder / "program.py").write_text("import subprocess\nsubprocess.run(['sleep', '86422'])\n")
    running = start_alone(fabriclab, "run", str(fabriclab.file(FILE)), "--out", str(fabriclab.folder))
    until = time.monotonic() + 60
    while len(left_over("86422")) < 2 and time.monotonic() < until:
        time.sleep(0.1)
    assert len(left_over("86422")) >= 2
    running.kill()
    until = time.monotonic() + 20
    while left_over("86422") and time.monotonic() < until:
        time.sleep(0.1)
    assert not left_over("86422")
    fabriclab.alone("clean")
