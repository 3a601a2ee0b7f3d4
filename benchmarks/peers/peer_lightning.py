"""Lightning over a DataLoader of tensors. Best: bf16-mixed and torch.compile."""

from __future__ import annotations

import tempfile

import lightning
import torch
from networks import loss_of, network, size_of
from protocol import Clock, arrays, job, tell
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

Pair = tuple[Tensor, Tensor]


class Module(lightning.LightningModule):
    def __init__(self, workload: str, clock: Clock, compiled: bool) -> None:
        super().__init__()
        self.net = network(workload)
        if compiled:
            self.net = torch.compile(self.net)
        self.clock, self.right, self.seen = clock, 0, 0

    def training_step(self, batch: Pair, place: int) -> Tensor:
        loss = loss_of(self.net(batch[0]), batch[1])
        self.log("loss", loss)
        return loss

    def on_train_epoch_end(self) -> None:
        self.clock.epoch()

    def test_step(self, batch: Pair, place: int) -> None:
        self.right += int((self.net(batch[0]).argmax(-1) == batch[1]).sum())
        self.seen += batch[1].numel()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=1e-3)


def main() -> None:
    given = job()
    lightning.seed_everything(given.seed, verbose=False)
    x, y, x_test, y_test = map(torch.from_numpy, arrays(given.data))
    clock = Clock(len(x))
    best = given.mode == "best"
    module = Module(given.workload, clock, compiled=best)
    with tempfile.TemporaryDirectory() as folder:
        trainer = lightning.Trainer(
            max_epochs=given.epochs, accelerator="cpu", precision="bf16-mixed" if best else "32-true", logger=False,
            default_root_dir=folder, enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(module, DataLoader(TensorDataset(x, y), batch_size=given.batch, shuffle=True))
        trainer.test(module, DataLoader(TensorDataset(x_test, y_test), batch_size=given.test_batch), verbose=False)
    tell(clock.speed(), module.right / module.seen, size_of(module))


main()
