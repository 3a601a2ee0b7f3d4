"""``zhixing export``."""

from __future__ import annotations

from pathlib import Path

import click

from ..console import Console
from .options import RUN, as_json, result

__all__ = ["export"]

FORMS = ("onnx", "torch", "openvino", "huggingface", "executorch", "litert")


@click.command()
@click.argument("run", type=RUN)
@click.option(
    "--format", "form", type=click.Choice(FORMS), default="onnx", show_default=True, help="Who is to read it."
)
@click.option("--out", type=click.Path(path_type=Path), help="A folder, or a file; else RUN/export/FORMAT.")
@click.option(
    "--tolerance", type=click.FloatRange(min=0, min_open=True), default=1e-4, show_default=True,
    help="The largest difference from the run's own answers; probabilities as they are, numbers in deviations.",
)  # fmt: skip
@click.option("--data", metavar="DATA", help="Compare on the rows of DATA; else on test rows of the run's own data.")
@click.option("--rows", type=click.IntRange(min=1), default=64, show_default=True, help="How many rows are compared.")
@as_json
def export(run: Path, form: str, out: Path | None, tolerance: float, data: str | None, rows: int, json_: bool) -> None:
    """Write RUN as files that another runtime reads, without this package.

    The files hold what can be in a graph: scaling, statistics, the model, temperature, units. Settings of columns,
    classes and tokenizers stand beside them. They are opened again and compared with the run on real rows: where the
    answers differ by more than the tolerance, that is an error, and no file is left.

    executorch and litert are for small devices, one row at a time. huggingface is a folder that transformers reads, of
    a run that was fine-tuned from a published model.
    """
    from ..api import load
    from ..export.command import export_command

    one = load(run, device="cpu")
    told = export_command(
        one.settings, one.fitted, one.model, form=form, out=out or one.path / "export" / form, tolerance=tolerance,
        data=data, most=rows, calibrations=one.calibrations, console=Console(quiet=json_),
    )  # fmt: skip
    result(json_, told)
