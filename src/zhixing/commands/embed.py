"""``zhixing embed``."""

from __future__ import annotations

from pathlib import Path

import click

from ..console import Console
from .options import RUN, as_json, device, result

__all__ = ["embed"]


@click.command()
@click.argument("run", type=RUN)
@click.argument("inputs", nargs=-1)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Write here: .parquet or .npy.")
@click.option("--input", "input_", metavar="COLUMN", help="The encoding of one input; open: of all together.")
@click.option("--normalise", is_flag=True, help="Make each vector's length 1, for cosine similarity.")
@device
@as_json
def embed(
    run: Path, inputs: tuple[str, ...], out: Path, input_: str | None, normalise: bool, device: str, json_: bool
) -> None:
    """Write a vector for each row of INPUTS: files, a folder, a table, or - for rows on standard input.

    The vector is what the model's heads read of the row. Rows stand in their order; one that cannot be read is told of
    and has an empty vector.
    """
    from ..api import load
    from ..verbs.embed import embed_command

    one = load(run, device=device)
    told = embed_command(
        one.settings, one.fitted, one.model, inputs, device=one.device, out=out, input_=input_, normalise=normalise,
        console=Console(quiet=json_),
    )  # fmt: skip
    result(json_, told)
    if told["broken"] and told["broken"] >= told["rows"]:
        from ..errors import DataError

        raise DataError("no row can be read", mend="The reasons are above.")
