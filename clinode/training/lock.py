"""One writer at a time for an output folder.

The operating system holds the lock and drops it with the process, however that ended, so no lock
outlives its owner. The file's text only serves the message.
"""

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clinode.errors import OutputError

if sys.platform == "win32":
    import msvcrt

    def _take(descriptor: int) -> None:
        os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _take(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


_LOCKED_BYTE = 1 << 20  # beyond the text: Windows forbids others to read a locked byte


@contextmanager
def one_writer(target: Path) -> Iterator[None]:
    """Holds the lock of `target` while inside; its file is a sibling, `.NAME.lock`.

    Raises:
        OutputError: Another living process holds it, or its file cannot be written.
    """
    path = target.parent / f".{target.name}.lock"
    descriptor = _acquire(path)
    try:
        os.ftruncate(descriptor, 0)
        os.lseek(descriptor, 0, os.SEEK_SET)
        os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        yield
    finally:
        if sys.platform != "win32":  # it cannot remove an open file; an unlocked one is harmless
            path.unlink(missing_ok=True)
        os.close(descriptor)


def _acquire(path: Path) -> int:
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise OutputError(
                f"the folder cannot be written ({error.strerror})",
                where=path.parent.name,
                fix="choose another out=",
            ) from error
        try:
            _take(descriptor)
        except OSError as error:
            holder = os.read(descriptor, 200).decode(errors="replace").strip() or "another process"
            os.close(descriptor)
            raise OutputError(
                f"{holder} is writing this run",
                where=path.name.removeprefix(".").removesuffix(".lock"),
                fix="wait for it, stop it, or choose another out=",
            ) from error
        if _is_current(path, descriptor):
            return descriptor
        os.close(descriptor)  # its last holder removed the file after we had opened it


def _is_current(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False
