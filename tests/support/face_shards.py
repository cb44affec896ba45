"""Face shards of noise crops, written by the real writer, and their index: each crop tells which face it is."""

import io
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from batch.faces.crop import encode
from batch.faces.options import CropOptions, FaceOptions
from batch.model.records import FaceIndex, Shard
from batch.records import Box, FaceRow, MediaInfo, Reason, RgbImage, VideoRef, VideoResult
from batch.schemas import face_index_schema
from batch.shards.write import faces_file, faces_table, parquet_bytes
from batch.storage.base import Storage

_BOX = Box(left=0, top=0, right=100, bottom=100)
_MEDIA = MediaInfo(duration_s=10.0, fps=25.0, codec="h264", width_px=640, height_px=360)


def crop_of(number: int, side: int) -> RgbImage:
    """The picture of face `number`: coarse noise, different for each."""
    coarse = np.random.default_rng(number).integers(0, 256, (8, 8, 3), np.uint8)
    return np.repeat(np.repeat(coarse, side // 8, axis=0), side // 8, axis=1)


def write_index(
    sink: Storage,
    labels: Sequence[Sequence[int | None]],
    side: int = 32,
    crops: Sequence[RgbImage] | None = None,
) -> FaceIndex:
    """One shard for each list of labels, one face for each label; `crops` in the order of the index."""
    shards, rows, number = [], [], 0
    for place, of_shard in enumerate(labels):
        results = []
        for label in of_shard:
            key = f"p/{number:05d}.mp4"
            video = VideoRef(key=key, size_bytes=1, etag="e", part="p", label=label, source_id=key)
            crop = crop_of(number, side) if crops is None else crops[number]
            face = FaceRow(
                video=video, media=_MEDIA, frame_index=0, pts_s=0.0, track_id=0, image=encode(crop, "png"),
                face_box_px=_BOX, crop_box_px=_BOX, detector="hog", score=None,
            )  # fmt: skip
            results.append(VideoResult(video=video, reason=Reason.KEPT, faces=(face,)))
            number += 1
        table = faces_table(results, "/in", "0" * 16)
        data = parquet_bytes(table)
        file = faces_file(f"u{place}", data, table.num_rows)
        sink.put(file.key, data)
        shards.append(
            Shard(sink=sink, key=file.key, sha256=file.sha256, size_bytes=file.size_bytes, rows=table.num_rows)
        )
        rows += [index_row(face, place, row) for row, face in enumerate(table.to_pylist())]
    table = pa.Table.from_pylist(rows, schema=face_index_schema())
    return FaceIndex(
        table=table, shards=shards, face_options=FaceOptions(crop=CropOptions(crop_size=side)), digest="d" * 16
    )


def index_row(face: dict[str, object], shard: int, row: int) -> dict[str, object]:
    """A row of the faces table as a row of the index."""
    kept = {name: face[name] for name in face_index_schema().names if name in face}
    return kept | {"face": str(face["face_id"]), "shard": shard, "row": row}


def rewrite(index: FaceIndex, number: int, images: Sequence[bytes]) -> FaceIndex:
    """The index with one shard's pictures replaced, and committed as such."""
    shard = index.shards[number]
    table = pq.read_table(io.BytesIO(shard.sink.read(shard.key))).slice(0, len(images))
    column = pa.array([{"bytes": image, "path": "x"} for image in images], type=table.schema.field("image").type)
    data = parquet_bytes(table.set_column(table.schema.get_field_index("image"), table.schema.field("image"), column))
    file = faces_file(f"u{number}", data, len(images))
    shard.sink.put(file.key, data)
    shards = list(index.shards)
    shards[number] = Shard(
        sink=shard.sink, key=file.key, sha256=file.sha256, size_bytes=file.size_bytes, rows=len(images)
    )
    return FaceIndex(table=index.table, shards=shards, face_options=index.face_options, digest=index.digest)
