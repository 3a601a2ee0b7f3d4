"""The Hugging Face Trainer over a module that gives loss and logits. Best: bf16 and torch.compile."""

from __future__ import annotations

import tempfile
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from networks import network
from protocol import Clock, arrays, job, tell
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import Trainer, TrainerCallback, TrainingArguments, set_seed


class Rows(Dataset[dict[str, Tensor]]):
    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, row: int) -> dict[str, Tensor]:
        return {"pixel_values": self.x[row], "labels": self.y[row]}


class WithLoss(nn.Module):
    def __init__(self, workload: str) -> None:
        super().__init__()
        self.net = network(workload)

    def forward(self, pixel_values: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        logits = self.net(pixel_values)
        return {"logits": logits} if labels is None else {"loss": F.cross_entropy(logits, labels), "logits": logits}


class Ends(TrainerCallback):
    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def on_epoch_end(self, *given: Any, **named: Any) -> None:
        self.clock.epoch()


def main() -> None:
    given = job()
    set_seed(given.seed)
    x, y, x_test, y_test = map(torch.from_numpy, arrays(given.data))
    clock, best = Clock(len(x)), given.mode == "best"
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder, per_device_train_batch_size=given.batch, num_train_epochs=given.epochs,
            learning_rate=1e-3, use_cpu=True, report_to="none", disable_tqdm=True, seed=given.seed,
            per_device_eval_batch_size=1000, bf16=best, torch_compile=best,
        )  # fmt: skip
        trainer = Trainer(WithLoss(given.workload), arguments, train_dataset=Rows(x, y), callbacks=[Ends(clock)])
        trainer.train()
        said = trainer.predict(Rows(x_test, y_test)).predictions  # type: ignore[arg-type]
    tell(clock.speed(), float((np.argmax(said, 1) == y_test.numpy()).mean()))


main()
