"""BPF programs into the kernel and back, by the system's libbpf; nothing is compiled where fabriclab runs.

Comes in: the objects in `fabric/bpf`, which are prebuilt and fit themselves to the running kernel (CO-RE). Goes out:
file descriptors of programs, maps to read and write, congestion controls that sockets can choose. All of it ends with
the process, whichever way that ends: nothing is pinned.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any

from fabric.errors import MachineError

__all__ = ["BpfMap", "BpfObject", "last_words", "objects"]

LIBRARY = "libbpf.so.1"
_STRUCT_OPS_MAP = 26  # BPF_MAP_TYPE_STRUCT_OPS, of linux/bpf.h
_STRUCT_OPS = 44  # BPF_STRUCT_OPS
_LINKED = 1 << 13  # BPF_F_LINK: registered as long as somebody holds the link, since Linux 6.4
_LONGEST_MESSAGE = 1 << 20  # the verifier's log comes as one message, and what matters is its end
_ANY = ctypes.c_uint64(0)
_PROGRAM_INFO, _RUN_NS_AT = 232, 192  # struct bpf_prog_info, linux/bpf.h: its size, and where run_time_ns and run_cnt are
_LOG = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)


def objects() -> Path:
    """The folder of the prebuilt objects and their sources."""
    return Path(__file__).parent / "bpf"


@cache
def _library() -> Any:
    """libbpf with the types of what is called; MachineError where it is not installed."""
    try:
        library = ctypes.CDLL(LIBRARY, use_errno=True)
    except OSError as err:
        raise MachineError(f"{LIBRARY} cannot be loaded: {err}; run .ci/provision") from None
    pointer, number, text = ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p
    for name, gives, takes in (
        ("bpf_object__open_file", pointer, (text, pointer)),
        ("bpf_object__load", number, (pointer,)),
        ("bpf_object__close", None, (pointer,)),
        ("bpf_object__find_map_by_name", pointer, (pointer, text)),
        ("bpf_object__find_program_by_name", pointer, (pointer, text)),
        ("bpf_object__next_map", pointer, (pointer, pointer)),
        ("bpf_program__fd", number, (pointer,)),
        ("bpf_map__fd", number, (pointer,)),
        ("bpf_map__type", number, (pointer,)),
        ("bpf_map__key_size", ctypes.c_uint32, (pointer,)),
        ("bpf_map__value_size", ctypes.c_uint32, (pointer,)),
        ("bpf_map__map_flags", ctypes.c_uint32, (pointer,)),
        ("bpf_map__set_map_flags", number, (pointer, ctypes.c_uint32)),
        ("bpf_map__set_max_entries", number, (pointer, ctypes.c_uint32)),
        ("bpf_map__attach_struct_ops", pointer, (pointer,)),
        ("bpf_link_create", number, (number, number, number, pointer)),
        ("bpf_map_update_elem", number, (number, text, text, ctypes.c_uint64)),
        ("bpf_map_lookup_elem", number, (number, text, text)),
        ("bpf_map_get_fd_by_id", number, (ctypes.c_uint32,)),
        ("bpf_obj_get_info_by_fd", number, (number, text, pointer)),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = gives, takes
    return library


class BpfMap:
    """A map of a loaded object: keys and values as bytes, of the sizes that the program declared."""

    def __init__(self, name: str, descriptor: int, key_size: int, value_size: int) -> None:
        self.name, self._descriptor, self._key_size, self._value_size = name, descriptor, key_size, value_size

    @classmethod
    def of_other(cls, identity: int) -> BpfMap:
        """A map that another process made, by the `identity` that it told; MachineError when it is gone."""
        descriptor = _library().bpf_map_get_fd_by_id(identity)
        if descriptor < 0:
            raise MachineError(f"there is no BPF map {identity}: {os.strerror(-descriptor)}; who made it has ended")
        _, _, key_size, value_size = _information(descriptor)
        return cls(f"{identity}", descriptor, key_size, value_size)

    @property
    def identity(self) -> int:
        """The number by which another process may open it."""
        return _information(self._descriptor)[1]

    def mapped(self, entries: int) -> mmap.mmap:
        """The memory of an array that was made to be mapped, to read as often as one likes without asking the kernel."""
        return mmap.mmap(self._descriptor, -(-entries * self._value_size // mmap.PAGESIZE) * mmap.PAGESIZE)

    def __setitem__(self, key: bytes, value: bytes) -> None:
        if (len(key), len(value)) != (self._key_size, self._value_size):
            sizes = f"{self._key_size} and {self._value_size} bytes"
            raise ValueError(f"map {self.name}: got {len(key)} and {len(value)} bytes; accepted: {sizes}")
        failed = _library().bpf_map_update_elem(self._descriptor, key, value, _ANY)
        if failed:
            raise OSError(-failed, f"map {self.name}: {os.strerror(-failed)}")

    def __getitem__(self, key: bytes) -> bytes:
        value = ctypes.create_string_buffer(self._value_size)
        if _library().bpf_map_lookup_elem(self._descriptor, key, value):
            raise KeyError(key)
        return value.raw


def _information(descriptor: int) -> tuple[int, int, int, int]:
    """Type, number, key and value size: the head of struct bpf_map_info, linux/bpf.h."""
    told, size = ctypes.create_string_buffer(80), ctypes.c_uint32(80)
    failed = _library().bpf_obj_get_info_by_fd(descriptor, told, ctypes.byref(size))
    if failed:
        raise OSError(-failed, os.strerror(-failed))
    kind, number, key_size, value_size = struct.unpack_from("=4I", told.raw)
    return kind, number, key_size, value_size


class BpfObject:
    """A prebuilt object in the kernel, until it is closed or the process ends; `entries` are the sizes of maps by name.

    MachineError when this kernel refuses it, with what the kernel or libbpf said.
    """

    def __init__(self, path: Path, entries: Mapping[str, int] | None = None) -> None:
        self.path, self._links = path, list[int]()
        library = _library()
        with _messages() as said:
            self._object = library.bpf_object__open_file(os.fsencode(path), None)
            if not self._object:
                raise self._refused("opened", ctypes.get_errno(), said)
            for item in self._struct_ops():
                library.bpf_map__set_map_flags(item, library.bpf_map__map_flags(item) | _LINKED)
            for name, count in (entries or {}).items():
                library.bpf_map__set_max_entries(library.bpf_object__find_map_by_name(self._object, name.encode()), count)
            if failed := library.bpf_object__load(self._object):
                self.close()
                raise self._refused("loaded", -failed, said)

    def __enter__(self) -> BpfObject:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def program(self, name: str) -> int:
        """The file descriptor of a program."""
        return int(_library().bpf_program__fd(_library().bpf_object__find_program_by_name(self._object, name.encode())))

    def ran(self, name: str) -> tuple[int, int]:
        """How often a program ran and for how many ns in all, while the sysctl kernel.bpf_stats_enabled was 1."""
        told, size = ctypes.create_string_buffer(_PROGRAM_INFO), ctypes.c_uint32(_PROGRAM_INFO)
        if failed := _library().bpf_obj_get_info_by_fd(self.program(name), told, ctypes.byref(size)):
            raise OSError(-failed, os.strerror(-failed))
        nanoseconds, times = struct.unpack_from("=QQ", told.raw, _RUN_NS_AT)
        return times, nanoseconds

    def map(self, name: str) -> BpfMap:
        """A map by its name."""
        library = _library()
        found = library.bpf_object__find_map_by_name(self._object, name.encode())
        sizes = (int(library.bpf_map__key_size(found)), int(library.bpf_map__value_size(found)))
        return BpfMap(name, int(library.bpf_map__fd(found)), *sizes)

    def register(self) -> None:
        """Offer the object's congestion controls to all sockets of the machine, until it is closed.

        A socket that has chosen one keeps it as long as it lives.
        """
        library = _library()
        for item in self._struct_ops():
            with _messages() as said:
                # The first makes it ready, the second registers it under a link, which goes with its descriptor.
                if not library.bpf_map__attach_struct_ops(item):
                    raise self._refused("prepared", ctypes.get_errno(), said)
                link = library.bpf_link_create(library.bpf_map__fd(item), 0, _STRUCT_OPS, None)
                if link < 0:
                    raise self._refused("registered", -link, said)
                self._links.append(link)

    def close(self) -> None:
        """Take it out of the kernel, as far as nobody else uses it."""
        while self._links:
            os.close(self._links.pop())
        if self._object:
            _library().bpf_object__close(self._object)
            self._object = None

    def _struct_ops(self) -> Iterator[int]:
        item = None
        while item := _library().bpf_object__next_map(self._object, item):
            if _library().bpf_map__type(item) == _STRUCT_OPS_MAP:
                yield item

    def _refused(self, what: str, error: int, said: list[str]) -> MachineError:
        words = last_words(said) or os.strerror(abs(error))
        return MachineError(f"{self.path.name} cannot be {what} by this kernel ({os.uname().release}): {words}")


def last_words(said: Sequence[str]) -> str:
    """Of what libbpf said, the verifier's reason with the program it is about, where there is one; else the last line.

    The verifier goes through a program instruction by instruction, and stops at what it refuses: the last line before
    its statistics says why.
    """
    for text in said:
        if "BEGIN PROG LOAD LOG" in text:
            lines = [line.strip() for line in text.splitlines()]
            log = [line for line in lines[1:] if line and not line.startswith(("processed ", "-- END", "verification time", "stack depth"))]
            program = re.search(r"prog '([^']*)'", lines[0])
            return f"the verifier, of {program[1] if program else 'it'}: {log[-1]}" if log else lines[0]
    return next((line for line in reversed(said) if line), "")


@contextlib.contextmanager
def _messages() -> Iterator[list[str]]:
    """What libbpf says meanwhile, which would else go to standard error."""
    said: list[str] = []
    library = ctypes.CDLL(None)
    lines = _LOG(lambda _level, text, arguments: _format(library, text, arguments, said))
    _library().libbpf_set_print(lines)
    try:
        yield said
    finally:
        _library().libbpf_set_print(_LOG(0))


def _format(library: Any, text: bytes, arguments: Any, said: list[str]) -> int:
    line = ctypes.create_string_buffer(_LONGEST_MESSAGE)
    library.vsnprintf(line, len(line), text, ctypes.c_void_p(arguments))
    said.append(line.value.decode(errors="replace").strip())
    return 0
