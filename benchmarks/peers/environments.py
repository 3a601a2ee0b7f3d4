"""A virtual environment for each peer, made once beside the downloads; its versions are kept with the results."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from ..registry import DOWNLOADS

__all__ = ["PEERS", "interpreter", "versions"]

HERE = Path(__file__).parent
TORCH = ["torch==2.13.0", "numpy"]
# environment: what is installed in it, one command after the other (a package that asks for torch must find it there)
ENVIRONMENTS: dict[str, list[list[str]]] = {
    "torch": [TORCH, ["torch==2.13.0", "keras", "lightning", "transformers", "accelerate", "datasets"]],
    "jax": [["jax", "jaxlib", "keras"]],
    "tensorflow": [["tensorflow-cpu", "keras"]],
}
# peer: its program, its environment, what is set in the process's environment
PEERS: dict[str, tuple[str, str | None, dict[str, str]]] = {
    "zhixing": ("peer_zhixing.py", None, {}),
    "bare": ("peer_bare.py", None, {}),
    "keras-jax": ("peer_keras.py", "jax", {"KERAS_BACKEND": "jax"}),
    "keras-tensorflow": ("peer_keras.py", "tensorflow", {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}),
    "keras-torch": ("peer_keras.py", "torch", {"KERAS_BACKEND": "torch"}),
    "lightning": ("peer_lightning.py", "torch", {}),
    "trainer": ("peer_trainer.py", "torch", {}),
}


def interpreter(environment: str | None) -> Path:
    """The Python of an environment, which is made where it is missing; None: this one."""
    if environment is None:
        return Path(sys.executable)
    folder = Path(os.environ.get("ZHIXING_PEERS", DOWNLOADS / "peers")) / environment
    done, python = folder / "installed", folder / "bin" / "python"
    if not done.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        for packages in ENVIRONMENTS[environment]:
            subprocess.run([str(python), "-m", "pip", "install", "-q", *packages], check=True)
        done.touch()
    return python


def versions(environment: str | None) -> dict[str, str]:
    """The versions of what counts in an environment."""
    command = [str(interpreter(environment)), "-m", "pip", "list", "--format", "freeze"]
    lines = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.split()
    told = ("torch", "jax", "keras", "tensorflow", "tensorflow_cpu", "lightning", "transformers")
    return {name: version for name, _, version in (line.partition("==") for line in lines) if name.lower() in told}
