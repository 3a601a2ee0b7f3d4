"""``zhixing compress``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..console import Console
from .options import RUN, as_json, device, result

__all__ = ["compress"]


@click.command()
@click.argument("run", type=RUN)
@click.option(
    "--max-drop", type=click.FloatRange(0), default=0.005, show_default=True,
    help="How much worse the model may be on validation rows: 0.005 is half a point of accuracy, or 0.5 % of an error.",
)  # fmt: skip
@click.option(
    "--methods", metavar="NAMES",
    help="Comma-separated: bf16, torchao_int8, onnx, onnx_dynamic, onnx_static, openvino, openvino_bf16, "
    "openvino_int8, low_rank, prune, distil; open: all. The last three train.",
)  # fmt: skip
@click.option(
    "--for", "aim", type=click.Choice(["latency", "throughput", "size", "memory"]), default="latency",
    show_default=True, help="What the chosen form is to be best in.",
)  # fmt: skip
@click.option(
    "--keep", type=click.FloatRange(0, 1, min_open=True, max_open=True), default=0.5, show_default=True,
    help="Smaller models: the share of weights, channels and units that stays.",
)  # fmt: skip
@click.option("--epochs", type=click.FloatRange(0, min_open=True), help="Of training smaller models; open: by the run.")
@click.option(
    "--student", multiple=True, metavar="A.B=C", help="A setting of the distilled model's recipe; may be given again."
)
@click.option("--batch", type=click.IntRange(2), default=32, show_default=True, help="Rows at a time for throughput.")
@click.option(
    "--rounds", type=click.IntRange(1), default=7, show_default=True, help="Turns that each form is timed in."
)
@click.option("--data", metavar="DATA", help="Where the run's own data lie now, if they have moved.")
@click.option("--out", type=RUN, help="The folder of the chosen model; by default RUN/compressed.")
@device
@as_json
def compress(
    run: Path, methods: str | None, data: str | None, out: Path | None, device: str, json_: bool, **flags: Any
) -> None:
    """Write RUN's model in smaller and faster forms, measure each on this machine, and keep the best within the limit.

    The folder that comes of it answers like a run: zhixing predict RUN/compressed FILES. The run is not touched.
    """
    from ..api import load
    from ..compress.command import METHODS, Ask
    from ..compress.command import compress as compress_verb

    chosen = METHODS if methods is None else [name.strip() for name in methods.split(",") if name.strip()]
    one = load(run, device=device)
    told = compress_verb(
        one.path, one.settings, one.fitted, one.model, Ask(methods=chosen, **flags), source=data, out=out,
        device=one.device, console=Console(quiet=json_),
    )  # fmt: skip
    if not json_:
        show(told)
    result(json_, told)


def show(told: dict[str, Any]) -> None:
    """The candidates in a few columns, and the chosen one."""
    original = told["candidates"][0]
    width = max(len(one["name"]) for one in told["candidates"])
    click.echo(f"{'':{width}}      lost   ms a row   faster    rows/s       MB   memory MB")
    for one in told["candidates"]:
        mark = "*" if one["name"] == told["chosen"] else " "
        if one["not_measured"]:
            click.echo(f"{one['name']:{width}} {mark} not measured: {one['not_measured']}")
            continue
        faster = original["latency_seconds"] / one["latency_seconds"]
        click.echo(
            f"{one['name']:{width}} {mark} {one['drop']:8.4f} {one['latency_seconds'] * 1e3:10.4f} {faster:7.2f}x "
            f"{one['throughput_rows_per_second']:9,.0f} {one['bytes'] / 1e6:8.3f} {one['memory_bytes'] / 1e6:11.1f}"
        )
    test = told["test"]
    if test["rows"]:
        for name, value in test["chosen"].items():
            click.echo(f"test rows ({test['rows']:,}): {name} {test['original'][name]:.6g} → {value:.6g}")
    share = min(one["processor_share"] for one in told["candidates"] if not one["not_measured"])
    if share < 0.9:
        click.echo(f"the machine was busy: a process had a processor for {share:.0%} of its time; measure again")
    click.echo(f"chosen: {told['chosen']}   {told['out']}")
