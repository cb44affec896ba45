"""What errors are sliced by, as the options say: clip quality, and the groups of a table."""

from __future__ import annotations

from batch.faces.options import digest_of
from batch.model.records import FaceIndex
from batch.model.slices import CLIP_QUALITY, Slices, clip_quality, read_slices
from batch.storage.open import open_storage
from batch.storage.s3 import S3Options


def check_slices(file: str | None) -> None:
    """Raises `ValueError` for a file that can be no table."""
    if file is not None and not file.lower().endswith((".csv", ".parquet")):
        raise ValueError(f"slices: got {file}, expected a .csv or .parquet file")


def open_slices(file: str | None, index: FaceIndex, s3: S3Options) -> Slices:
    """Of all faces of the index. Raises as `read_slices` does."""
    given: Slices = {}
    if file is not None:
        place, _, name = file.rpartition("/")
        given = read_slices(open_storage(place or ("/" if "/" in file else "."), s3), name, index)
    return {CLIP_QUALITY: clip_quality(index), **given}


def slices_digest(file: str | None, slices: Slices) -> dict[str, str]:
    """What `run.json` says of them: nothing where there is no table."""
    return {} if file is None else {"slices": digest_of({kind: list(values) for kind, values in slices.items()})}
