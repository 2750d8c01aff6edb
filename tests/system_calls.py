"""Kills a process at the n-th system call that changes files: before the kernel carries it out.

By ptrace, so that what is counted is what the kernel is asked for and not what Python says. A call that is in neither
of the two lists below stops the run, so that no way to change files is overlooked.
"""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import sys
from collections.abc import Callable

_TRACEME, _SYSCALL, _SETOPTIONS, _GET_SYSCALL_INFO = 0, 24, 0x4200, 0x420E
_SYSGOOD, _EXITKILL = 1, 0x100000
_ENTRY = 1
_WRITING_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC

# Numbers by name: x86-64 and the generic table of aarch64 and others.
_NUMBERS = {
    "x86_64": {
        "write": 1, "open": 2, "pwrite64": 18, "writev": 20, "sendfile": 40, "fsync": 74, "fdatasync": 75,
        "truncate": 76, "ftruncate": 77, "rename": 82, "mkdir": 83, "rmdir": 84, "creat": 85, "link": 86, "unlink": 87,
        "symlink": 88, "chmod": 90, "fchmod": 91, "openat": 257, "mkdirat": 258, "unlinkat": 263, "renameat": 264,
        "linkat": 265, "symlinkat": 266, "fchmodat": 268, "utimensat": 280, "fallocate": 285, "pwritev": 296,
        "renameat2": 316, "copy_file_range": 326,
    },
    "aarch64": {
        "mkdirat": 34, "unlinkat": 35, "symlinkat": 36, "linkat": 37, "renameat": 38, "truncate": 45, "ftruncate": 46,
        "fallocate": 47, "fchmod": 52, "fchmodat": 53, "openat": 56, "write": 64, "writev": 66, "pwrite64": 68,
        "pwritev": 70, "sendfile": 71, "fsync": 82, "fdatasync": 83, "utimensat": 88, "renameat2": 276,
        "copy_file_range": 285,
    },
}  # fmt: skip
# What reads files or has nothing to do with them.
_HARMLESS = {
    "x86_64": {
        0, 3, 4, 5, 6, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 21, 24, 25, 28, 32, 33, 35, 39, 60, 63, 72, 73, 78, 79, 89,
        96, 102, 104, 107, 108, 110, 131, 157, 186, 202, 217, 218, 228, 230, 231, 234, 262, 267, 269, 273, 292, 302,
        318, 332, 334, 439,
    },
    "aarch64": {
        17, 23, 24, 25, 29, 32, 48, 57, 61, 62, 63, 67, 78, 79, 80, 93, 94, 98, 99, 113, 115, 131, 134, 135, 139, 160,
        172, 173, 174, 175, 176, 177, 178, 214, 215, 216, 222, 226, 233, 261, 278, 291, 293, 439,
    },
}  # fmt: skip


class _Info(ctypes.Structure):
    """struct ptrace_syscall_info, as far as a call's entry fills it."""

    _fields_ = (
        ("op", ctypes.c_uint8),
        ("pad", ctypes.c_uint8 * 3),
        ("arch", ctypes.c_uint32),
        ("instruction", ctypes.c_uint64),
        ("stack", ctypes.c_uint64),
        ("number", ctypes.c_uint64),
        ("arguments", ctypes.c_uint64 * 6),
    )


_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
_libc.ptrace.restype = ctypes.c_long


def _ptrace(request: int, pid: int, address: int = 0, data: int = 0) -> int:
    result = _libc.ptrace(request, pid, address, data)
    if result == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), f"ptrace request {request}")
    return int(result)


def why_not() -> str:
    """Says why a process cannot be traced here; empty where it can."""
    if platform.machine() not in _NUMBERS:
        return f"the numbers of the system calls of {platform.machine()} are not known"
    try:
        status, _ = run(lambda: None, 0)
    except OSError as error:
        return f"a process cannot be traced here: {error}"
    return "" if status == 0 else f"a traced process ended with {status}"


def run(action: Callable[[], object], kill_at: int) -> tuple[int, list[str]]:
    """Runs an action in a fork.

    Args:
      action: what to do; the process must have one thread only.
      kill_at: before which call that changes files it is killed, from 1; 0 for never.

    Returns:
      Its exit status, negative for a signal, and the calls that change files, by name.

    Raises:
      OSError: the fork cannot be traced.
      AssertionError: it made a call of which nobody has said whether it changes files.
    """
    numbers, harmless = _NUMBERS[platform.machine()], _HARMLESS[platform.machine()]
    writing = {number: name for name, number in numbers.items()}
    child = os.fork()
    if child == 0:
        status = 1
        try:
            _ptrace(_TRACEME, 0)
            os.kill(os.getpid(), signal.SIGSTOP)
            action()
            status = 0
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        finally:
            os._exit(status)
    calls: list[str] = []
    _, status = os.waitpid(child, 0)
    if not os.WIFSTOPPED(status):
        raise OSError(f"the fork ended with {os.waitstatus_to_exitcode(status)} before it could be traced")
    _ptrace(_SETOPTIONS, child, 0, _SYSGOOD | _EXITKILL)
    passed_on = 0
    while True:
        _ptrace(_SYSCALL, child, 0, passed_on)
        _, status = os.waitpid(child, 0)
        if not os.WIFSTOPPED(status):
            return os.waitstatus_to_exitcode(status), calls
        passed_on = 0 if os.WSTOPSIG(status) == signal.SIGTRAP | 0x80 else os.WSTOPSIG(status)
        info = _Info()
        if passed_on or not _ptrace(_GET_SYSCALL_INFO, child, ctypes.sizeof(info), ctypes.addressof(info)):
            continue
        if info.op != _ENTRY:
            continue
        name = writing.get(info.number)
        if name is None:
            if info.number not in harmless:
                _kill(child)
                raise AssertionError(f"does system call {info.number} change files?")
            continue
        if not _changes_files(name, info.arguments):
            continue
        calls.append(name)
        if len(calls) == kill_at:
            return _kill(child), calls


def _kill(child: int) -> int:
    os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _changes_files(name: str, arguments: ctypes.Array[ctypes.c_uint64]) -> bool:
    if name in ("open", "openat"):
        return bool(arguments[1 if name == "open" else 2] & _WRITING_FLAGS)
    if name in ("write", "writev"):
        return int(arguments[0]) > 2  # what is printed is no file
    return True
