"""The Hugging Face Trainer over a module that gives loss and logits; for texts, its own GPT-2. Best: bf16 and
torch.compile."""

from __future__ import annotations

import tempfile
from typing import Any

import numpy as np
import torch
from networks import loss_of, network, size_of
from protocol import VOCABULARY, Clock, arrays, job, tell
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments, set_seed


class Rows(Dataset[dict[str, Tensor]]):
    def __init__(self, x: Tensor, y: Tensor, text: bool) -> None:
        self.x, self.y, self.text = x, y, text

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, row: int) -> dict[str, Tensor]:
        if self.text:  # the model shifts the labels by itself
            return {"input_ids": self.x[row], "labels": self.x[row]}
        return {"pixel_values": self.x[row], "labels": self.y[row]}


class WithLoss(nn.Module):
    def __init__(self, workload: str) -> None:
        super().__init__()
        self.net = network(workload)

    def forward(self, pixel_values: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        logits = self.net(pixel_values)
        return {"logits": logits} if labels is None else {"loss": loss_of(logits, labels), "logits": logits}


class Ends(TrainerCallback):
    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def on_epoch_end(self, *given: Any, **named: Any) -> None:
        self.clock.epoch()


def gpt2() -> nn.Module:
    sizes = GPT2Config(
        vocab_size=VOCABULARY, n_positions=256, n_embd=384, n_layer=6, n_head=6, resid_pdrop=0.0, embd_pdrop=0.0,
        attn_pdrop=0.0, bos_token_id=2, eos_token_id=3, use_cache=False,
    )  # fmt: skip
    return GPT2LMHeadModel(sizes)


def main() -> None:
    given = job()
    set_seed(given.seed)
    x, y, x_test, y_test = map(torch.from_numpy, arrays(given.data))
    text, best = given.workload == "gpt", given.mode == "best"
    model, clock = gpt2() if text else WithLoss(given.workload), Clock(len(x))
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder, per_device_train_batch_size=given.batch, num_train_epochs=given.epochs,
            learning_rate=1e-3, lr_scheduler_type="constant", use_cpu=True, report_to="none", disable_tqdm=True,
            seed=given.seed, per_device_eval_batch_size=given.test_batch, bf16=best, torch_compile=best,
        )  # fmt: skip
        trainer = Trainer(model, arguments, train_dataset=Rows(x, y, text), callbacks=[Ends(clock)])
        trainer.train()
        said = np.argmax(trainer.predict(Rows(x_test, y_test, text)).predictions, -1)
    right = said == y_test.numpy()
    tell(clock.speed(), float((right[:, :-1] if text else right).mean()), size_of(model))


main()
