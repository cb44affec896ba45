"""A local folder as a store: listings in S3's key order, writes that are whole or absent."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from batch.records import StoredObject
from batch.storage.base import AccessError, ChangedObjectError, MissingObjectError, StorageError
from batch.storage.keys import checked_key, is_reserved, key_of_name, name_of_key
from batch.storage.temporary import temporary_file

_NO_PERMISSION = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_NO_SUCH_FILE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EISDIR})
_NO_HARD_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})
_DANGLING_LINK = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})

Folder = tuple[int, int]
"""A folder's device and inode: the same whatever path or link led to it."""


class LocalStorage:
    """The files below a folder; implements `storage.base.Storage`.

    Linked files and folders are followed, except for a link to a folder that it lies in. An etag is size and
    modification time. Bytes of a name that are not UTF-8 stand in its key as U+EF80 to U+EFFF (`storage.keys`).
    Every method raises `ValueError` for a key that would leave the root.
    """

    def __init__(self, root: str | Path) -> None:
        path = Path(root).absolute()
        self._root = path.resolve() if ".." in path.parts else path

    def __repr__(self) -> str:
        return f"LocalStorage({self.root!r})"

    @property
    def root(self) -> str:
        """The folder's absolute path."""
        return str(self._root)

    @property
    def is_local(self) -> bool:
        """True."""
        return True

    def uri(self, key: str) -> str:
        """The path of a key."""
        return f"{self.root.rstrip('/')}/{key}"

    def list(self, prefix: str = "") -> Iterator[StoredObject]:
        """All regular files whose key begins with `prefix`, in binary key order; a folder at a time in memory.

        Broken links and files that vanish meanwhile are passed over; an unreadable folder is an `AccessError`.
        """
        folder, slash, begin = prefix.rpartition("/")
        path, names = self._root, [name_of_key(part) for part in checked_key(folder).split("/")] if slash else []
        try:
            above: tuple[Folder, ...] = (_identity(path),)
            for name in names:
                path = path / name
                above = (*above, _identity(path))
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise _translated(str(path), error) from error
        yield from _walk(path, folder + slash, begin, above)

    def exists(self, key: str) -> bool:
        """Whether there is such a file."""
        with _errors(path := self._path(key)):
            return path.is_file()

    def read(self, key: str) -> bytes:
        """The whole file."""
        with _errors(path := self._path(key), missing=True):
            return path.read_bytes()

    def read_range(self, key: str, start: int, length: int, *, etag: str | None = None) -> bytes:
        """`length` bytes from `start`, fewer only at the file's end, none beyond it.

        Raises `ChangedObjectError` if size or modification time are not those of `etag`.
        """
        if start < 0 or length < 0:
            raise ValueError(f"bad range: received start {start}, length {length}, expected none below 0")
        with _errors(path := self._path(key), missing=True), path.open("rb", buffering=0) as file:
            found = _etag(os.fstat(file.fileno()))
            if etag is not None and etag != found:
                raise ChangedObjectError(f"{path}: etag is {found}, expected {etag}")
            file.seek(start)
            pieces = []
            while length > 0 and (piece := file.read(length)):
                pieces.append(piece)
                length -= len(piece)
            return b"".join(pieces)

    def put(self, key: str, data: bytes) -> None:
        """Writes the file whole: a temporary file beside it, synchronized, then renamed."""
        path = self._path(key)
        with _errors(path), _temporary(path, data) as temporary:
            temporary.replace(path)
            _sync_folder(path.parent)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Links a finished temporary file to the name: the file system lets one of several writers win.

        Raises `StorageError` on a file system without hard links: creating the name first and filling it afterwards
        would show readers half a file, and leave it so if the writer dies.
        """
        path = self._path(key)
        with _errors(path), _temporary(path, data) as temporary:
            try:
                path.hardlink_to(temporary)
            except FileExistsError:
                # Also where the link was made and its reply was lost (NFS): then the bytes are ours.
                return path.read_bytes() == data
            except OSError as error:
                if error.errno in _NO_HARD_LINKS:
                    raise StorageError(
                        f"{path}: the file system has no hard links ({error.strerror}), so of several writers no "
                        f"single one can win; expected a folder on a file system with hard links, or s3://"
                    ) from error
                raise
            _sync_folder(path.parent)
            return True

    def delete(self, key: str) -> None:
        """Removes the file; a missing one is no error. Its folder stays."""
        with _errors(path := self._path(key)), suppress(NotADirectoryError, IsADirectoryError):
            path.unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self._root / name_of_key(checked_key(key))


def _walk(path: Path, folder: str, begin: str, above: tuple[Folder, ...]) -> Iterator[StoredObject]:
    """The files below `path` whose first name begins with `begin`. `folder` is the key of `path` with its slash."""
    for name, file_name in _entries(path):
        if not name.startswith(begin):
            continue
        child = path / file_name
        try:
            if not name.endswith("/"):
                found = child.stat()
                if stat.S_ISREG(found.st_mode):
                    yield StoredObject(
                        key=folder + name, size_bytes=found.st_size, etag=_etag(found), modified_s=found.st_mtime
                    )
                continue
            identity = _identity(child)
        except OSError as error:
            if error.errno in _DANGLING_LINK:
                continue
            raise _translated(str(child), error) from error
        if identity not in above:
            yield from _walk(child, folder + name, "", (*above, identity))


def _entries(path: Path) -> list[tuple[str, str]]:
    """The key part (a folder's with the slash that it sorts by) and the file name of each entry, in key order.

    Python compares strings by code points, which is the order of their UTF-8 bytes.
    """
    found = []
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if not is_reserved(entry.name):
                    found.append((key_of_name(entry.name) + ("/" if _is_folder(entry) else ""), entry.name))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise _translated(str(path), error) from error
    return sorted(found)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, or into a folder that may not be entered
        return False


def _identity(path: Path) -> Folder:
    found = path.stat()
    return found.st_dev, found.st_ino


def _etag(found: os.stat_result) -> str:
    return f"{found.st_size}-{found.st_mtime_ns}"


@contextmanager
def _temporary(path: Path, data: bytes) -> Iterator[Path]:
    """A finished file with the content beside `path`; gone afterwards unless it was renamed."""
    _make_folder(path.parent)
    with temporary_file(path.parent, data) as temporary:
        yield temporary


def _make_folder(path: Path) -> None:
    if not path.is_dir():
        _make_folder(path.parent)
        path.mkdir(exist_ok=True)
        _sync_folder(path.parent)


def _sync_folder(path: Path) -> None:
    """Makes a new name in the folder outlive a power cut, where the file system can."""
    folder = os.open(path, os.O_RDONLY)
    try:
        os.fsync(folder)
    except OSError as error:
        if error.errno not in {errno.EINVAL, errno.ENOTSUP}:
            raise
    finally:
        os.close(folder)


@contextmanager
def _errors(path: Path, *, missing: bool = False) -> Iterator[None]:
    """Turns the system's errors into the store's; with `missing`, an absent file into `MissingObjectError`."""
    try:
        yield
    except OSError as error:
        if missing and error.errno in _NO_SUCH_FILE:
            raise MissingObjectError(f"{path}: {error.strerror}") from error
        raise _translated(str(path), error) from error


def _translated(path: str, error: OSError) -> StorageError:
    kind = AccessError if error.errno in _NO_PERMISSION else StorageError
    return kind(f"{path}: {error.strerror or error}")
