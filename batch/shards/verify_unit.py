"""One unit's commits in, what is wrong with them and their files out.

Each file is read once and whole, since its digest needs every byte; counts and ids are taken from the same bytes,
without decoding a picture.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batch.records import Reason
from batch.schemas import FACES_VERSION, OUTCOMES_VERSION, faces_schema, outcomes_schema
from batch.shards.commit import FACES, OUTCOMES, Commit, DataFile, sha256, unit_name
from batch.shards.findings import Findings, Kind
from batch.shards.purged import Purged
from batch.shards.verify_commits import StoredCommit
from batch.storage.base import MissingObjectError, Storage
from batch.storage.keys import checked_key

KeyHashes = npt.NDArray[np.uint64]
"""64-bit hashes of video keys, shape (videos,): 8 bytes a video, where its key as a string takes a hundred. Two of
ten million keys share one with a chance of 3 in a million."""

_OUTCOME_COLUMNS = ["video_key", "source_id", "size_bytes", "outcome", "kind", "faces"]
_FACE_COLUMNS = ["face_id", "video_key", "source_id", "frame_index", "track_id", "label", "options_digest"]
_LABELS = {0: "real", 1: "fake", None: "unknown"}


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitCheck:
    """What checking one unit gave."""

    findings: Findings
    keys: KeyHashes
    """Of the unit's videos, each once."""
    faces: int
    files: int
    bytes_read: int


class UnitChecker:
    """Checks one unit, generation by generation. Memory: one shard."""

    def __init__(self, sink: Storage, options_digest: str | None, purged: Purged) -> None:
        """`options_digest` is None where `run.json` cannot tell it."""
        self._sink, self._options_digest, self._purged = sink, options_digest, purged
        self._findings = Findings()
        self._outcomes: dict[str, str] = {}  # of each video, by its highest generation so far
        self._whole = True  # False once a table of outcomes could not be read
        self._faces = self._files = self._bytes_read = 0

    def check(self, stored: Iterable[StoredCommit]) -> UnitCheck:
        """Checks the unit's commits, which come in the order of their generations."""
        for entry in stored:
            self._check_commit(entry.commit, self._sink.uri(entry.key))
        return UnitCheck(
            findings=self._findings,
            keys=hashed_keys(self._outcomes),
            faces=self._faces,
            files=self._files,
            bytes_read=self._bytes_read,
        )

    def _check_commit(self, commit: Commit, uri: str) -> None:
        expected = self._options_digest
        if expected is not None:
            self._findings.expect(Kind.OPTIONS, uri, "options digest", commit.options_digest, expected)
        outcomes = self._read(commit, uri, commit.outcomes, OUTCOMES)
        faces = None if commit.faces is None else self._read(commit, uri, commit.faces, FACES)
        if outcomes is not None:
            self._check_outcomes(commit, uri, outcomes)
        if commit.faces is not None and faces is not None:
            self._check_faces(commit, commit.faces, uri, faces)
        if outcomes is not None and (faces is not None or commit.faces is None):
            self._check_counts(commit, outcomes, faces)
        self._whole = self._whole and outcomes is not None

    def _check_outcomes(self, commit: Commit, uri: str, table: pa.Table) -> None:
        """Every video once, with an outcome that there is; in a retry, one that was a fault before."""
        where = self._sink.uri(commit.outcomes.key)
        keys, outcomes = table["video_key"].to_pylist(), table["outcome"].to_pylist()
        for key, count in Counter(keys).items():
            if count > 1:
                self._findings.add(Kind.VIDEO_TWICE, where, f"{count} rows of {key}", "one row a video")
        for key, outcome, kind in zip(keys, outcomes, table["kind"].to_pylist(), strict=True):
            right = _kind_of(outcome)
            if kind != right:
                self._findings.add(Kind.OUTCOME, where, f"{key}: {outcome} of kind {kind}", right or "an outcome")
        reasons, size_bytes = dict(Counter(outcomes)), pc.sum(table["size_bytes"]).as_py() or 0
        self._findings.expect(Kind.COMMIT_COUNTS, uri, "listed", commit.listed, len(keys))
        self._findings.expect(Kind.COMMIT_COUNTS, uri, "reasons", dict(commit.reasons), reasons)
        self._findings.expect(Kind.COMMIT_COUNTS, uri, "bytes_listed", commit.bytes_listed, size_bytes)
        self._check_retry(commit, uri, keys)
        self._outcomes.update(zip(keys, outcomes, strict=True))
        self._check_purged(where, table)

    def _check_retry(self, commit: Commit, uri: str, keys: Sequence[str]) -> None:
        if not self._whole:  # what the videos were before is not known
            return
        before = Counter(self._outcomes[key] for key in keys if key in self._outcomes)
        self._findings.expect(Kind.COMMIT_COUNTS, uri, "replaces", dict(commit.replaces), dict(before))
        if commit.generation == 0:
            return
        for key in keys:
            outcome = self._outcomes.get(key)
            if outcome is None or _kind_of(outcome) != "fault":
                found = f"{key}, {outcome or 'not there'} before"
                self._findings.add(Kind.RETRY, uri, found, "a fault in an earlier generation")

    def _check_purged(self, where: str, table: pa.Table) -> None:
        if not self._purged:
            return
        rows = zip(table["video_key"].to_pylist(), table["source_id"].to_pylist(), strict=True)
        for key in (key for key, source in rows if self._purged.covers_row(key, source)):
            self._findings.add(Kind.PURGED, where, f"a row of {key}", "none: it was purged; run the purge again")

    def _check_faces(self, commit: Commit, file: DataFile, uri: str, table: pa.Table) -> None:
        """Ids that are unique and made of their row; since a video has one unit, so they are in the whole output."""
        where = self._sink.uri(file.key)
        self._findings.expect(Kind.COMMIT_COUNTS, uri, "labels", dict(commit.labels), label_counts(table))
        for got, right in _differing(table["face_id"], _face_ids(table)):
            self._findings.add(Kind.FACE_ID, where, f"face_id {got}", right)
        for face_id, count in Counter(table["face_id"].to_pylist()).items():
            if count > 1:
                self._findings.add(Kind.FACE_ID, where, f"{count} rows of face_id {face_id}", "one")
        expected = self._options_digest or commit.options_digest
        for digest in pc.unique(table["options_digest"]).to_pylist():
            self._findings.expect(Kind.OPTIONS, where, "options digest", digest, expected)

    def _check_counts(self, commit: Commit, outcomes: pa.Table, faces: pa.Table | None) -> None:
        """Each face's video is kept in the same generation, with as many faces as it says."""
        where = self._sink.uri((commit.faces or commit.outcomes).key)
        there = Counter(() if faces is None else faces["video_key"].to_pylist())
        self._faces += there.total()
        columns = [outcomes[name].to_pylist() for name in ("video_key", "outcome", "faces")]
        for key, outcome, said in zip(*columns, strict=True):
            count = there.pop(key, 0)
            self._findings.expect(Kind.FACE_COUNT, where, f"faces of {key}", count, said)
            if outcome == Reason.KEPT and not count:
                self._findings.add(Kind.FACE_COUNT, where, f"no face of {key}", "a face, since it is kept")
            elif outcome != Reason.KEPT and count:
                self._findings.add(Kind.FACE_VIDEO, where, f"{count} faces of {key}, {outcome}", "none")
        for key, count in there.items():
            self._findings.add(Kind.FACE_VIDEO, where, f"{count} faces of {key}", "none: it has no outcome here")

    def _read(self, commit: Commit, commit_uri: str, file: DataFile, prefix: str) -> pa.Table | None:
        """The columns that are checked, or None where the file is not the one that was committed."""
        uri = self._sink.uri(file.key)
        name = f"{prefix}{unit_name(commit.unit, commit.generation)}-{file.sha256[:16]}.parquet"
        self._findings.expect(Kind.FILE_NAME, commit_uri, "names", file.key, name)
        if not _is_within(file.key, prefix):
            return None
        try:
            data = self._sink.read(file.key)
        except MissingObjectError:
            self._findings.add(Kind.FILE_MISSING, uri, "nothing", f"the file that {commit_uri} names")
            return None
        self._files += 1
        self._bytes_read += len(data)
        digest = sha256(data)
        if len(data) != file.size_bytes:
            self._findings.add(Kind.FILE_SIZE, uri, f"{len(data)} bytes", f"{file.size_bytes} bytes")
        elif digest != file.sha256:
            self._findings.add(Kind.FILE_DIGEST, uri, f"sha256 {digest}", file.sha256)
        else:
            return self._table(uri, file, prefix, data)
        return None

    def _table(self, uri: str, file: DataFile, prefix: str, data: bytes) -> pa.Table | None:
        version, schema, columns = _LAYOUTS[prefix]
        try:
            opened = pq.ParquetFile(pa.BufferReader(data))
            said = (opened.schema_arrow.metadata or {}).get(b"fakesift.schema", b"").decode(errors="replace")
            if said != version or not opened.schema_arrow.equals(schema()):
                self._findings.add(Kind.SCHEMA, uri, said or "no version", f"{version} with its columns")
                return None
            table = opened.read(columns, use_threads=False)
        except (pa.ArrowException, OSError) as error:
            self._findings.add(Kind.FILE_UNREADABLE, uri, error, "a Parquet file")
            return None
        self._findings.expect(Kind.ROWS, uri, "rows", table.num_rows, file.rows)
        return table


_LAYOUTS: Mapping[str, tuple[str, Callable[[], pa.Schema], list[str]]] = {
    FACES: (FACES_VERSION, faces_schema, _FACE_COLUMNS),
    OUTCOMES: (OUTCOMES_VERSION, outcomes_schema, _OUTCOME_COLUMNS),
}


def hashed_keys(keys: Iterable[str]) -> KeyHashes:
    """A 64-bit hash of each key."""
    digests = (blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest() for key in keys)
    return np.fromiter((int.from_bytes(digest, "big") for digest in digests), np.uint64)


def label_counts(faces: pa.Table) -> dict[str, int]:
    """Face rows by `real`, `fake` and `unknown`, from their `label` column."""
    return dict(Counter(_LABELS.get(label, str(label)) for label in faces["label"].to_pylist()))


def _kind_of(outcome: str) -> str | None:
    try:
        return Reason(outcome).kind
    except ValueError:
        return None


def _is_within(key: str, prefix: str) -> bool:
    try:
        return checked_key(key).startswith(prefix)
    except ValueError:
        return False


def _face_ids(table: pa.Table) -> pa.ChunkedArray:
    """Each row's id, made of its video's key, frame and number."""
    frame, track = (pc.cast(table[name], pa.string()) for name in ("frame_index", "track_id"))
    return pc.binary_join_element_wise(table["video_key"], pc.binary_join_element_wise(frame, track, "."), "#")


def _differing(found: pa.ChunkedArray, right: pa.ChunkedArray) -> Iterable[tuple[str, str]]:
    rows = pc.indices_nonzero(pc.not_equal(found, right))
    return zip(found.take(rows).to_pylist(), right.take(rows).to_pylist(), strict=True)
