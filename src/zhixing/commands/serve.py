"""``zhixing serve``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from ..console import Console
from .options import as_json, device, result

__all__ = ["serve"]


@click.command()
@click.argument("runs", metavar="[NAME=]RUN…", nargs=-1, required=True)
@click.option("--host", default="127.0.0.1", show_default=True, help="Where to listen; another needs a token.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0: one that is free.")
@click.option("--token-file", type=click.Path(path_type=Path), help="Tokens that may ask, one a line.")
@click.option("--allow-host", "hosts", multiple=True, metavar="NAME", help="A further name of this server.")
@click.option("--max-batch", type=click.IntRange(1), default=32, show_default=True, help="Rows of a batch.")
@click.option(
    "--wait-ms", type=click.FloatRange(0), default=5.0, show_default=True, help="That a row waits for others."
)
@click.option("--queue", type=click.IntRange(1), help="Rows that may wait; open: four batches.")
@click.option("--patience-ms", type=click.FloatRange(0, min_open=True), help="After which an answer is of no use.")
@click.option("--threads", type=click.IntRange(1), help="Of the processor, for the model.")
@click.option(
    "--limit", "limits", multiple=True, metavar="NAME=VALUE", help="Any of the server's bounds, as body=1000000."
)
@device
@as_json
def serve(runs: tuple[str, ...], device: str, json_: bool, **flags: Any) -> None:
    """Answer requests with RUNS until SIGTERM: a page at /, JSON at /v1/predict, what it takes at /openapi.json."""
    from ..errors import MissingExtraError

    try:
        import fastapi  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(error.name or "fastapi", "serve", purpose="serving") from error
    from ..serve.app import Service
    from ..serve.server import serve as run_server

    settings, console = settings_of(flags), Console(quiet=json_)
    service = Service([open_run(word, device, settings.limits) for word in runs], settings)

    def told(port: int) -> None:
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        url = f"http://{host}:{port}"
        console.say(f"serving {', '.join(service.runs)} at {url}; SIGTERM or Ctrl+C ends it")
        result(json_, {"url": url, "models": list(service.runs)})
        sys.stdout.flush()

    run_server(service, told)


def settings_of(flags: dict[str, Any]) -> Any:
    """Flags as settings. Raises UsageError."""
    import torch

    from ..serve.settings import Settings, limits_of, tokens_of

    if flags["threads"]:
        torch.set_num_threads(flags["threads"])
    settings = Settings(
        host=flags["host"], port=flags["port"], tokens=tokens_of(flags["token_file"]),
        hosts=frozenset(name.lower() for name in flags["hosts"]), max_batch=flags["max_batch"],
        wait=flags["wait_ms"] / 1000, queue=flags["queue"], limits=limits_of(flags["limits"]),
        patience=None if flags["patience_ms"] is None else flags["patience_ms"] / 1000,
    )  # fmt: skip
    settings.check()
    return settings


def open_run(word: str, device: str, limits: Any) -> Any:
    """A run under its own name, or under the one that stands before it."""
    from ..api import load
    from ..serve.served import Served

    name, sign, path = word.partition("=")
    if not sign or Path(word).exists():
        name, path = Path(word).resolve().name, word
    run = load(path, device=device)
    return Served(name, run.settings, run.fitted, run.model, run.calibrations, run.device, limits)
