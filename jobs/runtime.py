"""What computes the network of a run: Keras, or OpenVINO where there is no GPU."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Literal

from batch.model.golden import Runtime

NO_GPU = {"CUDA_VISIBLE_DEVICES": "-1", "JAX_PLATFORMS": "cpu"}
"""Variables of a process that was given no GPU: Ray hides none of its node's, and another job may hold them."""

Wanted = Literal["auto", "keras", "openvino"]
"""`auto`: OpenVINO where it is installed and no GPU is, unless `KERAS_BACKEND` names a backend of somebody's choice."""


def check_runtime(wanted: Wanted) -> None:
    """Raises `ValueError` for OpenVINO where it is not installed."""
    if wanted == "openvino" and not _installed():
        raise ValueError(
            "runtime: got openvino, which is not installed here; expected the extra on every node "
            "(pip install 'fakesift[openvino]'), or --runtime keras"
        )


def chosen_runtime(wanted: Wanted, gpus: int) -> Runtime:
    """The runtime of the model actors of a cluster with so many GPUs. Nodes are taken to be installed as this one."""
    if wanted != "auto":
        return wanted
    ours = os.environ.get("KERAS_BACKEND", "tensorflow") == "tensorflow"
    return "openvino" if ours and not gpus and _installed() else "keras"


def runtime_environment(runtime: Runtime) -> dict[str, str]:
    """Variables that a process needs before it imports Keras: OpenVINO is given the network by TensorFlow."""
    return {"KERAS_BACKEND": "tensorflow"} if runtime == "openvino" else {}


def _installed() -> bool:
    return find_spec("openvino") is not None
