"""The real clips of `../shared/corpus` in, their faces with the people in them out: the last rows of `accuracy.py`."""

from __future__ import annotations

import re
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from batch.corpus.labels import CorpusNotes, choose_labels, label_videos  # noqa: E402
from batch.corpus.listing import list_videos  # noqa: E402
from batch.corpus.units import plan_units  # noqa: E402
from batch.faces.extract import Extractor  # noqa: E402
from batch.faces.options import CropOptions, FaceOptions  # noqa: E402
from batch.model.records import FaceIndex  # noqa: E402
from batch.shards.build import build_unit  # noqa: E402
from batch.shards.runfile import RunFile, claim_output  # noqa: E402
from batch.storage.base import Storage  # noqa: E402
from batch.storage.local import LocalStorage  # noqa: E402

CLIPS = ROOT.parent / "shared" / "corpus"
FRAMES = 6


def write_clips(sink: Storage, side: int, folder: Path = CLIPS) -> None:
    """What `fakesift preprocess --frames 6 --faces all` writes, in this process. A minute on one core."""
    options = FaceOptions(frames=FRAMES, faces="all", crop=CropOptions(crop_size=side))
    source = LocalStorage(str(folder))
    notes = CorpusNotes()
    labels, items = choose_labels("auto", source, list_videos(source), notes)
    claim_output(sink, RunFile(kind="preprocess", input=source.root, shaping={"faces": asdict(options)}, versions={}))
    listed = 0
    for unit in plan_units(label_videos(items, labels, notes), options):
        build_unit(unit, Extractor(source=source, options=options), source.root, sink, options.digest())
        listed += len(unit.videos)
    sink.put("plan.json", b'{"listed": %d, "units": 0}' % listed)


def people_groups(index: FaceIndex) -> pa.Array:
    """The group of each face, strings: clips that share a person, be it as target or as donor, are of one group.

    A fake of two people ties their groups, so a source and its pair are left out together.
    """
    names = [uri.rsplit("/", 1)[-1] for uri in index.table["video_uri"].to_pylist()]
    people = sorted({person for name in names for person in people_in(name)})
    number = {person: place for place, person in enumerate(people)}
    ties = [(number[people_in(name)[0]], number[person]) for name in names for person in people_in(name)]
    ends = np.asarray(ties, np.int64)
    graph = coo_array((np.ones(len(ends), np.int8), (ends[:, 0], ends[:, 1])), shape=(len(people), len(people)))
    _, component = connected_components(graph, directed=False)
    return pa.array([f"people{component[number[people_in(name)[0]]]:03d}" for name in names])


def people_in(name: str) -> list[str]:
    """Who is in a clip, by the names that FaceForensics++ and DFD give: target, then donor.

    `ffpp_deepfakes_183_253.mp4`: 183 and 253; `dfdc23_01_02__walk_down_hall.mp4`: actors 01 and 02.
    """
    kind, _, rest = name.removesuffix(".mp4").partition("_")
    if kind == "ffpp":
        return [f"ffpp {number}" for number in re.findall(r"\d+", rest)]
    if kind in ("dfd", "dfdc23"):
        return [f"dfd {number}" for number in re.findall(r"\d+", rest.partition("__")[0])]
    return [name]
