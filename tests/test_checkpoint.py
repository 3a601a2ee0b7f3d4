"""Checkpoints are whole or not there; damage is told and never loaded; the disk does not hold training up."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from conftest import Bench, same_bits
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file

import zhixing as zx
from zhixing.errors import CheckpointError, RunError, TrainingError
from zhixing.training import checkpoint as module
from zhixing.training.checkpoint import (
    Checkpoint,
    Writer,
    checkpoints,
    exclusive,
    latest,
    read_checkpoint,
    snapshot,
    write_checkpoint,
)
from zhixing.training.loop import Loop

ROOT = Path(__file__).parents[1]
TYPES = list(module.DTYPES)


@pytest.fixture
def damage(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT))
    import benchmarks.damage

    return benchmarks.damage


def simple(step: int, size: int = 10) -> Checkpoint:
    return Checkpoint(step, {"model": {"weight": torch.full((size,), float(step))}}, {"note": "ü"})


def steps(root: Path) -> list[int]:
    return [int(path.name[5:]) for path in checkpoints(root)]


def spoil(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x7f")


# What is written comes back -----------------------------------------------------------------------------------------


@given(
    st.dictionaries(
        st.text(min_size=1, max_size=12).filter(lambda name: name != "__metadata__"),
        st.tuples(st.sampled_from(TYPES), st.lists(st.integers(0, 4), max_size=3), st.integers(0, 2**31)),
        max_size=5,
    )
)
def test_all_types_and_shapes_come_back(
    tmp_path_factory: pytest.TempPathFactory, wanted: dict[str, tuple[torch.dtype, list[int], int]]
) -> None:
    tensors = {}
    for name, (dtype, shape, seed) in wanted.items():
        raw = torch.randint(0, 256, (*shape, dtype.itemsize), generator=torch.Generator().manual_seed(seed))
        raw = raw % 2 if dtype == torch.bool else raw
        tensors[name] = raw.to(torch.uint8).reshape(-1).view(dtype).reshape(shape)  # NaN and infinities among them
    root = tmp_path_factory.mktemp("any")
    folder = write_checkpoint(root, Checkpoint(7, {"model": tensors}, {}))
    assert same_bits(read_checkpoint(folder).tensors["model"], tensors)
    assert same_bits(load_file(folder / "model.safetensors"), tensors)  # any reader of the format can use them
    shutil.rmtree(root)


def test_tensors_lie_at_multiples_of_their_size(tmp_path: Path) -> None:
    tensors = {"a": torch.ones(3, dtype=torch.uint8), "b": torch.ones(3).double(), "c": torch.ones(1).half()}
    folder = write_checkpoint(tmp_path, Checkpoint(1, {"model": tensors}, {}))
    content = (folder / "model.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")
    for name, entry in json.loads(content[8 : 8 + length]).items():
        assert (8 + length + entry["data_offsets"][0]) % tensors[name].element_size() == 0
    with safe_open(folder / "model.safetensors", "pt") as file:
        assert sorted(file.keys()) == ["a", "b", "c"]


def test_a_snapshot_is_apart_from_what_it_was_taken_of() -> None:
    tensors = {"w": torch.ones(2, 3, 4, 4).to(memory_format=torch.channels_last), "count": torch.tensor(3)}
    copies = snapshot(tensors)
    for tensor in tensors.values():
        tensor.zero_()
    assert float(copies["w"].sum()) == 96
    assert int(copies["count"]) == 3
    assert all(tensor.is_contiguous() for tensor in copies.values())


# Which ones stay ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_the_newest_stay(tmp_path: Path, keep: int) -> None:
    for step in (2, 4, 6, 8):
        write_checkpoint(tmp_path, simple(step), keep=keep)
    assert steps(tmp_path) == [8, 6, 4][:keep]


@pytest.mark.parametrize("keep", [1, 2])
def test_a_damaged_newer_one_does_not_drive_out_good_ones(tmp_path: Path, keep: int) -> None:
    for step in (2, 4, 6):
        write_checkpoint(tmp_path, simple(step), keep=2)
    spoil(tmp_path / "step-00000006")
    found, wrong = latest(tmp_path)
    assert found is not None
    assert (found.step, len(wrong)) == (4, 1)
    write_checkpoint(tmp_path, simple(5), keep=keep)
    assert steps(tmp_path) == [5, 4][:keep]
    assert latest(tmp_path)[1] == []


def test_the_same_step_is_written_again_where_it_is_damaged(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, simple(4))
    changed = (folder / "model.safetensors").stat().st_mtime_ns
    write_checkpoint(tmp_path, simple(4))
    assert (folder / "model.safetensors").stat().st_mtime_ns == changed
    spoil(folder)
    write_checkpoint(tmp_path, simple(4))
    assert read_checkpoint(folder).step == 4
    assert list(tmp_path.glob(".part-*")) == []


# Damage -------------------------------------------------------------------------------------------------------------


def test_no_damage_is_loaded(tmp_path: Path, damage: ModuleType) -> None:
    found = damage.survey(tmp_path, {damage.flip: 200, damage.cut: 80, damage.zero: 60}, seed=1)
    assert found == {"flip": 200, "cut": 80, "zero": 60, "told": 340, "fell_back": 340, "silent": 0}


@pytest.mark.slow
def test_no_damage_is_loaded_of_much(tmp_path: Path, damage: ModuleType) -> None:
    found = damage.survey(tmp_path, {damage.flip: 1000, damage.cut: 300, damage.zero: 200}, seed=2)
    assert (found["told"], found["fell_back"], found["silent"]) == (1500, 1500, 0)


@pytest.mark.parametrize("name", ["model.safetensors", "state.json", "manifest.json", "manifest.sha256"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    folder = write_checkpoint(tmp_path, simple(4))
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=name):
        read_checkpoint(folder)
    assert latest(tmp_path)[0] is None


@pytest.mark.parametrize("name", ["model.safetensors", "state.json", "manifest.json"])
def test_a_longer_file_is_named(tmp_path: Path, name: str) -> None:
    folder = write_checkpoint(tmp_path, simple(4))
    with (folder / name).open("ab") as file:
        file.write(b" ")
    with pytest.raises(CheckpointError, match=f"{name} is not what was written"):
        read_checkpoint(folder)


def with_manifest(folder: Path, **change: Any) -> None:
    manifest = json.loads((folder / "manifest.json").read_bytes()) | change
    content = json.dumps(manifest).encode()
    (folder / "manifest.json").write_bytes(content)
    (folder / "manifest.sha256").write_text(hashlib.sha256(content).hexdigest())


def test_another_format_is_not_passed_over(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, simple(2))
    with_manifest(write_checkpoint(tmp_path, simple(4)), format=9)
    with pytest.raises(CheckpointError, match=r"format 9, and this version of Zhixing reads format 1\. Go on with"):
        latest(tmp_path)
    assert steps(tmp_path) == [4, 2]


def test_a_manifest_cannot_name_other_places(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "checkpoints", simple(4))
    secret = tmp_path / "secret"
    secret.write_text("x")
    entry = {"sha256": hashlib.sha256(b"x").hexdigest(), "bytes": 1}
    with_manifest(folder, files={"../../secret": entry})
    with pytest.raises(CheckpointError, match="outside of the checkpoint"):
        read_checkpoint(folder)


def test_a_checkpoint_of_other_settings_is_refused(pictures: Callable[..., Bench]) -> None:
    saved = pictures().loop(average=0.9).checkpoint()
    others = {
        "seed": pictures().loop(average=0.9, seed=1),
        "optimizer": pictures(name="momentum").loop(average=0.9),
        "average": pictures().loop(),
        "size": pictures(encoder_settings={"name": "mlp", "widths": [4]}).loop(average=0.9),
        "log": pictures().loop(average=0.9, log_every=3),
    }
    for loop in others.values():
        with pytest.raises(CheckpointError, match="does not fit the run's settings"):
            loop.restore(saved)


# A full disk --------------------------------------------------------------------------------------------------------


def in_child(work: Callable[[], str]) -> str:
    """What some work gives when it is done in a process of its own, whose files may be 20,000 bytes long at most."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
            os.write(write, work().encode())
        except BaseException as error:
            os.write(write, f"unexpected: {error!r}".encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, encoding="utf-8") as pipe:
        told = pipe.read()
    os.waitpid(child, 0)
    return told


def test_a_full_disk_leaves_the_last_good_one(tmp_path: Path) -> None:
    write_checkpoint(tmp_path, simple(2))

    def work() -> str:
        try:
            write_checkpoint(tmp_path, simple(4, size=50_000), keep=1)
        except CheckpointError as error:
            return str(error)
        return "written"

    told = in_child(work)
    assert str(tmp_path / "step-00000004") in told
    assert "File too large" in told
    need = int(told.split("it needs ")[1].split(" bytes")[0].replace(",", ""))
    assert 200_000 <= need <= 201_000
    assert "--resume" in told
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000002"]
    assert read_checkpoint(tmp_path / "step-00000002").step == 2


def test_a_full_disk_ends_the_loop_with_its_message(pictures: Callable[..., Bench], tmp_path: Path) -> None:
    made = pictures(encoder_settings={"name": "mlp", "widths": [64, 64]})

    def work() -> str:
        writer = Writer(tmp_path / "checkpoints")
        try:
            with writer:
                made.loop(checkpoint_every=2, writer=writer, total_steps=10**6).run()
        except CheckpointError as error:
            return str(error)
        return "no error"

    told = in_child(work)
    assert "the checkpoint cannot be written (File too large); it needs" in told
    assert steps(tmp_path / "checkpoints") == []


# In the background --------------------------------------------------------------------------------------------------


class Held:
    """Stands before the writing of files: waits until it is let go, and notes who writes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go, self.began = threading.Event(), threading.Event()
        self.real = module.write_files
        monkeypatch.setattr(module, "write_files", self)

    def __call__(self, *args: Any) -> None:
        self.began.set()
        assert self.go.wait(30)
        self.real(*args)


def test_what_comes_while_one_is_written_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held(monkeypatch)
    with Writer(tmp_path) as writer:
        assert writer.write(simple(2))
        assert held.began.wait(30)
        assert writer.busy
        assert not writer.write(simple(4))  # comes back at once: else this would stand here for ever
        writer.check()
        held.go.set()
        writer.finish()
        assert not writer.busy
        assert writer.write(simple(6))
    assert steps(tmp_path) == [6, 2]


def test_the_loop_goes_on_while_the_disk_does_not(
    pictures: Callable[..., Bench], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held(monkeypatch)
    loop = pictures().loop(checkpoint_every=1, total_steps=12, writer=Writer(tmp_path, keep=9))
    seen: list[int] = []

    def timing(line: dict[str, Any]) -> None:
        seen.append(line["step"])
        if line["step"] == 8:  # two readings of the log with the first checkpoint still being written
            held.go.set()

    loop.hooks.timing = timing
    loop.run()
    assert seen == [4, 8, 12]
    assert loop.writer is not None
    loop.writer.close()
    assert steps(tmp_path)[0] == 12
    assert steps(tmp_path)[-1] == 1
    assert not {2, 3, 4, 5, 6, 7} & set(steps(tmp_path))


def test_the_training_thread_only_copies(
    pictures: Callable[..., Bench], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: dict[str, set[bool]] = {}
    main = threading.main_thread()

    def spy(owner: Any, name: str) -> None:
        real = getattr(owner, name)

        def spied(*args: Any, **kwargs: Any) -> Any:
            threads.setdefault(name, set()).add(threading.current_thread() is main)
            return real(*args, **kwargs)

        monkeypatch.setattr(owner, name, spied)

    for owner, name in (
        (hashlib, "sha256"), (hashlib, "file_digest"), (json, "dumps"), (os, "fsync"), (os, "rename"),
        (module, "layout"), (module, "pieces"), (module, "snapshot"),
    ):  # fmt: skip
        spy(owner, name)
    monkeypatch.setattr("zhixing.training.loop.snapshot", module.snapshot)
    with Writer(tmp_path) as writer:
        pictures().loop(checkpoint_every=3, writer=writer).run()
    assert threads.pop("snapshot") == {True}
    assert threads == {name: {False} for name in threads}
    assert len(threads) == 7


def test_a_failure_in_the_background_ends_the_training(
    pictures: Callable[..., Bench], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "write_files", full)
    loop = pictures().loop(checkpoint_every=500, total_steps=10**6, writer=Writer(tmp_path))
    loop.save()
    with pytest.raises(CheckpointError, match="No space left on device"):
        loop.run()  # long before the next one is due
    assert loop.progress.step < 500


def test_what_ended_the_training_is_told_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "write_files", full)

    def work(error: Exception | None) -> None:
        with Writer(tmp_path) as writer:
            writer.write(simple(2))
            if error is not None:
                raise error

    with pytest.raises(TrainingError, match="not finite") as caught:
        work(TrainingError("not finite"))
    assert "No space left" in caught.value.__notes__[0]
    with pytest.raises(CheckpointError, match="No space left"):
        work(None)


def test_leftovers_of_a_killed_run_are_removed(tmp_path: Path) -> None:
    left = tmp_path / ".part-step-00000004"
    left.mkdir()
    (left / "model.safetensors").write_bytes(b"half")
    write_checkpoint(tmp_path, simple(2))
    with Writer(tmp_path):
        assert [path.name for path in tmp_path.iterdir()] == ["step-00000002"]


def test_the_order_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files, their folder and the log are flushed before the rename, the parent after it: a loss of power finds the
    old checkpoint or the whole new one."""
    log, root = tmp_path / "metrics.jsonl", tmp_path / "checkpoints"
    log.write_text("{}\n")
    events: list[str] = []
    fsync, rename, rmtree = os.fsync, os.rename, shutil.rmtree

    def flushed(handle: int) -> None:
        events.append("flush " + os.path.relpath(os.readlink(f"/proc/self/fd/{handle}"), tmp_path))
        fsync(handle)

    def renamed(old: Path, new: Path) -> None:
        events.append(f"rename to {new.name}")
        rename(old, new)

    def removed(path: Path, **options: Any) -> None:
        if path.exists():
            events.append(f"remove {path.name}")
        rmtree(path, **options)

    write_checkpoint(root, simple(2), keep=1)
    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(os, "rename", renamed)
    monkeypatch.setattr(shutil, "rmtree", removed)
    write_checkpoint(root, simple(4), keep=1, logs=[log])
    part = "flush checkpoints/.part-step-00000004"
    assert events == [
        f"{part}/model.safetensors", f"{part}/state.json", f"{part}/manifest.json", f"{part}/manifest.sha256", part,
        "flush metrics.jsonl", "rename to step-00000004", "flush checkpoints", "remove step-00000002",
    ]  # fmt: skip


# Two processes, and what is there after the end ---------------------------------------------------------------------


def test_two_cannot_work_on_one_run(tmp_path: Path) -> None:
    with exclusive(tmp_path):

        def work() -> str:
            try:
                with exclusive(tmp_path):
                    return "both"
            except RunError as error:
                return str(error)

        assert in_child(work) == (
            f"{tmp_path}: another process is training this run. Wait until it ends, or stop it and resume then."
        )
    with exclusive(tmp_path):  # it is free again
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = {"x": [0.0, 1.0] * 30, "label": ["no", "yes"] * 30}
    return zx.train(data, epochs=1, out=tmp_path_factory.mktemp("finished") / "run").path


def test_a_changed_weight_is_noticed(finished: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    path = run / "model.safetensors"
    content = bytearray(path.read_bytes())
    for place in range(0, len(content), max(1, len(content) // 40)):
        content[place] ^= 16
        path.write_bytes(content)
        with pytest.raises(RunError, match=r"model\.safetensors is not what was written"):
            zx.load(run)
        content[place] ^= 16
    path.write_bytes(content)
    zx.load(run)


@pytest.mark.parametrize(
    ("name", "old", "new"), [("recipe.yaml", "seed: 0", "seed: 1"), ("columns.json", '"no"', '"No"')]
)
def test_a_changed_recipe_or_column_is_noticed(finished: Path, tmp_path: Path, name: str, old: str, new: str) -> None:
    """A sensible change, and bits that flip anywhere, with the file no longer readable among them."""
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    content = (run / name).read_bytes()
    assert old.encode() in content
    changes = [content.replace(old.encode(), new.encode()), content[:-5], b""]
    for place in range(0, len(content), len(content) // 25):
        changes.append(content[:place] + bytes([content[place] ^ 1 << place % 8]) + content[place + 1 :])
    for changed in changes:
        (run / name).write_bytes(changed)
        with pytest.raises(RunError, match=f"{name} is not what was written when the run ended"):
            zx.load(run)
    (run / name).unlink()
    with pytest.raises(RunError, match=name):
        zx.load(run)


def test_a_loop_comes_back_from_its_checkpoint(
    pictures: Callable[..., Bench], tmp_path: Path, everything: Callable[[Loop], dict[str, torch.Tensor]]
) -> None:
    made = pictures()
    whole = made.loop(average=0.9, total_steps=11, precision="fp16")
    whole.run()
    half = made.loop(average=0.9, total_steps=11, precision="fp16", writer=Writer(tmp_path))
    half.hooks.stop = lambda: half.progress.step == 6
    half.run()
    other = made.loop(average=0.9, total_steps=11, precision="fp16")
    found, _ = latest(tmp_path)
    assert found is not None
    other.restore(found)
    assert other.progress.step == 6
    other.run()
    assert same_bits(everything(other), everything(whole))
    assert other.progress == whole.progress
