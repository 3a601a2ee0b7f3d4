"""Writing, training and measuring the candidates of one run."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import recipe as recipes
from ..console import Console
from ..errors import UsageError, ZhixingError
from ..heads import Head
from ..model import Model
from ..recipe import Recipe
from ..run import RunFolder, build_model
from .candidate import Candidate
from .compressed import Compressed
from .distil import student_recipe
from .forms import EAGER, FORMS, write_form
from .low_rank import low_rank
from .measure import Timed, collected, drop, goals, sample_rows, time_forms
from .prune import plan, prune, slim_recipe
from .retrain import Material, recovery, retrain
from .subject import Subject

__all__ = ["METHODS", "Ask", "Work"]

SMALLER = {"low_rank": "low rank", "prune": "pruned", "distil": "distilled"}
METHODS = (*FORMS, *SMALLER)
SECOND = ("onnx", "onnx_dynamic", "onnx_static", "openvino_int8")  # forms that smaller models are written in too
CALIBRATION_ROWS, LOOKED_AT = 300, 1024  # rows that ranges are learned from; rows that decide what to cut


@dataclass(frozen=True)
class Ask:
    """What is wanted.

    ``max_drop`` is how much worse a form may be on validation rows: of a share such as accuracy that many hundredths,
    of an error such as rmse relatively. ``methods`` are names out of ``METHODS``; ``aim`` says what the chosen one
    is to be best in. Smaller models ``keep`` that share of weights, channels and units, and are trained for so many
    ``epochs`` (None: a student as many as the run, others half of them). ``student`` holds assignments to the recipe
    of the distilled model.
    """

    max_drop: float = 0.005
    methods: Sequence[str] = METHODS
    aim: str = "latency"
    keep: float = 0.5
    epochs: float | None = None
    student: Sequence[str] = ()
    batch: int = 32
    rounds: int = 7


class Work:
    """The candidates of one run, and what they are measured with."""

    def __init__(self, material: Material, model: Model, ask: Ask, scratch: Path, console: Console) -> None:
        self.material, self.model, self.ask, self.scratch, self.console = material, model, ask, scratch, console
        self.batches = material.batches
        self.validation = material.prepared.split["validation"]
        self.candidates: list[Candidate] = []
        self.rows = [self.batches.gather(row[None]) for row in material.some("train", CALIBRATION_ROWS)]
        self.original = self.subject("", material.recipe, model)
        self.goals = goals(model, material.columns, collected(model, self.batches, self.validation))

    def subject(self, label: str, recipe: Recipe, model: Model) -> Subject:
        folder = self.scratch / f"model-{label or 'original'}".replace(" ", "-")
        folder.mkdir()
        return Subject(label, recipe, self.material.columns, model, self.rows, folder)

    def drops(self, figures: Mapping[str, float]) -> float:
        """The largest drop of any output."""
        return max(drop(self.head(name), self.goals[name], figure) for name, figure in figures.items())

    def head(self, name: str) -> Head:
        return self.model.head(name)

    # Writing and what it costs in accuracy --------------------------------------------------------------------------

    def add(self, subject: Subject, form: str) -> Candidate:
        """Write a model in one form and measure it on validation rows; a failure becomes the candidate's reason."""
        place = self.scratch / f"candidate-{len(self.candidates)}"
        label = FORMS[form].label if not subject.label else f"{subject.label}, {FORMS[form].label}"
        one = Candidate(label, subject.label, form, place, parameters=subject.parameters)
        self.candidates.append(one)
        try:
            told = write_form(subject, form, place)
            one.size = sum((place / name).stat().st_size for name in told["files"])
            one.figures = self.accuracy(place, subject)
            one.drop = self.drops(one.figures)
        except (KeyboardInterrupt, SystemExit):
            raise
        except Exception as error:  # whatever a library finds wrong with this model is the reason why it is not there
            one.fail(error)
        self.console.say(f"  {one.line()}")
        return one

    def accuracy(self, place: Path, subject: Subject) -> dict[str, float]:
        """The metrics that the model is chosen by; of a form whose answers depend on the batch, the worse of rows one
        by one and of rows in batches."""
        model = Compressed(place, subject.recipe, subject.columns)
        found = goals(model, subject.columns, collected(model, self.batches, self.validation))
        if not model.depends_on_batch:
            return found
        alone = goals(model, subject.columns, collected(model, self.batches, self.validation, alone=True))
        worse = {name: min if self.head(name).higher else max for name in found}
        return {name: worse[name](found[name], alone[name]) for name in found}

    def try_forms(self) -> None:
        self.console.say(f"forms of the model, on {len(self.validation):,} validation rows:")
        for form in FORMS:
            if form == EAGER or form in self.ask.methods:
                self.add(self.original, form)
        if self.candidates[0].failure:
            raise UsageError(f"the run's own model cannot be measured: {self.candidates[0].failure}")

    def try_smaller(self) -> None:
        self.console.say(f"smaller models, with {self.ask.keep:.0%} of the weights or units:")
        for method in SMALLER:
            if method not in self.ask.methods:
                continue
            try:
                subject = SMALLERS[method](self)
            except ZhixingError as error:
                one = Candidate(SMALLER[method], SMALLER[method], method, self.scratch / method)
                one.fail(error)
                self.candidates.append(one)
                self.console.say(f"  {one.line()}")
                continue
            self.write_smaller(subject)

    def write_smaller(self, subject: Subject) -> None:
        """A smaller model in the usual forms; in int8 only where it is good enough in float32."""
        good = {one.form for one in self.candidates if not one.model and one.within(self.ask.max_drop)}
        first = self.add(subject, "onnx" if "onnx" in good else EAGER)
        for form in SECOND[1:] if first.within(self.ask.max_drop) else ():
            if form in good:
                self.add(subject, form)

    # Speed, and test rows -------------------------------------------------------------------------------------------

    def time(self) -> None:
        rows = sample_rows(self.batches, self.validation, self.model.inputs, self.ask.batch)
        ready = [one for one in self.candidates if not one.failure]
        self.console.say(f"timing {len(ready)} of them in turns, each in a process of its own on one thread")
        found = time_forms(
            [one.folder for one in ready], rows, rounds=self.ask.rounds,
            progress=lambda done, of: self.console.progress("timing", done, of),
        )  # fmt: skip
        for one, timed in zip(ready, found, strict=True):
            if isinstance(timed, Timed):
                one.timed = timed
            else:
                one.fail(timed)

    def test(self, chosen: Candidate) -> dict[str, Any]:
        """What the original and the chosen one come to on test rows, which nothing has been chosen by."""
        rows = self.material.prepared.split["test"]
        if not len(rows):
            return {"rows": 0}
        columns = self.material.columns
        original = goals(self.model, columns, collected(self.model, self.batches, rows))
        model = self.opened(chosen)
        found = goals(model, columns, collected(model, self.batches, rows, alone=model.depends_on_batch))
        lost = max(drop(self.head(name), original[name], found[name]) for name in found)
        return {"rows": len(rows), "original": original, "chosen": found, "drop": lost}

    def opened(self, one: Candidate) -> Compressed:
        recipe = RunFolder(one.folder).recipe()
        return Compressed(one.folder, recipe, self.material.columns)


# Smaller models -----------------------------------------------------------------------------------------------------


def trained(work: Work, label: str, recipe: Recipe, model: Model, *, share: float) -> Subject:
    """A smaller model after it has learned from the run's rows and model, for a ``share`` of the run's epochs."""
    asked = work.ask.epochs
    epochs = asked if asked is not None else recipe.training.epochs * share
    folder = work.scratch / f"training-{label.replace(' ', '-')}"
    chosen = recovery(recipe, epochs=epochs)
    work.console.say(f"{label}: {sum(p.numel() for p in model.parameters()):,} parameters, {epochs:g} epochs")
    retrain(work.material, chosen, model, work.model, folder, Console(quiet=True))
    return work.subject(label, chosen, model)


def factored(work: Work) -> Subject:
    model = copy.deepcopy(work.model).requires_grad_(True)
    rows = work.material.training_batches(16, LOOKED_AT // 16)
    low_rank(model, rows, work.ask.keep)
    return trained(work, SMALLER["low_rank"], work.material.recipe, model, share=0.5)


def pruned(work: Work) -> Subject:
    rows = work.material.training_batches(32, LOOKED_AT // 32)
    left = plan(work.model, rows, work.ask.keep)
    recipe = slim_recipe(work.material.recipe, left)
    model = prune(work.model, recipe, work.material.columns, left)
    return trained(work, SMALLER["prune"], recipe, model, share=0.5)


def distilled(work: Work) -> Subject:
    if work.ask.student:
        recipe = Recipe(recipes.override(work.material.recipe.plain(), work.ask.student))
    else:
        rows = work.material.training_batches(32, LOOKED_AT // 32)
        recipe = student_recipe(work.material.recipe, lambda: plan(work.model, rows, work.ask.keep))
    model = build_model(recipe, work.material.columns)
    return trained(work, SMALLER["distil"], recipe, model, share=1.0)


SMALLERS = {"low_rank": factored, "prune": pruned, "distil": distilled}
