"""Keras imported without TensorFlow's greetings, and by a driver without a GPU."""

from __future__ import annotations

import os
import re
import sys
import tempfile

# As Abseil's log begins a line of no error, and its own remark on being used early.
_NOISE = re.compile(rb"[IW]\d{4} \d\d:\d\d:\d\d|WARNING: All log messages before absl::InitializeLog")
_STDERR = 2


def import_keras() -> None:
    """Imports Keras and its backend; what they say on standard error is told afterwards, without remarks.

    TensorFlow 2.21 tells of oneDNN and of missing GPUs before it reads `TF_CPP_MIN_LOG_LEVEL`, in six lines
    (https://github.com/abseil/abseil-cpp/pull/1957). Errors and all that is not from its log come through.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if "keras" in sys.modules:
        return
    sys.stderr.flush()
    shown = os.dup(_STDERR)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), _STDERR)
        try:
            import keras  # noqa: F401
        finally:
            sys.stderr.flush()
            os.dup2(shown, _STDERR)
            os.close(shown)
            held.seek(0)
            for line in held:
                if not _NOISE.match(line):
                    os.write(_STDERR, line)


def import_keras_on_cores() -> None:
    """The same, for a driver: it would take the memory of a GPU that its workers wait for.

    Not by CUDA_VISIBLE_DEVICES, which an embedded Ray and its workers would inherit.
    """
    import_keras()
    import keras

    if keras.backend.backend() == "jax":
        import jax

        jax.config.update("jax_platforms", "cpu")
        return
    import tensorflow as tf

    tf.config.set_visible_devices([], "GPU")
