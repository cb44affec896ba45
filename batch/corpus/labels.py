"""Video objects in, labelled videos out: DFDC `metadata.json`, folder names, a table, or nothing."""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

import pyarrow.parquet as pq

from batch.corpus.listing import folder_of, part_of
from batch.records import StoredObject, VideoRef
from batch.storage.base import MissingObjectError, Storage

LabelMode = Literal["dfdc", "folders", "table", "none"]
METADATA = "metadata.json"
MAX_METADATA_BYTES = 64 << 20
_PROBED_OBJECTS, _PROBED_FOLDERS = 1000, 20
_NAMES_SHOWN = 20
_WORDS = {"fake": 1, "1": 1, "real": 0, "0": 0, "": None, "null": None, "none": None, "unknown": None}


@dataclass(slots=True)
class CorpusNotes:
    """What a listing told beside its videos. Filled while the stream is read."""

    unlabelled: int = 0
    missing_files: int = 0
    missing_examples: list[str] = field(default_factory=list)
    damaged_metadata: list[str] = field(default_factory=list)

    def missing(self, name: str) -> None:
        """Records a label without a file."""
        self.missing_files += 1
        if len(self.missing_examples) < _NAMES_SHOWN:
            self.missing_examples.append(name)


class Labels(Protocol):
    """A way to label. `label` is called in key order; `close` after the last."""

    mode: LabelMode

    def label(self, item: StoredObject) -> VideoRef:
        """The video with its label, or with None where the corpus does not say."""

    def close(self) -> None:
        """Reports labels whose files were not listed."""


def label_videos(items: Iterable[StoredObject], labels: Labels, notes: CorpusNotes) -> Iterator[VideoRef]:
    """Labels a stream and counts what has no label."""
    for item in items:
        video = labels.label(item)
        notes.unlabelled += video.label is None
        yield video
    labels.close()


def choose_labels(
    wanted: str,
    source: Storage,
    items: Iterable[StoredObject],
    notes: CorpusNotes,
    read_table: Storage | None = None,
) -> tuple[Labels, Iterator[StoredObject]]:
    """Turns `auto`, `dfdc`, `folders`, `none` or the name of a table file into a way to label.

    `auto` looks at the first page of the listing and gives the stream back whole. `read_table` is the storage of a
    table's folder. Raises `ValueError` for a table that cannot be used.
    """
    stream = iter(items)
    if wanted == "auto":
        head = list(itertools.islice(stream, _PROBED_OBJECTS))
        wanted, stream = _decide(source, head), itertools.chain(head, stream)
    if wanted == "dfdc":
        return DfdcLabels(source, notes), stream
    if wanted == "folders":
        return FolderLabels(), stream
    if wanted == "none":
        return NoLabels(), stream
    if read_table is None or not wanted.lower().endswith((".csv", ".parquet")):
        raise ValueError(f"labels: got {wanted!r}, expected auto, dfdc, folders, none or a .csv or .parquet file")
    return TableLabels.read(read_table, wanted.replace("\\", "/").rsplit("/", 1)[-1], source, notes), stream


def _decide(source: Storage, head: list[StoredObject]) -> str:
    folders = list(dict.fromkeys(folder_of(item.key) for item in head))[:_PROBED_FOLDERS]
    if any(source.exists(folder + METADATA) for folder in folders):
        return "dfdc"
    if head and all(_folder_label(item.key) is not None for item in head):
        return "folders"
    return "none"


def parse_label(value: object) -> int | None:
    """1 for fake, 0 for real, None for unknown; a `ValueError` for anything else."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    word = "" if value is None else str(value).strip().lower()
    if word not in _WORDS:
        raise ValueError(f"label: got {value!r}, expected fake or 1, real or 0, or nothing")
    return _WORDS[word]


def _video(item: StoredObject, label: int | None, source_id: str, split: str | None = None) -> VideoRef:
    return VideoRef(
        key=item.key,
        size_bytes=item.size_bytes,
        etag=item.etag,
        part=part_of(item.key),
        label=label,
        source_id=source_id,
        split=split,
    )


class NoLabels:
    """Every label is unknown."""

    mode: LabelMode = "none"

    def label(self, item: StoredObject) -> VideoRef:
        """A video of its own source."""
        return _video(item, None, item.key)

    def close(self) -> None:
        """Nothing to report."""


class FolderLabels:
    """The nearest folder named `real` or `fake` decides. The source of a fake is not known: its own key."""

    mode: LabelMode = "folders"

    def label(self, item: StoredObject) -> VideoRef:
        """A video of its own source."""
        return _video(item, _folder_label(item.key), item.key)

    def close(self) -> None:
        """Nothing to report."""


def _folder_label(key: str) -> int | None:
    for name in reversed(key.lower().split("/")[:-1]):
        if name in {"real", "fake"}:
            return _WORDS[name]
    return None


@dataclass(slots=True)
class _Folder:
    path: str
    entries: Mapping[str, object]
    unseen: set[str]


class DfdcLabels:
    """`metadata.json` beside the clips: `{"name.mp4": {"label": "FAKE", "split": "train", "original": "o.mp4"}}`.

    A source is named by the original's file name, whichever part that lies in: DFDC's names are unique, and where
    they are not, two sources become one group, which no split can then cut.
    """

    mode: LabelMode = "dfdc"

    def __init__(self, source: Storage, notes: CorpusNotes) -> None:
        self._source = source
        self._notes = notes
        # In key order the files of a folder surround those of its subfolders, so the open folders form a path.
        self._open: list[_Folder] = []

    def label(self, item: StoredObject) -> VideoRef:
        """Looks the file's name up in its folder's metadata."""
        path = folder_of(item.key)
        while self._open and not path.startswith(self._open[-1].path):
            self._leave(self._open.pop())
        if not self._open or self._open[-1].path != path:
            self._open.append(self._enter(path))
        folder, name = self._open[-1], item.key.rsplit("/", 1)[-1]
        folder.unseen.discard(name)
        entry = folder.entries.get(name)
        if not isinstance(entry, dict):
            return _video(item, None, name)
        try:
            label = parse_label(entry.get("label"))
        except ValueError:
            label = None
        original, split = entry.get("original"), entry.get("split")
        source_id = original if label == 1 and isinstance(original, str) and original else name
        return _video(item, label, source_id, split if isinstance(split, str) else None)

    def close(self) -> None:
        """Reports entries without a file."""
        while self._open:
            self._leave(self._open.pop())

    def _enter(self, path: str) -> _Folder:
        key = path + METADATA
        entries: dict[str, object] = {}
        try:
            data = self._source.read_range(key, 0, MAX_METADATA_BYTES + 1)
            if len(data) > MAX_METADATA_BYTES:
                raise ValueError(f"larger than {MAX_METADATA_BYTES} bytes")
            parsed = json.loads(data)
            if not isinstance(parsed, dict):
                raise ValueError("not an object at the top")
            entries = parsed
        except MissingObjectError:
            pass
        except (ValueError, RecursionError) as error:
            self._notes.damaged_metadata.append(f"{self._source.uri(key)}: {error}")
        return _Folder(path=path, entries=entries, unseen=set(entries))

    def _leave(self, folder: _Folder) -> None:
        for name in sorted(folder.unseen):
            self._notes.missing(folder.path + name)


class TableLabels:
    """A CSV or Parquet table with the columns `uri` and `label`, and perhaps `source` and `split`.

    `uri` and `source` may be whole addresses or keys relative to INPUT. The table is held in memory.
    """

    mode: LabelMode = "table"

    def __init__(self, rows: dict[str, tuple[int | None, str, str | None]], notes: CorpusNotes) -> None:
        self._rows = rows
        self._notes = notes
        self._unseen = set(rows)

    @classmethod
    def read(cls, storage: Storage, name: str, source: Storage, notes: CorpusNotes) -> TableLabels:
        """Reads and checks the table; a `ValueError` names the file, the row and what was expected."""
        data = storage.read(name)
        where = storage.uri(name)
        if name.lower().endswith(".parquet"):
            records = pq.read_table(io.BytesIO(data)).to_pylist()
        else:
            records = list(csv.DictReader(io.StringIO(data.decode("utf-8-sig"))))
        rows: dict[str, tuple[int | None, str, str | None]] = {}
        for number, record in enumerate(records, start=1):
            if "uri" not in record or "label" not in record:
                raise ValueError(f"{where}: columns {sorted(map(str, record))}, expected uri, label and perhaps source")
            key = _relative(str(record["uri"]), source.root)
            try:
                label = parse_label(record["label"])
            except ValueError as error:
                raise ValueError(f"{where}: row {number}: {error}") from error
            origin, split = record.get("source"), record.get("split")
            rows[key] = (
                label,
                _relative(str(origin), source.root) if origin else key,
                str(split) if split else None,
            )
        if not rows:
            raise ValueError(f"{where}: no rows, expected one a video")
        return cls(rows, notes)

    def label(self, item: StoredObject) -> VideoRef:
        """Looks the key up."""
        self._unseen.discard(item.key)
        label, source_id, split = self._rows.get(item.key, (None, item.key, None))
        return _video(item, label, source_id, split)

    def close(self) -> None:
        """Reports rows without a file."""
        for key in sorted(self._unseen):
            self._notes.missing(key)


def _relative(uri: str, root: str) -> str:
    return uri[len(root) + 1 :] if uri.startswith(root + "/") else uri
