"""Starts an MPI program on the ranks of a run: mpirun on rank 0, Open MPI's daemons on the others, everything over TCP on the NICs.

    python3 mpirun.py python3 mpi_latency.py      as the command of `workload: {use: command}`

Open MPI starts its daemons by a remote shell. There is none in the hosts, and none is needed: each of the other ranks waits
at a port of its NIC for the one command line that rank 0 sends it, and runs that.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

PORT = 29400
PATIENCE_S = 30.0
LIMIT = 1 << 16  # bytes of a command line


def main() -> int:
    """By rank, and as the remote shell that Open MPI calls: `mpirun.py --shell HOST COMMAND...`."""
    if sys.argv[1:2] == ["--shell"]:
        return remotely(sys.argv[2], " ".join(sys.argv[3:]))
    if os.environ["RANK"] != "0":
        return serve(os.environ["FABRICLAB_ADDRESS"])
    addresses = os.environ["FABRICLAB_ADDRESSES"].split(",")
    hosts = [names()[address] for address in addresses]
    told = [
        "mpirun", "--allow-run-as-root", "--leave-session-attached", "--host", ",".join(f"{host}:1" for host in hosts), "--map-by", "node",
        "--mca", "plm_rsh_agent", f"{sys.executable} {Path(__file__).resolve()} --shell", "--mca", "plm_rsh_no_tree_spawn", "1",
        "--mca", "btl", "self,tcp", "--mca", "pml", "ob1", "--mca", "btl_tcp_if_include", "10.0.0.0/8", "--mca", "oob_tcp_if_include", "10.0.0.0/8",
        "--mca", "hwloc_base_binding_policy", "none", "--mca", "mpi_yield_when_idle", "1",
    ]  # fmt: skip
    return subprocess.run([*told, *sys.argv[1:]], check=False).returncode


def names() -> dict[str, str]:
    """By address, every host's name."""
    return {line.split()[0]: line.split()[1] for line in Path("/etc/hosts").read_text().splitlines()}


def remotely(host: str, command: str) -> int:
    """Have the host's rank run the command, and give its code when it has ended."""
    until = time.monotonic() + PATIENCE_S
    while True:
        try:
            channel = socket.create_connection((host, PORT), timeout=PATIENCE_S)
            break
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)
    with channel:
        channel.settimeout(None)
        channel.sendall(command.encode())
        channel.shutdown(socket.SHUT_WR)
        return int(channel.recv(16) or b"1")


def serve(address: str) -> int:
    """Run the one command that comes; its code goes back, and is this rank's own."""
    with socket.create_server((address, PORT)) as server:
        server.settimeout(PATIENCE_S)
        channel, _ = server.accept()
    with channel:
        command = b""
        while len(command) < LIMIT and (more := channel.recv(LIMIT)):
            command += more
        code = subprocess.run(["/bin/sh", "-c", command.decode()], check=False).returncode
        channel.sendall(str(code).encode())
    return code


if __name__ == "__main__":
    sys.exit(main())
