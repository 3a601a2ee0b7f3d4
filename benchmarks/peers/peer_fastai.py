"""fastai's Learner over its DataLoader of pairs. Best: torch.compile and the fused optimizer of torch; its mixed
precision is for CUDA alone."""

from __future__ import annotations

from functools import partial

import torch
from fastai.basics import Adam, Callback, CrossEntropyLossFlat, DataLoader, DataLoaders, Learner, OptimWrapper, set_seed
from fastai.callback.progress import ProgressCallback  # noqa: F401 - among what a Learner has by default
from networks import network, size_of
from protocol import Clock, arrays, job, tell


class Ends(Callback):
    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def after_train(self) -> None:
        self.clock.epoch()


def main() -> None:
    given = job()
    set_seed(given.seed)
    x, y, x_test, y_test = map(torch.from_numpy, arrays(given.data))
    train = DataLoader(list(zip(x, y, strict=True)), bs=given.batch, shuffle=True)
    test = DataLoader(list(zip(x_test, y_test, strict=True)), bs=given.test_batch)
    model, clock, best = network(given.workload), Clock(len(x)), given.mode == "best"
    # torch's own Adam by fastai's optimizer, which otherwise has other constants and decays weights.
    optimizer = partial(OptimWrapper, opt=torch.optim.Adam, fused=True) if best else partial(
        Adam, mom=0.9, sqr_mom=0.999, eps=1e-8, wd=0.0
    )  # fmt: skip
    learner = Learner(
        DataLoaders(train, []), torch.compile(model) if best else model, loss_func=CrossEntropyLossFlat(),
        opt_func=optimizer, lr=1e-3, cbs=Ends(clock),
    )  # fmt: skip
    with learner.no_bar(), learner.no_logging():
        learner.fit(given.epochs)
        scores, truth = learner.get_preds(dl=test)
    tell(clock.speed(), float((scores.argmax(-1) == truth).float().mean()), size_of(model))


main()
