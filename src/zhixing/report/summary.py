"""What the figures of a run come to: the headline of each output, and what a careful reader would notice."""

from __future__ import annotations

import math
import unicodedata
from dataclasses import dataclass
from typing import Any

from .files import RunFiles, mapping, number, sequence
from .markup import figure_text, shorten

__all__ = ["MEANINGS", "Headline", "called", "confused_pairs", "findings", "headlines", "interval", "weakest"]

FEW_ROWS = 30  # under this, a class's figures are mostly chance
MEANINGS = {
    "accuracy": "share of rows predicted right",
    "balanced_accuracy": "recall, averaged over the classes",
    "brier": "mean squared error of the probabilities; 0 is best",
    "ece": "expected calibration error: mean gap between confidence and accuracy; 0 is best",
    "f1": "harmonic mean of precision and recall",
    "log_loss": "mean negative log probability of the truth; 0 is best",
    "macro_f1": "F1 of each class, averaged over the classes",
    "macro_precision": "precision of each class, averaged over the classes",
    "macro_recall": "recall of each class, averaged over the classes",
    "mae": "mean absolute error, in the column's unit; 0 is best",
    "median_ae": "median absolute error, in the column's unit; 0 is best",
    "micro_f1": "F1 over all tags of all rows together",
    "precision": "share of what was predicted that is true",
    "r2": "share of the variance explained; 1 is best, 0 is no better than the mean",
    "recall": "share of what is true that was predicted",
    "rmse": "root of the mean squared error, in the column's unit; 0 is best",
    "subset_accuracy": "share of rows whose tags are all right",
    "hamming_loss": "share of wrong decisions over all rows and tags; 0 is best",
    "top_5_accuracy": "share of rows whose truth is among the five most probable classes",
    "bits_per_byte": "what the truth takes, compressed with the model's probabilities, a byte of UTF-8; 0 is best",
    "bleu": "runs of words shared with the truth (sacreBLEU), from 0 to 100",
    "cer": "wrong, missing and added characters, as a share of the true ones; 0 is best",
    "chrf": "runs of characters shared with the truth (sacreBLEU), from 0 to 100",
    "exact": "share of rows whose whole text is right",
    "hit_rate_10": "share of rows whose truth is among the ten highest ranked of all classes",
    "mase": "mean absolute error by that of repeating the last value in training rows; under 1 is better than that",
    "ndcg_10": "the same, counted for less the lower the truth is ranked",
    "perplexity": "among how many equally likely tokens the model wavers, on average; 1 is best",
    "sequence_accuracy": "share of rows whose labels are all right",
    "token_accuracy": "share of tokens predicted right, the true ones before them being known",
    "wer": "wrong, missing and added words, as a share of the true ones; 0 is best",
}
# The metric that stands for an output.
FIRST = (
    "hit_rate_10",
    "accuracy",
    "macro_f1",
    "micro_f1",
    "f1",
    "mae",
    "rmse",
    "r2",
    "bits_per_byte",
    "bleu",
    "cer",
    "perplexity",
)
TURNING = frozenset(("R", "AL", "AN", "RLE", "RLO", "RLI", "LRO", "LRE"))  # Unicode's, of letters
SHARES = ("accuracy", "hit_rate_10")  # of rows, so they have an interval and read well as a percentage


@dataclass(frozen=True)
class Headline:
    """The one figure of an output. ``where`` says on what it was measured, ``others`` holds a few more metrics."""

    output: str
    metric: str
    value: object
    where: str
    interval: tuple[float, float] | None
    others: dict[str, object]

    @property
    def figure(self) -> str:
        found = number(self.value)
        return f"{100 * found:.2f} %" if self.metric in SHARES and found is not None else figure_text(self.value)

    @property
    def likely(self) -> str:
        """The 95% interval in words, empty where there is none."""
        if self.interval is None:
            return ""
        low, high = self.interval
        return f"95% interval {100 * low:.2f} to {100 * high:.2f} %"


def interval(share: float, rows: int) -> tuple[float, float]:
    """Where the true share lies with 95% confidence, given one measured on independent rows.

    Wilson's score interval (Wilson 1927), which stays within [0, 1] and is sound for few rows and shares near 1.

    >>> [round(end, 4) for end in interval(1.0, 10)]
    [0.7225, 1.0]
    """
    z = 1.959964
    centre = (share + z * z / (2 * rows)) / (1 + z * z / rows)
    half = z / (1 + z * z / rows) * math.sqrt(share * (1 - share) / rows + z * z / (4 * rows * rows))
    return max(0.0, centre - half), min(1.0, centre + half)


def headlines(run: RunFiles) -> list[Headline]:
    """One for each output: from the evaluation, else from the last validation, else with nothing measured."""
    outputs = mapping(run.evaluation.get("outputs"))
    if outputs:
        rows = number(run.evaluation.get("rows"))
        where = f"{run.evaluation.get('split') or 'unnamed'} split"
        where += f", {figure_text(int(rows))} rows" if rows is not None else ""
        measured = {name: mapping(mapping(result).get("metrics")) for name, result in outputs.items()}
        return [_headline(name, metrics, where, rows) for name, metrics in measured.items()]
    last = mapping(run.validation[-1].get("metrics")) if run.validation else {}
    step = figure_text(int(number(run.validation[-1]["step"]) or 0)) if run.validation else ""
    where = f"validation at step {step}, not a final evaluation" if run.validation else "nothing was measured"
    return [_headline(name, mapping(last.get(name)), where, None) for name in last or run.columns("output")]


def _headline(output: str, metrics: dict[str, Any], where: str, rows: float | None) -> Headline:
    order = [key for key in FIRST if key in metrics] + [key for key in metrics if key not in FIRST]
    chosen = order[0] if order else ""
    value = metrics.get(chosen)
    share = number(value)
    sound = chosen in SHARES and share is not None and 0 <= share <= 1 and rows is not None and rows >= 1
    found = interval(share, int(rows)) if sound and share is not None and rows is not None else None
    return Headline(output, chosen, value, where, found, {key: metrics[key] for key in order[1:4]})


def confused_pairs(result: dict[str, Any], limit: int = 20) -> list[tuple[str, str, int, float]]:
    """The commonest mistakes: (truth, prediction, rows, share of the truth's rows), most rows first."""
    classes, found = sequence(result.get("classes")), []
    for i, row in enumerate(map(sequence, sequence(result.get("confusion")))):
        total = sum(number(count) or 0.0 for count in row)
        for j, count in enumerate(row):
            rows = number(count) or 0.0
            if i != j and rows > 0:
                found.append((-rows, i, j, rows / total))
    listed = {index: str(key) for index, key in enumerate(classes)}
    return [
        (listed.get(i, f"class {i}"), listed.get(j, f"class {j}"), int(-rows), share)
        for rows, i, j, share in sorted(found)[:limit]
    ]


def called(text: object) -> str:
    """A name of a user's inside a sentence, with marks around one that runs from right to left, so that the rest of
    the sentence keeps its order."""
    line = shorten(text, 40)
    turned = any(unicodedata.bidirectional(letter) in TURNING for letter in line)
    return f"\u2068{line}\u2069" if turned else line


def weakest(result: dict[str, Any]) -> list[dict[str, Any]]:
    """The per-class figures, lowest F1 first; classes without one (they have no rows) last."""

    def place(line: dict[str, Any]) -> tuple[bool, float]:
        f1 = number(line.get("f1"))
        return f1 is None, f1 if f1 is not None else 0.0

    return sorted(map(mapping, sequence(result.get("per_class"))), key=place)


def findings(run: RunFiles) -> list[str]:
    """Sentences on what limits the model, each drawn from a figure of this run."""
    found = _of_training(run) + _of_data(run)
    for name, result in mapping(run.evaluation.get("outputs")).items():
        label = called(name)
        parts = _of_classes(mapping(result)) + _of_calibration(mapping(result)) + _of_numbers(mapping(result))
        found += [f"{label}: {text}" for text in parts]
    if not run.evaluation:
        found.append("The model was not evaluated on rows kept apart for that.")
    return found


def _of_training(run: RunFiles) -> list[str]:
    losses = [(loss, line) for line in run.validation if (loss := number(line.get("loss"))) is not None]
    found = []
    if len(losses) > 1:
        (best, at), (last, _) = min(losses, key=lambda pair: pair[0]), losses[-1]
        if last > best + 0.05 * abs(best):
            where = figure_text(int(at["step"]))
            found.append(
                f"The validation loss was lowest at step {where} ({figure_text(best)}) "
                f"and ended at {figure_text(last)}: the later training overfits."
            )
    lost = sum(number(line.get("loss")) is None for line in run.training + run.validation)
    if lost:
        found.append(f"Logged losses that are not finite numbers: {lost:,}.")
    skipped = max((number(line.get("skipped")) or 0.0 for line in run.training), default=0.0)
    if skipped:
        found.append(
            f"Steps were skipped because loss or gradient was not finite (up to {skipped:,.0f} in one log line)."
        )
    return found


def _of_data(run: RunFiles) -> list[str]:
    found = []
    for name, column in mapping(run.data.get("columns")).items():
        counts = mapping(mapping(mapping(column).get("counts")).get("train"))
        sizes = sorted((rows, key) for key, value in counts.items() if (rows := number(value)) is not None)
        if mapping(column).get("role") == "output" and len(sizes) > 1 and sizes[-1][0] >= 10 * max(sizes[0][0], 1):
            (few, rare), (many, common) = sizes[0], sizes[-1]
            found.append(
                f"{called(name)}: the training rows are uneven: {many:,.0f} of {called(common)}, "
                f"{few:,.0f} of {called(rare)}."
            )
    fatal = number(mapping(run.data.get("problems")).get("fatal"))
    if fatal:
        found.append(f"Rows that could not be used and were left out: {fatal:,.0f}.")
    return found


def _of_classes(result: dict[str, Any]) -> list[str]:
    lines = [line for line in weakest(result) if number(line.get("f1")) is not None]
    found = []
    worst = [line for line in lines[:3] if float(line["f1"]) < 1]
    if len(lines) > 1 and worst:
        listed = ", ".join(f"{called(line.get('class'))} ({figure_text(line['f1'])})" for line in worst)
        found.append(f"weakest classes by F1: {listed}.")
    pairs = confused_pairs(result, 3)
    if pairs:
        listed = ", ".join(f"{called(a)} taken for {called(b)} ({rows:,})" for a, b, rows, _ in pairs)
        found.append(f"commonest mistakes: {listed}.")
    few = sum((number(line.get("rows")) or 0.0) < FEW_ROWS for line in map(mapping, sequence(result.get("per_class"))))
    if few:
        found.append(f"classes whose figures rest on fewer than {FEW_ROWS} rows: {few:,}.")
    return found


def _of_calibration(result: dict[str, Any]) -> list[str]:
    ece = number(mapping(result.get("metrics")).get("ece"))
    if ece is None or ece < 0.02:
        return []
    curve = mapping(result.get("reliability"))
    columns = (sequence(curve.get(key)) for key in ("confidence", "accuracy", "rows"))
    gaps = [
        (said - was) * rows
        for said, was, rows in (map(number, bin_) for bin_ in zip(*columns, strict=False))
        if said is not None and was is not None and rows is not None
    ]
    lean = "too sure" if sum(gaps) > 0 else "not sure enough"
    tail = f"; on the whole it is {lean}" if gaps else ""
    return [f"stated probabilities are off by {100 * ece:.1f} percentage points on average (ECE){tail}."]


def _of_numbers(result: dict[str, Any]) -> list[str]:
    metrics = mapping(result.get("metrics"))
    r2, mae, rmse = (number(metrics.get(key)) for key in ("r2", "mae", "rmse"))
    found = []
    if r2 is not None and r2 <= 0:
        found.append(f"R² is {figure_text(r2)}: no better than predicting the mean.")
    if mae and rmse and rmse > 2 * mae:
        found.append(f"a few large errors dominate (RMSE {figure_text(rmse)} against MAE {figure_text(mae)}).")
    return found
