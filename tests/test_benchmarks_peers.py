"""The bench beside peers: what it counts, and that all are given the same rows."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.gpt import SIZES, Size, operations
from benchmarks.peers.__main__ import beside
from benchmarks.peers.workloads import WORKLOADS

PEERS = Path(__file__).parent.parent / "benchmarks" / "peers"


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> dict[str, ModuleType]:
    """Modules that peers import from their own folder."""
    monkeypatch.syspath_prepend(PEERS)
    return {name: importlib.import_module(name) for name in ("protocol", "networks", "peer_zhixing")}


@pytest.mark.parametrize("workload", [name for name in WORKLOADS if name != "lstm"])  # whose work torch does not count
def test_multiplications_are_those_that_torch_counts(programs: dict[str, ModuleType], workload: str) -> None:
    model = programs["networks"].network(workload)
    side = 32 if workload == "resnet18" else 28
    row = torch.zeros(1, 256, dtype=torch.int64) if workload == "gpt" else torch.zeros(1, side, side)
    with FlopCounterMode(display=False) as counted, sdpa_kernel(SDPBackend.MATH):
        model(row)
    assert counted.get_total_flops() == 2 * WORKLOADS[workload].multiplications


def test_operations_of_a_token_are_those_that_torch_counts(programs: dict[str, ModuleType]) -> None:
    """But for biases and norms, which are counted as if they were multiplied."""
    size = Size(width=256, layers=2, heads=4, length=128, vocabulary=1000)
    model = programs["networks"].GPT(size.width, size.layers, size.length, size.heads, size.vocabulary)
    with FlopCounterMode(display=False) as counted, sdpa_kernel(SDPBackend.MATH):
        model(torch.zeros(1, size.length, dtype=torch.int64)).sum().backward()
    expected = operations(size, programs["networks"].size_of(model)) * size.length
    assert counted.get_total_flops() == pytest.approx(expected, rel=0.01)


def test_the_shape_of_gpt_2_has_its_number_of_parameters(programs: dict[str, ModuleType]) -> None:
    with torch.device("meta"):
        size = SIZES["124"]
        model = programs["networks"].GPT(size.width, size.layers, size.length, size.heads, size.vocabulary)
    assert programs["networks"].size_of(model) == 124_439_808  # as that of the published weights


def test_a_causal_network_reads_nothing_that_comes_later(programs: dict[str, ModuleType]) -> None:
    torch.manual_seed(0)
    model = programs["networks"].network("gpt").eval()
    read = torch.randint(4, 260, (1, 256))
    other = read.clone()
    other[:, 200:] = 7
    with torch.no_grad():
        first, second = model(read), model(other)
    torch.testing.assert_close(first[:, :200], second[:, :200])
    assert not torch.allclose(first[:, 200:], second[:, 200:])


def test_texts_become_tokens_and_the_tokens_that_follow(programs: dict[str, ModuleType], tmp_path: Path) -> None:
    texts = np.asarray(["abc", "b c"])
    np.savez(tmp_path / "rows.npz", text_train=texts, text_test=texts[:1])
    x, y, x_test, y_test = programs["protocol"].arrays(tmp_path / "rows.npz")
    assert x.tolist() == [[2, 101, 102, 103], [2, 102, 36, 103]]
    assert y.tolist() == [[101, 102, 103, 3], [102, 36, 103, 3]]
    assert (x_test.shape, y_test.shape) == ((1, 4), (1, 4))


def test_ratios_are_of_rounds_and_above_one_where_ours_is_faster() -> None:
    def run(speed: float, seconds: float) -> dict[str, float]:
        return {"rows_per_second": speed, "seconds": seconds, "accuracy": 0.5, "peak_memory": 2**20}

    theirs, ours = [run(100, 8), run(50, 8), run(200, 8)], [run(200, 4), run(200, 8), run(180, 16)]
    found = beside(theirs, ours)
    assert (found["ratio"], found["spread"], found["tie"]) == (2.0, [0.9, 4.0], True)
    assert (found["whole_process_ratio"], found["whole_process_spread"]) == (1.0, [0.5, 2.0])


def test_our_speed_is_of_the_steps_after_the_first_epoch(programs: dict[str, ModuleType]) -> None:
    """Three epochs of 60 steps: a line that begins in the first is left out, a short last one counts for less."""
    told = [(50, 1.0), (100, 1.0), (150, 10.0), (180, 30.0)]
    lines = [{"step": step, "rows_per_second": speed} for step, speed in told]
    assert programs["peer_zhixing"].speed_of(lines, 3) == pytest.approx(80 / (50 / 10 + 30 / 30))
