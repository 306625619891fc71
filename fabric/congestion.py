"""A congestion control that is somebody's own: a BPF program in a file, found, compiled where it is C, and read.

Comes in: `./my_cc.bpf.c` or `./my_cc.bpf.o`, as `transport.tcp` has it. Goes out: an object that `fabric.libbpf` can load,
and what its `tcp_congestion_ops` says of itself: its name, and whether it needs ECN. Reading needs neither root nor libbpf.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import struct
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from fabric.errors import MachineError, RequestError
from fabric.libbpf import objects

__all__ = ["Declared", "compiled", "compiler", "declared", "fingerprint", "is_file", "located", "uncompiled"]

_COMPILERS = ("clang", *(f"clang-{version}" for version in range(21, 11, -1)))
_REMEDY = "apt-get install clang llvm libbpf-dev, or give the .o"
_DEADLINE_S = 60.0
_NEEDS_ECN, _NON_RESTRICTED = 0x2, 0x1  # include/net/tcp.h
_INT, _ARRAY, _STRUCT, _UNION, _ENUM, _FUNC_PROTO, _VAR, _DATASEC, _DECL_TAG, _ENUM64 = 1, 3, 4, 5, 6, 13, 14, 15, 17, 19  # Documentation/bpf/btf.rst
_NAME_BYTES = 16  # TCP_CA_NAME_MAX, include/net/tcp.h
_OPS = "tcp_congestion_ops"


@dataclass(frozen=True, slots=True)
class Declared:
    """What an object's `tcp_congestion_ops` says: the name that sockets choose it by, and its flags."""

    name: str
    flags: int

    @property
    def needs_ecn(self) -> bool:
        """Whether it makes connections negotiate ECN, and is nothing without."""
        return bool(self.flags & _NEEDS_ECN)

    @property
    def non_restricted(self) -> bool:
        """Whether a network namespace may choose it without being allowed to."""
        return bool(self.flags & _NON_RESTRICTED)


def is_file(tcp: str) -> bool:
    """Whether `tcp` names a file, and no congestion control of the kernel's."""
    return "." in tcp or "/" in tcp


def located(tcp: str, base: Path) -> Path:
    """The file, relative to the experiment's; RequestError when there is none."""
    path = (base / tcp).resolve()
    if not path.is_file():
        raise RequestError(f"no file {path}; accepted: a BPF program in C or its object; it is looked up from the experiment's folder")
    return path


def fingerprint(path: Path) -> str:
    """The SHA-256 of a file, for the record."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def compiler() -> str | None:
    """A clang, None where there is none."""
    return next((found for name in _COMPILERS if (found := shutil.which(name))), None)


def uncompiled(path: Path) -> str:
    """Why a file cannot become an object here; '' when it can."""
    lacking = path.suffix == ".c" and compiler() is None
    return f"transport.tcp: {path.name} is to be compiled, and there is no clang here; remedy: {_REMEDY}" if lacking else ""


def compiled(source: Path, into: Path) -> Path:
    """The object of a C source, built into a folder; an object is itself.

    Our own header, `kernel.h`, is found. MachineError where there is no compiler or no libbpf headers, RequestError with
    the compiler's first complaint when the source is wrong.
    """
    if source.suffix == ".o":
        return source
    clang = compiler()
    if clang is None:
        raise MachineError(uncompiled(source))
    target = into / f"{source.stem}.o"
    words = [clang, "-g", "-O2", "-target", "bpf", "-mcpu=v3", "-Wall", "-fno-color-diagnostics", f"-I{objects()}",
             f"-I/usr/include/{platform.machine()}-linux-gnu", "-c", str(source), "-o", str(target)]  # fmt: skip
    done = subprocess.run(words, capture_output=True, text=True, timeout=_DEADLINE_S, check=False, env={**os.environ, "LC_ALL": "C"})
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"{clang} ended with code {done.returncode}"]
        complaint = next((line for line in lines if "error:" in line), lines[-1])
        if "bpf/bpf_" in complaint or "linux/" in complaint:
            raise MachineError(f"{complaint}; remedy: {_REMEDY}")
        raise RequestError(f"{complaint}; accepted: C that clang compiles for BPF; mend it, see controllers/templates/my_cc.bpf.c")
    return target


def declared(path: Path) -> Declared:
    """What the object's only `tcp_congestion_ops` says of itself; RequestError when it has none, or more than one."""
    try:
        sections = _sections(path.read_bytes())
        found = list(_operations(sections))
    except (struct.error, ValueError, IndexError, OSError) as err:
        raise RequestError(f"{path.name} is no BPF object with BTF ({err}); accepted: what clang -g -target bpf makes; compile it anew") from None
    if len(found) != 1:
        names = ", ".join(one.name for one in found) or "none"
        raise RequestError(f"{path.name} has {len(found)} tcp_congestion_ops ({names}); accepted: one, in SEC(\".struct_ops\"); mend it")
    if not re.fullmatch(r"[a-z0-9_]{1,15}", found[0].name):
        accepted = "accepted: 1 to 15 small letters, digits and underscores"
        raise RequestError(f'{path.name} calls itself {found[0].name!r}; {accepted}; write e.g. .name = "my_cc"')
    return found[0]


# -- an object file: ELF (its sections), and BTF (where things lie in them)


def _sections(data: bytes) -> dict[str, bytes]:
    """The sections of a 64-bit little-endian ELF file by name; the first of a name."""
    if data[:6] != b"\x7fELF\x02\x01":
        raise ValueError("it is not a 64-bit little-endian ELF file")
    (table,), (size, count, names) = struct.unpack_from("<Q", data, 0x28), struct.unpack_from("<HHH", data, 0x3A)
    headers = [struct.unpack_from("<IIQQQQ", data, table + number * size) for number in range(count)]
    text = data[headers[names][4] :]
    found: dict[str, bytes] = {}
    for header in headers:
        found.setdefault(_word(text, header[0]), data[header[4] : header[4] + header[5]])
    return found


def _word(text: bytes, offset: int) -> str:
    return text[offset : text.index(b"\0", offset)].decode(errors="replace")


@dataclass(frozen=True, slots=True)
class _Type:
    """One entry of BTF: its members, as (name, type, offset), where it is a structure or a section."""

    name: str
    kind: int
    target: int
    members: tuple[tuple[str, int, int], ...]


def _operations(sections: dict[str, bytes]) -> Iterator[Declared]:
    types = _types(sections.get(".BTF", b""))
    for section in types:
        content = sections.get(section.name, b"")
        if section.kind != _DATASEC or not section.name.startswith(".struct_ops"):
            continue
        for _, variable, offset in section.members:
            shape = types[types[variable].target]
            if shape.kind != _STRUCT or shape.name != _OPS:
                raise ValueError(f"it has a {shape.name or 'variable'} beside {_OPS}")
            places = {name: offset + place for name, _, place in shape.members}
            raw = content[places["name"] :][:_NAME_BYTES] if "name" in places else b""
            flags = struct.unpack_from("<I", content, places["flags"])[0] if "flags" in places else 0
            yield Declared(raw.split(b"\0")[0].decode(errors="replace"), flags)


def _types(btf: bytes) -> list[_Type]:
    """All types of a .BTF section; the first, number 0, is void."""
    magic, _, _, header, start, length, text, _ = struct.unpack_from("<HBBIIIII", btf)
    if magic != 0xEB9F:
        raise ValueError("its BTF is damaged")
    strings, at, end = btf[header + text :], header + start, header + start + length
    found = [_Type("", 0, 0, ())]
    while at < end:
        name, info, target = struct.unpack_from("<III", btf, at)
        kind, count, at = info >> 24 & 0x1F, info & 0xFFFF, at + 12
        members: list[tuple[str, int, int]] = []
        if kind in (_STRUCT, _UNION):  # name, type, offset in bits, below the size where it is a bit field
            rows = [struct.unpack_from("<III", btf, at + 12 * number) for number in range(count)]
            members = [(_word(strings, row[0]), row[1], (row[2] & 0xFFFFFF if info >> 31 else row[2]) // 8) for row in rows]
        elif kind == _DATASEC:  # its variables: type, offset, size
            rows = [struct.unpack_from("<III", btf, at + 12 * number) for number in range(count)]
            members = [("", row[0], row[1]) for row in rows]
        at += _tail(kind, count)
        found.append(_Type(_word(strings, name), kind, target, tuple(members)))
    return found


def _tail(kind: int, count: int) -> int:
    """How many bytes follow the head of a type of this kind (Documentation/bpf/btf.rst)."""
    each = {_STRUCT: 12, _UNION: 12, _ENUM: 8, _FUNC_PROTO: 8, _DATASEC: 12, _ENUM64: 12}
    once = {_INT: 4, _ARRAY: 12, _VAR: 4, _DECL_TAG: 4}
    return each.get(kind, 0) * count + once.get(kind, 0)
