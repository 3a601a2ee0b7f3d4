"""The study's journal: Optuna's, one line for each thing that happened, so that it survives a kill.

Optuna's own file backend has two weak points in a process that is killed: its lock stays behind for half a minute, and
a line that was half written spoils the next. The lock here is one that the system takes away when a process dies, and
whoever takes it cuts off half a line. Other tools of Optuna can read the file.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import MissingExtraError, RunError

__all__ = ["Journal", "Record", "held", "optuna_library"]

NAME = "study"


def optuna_library() -> Any:
    """Optuna, told to keep quiet.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import optuna
    except ModuleNotFoundError as error:
        raise MissingExtraError("optuna", "tune", purpose="tuning") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Wait for a lock on a file, and keep it. The system takes it away when the process dies."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        with contextlib.suppress(ImportError):  # Windows has no such locks
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


class FileLock:
    """Optuna's contract of a lock, kept by the system; taking it repairs the journal."""

    def __init__(self, journal: Path) -> None:
        self.journal, self.stack = journal, contextlib.ExitStack()

    def acquire(self) -> bool:
        self.stack.enter_context(held(self.journal.with_suffix(".lock")))
        cut_half_line(self.journal)
        return True

    def release(self) -> None:
        self.stack.close()


def cut_half_line(path: Path) -> None:
    """Cut off what follows the last whole line: a process was killed while writing it."""
    if not path.exists() or not path.stat().st_size:
        return
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        if file.read(1) != b"\n":
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)


@dataclass(frozen=True)
class Record:
    """One trial as the journal has it.

    ``settings`` are those it changes, by path; ``rung`` the one it is to reach; ``seen`` the figures of each rung that
    it has reached; ``state`` is running, complete, pruned or failed.
    """

    number: int
    id: int
    state: str
    settings: dict[str, Any]
    rung: int
    seen: dict[int, dict[str, Any]] = field(default_factory=dict)
    params: dict[str, Any] = field(default_factory=dict)
    distributions: dict[str, Any] = field(default_factory=dict)
    error: str = ""

    @property
    def owed(self) -> bool:
        """Whether somebody has to train it further."""
        return self.state == "running" and self.rung not in self.seen


STATES = {"RUNNING": "running", "COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}


class Journal:
    """The trials of a study, and each thing that can happen to one. Every method that writes, writes a single line."""

    def __init__(self, path: Path, directions: Sequence[str] = ("maximize",)) -> None:
        optuna = optuna_library()
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        self.path, self.states = path, optuna.trial.TrialState
        lock = FileLock(path)
        lock.acquire()
        lock.release()
        try:
            self.storage = JournalStorage(JournalFileBackend(str(path), lock_obj=lock))
            with held(path.with_suffix(".begin")):  # two processes are not to begin it twice
                self.study = optuna.create_study(
                    study_name=NAME, storage=self.storage, directions=list(directions), load_if_exists=True
                )
        except (ValueError, KeyError, OSError) as error:
            raise RunError(f"the journal cannot be read: {error}", place=path) from error

    def records(self) -> list[Record]:
        """All trials, by number."""
        return [record_of(trial) for trial in self.storage.get_all_trials(self.study._study_id, deepcopy=False)]

    def begin(
        self, settings: Mapping[str, Any], rung: int, params: Mapping[str, Any], distributions: Mapping[str, Any]
    ) -> None:
        """A new trial."""
        from datetime import UTC, datetime

        from optuna.trial import FrozenTrial

        template = FrozenTrial(
            number=-1, trial_id=-1, state=self.states.RUNNING, value=None, datetime_start=datetime.now(UTC),
            datetime_complete=None, params=dict(params), distributions=dict(distributions),
            user_attrs={"settings": dict(settings), "rung": rung}, system_attrs={}, intermediate_values={},
        )  # fmt: skip
        self.storage.create_new_trial(self.study._study_id, template)

    def promote(self, record: Record, rung: int) -> None:
        """The trial is to go on to this rung."""
        self.storage.set_trial_user_attr(record.id, "rung", rung)

    def report(self, record: Record, rung: int, figures: Mapping[str, Any]) -> None:
        """What the trial has come to at a rung."""
        self.storage.set_trial_user_attr(record.id, f"seen {rung}", dict(figures))

    def finish(self, record: Record, values: Sequence[float]) -> None:
        """The trial has been trained to its end."""
        self.storage.set_trial_state_values(record.id, self.states.COMPLETE, list(values))

    def stop(self, record: Record) -> None:
        """Others are better: the trial is trained no further."""
        self.storage.set_trial_state_values(record.id, self.states.PRUNED)

    def fail(self, record: Record, reason: str) -> None:
        """The trial cannot be trained."""
        self.storage.set_trial_user_attr(record.id, "error", reason)
        self.storage.set_trial_state_values(record.id, self.states.FAIL)


def record_of(trial: Any) -> Record:
    told = trial.user_attrs
    seen = {int(key.split()[1]): value for key, value in told.items() if key.startswith("seen ")}
    return Record(
        trial.number, trial._trial_id, STATES[trial.state.name], told["settings"], told["rung"],
        dict(sorted(seen.items())), trial.params, trial.distributions, told.get("error", ""),
    )  # fmt: skip
