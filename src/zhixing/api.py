"""The Python face: the same verbs and objects as the command line."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from . import recipe as recipes
from .calibration import Sets, parse
from .columns import Column
from .console import Console
from .model import Model
from .recipe import Recipe
from .run import RunFolder, build_model

__all__ = ["Run", "load", "train"]


class Run(RunFolder):
    """A finished run: its recipe, its fitted columns, its model.

    Example::

        run = zx.load("runs/mnist-1")
        run.evaluate()                   # {"label": {"accuracy": 0.99, …}}
        run.predict(["digit.png"])       # a table with a column `label`
    """

    def __init__(
        self, path: Path | str, *, device: str = "auto", encoder: Mapping[str, nn.Module] | nn.Module | None = None
    ) -> None:
        from .training.surroundings import torch_device

        super().__init__(path)
        self.source: Any = None  # what it was trained on, where that is only in memory
        self.settings: Recipe
        self.fitted: dict[str, Column]
        self.model: Model
        if (self.path / "compressed.json").is_file():
            from .compress.compressed import open_compressed

            self.device = torch_device("cpu")
            self.settings, self.fitted, self.model, self.calibrations = open_compressed(self.path)
            return
        content = self.verify()
        self.device = torch_device(device)
        self.settings = self.recipe()
        self.fitted = self.columns(self.settings)
        custom = [name for name, given in self.settings.inputs.items() if given.encoder.name == "custom"]
        modules = {custom[0]: encoder} if isinstance(encoder, nn.Module) and custom else encoder or {}
        self.model = build_model(self.settings, self.fitted, modules)  # type: ignore[arg-type]
        self.load_weights(self.model, content["model.safetensors"])
        self.model.to(self.device).channels_last().eval()
        fitted = content.get("calibration.json")
        self.calibrations = parse(json.loads(fitted), place=self.path) if fitted is not None else {}

    def evaluate(self, source: Any = None, *, part: str | None = None) -> dict[str, dict[str, float]]:
        """Metrics by output column: of a split of the run's own data, or of all rows of another source.

        ``part`` is ``train``, ``validation``, ``test`` or ``all``. Rows that cannot be used are told of.
        """
        if source is None and self.source is not None:
            source, part = self.source, part or "test"
        told = Console(quiet=True)
        return {name: entry["metrics"] for name, entry in self.examine(source, part, told)["outputs"].items()}

    def examine(self, source: Any, part: str | None, console: Console) -> dict[str, Any]:
        """What ``evaluation.json`` holds, for any rows: ``{"split", "rows", "outputs"}``."""
        from .verbs.evaluate import evaluate

        environment = self.read_json("environment.json") or {}
        return evaluate(
            self.settings, self.fitted, self.model, source, part=part, device=self.device, console=console,
            trained_on=environment.get("data_fingerprint"), calibrations=self.calibrations,
        )  # fmt: skip

    def predict(
        self, source: Any, *, probabilities: bool = False, coverage: float | None = None, sets: Sets = "threshold"
    ) -> Any:
        """Predictions for the rows of a source, in its order: a table of the same kind as went in.

        ``source`` is whatever :func:`zhixing.train` takes, or a list of cells (paths, numbers, pictures as arrays) for
        a run with a single input, or a list of mappings. A pandas frame gives a pandas frame with the same index;
        everything else an Arrow table. ``probabilities`` adds those of all classes.

        Probabilities are calibrated by a temperature that was fitted on validation rows, where there were such. With a
        ``coverage`` such as 0.9 there is beside each class a set of classes, and beside each number an interval, that
        hold the truth of as many rows: ``label_set``, ``price_low`` and ``price_high``. ``sets`` says how sets are
        made: ``threshold`` gives the smallest; ``adaptive`` larger ones where the model wavers, with a chance in it.

        Raises:
            DataError: a row cannot be read; nothing is left out in silence.
            UsageError: coverage is asked for that the run cannot give.
        """
        from .verbs.predict import Wanted, predict

        wanted = Wanted(probabilities, coverage, sets, self.calibrations)
        return predict(self.settings, self.fitted, self.model, source, device=self.device, wanted=wanted)

    def generate(
        self,
        prompts: Any,
        *,
        stop: Sequence[str] = (),
        output: str | None = None,
        precision: str = "fp32",
        **search: Any,
    ) -> list[str]:
        """Texts that follow beginnings, or (with an input) that are made of its cells: one for each prompt.

        ``search`` are fields of the recipe's search: ``most``, ``temperature``, ``top_k``, ``top_p``, ``beams``, …
        :class:`zhixing.verbs.generate.Writer` gives the same piece by piece as it is written.
        """
        from .verbs.generate import Plan, Writer

        prompts = [prompts] if isinstance(prompts, str) else list(prompts)
        writer = Writer(self.settings, self.fitted, self.model, self.device, output=output, precision=precision)
        texts = [""] * len(prompts)
        for piece in writer.stream(prompts, Plan(search, tuple(stop))):
            texts[piece.row] += piece.text
        return texts

    def embed(self, source: Any, *, input: str | None = None, normalise: bool = False) -> Any:
        """What the model makes of each row before its heads: an array [N, D] of float32, rows in order.

        ``input`` takes one input's encoding in place of the fusion of all; ``normalise`` makes each vector's length 1.

        Raises:
            DataError: a row cannot be read; it is named.
        """
        from .verbs.embed import embed

        return embed(
            self.settings, self.fitted, self.model, source, device=self.device, input_=input, normalise=normalise
        )

    def explain(self, source: Any = None, *, part: str = "test", **wanted: Any) -> Any:
        """What each part of a row adds to the answer, for the rows of a source or of a split of the run's own data.

        ``wanted`` are the fields of :class:`zhixing.explain.Plan`: ``methods``, ``output``, ``nearest``, ``flips``, …
        Gives a :class:`zhixing.explain.Explained`.
        """
        from .explain import Plan, explain

        return explain(
            self.settings, self.fitted, self.model, source, plan=Plan(**wanted), part=part, own=self.source,
            calibrations=self.calibrations, device=self.device, console=Console(quiet=True),
        )  # fmt: skip

    def compress(self, *, source: Any = None, out: Path | str | None = None, **wanted: Any) -> Run:
        """The fastest form of this model that loses no more than ``max_drop`` on validation rows, measured here.

        ``wanted`` are the fields of :class:`zhixing.compress.command.Ask`: ``max_drop``, ``methods``, ``aim``, … What
        was tried stands in ``compressed.html`` of the folder ``out``, by default ``compressed`` in the run's own.
        """
        from .compress.command import Ask, compress

        told = compress(
            self.path, self.settings, self.fitted, self.model, Ask(**wanted), out=None if out is None else Path(out),
            source=self.source if source is None else source, device=self.device, console=Console(quiet=True),
        )  # fmt: skip
        return load(told["out"])

    def export(self, form: str = "onnx", *, source: Any = None, out: Path | str | None = None, **wanted: Any) -> Path:
        """Files that another runtime reads without this package; gives their folder, ``export/onnx`` in the run's own.

        ``form`` is ``onnx``, ``torch``, ``openvino``, ``huggingface``, ``executorch`` or ``litert``. Answers are
        compared on the rows of a source, or on held-out rows of the run's own data; ``wanted`` may hold the
        ``tolerance`` and the ``most`` rows.

        Raises:
            UsageError: the model cannot be written so, or its answers differ by more than the tolerance.
        """
        from .export.command import export_command

        folder = self.path / "export" / form if out is None else Path(out)
        model = self.model.cpu()
        try:
            export_command(
                self.settings, self.fitted, model, form=form, out=folder, data=source, own=self.source,
                calibrations=self.calibrations, console=Console(quiet=True), **wanted,
            )  # fmt: skip
        finally:
            self.model.to(self.device)
        return folder

    def report(self) -> Path:
        """Write the report anew; gives its path."""
        from .report import write_card, write_report

        write_card(self.path)
        return write_report(self.path)

    def __repr__(self) -> str:
        inputs, outputs = ", ".join(self.settings.inputs), ", ".join(self.settings.outputs)
        return f"Run({str(self.path)!r}: {inputs} → {outputs})"


def train(
    source: Any = None,
    *,
    target: str | Sequence[str] | None = None,
    encoder: str | Mapping[str, Any] | nn.Module | None = None,
    epochs: float | None = None,
    batch_size: int | None = None,
    lr: float | str | None = None,
    seed: int | None = None,
    recipe: Mapping[str, Any] | str | Path | None = None,
    settings: Sequence[str] = (),
    on_error: str | None = None,
    out: Path | str | None = None,
    device: str = "auto",
    quiet: bool = True,
) -> Run:
    """Train a model on a table.

    Args:
        source: a path, a catalogue name, ``hub:NAME``, a data frame, a dict of arrays, a list of mappings …; it may
            stand in the recipe.
        target: the column or columns to predict.
        encoder: a name, a mapping of a name and settings, a module of your own that gives an ``Encoding``, or such
            modules by column.
        recipe: a recipe file, a name of one built in, or its plain data; the other arguments override it.
        settings: further ones, as ``"inputs.photo.size=64"``.
        out: the run folder; by default the next free ``runs/NAME-1``.

    Raises:
        ZhixingError: one of its kinds, with a message for a person.

    Example:
        >>> import tempfile, zhixing as zx
        >>> data = {"x": [0.0, 1.0] * 50, "label": ["no", "yes"] * 50}
        >>> run = zx.train(data, epochs=20, lr=0.05, out=tempfile.mkdtemp())
        >>> run.predict({"x": [0.0, 1.0]})["label"].to_pylist()
        ['no', 'yes']
    """
    from .verbs.sources import rows_as_columns
    from .verbs.train import train as train_verb

    raw = assemble(
        recipe,
        target=target,
        epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        seed=seed,
        on_error=on_error,
        settings=settings,
    )
    source = rows_as_columns(source) if source is not None else source_of(raw)
    folder = train_verb(
        source,
        raw,
        out=None if out is None else Path(out),
        device=device,
        encoder=encoder,
        console=Console(quiet=quiet),
    )
    modules = encoder if isinstance(encoder, nn.Module | Mapping) and not names_encoder(encoder) else None
    run = load(folder.path, device=device, encoder=modules)
    run.source = source if run.settings.data.source.startswith("memory:") else None
    return run


def names_encoder(encoder: Any) -> bool:
    """Whether this is a recipe's mapping of a name and settings, not one of modules by column."""
    return isinstance(encoder, Mapping) and not any(isinstance(part, nn.Module) for part in encoder.values())


def load(path: Path | str, *, device: str = "auto", encoder: Mapping[str, nn.Module] | nn.Module | None = None) -> Run:
    """A finished run. Reading it executes nothing; every file is checked against its hash."""
    return Run(path, device=device, encoder=encoder)


def source_of(raw: Mapping[str, Any]) -> Any:
    from .errors import UsageError

    data = raw.get("data")
    source = data.get("source") if isinstance(data, Mapping) else None
    if not source:
        raise UsageError("there is nothing to train on", mend="Give a source, or a recipe with data.source.")
    return source


def assemble(
    recipe: Mapping[str, Any] | str | Path | None,
    *,
    target: str | Sequence[str] | None = None,
    epochs: float | None = None,
    batch_size: int | None = None,
    lr: float | str | None = None,
    seed: int | None = None,
    on_error: str | None = None,
    settings: Sequence[str] = (),
) -> dict[str, Any]:
    """A recipe's plain data with the dials that everybody turns set on top."""
    import copy

    raw: dict[str, Any] = (
        copy.deepcopy(dict(recipe)) if isinstance(recipe, Mapping) else recipes.load(recipe) if recipe else {}
    )
    if isinstance(raw.get("data"), str):  # a bare name stands for the source
        raw["data"] = {"source": raw["data"]}
    if target is not None:
        names = [target] if isinstance(target, str) else list(target)
        before = raw.get("outputs") if isinstance(raw.get("outputs"), Mapping) else {}
        every = {recipes.EVERY: before[recipes.EVERY]} if before and recipes.EVERY in before else {}
        raw["outputs"] = every | {name: (before or {}).get(name) or {} for name in names}
    whole = not set(raw.get("inputs") or ()) - {recipes.EVERY}
    values = {
        "training.epochs": epochs,
        "training.batch_size": batch_size,
        "training.optimizer.lr": lr,
        "seed": seed,
        "data.on_error": on_error,
    }
    flags = [f"{path}={value}" for path, value in values.items() if value is not None]
    raw = recipes.override(raw, [*flags, *settings])
    if whole and raw.get("inputs") and isinstance(data := raw.setdefault("data", {}), dict):
        data.setdefault("others", "read")  # settings of one column do not shut out the others
    return raw
