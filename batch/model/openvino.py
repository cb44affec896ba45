"""A trained network in, the same network compiled by OpenVINO for the CPU out. It is the optional extra `openvino`.

The network goes through a SavedModel of TensorFlow. Keras' own OpenVINO backend needs no TensorFlow, but leaves 122
transpositions in an Xception, which then gives 7 crops in a CPU second instead of 10. OpenVINO reads the SavedModel
itself: its converter would send usage statistics.

`tests/benchmarks/runtimes.py` holds its speed, memory and logits against those of Keras.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import openvino
from openvino.preprocess import PrePostProcessor

from batch.model.golden import Precision
from batch.model.predictor import DEFAULT_BATCH, BatchPredictor, logits_model, padded, side_of

# What OpenVINO calls a precision as an option, and among what a processor is capable of.
_HINTS = {"float32": ("f32", "FP32"), "bfloat16": ("bf16", "BF16"), "float16": ("f16", "FP16")}


class OpenVinoPredictor(BatchPredictor):
    """The network as OpenVINO computes it on this machine's CPU."""

    def __init__(
        self,
        model: keras.Model,
        *,
        batch_size: int = DEFAULT_BATCH,
        precision: Precision = "float32",
        threads: int | None = None,
    ) -> None:
        """Compiles a network with a layer `logit`.

        Args:
            model: input of shape (side, side, 3) with values 0 to 255, RGB; loaded by Keras on TensorFlow.
            batch_size: crops at a time, spread over the threads; rounded up to a multiple of them.
            precision: of the arithmetic.
            threads: of the network; one a core unless said otherwise.

        Raises:
            ValueError: for another backend of Keras, a precision that this processor does not compute in, a network
                that OpenVINO cannot compile, and what `Predictor` refuses.
        """
        threads = threads or len(os.sched_getaffinity(0))
        # Each thread has a share of the batch to itself, so that a batch of 32 would leave half of 64 threads idle.
        whole = -(-batch_size // threads) * threads
        super().__init__(side=side_of(model), batch_size=whole, precision=precision)
        if keras.backend.backend() != "tensorflow":
            raise ValueError(f"runtime openvino: got Keras on {keras.backend.backend()}, expected it on tensorflow")
        core = openvino.Core()
        self._share = whole // threads
        check_capability(precision, core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"))
        settings = {
            # Without a hint, processors with AMX compute in bfloat16.
            "INFERENCE_PRECISION_HINT": _HINTS[precision][0],
            # Each thread has crops of its own: two that share them wait for each other at every layer, and extraction
            # holds up now the one and now the other. On a busy machine that gives 10 to 40% more crops/s.
            "NUM_STREAMS": threads,
            "INFERENCE_NUM_THREADS": threads,
            # Extraction works beside it: a thread that is bound to a core waits for that one while another idles.
            "ENABLE_CPU_PINNING": False,
        }
        with tempfile.TemporaryDirectory() as folder:
            try:
                compiled = core.compile_model(_graph(core, model, self._share, Path(folder)), "CPU", settings)
            except (NotImplementedError, RuntimeError) as error:
                raise ValueError(
                    f"runtime openvino: {model.name} does not compile: {error}; use --runtime keras"
                ) from error
        self._requests = [compiled.create_infer_request() for _ in range(threads)]

    @property
    def engine(self) -> str:
        """OpenVINO and its version."""
        return f"OpenVINO {openvino.get_version()}"

    def _logits(self, batch: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        share = self._share
        shares = [padded(batch[start : start + share], share) for start in range(0, len(batch), share)]
        requests = self._requests[: len(shares)]
        for request, crops in zip(requests, shares, strict=True):
            request.start_async([crops], share_inputs=True)
        for request in requests:
            request.wait()
        found = [request.get_output_tensor().data.reshape(-1) for request in requests]
        return np.concatenate(found).astype(np.float32)


def check_capability(precision: Precision, capabilities: Iterable[str]) -> None:
    """Raises `ValueError` for a precision that is none of a processor's own: OpenVINO would silently use another."""
    known = sorted(capabilities)
    if _HINTS[precision][1] not in known:
        raise ValueError(
            f"precision {precision}: got a processor that computes in {', '.join(known)}, expected one with "
            f"{_HINTS[precision][1]} (avx512_bf16 or amx_bf16 in /proc/cpuinfo); use --precision float32"
        )


def _graph(core: openvino.Core, model: keras.Model, batch_size: int, folder: Path) -> Any:
    """The network up to its logits, of one batch of uint8 pixels, as OpenVINO's own graph."""
    side = side_of(model)
    logits_model(model).export(str(folder), format="tf_saved_model", verbose=False)
    prepared = PrePostProcessor(core.read_model(folder))
    prepared.input().tensor().set_element_type(openvino.Type.u8)
    graph = prepared.build()
    graph.reshape([batch_size, side, side, 3])
    return graph
