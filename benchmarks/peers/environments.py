"""A virtual environment for each peer, made once beside the downloads; its versions are kept with the results."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from ..registry import DOWNLOADS

__all__ = ["HERE", "PEERS", "Peer", "interpreter", "versions"]

HERE = Path(__file__).parent
TORCH = ["torch==2.13.0", "numpy"]
# fastai asks for torchvision, whose wheel is for CUDA and does not load beside a CPU torch, and for spacy; what trains
# a module imports neither. So it is installed without what it asks for, and the rest of that by name.
FASTAI = [
    "torch==2.13.0", "fastcore", "fasttransform", "fastdownload<2", "fastprogress", "matplotlib", "pandas", "requests",
    "pyyaml", "pillow", "scikit-learn", "scipy", "packaging", "plum-dispatch<2.10", "cloudpickle",
]  # fmt: skip
# environment: what is installed in it, one command after the other (a package that asks for torch must find it there)
ENVIRONMENTS: dict[str, list[list[str]]] = {
    "torch": [TORCH, ["torch==2.13.0", "keras", "lightning", "transformers", "accelerate", "datasets", "pillow"]],
    "jax": [["jax", "jaxlib", "keras"]],
    "tensorflow": [["tensorflow-cpu", "keras"]],
    "fastai": [TORCH, ["--no-deps", "fastai"], FASTAI],
}


class Peer(NamedTuple):
    """Its program, its environment, the modes that it has, and what is set in the process's environment."""

    program: str
    environment: str | None
    modes: tuple[str, ...] = ("default", "best")
    settings: Mapping[str, str] = {}


PEERS = {
    "zhixing": Peer("peer_zhixing.py", None, ("default",)),
    "bare": Peer("peer_bare.py", "torch", ("default", "best", "compiled")),
    "keras-jax": Peer("peer_keras.py", "jax", settings={"KERAS_BACKEND": "jax"}),
    "keras-tensorflow": Peer(
        "peer_keras.py", "tensorflow", settings={"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}
    ),
    "keras-torch": Peer("peer_keras.py", "torch", settings={"KERAS_BACKEND": "torch"}),
    "lightning": Peer("peer_lightning.py", "torch"),
    "trainer": Peer("peer_trainer.py", "torch"),
    "fastai": Peer("peer_fastai.py", "fastai"),
}


def interpreter(environment: str | None) -> Path:
    """The Python of an environment, which is made where it is missing or was made for other packages; None: this."""
    if environment is None:
        return Path(sys.executable)
    folder = Path(os.environ.get("ZHIXING_PEERS", DOWNLOADS / "peers")) / environment
    done, python = folder / "installed", folder / "bin" / "python"
    wanted = json.dumps(ENVIRONMENTS[environment])
    if not done.exists() or done.read_text("utf-8") != wanted:
        done.unlink(missing_ok=True)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        for packages in ENVIRONMENTS[environment]:
            subprocess.run([str(python), "-m", "pip", "install", "-q", *packages], check=True)
        done.write_text(wanted, "utf-8")
    return python


def versions(environment: str | None) -> dict[str, str]:
    """The versions of what counts in an environment."""
    command = [str(interpreter(environment)), "-m", "pip", "list", "--format", "freeze"]
    lines = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.split()
    told = ("torch", "jax", "keras", "tensorflow", "tensorflow_cpu", "lightning", "transformers", "fastai", "datasets")
    return {name: version for name, _, version in (line.partition("==") for line in lines) if name.lower() in told}
