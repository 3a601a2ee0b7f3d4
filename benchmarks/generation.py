"""Text from SmolLM2-135M beside the library ``transformers``: the same weights, prompts, number format and process.

One line of JSON for each number format and batch: tokens a second of both (of all rows together, the reading of the
prompt left out and counted in), milliseconds to the first token, and whether both wrote the same tokens.

    python -m benchmarks.generation [--rounds 3] [--tokens 64] [--threads 1]

Rounds of both take turns, and figures are medians over rounds. Greedy; prompts are paragraphs of a dictionary.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

os.environ["HF_HUB_OFFLINE"] = "1"  # read when the library is imported

import pyarrow as pa
import torch
import transformers
from torch import Tensor

from zhixing.columns.text import Text
from zhixing.columns.vocabulary import BEGIN, END
from zhixing.heads.search import Search
from zhixing.heads.text import TextHead
from zhixing.model import blank_encoding
from zhixing.pretrained import open_model, untrained

from .data import english_dictionary, smollm2

FORMATS = {"fp32": torch.float32, "bf16": torch.bfloat16}
BATCHES = (1, 8)


class Timed(NamedTuple):
    """Tokens [B, T] and the moment, in seconds from the call, at which each step's were there."""

    tokens: Tensor
    moments: list[float]

    @property
    def first(self) -> float:
        return 1000 * self.moments[0]

    @property
    def rate(self) -> float:
        """Tokens a second after the first."""
        return len(self.tokens) * (len(self.moments) - 1) / (self.moments[-1] - self.moments[0])

    @property
    def whole_rate(self) -> float:
        return len(self.tokens) * len(self.moments) / self.moments[-1]


class Clock(transformers.StoppingCriteria):
    """Never stops; notes when it is asked, which is after each token."""

    def __init__(self) -> None:
        self.started, self.moments = time.perf_counter(), list[float]()

    def __call__(self, input_ids: Tensor, scores: Tensor, **named: Any) -> Tensor:
        self.moments.append(time.perf_counter() - self.started)
        return torch.zeros(len(input_ids), dtype=torch.bool)


def prompts_of(column: Text, rows: int, tokens: int) -> Tensor:
    """The first ``tokens`` tokens of ``rows`` long paragraphs, [B, T]."""
    found = []
    for paragraph in english_dictionary().read_text("utf-8", "replace")[3_000_000:3_400_000].split("\n\n"):
        ids = column.tensorize(pa.array([paragraph]), None).values  # type: ignore[arg-type]
        if len(ids) > tokens + 1:
            found.append(torch.from_numpy(ids[:tokens]).long())
        if len(found) == rows:
            break
    return torch.stack(found)


def published_of() -> Any:
    """The library's model with the dequantised weights of the file."""
    files = open_model(smollm2()).files
    config = {key: value for key, value in files.config.items() if key != "model_type"}
    published = transformers.LlamaForCausalLM(transformers.LlamaConfig(**config)).eval()
    weights = {name: files.read(name) for name in files.names()}
    weights.setdefault("lm_head.weight", weights["model.embed_tokens.weight"])
    published.load_state_dict(weights)
    return published


@torch.inference_mode()
def ours(decoder: Any, prompts: Tensor, tokens: int) -> Timed:
    started, moments, out = time.perf_counter(), list[float](), list[Tensor]()
    for step in decoder.stream(blank_encoding(len(prompts), prompts.device), Search(), tokens, prompts):
        out.append(step)
        moments.append(time.perf_counter() - started)
    return Timed(torch.stack(out, dim=1), moments)


@torch.inference_mode()
def theirs(published: Any, prompts: Tensor, tokens: int) -> Timed:
    clock = Clock()
    found = published.generate(
        prompts, attention_mask=torch.ones_like(prompts), max_new_tokens=tokens, do_sample=False,
        stopping_criteria=transformers.StoppingCriteriaList([clock]),
    )  # fmt: skip
    return Timed(found[:, prompts.shape[1] :], clock.moments)


def compare(run_ours: Callable[[], Timed], run_theirs: Callable[[], Timed], rounds: int) -> dict[str, Any]:
    """Figures of both, after one round that does not count."""
    done: list[tuple[Timed, Timed]] = []
    for number in range(rounds + 1):
        pair = (run_ours(), run_theirs()) if number % 2 else (run_theirs(), run_ours())[::-1]
        done.append(pair)
    out: dict[str, Any] = {}
    for name, side in (("", 0), ("_of_transformers", 1)):
        sides = [pair[side] for pair in done[1:]]
        out[f"tokens_a_second{name}"] = round(statistics.median(one.rate for one in sides), 2)
        out[f"with_the_prompt{name}"] = round(statistics.median(one.whole_rate for one in sides), 2)
        out[f"first_token_ms{name}"] = round(statistics.median(one.first for one in sides), 1)
    out["ratio"] = round(statistics.median(mine.rate / other.rate for mine, other in done[1:]), 3)
    out["ratio_of_first"] = round(statistics.median(mine.first / other.first for mine, other in done[1:]), 3)
    return out


def agreement(mine: Tensor, other: Tensor, order: Tensor) -> dict[str, Any]:
    """How many rows are the same to the last token, and the share of tokens before each row's first difference."""
    most = min(mine.shape[1], other.shape[1])
    same = order[mine[:, :most]] == other[:, :most]
    return {
        "tokens": most,
        "same_rows": f"{int(same.all(1).sum())} of {len(same)}",
        "same_until": round(float(same.long().cumprod(1).float().mean()), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=64, help="tokens that are written")
    parser.add_argument("--prompt", type=int, default=64, help="tokens that are read first")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--formats", nargs="*", choices=list(FORMATS), default=list(FORMATS))
    parser.add_argument("--batches", nargs="*", type=int, default=list(BATCHES))
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    transformers.logging.set_verbosity_error()
    _, columns, model = untrained(
        {"outputs": {"text": {"type": "text", "length": 1024, "packed": True, "decoder": str(smollm2())}}}
    )
    column, head = columns["text"], model.head("text")
    assert isinstance(column, Text)
    assert isinstance(head, TextHead)
    published, order = published_of(), torch.from_numpy(open_model(smollm2()).tokenizer.order)
    published.generation_config.eos_token_id = None  # neither side is to stop early
    published.generation_config.pad_token_id = int(order[END])
    decoder = head.decoder
    for form in given.formats:
        decoder, published = decoder.to(FORMATS[form]), published.to(FORMATS[form])
        for batch in given.batches:
            started = time.perf_counter()
            ready = decoder.ready(batch)
            packing = round(1000 * (time.perf_counter() - started), 1)
            prompts = prompts_of(column, batch, given.prompt - 1)
            read = order[torch.cat([torch.full((batch, 1), BEGIN), prompts], dim=1)]
            told = agreement(
                ours(ready, prompts, given.tokens).tokens, theirs(published, read, given.tokens).tokens, order
            )
            figures = compare(
                lambda prompts=prompts, ready=ready: ours(ready, prompts, given.tokens),  # type: ignore[misc]
                lambda read=read, published=published: theirs(published, read, given.tokens),  # type: ignore[misc]
                given.rounds,
            )
            print(json.dumps({"format": form, "batch": batch, **figures, "packing_ms": packing, **told}), flush=True)


if __name__ == "__main__":
    main()
