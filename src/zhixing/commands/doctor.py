"""``zhixing doctor``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..console import Console
from .options import RUN, SetCommand, as_json, device, raw_recipe, recipe_flags, result

__all__ = ["doctor"]


@click.command(cls=SetCommand)
@click.argument("subject")
@recipe_flags
@click.option("--check", "only", multiple=True, metavar="NAME", help="Only this check; may be given again.")
@click.option("--fix", "mend", is_flag=True, help="Write a recipe with the mends: NAME.fixed.yaml.")
@click.option("--fix-to", type=RUN, metavar="FILE", help="The same, into this file.")
@device
@as_json
def doctor(
    subject: str,
    only: tuple[str, ...],
    mend: bool,
    fix_to: Path | None,
    device: str,
    json_: bool,
    encoder: str | None,
    **flags: Any,
) -> None:
    """Examine SUBJECT: data, a recipe, or a run. What is wrong, the evidence, and the mend, the likeliest cause first.

    Of a run, the findings are kept in its doctor.json and shown in its report.
    """
    from ..doctor import show
    from ..doctor.examine import examine
    from ..doctor.fix import fix, write_fixed

    run = (Path(subject) / "recipe.yaml").is_file()
    given = [*flags.values(), encoder]
    if run and any(value is not None and value != () for value in given):
        raise click.UsageError("a run is examined with its own recipe: no other setting can be given with it")
    source, raw = (subject, {}) if run else data_and_recipe(subject, flags)
    console = Console(quiet=json_)
    found = examine(source, recipe=raw, encoder=encoder, device=device, only=only, console=console)
    content = found.plain()
    if run:
        show.keep(Path(subject), content)
    if mend or fix_to is not None:
        fixed = fix(found.recipe, found.findings)
        path = fix_to or Path(f"{Path(subject).stem}.fixed.yaml")
        content["fixed"] = {
            "recipe": str(write_fixed(fixed, path)) if fixed.done else None,
            "done": fixed.done,
            "left": [one.check for one in fixed.left],
        }
    if not json_:
        show.show(content)
    result(json_, content)


def data_and_recipe(subject: str, flags: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The source and the recipe's plain data, of data or of a recipe file."""
    from ..api import source_of

    if Path(subject).suffix not in (".yaml", ".yml"):
        return subject, raw_recipe(**flags)
    if flags["recipe"]:
        raise click.UsageError(f"{subject} is a recipe, so --recipe cannot be given with it")
    raw = raw_recipe(**{**flags, "recipe": subject})
    return source_of(raw), raw
