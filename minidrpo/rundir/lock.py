"""lock.py - one writer per directory: `claim` it before anything in it is read, and keep what that returns.

The lock is the kernel's (flock on DIR/.lock). It ends with the process that holds it, however that ends, so a run that
was killed is taken up at once. The file says who holds it, for the message. Linux passes flock on to the other hosts of
an NFS disk; disks that know no locks are told apart by their error, and there the file's words decide.
"""

import contextlib
import errno
import fcntl
import os
import re
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from minidrpo import cli
from minidrpo.engine.distributed import DistContext

NAME = ".lock"
PATIENCE = 5.0  # seconds: a killed process that holds much memory is not gone at once
UNSUPPORTED = {errno.ENOTSUP, errno.ENOSYS, errno.ENOLCK, errno.EINVAL}  # what disks without locks answer

_held = {}  # real path -> [open file, how often]: a process may claim what it holds, as main() and train() do


class Lock:
    """The right to write in a directory, until `release`, the end of a `with` block or of the process."""

    def __init__(self, path: Path | None = None, made=()):
        self.path, self.made = path, made

    def release(self) -> None:
        """Take the lock file away again, and the directories that were made for it if nothing else came into them."""
        path, self.path = self.path, None
        if path is None or path not in _held:  # not rank 0, released already, or a forked child
            return
        _held[path][1] -= 1
        if _held[path][1]:
            return
        file, _ = _held.pop(path)
        with contextlib.suppress(OSError):
            path.unlink()  # while it is locked: who waits for it finds another file, or none, and tries again
            for folder in self.made:
                folder.rmdir()
        file.close()

    __del__ = release

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.release()


def claim(directory: str | Path, ctx: DistContext | None = None, flag: str = "--run-dir", patience=PATIENCE) -> Lock:
    """The lock of `directory`, which is made if need be. Rank 0 holds it; all ranks call this. ValueError in one line
    if another process holds it, or if the directory cannot be written."""
    with (ctx or DistContext()).fail_together(ValueError, ValueError):
        return _claim(Path(directory).expanduser(), flag, patience) if ctx is None or ctx.is_main else Lock()


@contextlib.contextmanager
def held(directory: str | Path, ctx: DistContext | None = None, flag: str = "--run-dir") -> Iterator[None]:
    """The lock around a whole command; a mistake ends in one line."""
    with cli.user_errors(ctx.rank if ctx else 0):
        lock = claim(directory, ctx, flag)
    with lock:
        yield


def _claim(directory, flag, patience):
    try:
        made = [folder for folder in (directory, *directory.parents) if not folder.exists()]
        path = directory.resolve() / NAME
        if path in _held:
            _held[path][1] += 1
        else:
            _held[path] = [_locked(path, directory, time.monotonic() + patience), 1]
    except OSError as error:
        if file := next((p for p in (directory, *directory.parents) if os.path.lexists(p) and not p.is_dir()), None):
            raise ValueError(f"{flag} {directory} cannot be used: {file} is a file") from error
        raise ValueError(f"{flag} {directory} cannot be written: {error.strerror}: {error.filename}") from error
    return Lock(path, made)


def _locked(path, directory, deadline):
    """The lock file, open and locked, with our name in it."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            file = open(path, "a+", errors="replace")  # a descriptor that no program started from here inherits
        except FileNotFoundError:  # its holder took all of it away just now
            continue
        file.seek(0)
        said = " ".join(file.read(200).split())
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(file.fileno()).st_nlink and os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                break
        except FileNotFoundError:
            pass
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise ValueError(f"{directory} is in use by {said or 'another process'}") from None
            time.sleep(0.1)
        except OSError as error:
            if error.errno not in UNSUPPORTED:
                raise
            if said and _may_live(said):
                hint = f"this disk has no locks; if that process is gone, delete {path}"
                raise ValueError(f"{directory} is in use by {said} ({hint})") from None
            break
        file.close()
    host = socket.gethostname()
    if said and f" on host {host} " not in said:  # an NFS disk would have passed its lock on, others may not
        cli.say(f"note: {directory} was left by {said}: if that still runs, stop one of the two", file=sys.stderr)
    with contextlib.suppress(OSError):  # a full disk: the lock holds without words
        os.truncate(path, 0)
        os.write(file.fileno(), f"pid {os.getpid()} on host {host} since {time.strftime('%F %T')}\n".encode())
    return file


def _may_live(said):
    """Whether the process that wrote these words may still be there: one of another host may."""
    found = re.match(r"pid ([0-9]{1,9}) on host (\S+) ", said)
    if not found or found[2] != socket.gethostname():
        return True
    try:
        os.kill(int(found[1]), 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        pass
    return True


def _forget():
    """In a forked child: the lock is its parent's, and must not live on in it."""
    for file, _ in _held.values():
        file.close()
    _held.clear()


os.register_at_fork(after_in_child=_forget)
