"""The command line. Showing help imports neither torch nor numpy: commands are loaded when they run."""

from __future__ import annotations

import sys
from importlib import import_module
from io import TextIOWrapper
from typing import Any

import click

from . import __version__
from .errors import ZhixingError

__all__ = ["main"]

# command: where its work is done, and its line in --help
COMMANDS = {
    "train": ("zhixing.commands.train:train", "Train a model on DATA and keep all of it in a run folder."),
    "pretrain": ("zhixing.commands.pretrain:pretrain", "Train the encoder of a column of DATA without labels."),
    "tune": ("zhixing.commands.tune:tune", "Search for a better recipe for DATA; confirm it on test rows."),
    "evaluate": ("zhixing.commands.evaluate:evaluate", "Measure a run on its test rows, or on other DATA."),
    "predict": ("zhixing.commands.predict:predict", "Predict for files, folders, tables or standard input."),
    "generate": ("zhixing.commands.generate:generate", "Write texts with a run or a published model, as they come."),
    "chat": ("zhixing.commands.chat:chat", "Talk with a language model."),
    "embed": ("zhixing.commands.embed:embed", "Write a vector for each row of DATA, for search and clustering."),
    "explain": ("zhixing.commands.explain:explain", "Say what each part of a row adds to a run's answer."),
    "export": ("zhixing.commands.export:export", "Write a run as ONNX or for another runtime, and compare."),
    "report": ("zhixing.commands.report:report", "Write a run's report and model card anew."),
    "describe": ("zhixing.commands.describe:describe", "Say what DATA, a RUN or a RECIPE holds and needs."),
    "estimate": ("zhixing.commands.estimate:estimate", "Say what training will take, before anything is trained."),
    "doctor": ("zhixing.commands.doctor:doctor", "Examine DATA, a RECIPE or a RUN: what is wrong, and the mend."),
    "serve": ("zhixing.commands.serve:serve", "Answer requests with RUNS: a page, JSON, texts as they are written."),
    "compress": (
        "zhixing.commands.compress:compress",
        "Write a run smaller and faster, within a limit on lost accuracy.",
    ),
    "init": ("zhixing.commands.init:init", "Write a commented recipe for DATA."),
    "schema": ("zhixing.commands.schema:schema", "Print the JSON schema of recipes, for editors."),
    "completion": ("zhixing.commands.completion:completion", "Print the script that completes commands in a shell."),
}


class Lazy(click.Group):
    """A group that knows its commands' names and help, and loads one when it is called."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module, _, function = COMMANDS[name][0].partition(":")
        command: click.Command = getattr(import_module(module), function)
        return command

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])

    def resolve_command(self, context: click.Context, args: list[str]) -> Any:
        if args and args[0] not in COMMANDS:
            from .errors import did_you_mean

            context.fail(f"there is no command {args[0]!r}. {did_you_mean(args[0], COMMANDS)}")
        return super().resolve_command(context, args)


@click.group(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="zhixing")
@click.option("--debug", is_flag=True, help="Show the whole traceback of an error.")
def group(debug: bool) -> None:
    """Zhixing 知行: from a table of typed columns to a trained, examined and served model."""
    # --debug is looked for by main, before anything is parsed


def main(arguments: list[str] | None = None) -> None:
    """Run a command; errors that are meant for people end it with one message and their exit status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a name that the terminal cannot write must not end a command
            stream.reconfigure(errors="backslashreplace")
    own_process = arguments is None
    arguments = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]  # it may stand anywhere
    try:
        group.main(arguments, prog_name="zhixing", standalone_mode=False, obj={"own_process": own_process})
    except click.exceptions.Exit as leave:
        sys.exit(leave.exit_code)
    except click.ClickException as error:
        if debug:
            raise
        error.show()
        sys.exit(2)
    except click.Abort:
        sys.exit(130)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(141)
    except ZhixingError as error:
        if debug:
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_status)
    except Exception as error:
        status = getattr(error, "exit_status", None)
        if debug or (status is None and not isinstance(error, OSError | MemoryError)):
            if debug:
                raise
            print(f"error: {type(error).__name__}: {error}\nThis is a defect; --debug shows where.", file=sys.stderr)
            sys.exit(1)
        print(f"error: {error}" if status is None else str(error), file=sys.stderr)
        sys.exit(status or 1)


if __name__ == "__main__":
    main()
