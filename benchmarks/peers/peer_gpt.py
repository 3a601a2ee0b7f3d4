"""GPT-2's shapes on random tokens: a plain loop, or the Hugging Face Trainer as it comes or at its best.

Called as ``peer_gpt.py SIDE WIDTH LAYERS HEADS LENGTH VOCABULARY BATCH STEPS``; prints one JSON line.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from typing import Any

import torch
from networks import GPT, loss_of, size_of
from protocol import peak
from torch import Tensor

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
Sizes = tuple[int, int, int, int, int]


def wait() -> float:
    """The time at which the device has done what it was given."""
    if DEVICE == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def loop(sizes: Sizes, batch: int, steps: int) -> tuple[float, int]:
    """Seconds of the second half of the steps, in bf16 by autocast, compiled, with the fused AdamW; and parameters."""
    width, layers, heads, length, vocabulary = sizes
    torch.set_float32_matmul_precision("high")
    model = GPT(width, layers, length, heads, vocabulary).to(DEVICE)
    called = torch.compile(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=6e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    tokens = torch.randint(vocabulary, (steps, batch, length + 1))
    started = 0.0
    for step, rows in enumerate(tokens):
        if step == steps // 2:
            started = wait()
        rows = rows.to(DEVICE, non_blocking=True)
        with torch.autocast(DEVICE, torch.bfloat16):
            loss = loss_of(called(rows[:, :-1]), rows[:, 1:])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return wait() - started, size_of(model)


def trainer(sizes: Sizes, batch: int, steps: int, best: bool) -> tuple[float, int]:
    """The same of the Trainer with its own GPT-2."""
    from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments

    width, layers, heads, length, vocabulary = sizes
    times: list[float] = []

    class Times(TrainerCallback):
        def on_step_end(self, arguments: Any, state: Any, control: Any, **named: Any) -> None:
            if state.global_step in (steps // 2, steps):
                times.append(wait())

    config = GPT2Config(
        vocab_size=vocabulary, n_positions=length, n_embd=width, n_layer=layers, n_head=heads, resid_pdrop=0.0,
        embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0, use_cache=False,
    )  # fmt: skip
    model = GPT2LMHeadModel(config)
    rows: list[dict[str, Tensor]] = []
    for tokens in torch.randint(vocabulary, (steps * batch, length)):
        rows.append({"input_ids": tokens, "labels": tokens})
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder, per_device_train_batch_size=batch, max_steps=steps, learning_rate=6e-4,
            report_to="none", disable_tqdm=True, save_strategy="no", bf16=best, torch_compile=best,
            use_cpu=DEVICE == "cpu",
        )  # fmt: skip
        Trainer(model, arguments, train_dataset=rows, callbacks=[Times()]).train()  # type: ignore[arg-type]
    return times[1] - times[0], size_of(model)


def main() -> None:
    side, *numbers = sys.argv[1:]
    width, layers, heads, length, vocabulary, batch, steps = map(int, numbers)
    sizes = (width, layers, heads, length, vocabulary)
    torch.manual_seed(0)
    seconds, parameters = (
        loop(sizes, batch, steps) if side == "loop" else trainer(sizes, batch, steps, side.endswith("best"))
    )
    speed = (steps - steps // 2) * batch * length / seconds
    held = torch.cuda.max_memory_allocated() if DEVICE == "cuda" else peak()
    print(json.dumps({"tokens_per_second": speed, "peak_memory": held, "parameters": parameters}), flush=True)


main()
