"""Videos by name in, an output of training or tuning without them out, and a record of digests that says so.

Taken out: their rows in splits and predictions, the encodings and landmarks of their faces, and every picture: the
sheet of augmented faces and the pages. What stays: the weights, which learnt from the faces and can only be trained
anew without them, and the fingerprint, digests by which `evaluate` knows what the model has seen.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batch.model.encodings import ENCODINGS
from batch.model.landmarks import KEY as LANDMARKS
from batch.model.parquet import zstd_parquet
from batch.model.records import BLENDED
from batch.model.scan import PREDICTIONS
from batch.model.split import SPLITS
from batch.shards.purge_faces import PurgeReport
from batch.shards.purged import ask_for, load_purged
from batch.storage.base import Storage
from batch.storage.leftovers import remove_all_hidden

PICTURES = ("augmented.png", "bundle/report.html", "report.html")
"""What may show faces. The names of what the jobs put there."""


def purge_training(sink: Storage, names: Sequence[str], uris: Sequence[str] = ()) -> PurgeReport:
    """Takes videos out of an output of training or tuning at which no job is at work.

    Args:
        sink: the output.
        names: uris of videos, or keys: the end of a uri after a slash.
        uris: uris that are known to be asked for, as `batch.shards.purge.named_uris` gives them.

    Done again after it was cut off, it goes on: the split, by which faces are known, is rewritten last.
    """
    purged = load_purged(sink)
    found, faces = _found(sink, names, set(uris))
    purged, record = ask_for(sink, purged, {*names, *uris, *found}, len(found))
    if faces or purged.unfinished:
        for key in _tables(sink):
            _rewrite(sink, key, faces)
        for key in PICTURES:
            sink.delete(key)
        remove_all_hidden(sink)
        _rewrite(sink, SPLITS, faces)
    for each in purged.unfinished:
        sink.put(each.key, each.finished().to_json())
    return PurgeReport(output=sink.root, videos=len(found), faces=len(faces), record=record)


def _found(sink: Storage, names: Sequence[str], uris: set[str]) -> tuple[set[str], set[str]]:
    """Uris and faces of the split that are asked for."""
    if not sink.exists(SPLITS):
        return set(), set()
    table = pq.read_table(io.BytesIO(sink.read(SPLITS)), columns=["face", "video_uri"])
    wanted = set(names) | uris
    ends = tuple(f"/{name}" for name in names)
    hit = [uri in wanted or uri.endswith(ends) for uri in table["video_uri"].to_pylist()]
    rows = table.filter(pa.array(hit, pa.bool_()))
    return set(rows["video_uri"].to_pylist()), set(rows["face"].to_pylist())


def _tables(sink: Storage) -> Iterator[str]:
    """Every table with a row a face, but the split."""
    yield from (key for key in (PREDICTIONS, LANDMARKS) if sink.exists(key))
    yield from [item.key for item in sink.list(ENCODINGS.removesuffix(".parquet") + "/")]


def _rewrite(sink: Storage, key: str, faces: set[str]) -> None:
    """The table without these faces, in its place."""
    if not sink.exists(key):
        return
    table = pq.read_table(io.BytesIO(sink.read(key)))
    named = pa.array(sorted(faces | {face + BLENDED for face in faces}), pa.string())
    left = table.filter(pc.invert(pc.is_in(table["face"], value_set=named)))
    if left.num_rows < table.num_rows:
        sink.put(key, zstd_parquet(left))
