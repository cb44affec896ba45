"""Pictures for a page: encoded image bytes in, a small JPEG as a `data:` address out."""

from __future__ import annotations

import base64
import io

from PIL import Image

_QUALITY = 78


def thumbnail(image: bytes, longest_px: int) -> str:
    """Scales an encoded picture down to at most `longest_px` on its longer side.

    Metadata of the picture is left behind. Raises `OSError` for bytes that are no picture.
    """
    with Image.open(io.BytesIO(image)) as opened:
        picture = opened.convert("RGB")
    picture.thumbnail((longest_px, longest_px), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=_QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(out.getvalue()).decode()}"
