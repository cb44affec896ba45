"""The few most suspicious items in, their faces as the model saw them and the frames around them out.

Tables hold no pictures. So these files alone are opened again, each in a decoding process of its own as in extraction,
and the window that the tables name is cut from the frame that they name: no detector runs. It is the same decoder,
the same cut and the same encoding, hence the same pixels that were scored.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import batched

import numpy as np
import numpy.typing as npt

from batch.faces.clock import Clock
from batch.faces.crop import cut, encode, example_jpeg
from batch.faces.decode import Decoded, MediaError, decode
from batch.faces.images import decode_image, is_image
from batch.faces.isolate import IsolatedExtractor, LimitOptions
from batch.faces.options import FaceOptions
from batch.records import Box, FaceRow, Reason, VideoRef, VideoResult
from batch.scoring.look import pixels
from batch.scoring.suspicious import FrameScore, Suspect
from batch.storage.base import Storage, StorageError
from batch.storage.ranged import RangedFile

FRAME_PX = 480
