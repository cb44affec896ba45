"""Extractors that misbehave on marked files, by real process death, endless loops and real allocation."""

import os
import time

from batch.records import Reason, VideoRef, VideoResult


def extract(video: VideoRef) -> VideoResult:
    """What a decoder with a bug would do, told by the key; harmless on all other keys."""
    if "abort" in video.key:
        os.abort()
    if "hang" in video.key:
        while True:
            time.sleep(1)
    if "memory" in video.key:
        return VideoResult(video=video, reason=Reason.KEPT, detail=str(len(bytearray(8 << 30))))
    if "bug" in video.key:
        raise ZeroDivisionError("a bug of ours")
    return VideoResult(video=video, reason=Reason.KEPT, detail=str(os.getpid()))
