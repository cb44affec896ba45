"""Every table that is written, as a versioned pyarrow schema.

The version stands in each file's schema metadata under `fakesift.schema`, as `faces/1`. A reader refuses a version
that it does not know.
"""

from __future__ import annotations

import pyarrow as pa

FACES_VERSION = "faces/1"
OUTCOMES_VERSION = "outcomes/1"
SPLITS_VERSION = "splits/1"
PREDICTIONS_VERSION = "predictions/1"

_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_BOX = pa.struct([(side, pa.int32()) for side in ("left", "top", "right", "bottom")])

# Hugging Face datasets reads this key of the file's metadata and shows the column as pictures.
_HUGGINGFACE = '{"info": {"features": {"image": {"_type": "Image"}}}}'


def faces_schema() -> pa.Schema:
    """One row a face crop. Boxes are pixels of the upright original frame, right and bottom exclusive."""
    fields = [
        pa.field("face_id", pa.string(), nullable=False),  # video key, frame and number of the face
        pa.field("video_uri", pa.string(), nullable=False),
        pa.field("video_key", pa.string(), nullable=False),  # relative to INPUT
        pa.field("part", pa.string(), nullable=False),
        pa.field("source_id", pa.string(), nullable=False),
        pa.field("label", pa.int8()),  # 1 = fake, 0 = real, null = unknown
        pa.field("split", pa.string()),  # the corpus's own
        pa.field("frame_index", pa.int32(), nullable=False),
        pa.field("pts_s", pa.float64(), nullable=False),
        pa.field("track_id", pa.int32(), nullable=False),
        pa.field("image", _IMAGE),  # never null; nullable, since Hugging Face datasets takes it for a picture only so
        pa.field("crop_box_px", _BOX, nullable=False),
        pa.field("face_box_px", _BOX, nullable=False),
        pa.field("face_width_px", pa.int32(), nullable=False),
        pa.field("face_height_px", pa.int32(), nullable=False),
        pa.field("frame_width_px", pa.int32(), nullable=False),
        pa.field("frame_height_px", pa.int32(), nullable=False),
        pa.field("detector", pa.string(), nullable=False),
        pa.field("detector_score", pa.float32()),
        pa.field("duration_s", pa.float64()),
        pa.field("fps", pa.float64()),
        pa.field("codec", pa.string(), nullable=False),
        pa.field("etag", pa.string(), nullable=False),
        pa.field("options_digest", pa.string(), nullable=False),
    ]
    return pa.schema(fields, metadata={"fakesift.schema": FACES_VERSION, "huggingface": _HUGGINGFACE})


def outcomes_schema() -> pa.Schema:
    """One row a listed video, whatever became of it."""
    fields = [
        pa.field("video_key", pa.string(), nullable=False),
        pa.field("video_uri", pa.string(), nullable=False),
        pa.field("part", pa.string(), nullable=False),
        pa.field("source_id", pa.string(), nullable=False),
        pa.field("label", pa.int8()),
        pa.field("split", pa.string()),
        pa.field("size_bytes", pa.int64(), nullable=False),
        pa.field("etag", pa.string(), nullable=False),
        pa.field("outcome", pa.string(), nullable=False),  # a value of records.Reason
        pa.field("kind", pa.string(), nullable=False),  # kept, set_aside or fault
        pa.field("detail", pa.string(), nullable=False),
        pa.field("faces", pa.int32(), nullable=False),  # rows in the faces table
        pa.field("faces_found", pa.int32(), nullable=False),  # most faces seen in one frame
        pa.field("frames_seen", pa.int32(), nullable=False),
        pa.field("width_px", pa.int32()),
        pa.field("height_px", pa.int32()),
        pa.field("duration_s", pa.float64()),
        pa.field("fps", pa.float64()),
        pa.field("codec", pa.string()),
        pa.field("decoded_by", pa.string()),  # key_packet or stream
        pa.field("example", _IMAGE),  # a small JPEG of the frame of a set-aside video
    ]
    return pa.schema(fields, metadata={"fakesift.schema": OUTCOMES_VERSION})


def face_index_schema() -> pa.Schema:
    """One row a face of one or several outputs, without its picture. Held in memory, never written."""
    fields = [
        pa.field("face", pa.string(), nullable=False),  # video_uri and the frame and number of the face
        pa.field("shard", pa.int32(), nullable=False),
        pa.field("row", pa.int32(), nullable=False),
        pa.field("video_uri", pa.string(), nullable=False),
        pa.field("part", pa.string(), nullable=False),
        pa.field("source_id", pa.string(), nullable=False),
        pa.field("label", pa.int8()),
        pa.field("split", pa.string()),  # the corpus's own
        pa.field("frame_index", pa.int32(), nullable=False),
        pa.field("track_id", pa.int32(), nullable=False),
        pa.field("face_width_px", pa.int32(), nullable=False),
        pa.field("face_height_px", pa.int32(), nullable=False),
        pa.field("frame_width_px", pa.int32(), nullable=False),
        pa.field("frame_height_px", pa.int32(), nullable=False),
    ]
    return pa.schema(fields)


def splits_schema() -> pa.Schema:
    """One row a face: which group it belongs to, and what it is used for."""
    fields = [
        pa.field("face", pa.string(), nullable=False),
        pa.field("video_uri", pa.string(), nullable=False),
        pa.field("label", pa.int8()),
        pa.field("group", pa.string(), nullable=False),  # 16 hex digits: faces that no split may part
        pa.field("split", pa.string(), nullable=False),  # train, validation or test
    ]
    return pa.schema(fields, metadata={"fakesift.schema": SPLITS_VERSION})


def predictions_schema() -> pa.Schema:
    """One row a face that a model looked at, with what errors are sliced by."""
    fields = [
        pa.field("face", pa.string(), nullable=False),
        pa.field("video_uri", pa.string(), nullable=False),
        pa.field("track_id", pa.int32(), nullable=False),
        pa.field("label", pa.int8()),
        pa.field("group", pa.string(), nullable=False),
        pa.field("split", pa.string()),  # null outside of training's own faces
        pa.field("part", pa.string(), nullable=False),
        pa.field("face_width_px", pa.int32(), nullable=False),
        pa.field("face_height_px", pa.int32(), nullable=False),
        pa.field("frame_height_px", pa.int32(), nullable=False),
        pa.field("logit", pa.float32(), nullable=False),  # log-odds of fake before calibration
        pa.field("probability", pa.float32(), nullable=False),  # after it
    ]
    return pa.schema(fields, metadata={"fakesift.schema": PREDICTIONS_VERSION})
