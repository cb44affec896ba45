"""Every table that is written, as a versioned pyarrow schema.

The version stands in each file's schema metadata under `fakesift.schema`, as `faces/1`. A reader refuses a version
that it does not know.
"""

from __future__ import annotations

import pyarrow as pa

FACES_VERSION = "faces/1"
OUTCOMES_VERSION = "outcomes/1"
SPLITS_VERSION = "splits/1"
ENCODINGS_VERSION = "encodings/1"
FINGERPRINT_VERSION = "fingerprint/1"
PREDICTIONS_VERSION = "predictions/1"
LANDMARKS_VERSION = "landmarks/1"
ITEMS_VERSION = "items/1"
TRACKS_VERSION = "tracks/1"
LEDGER_VERSION = "ledger/1"

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
        pa.field("split", pa.string()),  # train, validation or test; null: in none, since the label is unknown
    ]
    return pa.schema(fields, metadata={"fakesift.schema": SPLITS_VERSION})


def encodings_schema() -> pa.Schema:
    """One row a face: what tells people apart. Biometric data, kept in a run's own output alone."""
    fields = [
        pa.field("face", pa.string(), nullable=False),
        pa.field("encoding", pa.list_(pa.float32(), 128), nullable=False),
    ]
    return pa.schema(fields, metadata={"fakesift.schema": ENCODINGS_VERSION})


def fingerprint_schema() -> pa.Schema:
    """One row a digest of what a model was trained on: of a name, of a path's end, or of a picture."""
    fields = [
        pa.field("kind", pa.string(), nullable=False),  # name, ending or picture
        pa.field("digest", pa.binary(), nullable=False),  # 8 bytes of a name or an ending, 32 of a picture
    ]
    return pa.schema(fields, metadata={"fakesift.schema": FINGERPRINT_VERSION})


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


def items_schema() -> pa.Schema:
    """One row an item and look: a video or image, as it was scored in one run. Partitioned by `date`, the night."""
    fields = [
        pa.field("uri", pa.string(), nullable=False),
        pa.field("input", pa.string(), nullable=False),  # the INPUT that listed it: bucket and prefix, or folder
        pa.field("key", pa.string(), nullable=False),  # relative to it
        pa.field("media", pa.string(), nullable=False),  # video or image
        pa.field("size_bytes", pa.int64(), nullable=False),
        pa.field("etag", pa.string(), nullable=False),
        pa.field("modified_s", pa.float64(), nullable=False),  # seconds since 1970
        pa.field("probability", pa.float32()),  # of fake, calibrated, 0 to 1; null if there is a reason
        pa.field("uncertainty", pa.float32()),  # standard error over its frames; null with fewer than two
        pa.field("band", pa.string()),  # likely real, uncertain, likely fake; null if there is a reason
        pa.field("reason", pa.string()),  # why there is no score, a value of records.Reason; null if there is one
        pa.field("kind", pa.string(), nullable=False),  # scored, set_aside or fault
        pa.field("detail", pa.string(), nullable=False),
        pa.field("tracks", pa.int32(), nullable=False),  # rows in the tracks table
        pa.field("faces", pa.int32(), nullable=False),  # scored crops: all faces of all frames
        pa.field("frames_seen", pa.int32(), nullable=False),
        pa.field("top_track", pa.int32()),  # the most suspicious one
        pa.field("same_as", pa.string()),  # uri of the item with the same content that was scored in its stead
        pa.field("width_px", pa.int32()),
        pa.field("height_px", pa.int32()),
        pa.field("duration_s", pa.float64()),
        pa.field("fps", pa.float64()),
        pa.field("codec", pa.string()),
        pa.field("attempt", pa.int8(), nullable=False),  # 1, and up to 4 where the store failed or time ran out
        pa.field("fingerprint", pa.string()),  # 32 hex digits: equal for equal content
        pa.field("bundle", pa.string(), nullable=False),  # digest
        pa.field("options", pa.string(), nullable=False),  # digest of what shapes a score beside the bundle
        pa.field("runtime", pa.string()),  # what computed the network: keras or openvino; null without a score
        pa.field("precision", pa.string()),  # of its arithmetic: float32 or bfloat16; null without a score
        pa.field("run", pa.int32(), nullable=False),
    ]
    return pa.schema(fields, metadata={"fakesift.schema": ITEMS_VERSION})


def tracks_schema() -> pa.Schema:
    """One row a face that was followed through an item, with the score of each frame. Partitioned as `items`."""
    frame = pa.struct(
        [
            pa.field("frame_index", pa.int32()),
            pa.field("pts_s", pa.float64()),
            pa.field("logit", pa.float32()),  # log-odds of fake before calibration
            pa.field("probability", pa.float32()),  # after it
            pa.field("face_box_px", _BOX),
            pa.field("crop_box_px", _BOX),
            pa.field("detector_score", pa.float32()),
        ]
    )
    fields = [
        pa.field("uri", pa.string(), nullable=False),
        pa.field("etag", pa.string(), nullable=False),
        pa.field("track_id", pa.int32(), nullable=False),
        pa.field("probability", pa.float32(), nullable=False),
        pa.field("uncertainty", pa.float32()),  # standard error over its frames; null for a single one
        pa.field("band", pa.string(), nullable=False),
        pa.field("frames", pa.list_(frame), nullable=False),  # in order of time
        pa.field("bundle", pa.string(), nullable=False),
        pa.field("options", pa.string(), nullable=False),
        pa.field("run", pa.int32(), nullable=False),
    ]
    return pa.schema(fields, metadata={"fakesift.schema": TRACKS_VERSION})


def ledger_schema() -> pa.Schema:
    """One row an item and look: what has been scored with what. The next run looks things up by the digests."""
    digest = pa.binary(16)
    fields = [
        pa.field("uri", pa.string(), nullable=False),
        pa.field("input", pa.string(), nullable=False),
        pa.field("etag", pa.string(), nullable=False),
        pa.field("date", pa.date32(), nullable=False),  # the night
        pa.field("run", pa.int32(), nullable=False),
        pa.field("unit", pa.string(), nullable=False),  # commits/<run>/<unit>.json
        pa.field("bundle", pa.string(), nullable=False),
        pa.field("options", pa.string(), nullable=False),
        pa.field("reason", pa.string()),
        pa.field("probability", pa.float32()),
        pa.field("band", pa.string()),
        pa.field("same_as", pa.string()),
        pa.field("attempt", pa.int8(), nullable=False),
        pa.field("uri_digest", digest, nullable=False),
        pa.field("content_digest", digest, nullable=False),  # of uri and etag
        pa.field("version_digest", digest, nullable=False),  # of uri, etag, bundle and options
        pa.field("crops_digest", digest),  # of uri, etag and face options; null where no crops were kept
        pa.field("fingerprint", digest),
    ]
    return pa.schema(fields, metadata={"fakesift.schema": LEDGER_VERSION})


def landmarks_schema() -> pa.Schema:
    """One row a face: the 468 landmarks of MediaPipe's face mesh."""
    fields = [
        pa.field("face", pa.string(), nullable=False),
        pa.field("score", pa.float32(), nullable=False),  # 0 to 1: how sure the network is that there is a face
        pa.field("points", pa.list_(pa.float32(), 936), nullable=False),  # x, y in shares of the crop's side
    ]
    return pa.schema(fields, metadata={"fakesift.schema": LANDMARKS_VERSION})
