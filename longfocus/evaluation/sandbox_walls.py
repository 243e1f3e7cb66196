"""The walls of a sandbox, put up by the process that is to be held by them; then it becomes `sandbox_guest.py`.

Started as a program by `sandbox.py` under `python -I -S`, it needs nothing but the standard library. The walls stay
when a process becomes another program. That is done because this one needs ctypes, which the guest must not have.
"""

import ctypes
import os
import struct
import sys

# Numbers of Linux's system calls, the same on all machines, and of linux/landlock.h, linux/mount.h and linux/fcntl.h.
_MOUNT_SETATTR, _RECURSIVELY = 442, 0x8000
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_REMOVE_DIR, _REMOVE_FILE, _MAKE_DIR, _MAKE_REG, _REFER, _TRUNCATE = 1 << 4, 1 << 5, 1 << 7, 1 << 8, 1 << 13, 1 << 14
_ON_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE
_IN_FOLDER = _WRITE_FILE | _READ_FILE | _READ_DIR | _REMOVE_DIR | _REMOVE_FILE | _MAKE_DIR | _MAKE_REG | _REFER
_IN_FOLDER |= _TRUNCATE
_RIGHTS_OF_VERSION = {1: 13, 2: 14, 3: 15, 4: 15}  # and 16 from version 5 on
_TCP, _SCOPES = 0b11, 0b11
_NO_NEW_PRIVILEGES = 38
_FOLDER_SIZE = b"size=16m,nr_inodes=1000"


def limit(seconds: int, memory_bytes: int, file_bytes: int) -> None:
    """Limit this process and what it becomes.

    Args:
        seconds: Of the processor's time.
        memory_bytes: Of address space.
        file_bytes: The longest file.
    """
    import resource  # Windows has none, and must be able to import this file

    limits = {
        resource.RLIMIT_CPU: seconds,
        resource.RLIMIT_AS: memory_bytes,
        resource.RLIMIT_FSIZE: file_bytes,
        resource.RLIMIT_NOFILE: 32,
        resource.RLIMIT_NPROC: 0,  # counts the user's processes, so there can be no further one; root has no such limit
        resource.RLIMIT_CORE: 0,
    }
    for name, most in limits.items():
        resource.setrlimit(name, (most, most))


def mount(folder: str) -> None:
    """Make all file systems read-only, and lay a small one in memory over a folder, in a mount namespace of one's own.

    Raises:
        OSError: The kernel does not allow it.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    read_only = struct.pack("=QQQQ", 1, 0, 0, 0)
    everywhere = ctypes.c_int(-100), b"/", ctypes.c_uint(_RECURSIVELY)
    _checked(libc.syscall(_MOUNT_SETATTR, *everywhere, read_only, ctypes.c_size_t(len(read_only))))
    _checked(libc.mount(b"none", os.fsencode(folder), b"tmpfs", ctypes.c_ulong(0), _FOLDER_SIZE))


def restrict(folder: str) -> None:
    """Leave this process and what it becomes the folder to write in, Python to read, and no TCP.

    Raises:
        OSError: The kernel has no Landlock.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    version = _checked(libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint(1)))
    handled = (1 << _RIGHTS_OF_VERSION.get(version, 16)) - 1
    asked = struct.pack("=QQQ", handled, _TCP if version >= 4 else 0, _SCOPES if version >= 6 else 0)
    rules = _checked(libc.syscall(_CREATE_RULESET, asked, ctypes.c_size_t(len(asked)), ctypes.c_uint(0)))
    allowed = {folder: _IN_FOLDER, os.devnull: _READ_FILE | _WRITE_FILE}
    allowed |= dict.fromkeys(needed(), _EXECUTE | _READ_FILE | _READ_DIR)
    for path, rights in allowed.items():
        if not os.path.isdir(path):
            rights &= _ON_FILES
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        rule = struct.pack("=Qi", rights & handled, place)
        _checked(libc.syscall(_ADD_RULE, ctypes.c_int(rules), ctypes.c_int(1), rule, ctypes.c_uint(0)))
        os.close(place)
    _checked(libc.prctl(_NO_NEW_PRIVILEGES, *map(ctypes.c_ulong, (1, 0, 0, 0))))
    _checked(libc.syscall(_RESTRICT_SELF, ctypes.c_int(rules), ctypes.c_uint(0)))
    os.close(rules)


def needed() -> list[str]:
    """What Python reads to start: itself, its library, and the folders of the shared libraries that are loaded here."""
    with open("/proc/self/maps") as maps:
        mapped = {line.split(maxsplit=5)[5].strip() for line in maps if "/" in line}
    libraries = {os.path.dirname(path) for path in mapped if ".so" in os.path.basename(path)}
    places = {os.path.realpath(sys.executable), "/etc/ld.so.cache", os.path.dirname(__file__), *sys.path, *libraries}
    return sorted(place for place in places if os.path.exists(place))


def _checked(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def main(folder: str, walls: str, *most: str) -> None:
    """Put up the walls that are named, then become the guest."""
    if "namespaces" in walls:
        mount(folder)
    os.chdir(folder)
    if "landlock" in walls:
        restrict(folder)
    limit(*map(int, most))
    python = os.path.realpath(sys.executable)
    guest = os.path.join(os.path.dirname(__file__), "sandbox_guest.py")
    os.execv(python, [python, "-I", "-S", "-B", "-X", "utf8", guest, folder])


if __name__ == "__main__":
    main(*sys.argv[1:])
