"""Set-ups for the doctor: faults planted one at a time, each with its true cause, and healthy ones.

Every set-up starts from data that are healthy by themselves (real ones wherever there are such) and has one thing
wrong with it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .data import movielens, series, translation
from .doctor_data import (
    SMALL_CNN,
    TRAINING,
    Subject,
    augmented,
    digits,
    faulty,
    homes,
    language,
    machines,
    mails,
    photos,
    relabel,
    repeat,
    rng,
    take,
    thin,
    tones,
    tumours,
    with_split,
)  # fmt: skip

__all__ = ["BROKEN", "HEALTHY", "Setup", "Subject"]


@dataclass(frozen=True)
class Setup:
    """A name, the checks of which one has to be named first (none: no alarm above a note), and how to make it."""

    name: str
    causes: tuple[str, ...]
    make: Callable[[Path], Subject]

    @property
    def healthy(self) -> bool:
        return not self.causes


BROKEN: list[Setup] = []
HEALTHY: list[Setup] = []


def broken(name: str, *causes: str) -> Callable[[Callable[[Path], Subject]], Callable[[Path], Subject]]:
    def enter(make: Callable[[Path], Subject]) -> Callable[[Path], Subject]:
        BROKEN.append(Setup(name, causes, make))
        return make

    return enter


def healthy(name: str) -> Callable[[Callable[[Path], Subject]], Callable[[Path], Subject]]:
    def enter(make: Callable[[Path], Subject]) -> Callable[[Path], Subject]:
        HEALTHY.append(Setup(name, (), make))
        return make

    return enter


# Pictures -------------------------------------------------------------------------------------------------------------

broken("image: the encoder is detached", "no_gradient")(lambda _: faulty("detached", digits(), 784))
broken("image: the first layer is detached", "no_gradient")(lambda _: faulty("half_detached", digits(), 784))
broken("image: the encoder is frozen", "no_gradient")(lambda _: faulty("frozen", digits(), 784))
broken("image: the encoder reads nothing", "ignored")(lambda _: faulty("blind", digits(), 784))
broken("image: a logarithm of negative numbers", "nonfinite")(lambda _: faulty("logarithm", digits(), 784))
broken("image: dead rectifiers", "dead_units")(lambda _: faulty("dead", digits(), 784))
broken("image: first weights too large", "initial_loss")(lambda _: faulty("loud", digits(), 784))
broken("image: ten sigmoids", "flow")(lambda _: faulty("vanishing", digits(), 784))
broken("image: dropout in evaluation", "evaluation_mode")(lambda _: faulty("always_dropping", digits(), 784))
broken("image: noise that no seed reaches", "repeatable")(lambda _: faulty("restless", digits(), 784))
broken("image: shapes that do not fit", "crash")(lambda _: faulty("crashing", digits(), 784))
broken("image: learning rate of 1", "rate")(lambda _: digits(optimizer={"name": "adamw", "lr": 1.0}))
broken("image: learning rate of 1e-7", "rate")(lambda _: digits(optimizer={"name": "adamw", "lr": 1e-7}))
broken("image: batches of two with batch normalisation", "batch_norm")(
    lambda _: digits(encoder={**SMALL_CNN, "batch_norm": True}, batch_size=2)
)
broken("image: eight layers of sigmoids by recipe", "flow")(
    lambda _: digits(encoder={"name": "mlp", "widths": [32] * 8, "activation": "sigmoid"})
)
broken("image: every fifth label is wrong", "label_noise")(lambda _: relabel(digits(1200), 0.2))
broken("image: copies in every split", "exact_duplicates")(lambda _: repeat(digits(), 0.3))
broken("image: one class has four rows", "imbalance")(lambda _: thin(digits(1200), 0.04, "7"))


@broken("image: nearly equal copies in every split", "near_duplicates")
def near_copies(_: Path) -> Subject:
    subject = repeat(digits(), 0.3)
    random = rng(11)
    noise = random.integers(-6, 7, subject.source["image"].shape)
    subject.source["image"] = (subject.source["image"].astype(int) + noise).clip(0, 255).astype(np.uint8)
    return subject


@broken("image: a class that only test rows have", "missing_classes")
def unseen_class(_: Path) -> Subject:
    subject = digits()
    labels = np.array(subject.source["label"])
    return with_split(subject, (labels == "4") | (rng(12).random(len(labels)) < 0.1))


@broken("image: test pictures are inverted", "drift")
def inverted(_: Path) -> Subject:
    subject = digits()
    test = rng(13).random(900) < 0.15
    subject.source["image"][test] = 255 - subject.source["image"][test]
    return with_split(subject, test)


@broken("image: a corner tells the class", "leak")
def marked(_: Path) -> Subject:
    subject = digits()
    for row, label in enumerate(subject.source["label"]):
        subject.source["image"][row][:4, :4] = 25 * int(label)
    return subject


broken("image: every tenth file is cut off", "unreadable")(
    lambda folder: photos(folder, change=lambda i, x: b"\x89PNG\r\n\x1a\n" + bytes(40) if i % 10 == 0 else x)
)
broken("image: every tenth picture is blank", "blank_pictures")(
    lambda folder: photos(folder, change=lambda i, x: Image.new("RGB", x.size, (8, 8, 8)) if i % 10 == 0 else x)
)
broken("image: every tenth picture is a thumbnail", "odd_sizes")(
    lambda folder: photos(folder, change=lambda i, x: x.resize((7, 7)) if i % 10 == 0 else x)
)


@broken("image: the run waits for data", "loading")
def waiting(_: Path) -> Subject:
    def spoil(run: Path) -> None:
        lines = [json.loads(line) for line in (run / "timings.jsonl").read_text("utf-8").splitlines()]
        slow = [{**line, "waiting": 0.8, "seconds": 60.0 * (1 + place)} for place, line in enumerate(lines)]
        (run / "timings.jsonl").write_text("".join(json.dumps(line) + "\n" for line in slow), "utf-8")

    return as_run(digits(epochs=6), spoil)


@broken("image: a run that learned its rows by heart", "fitting")
def overfitted(_: Path) -> Subject:
    subject = digits(300, encoder={"name": "mlp", "widths": [512, 512]}, epochs=80, batch_size=16,
                     schedule="constant", optimizer={"name": "adam", "lr": 0.004})  # fmt: skip
    noise = rng(14).normal(0, 90, subject.source["image"].shape)
    subject.source["image"] = (subject.source["image"] + noise).clip(0, 255).astype(np.uint8)
    return as_run(subject)


@broken("image: a run that ended too early", "fitting")
def underfitted(_: Path) -> Subject:
    return as_run(digits(epochs=3, schedule="constant", log_every=2, optimizer={"name": "sgd", "lr": 0.02}))


def as_run(subject: Subject, spoil: Callable[[Path], None] | None = None) -> Subject:
    subject.run, subject.spoil = True, spoil
    return subject


# Tables ---------------------------------------------------------------------------------------------------------------

broken("table: every fifth label is wrong", "label_noise")(lambda _: relabel(tumours(), 0.2, "target"))
broken("table: copies in every split", "exact_duplicates")(lambda _: repeat(tumours(), 0.4))
broken("table: one malignant in a hundred", "imbalance")(lambda _: thin(tumours(), 0.02, "malignant", "target"))
broken("table: learning rate of 50", "rate")(lambda _: tumours(optimizer={"name": "adamw", "lr": 50.0}))


@broken("table: half the cells of a number are words", "unreadable")
def words(_: Path) -> Subject:
    subject = homes()
    ages = [str(age) for age in subject.source["age"]]
    subject.source["age"] = ["unknown" if rng(row).random() < 0.08 else age for row, age in enumerate(ages)]
    return subject


@broken("table: a column is the same in all rows", "constant")
def same(_: Path) -> Subject:
    subject = homes()
    subject.source["country"] = ["Switzerland"] * 900
    subject.recipe["inputs"]["country"] = {"type": "category"}
    return subject


@broken("table: a column numbers the rows", "identifier")
def numbered(_: Path) -> Subject:
    subject = homes()
    subject.source["number"] = np.arange(100_001, 100_901)
    subject.recipe["inputs"]["number"] = {"type": "number"}
    return subject


@broken("table: a column names the rows", "identifier")
def named(_: Path) -> Subject:
    subject = homes()
    subject.source["file"] = [f"CH-{17 * row % 9973:05}-{row:03}" for row in range(900)]
    subject.recipe["inputs"]["file"] = {"type": "category"}
    return subject


@broken("table: a code that is made from the answer", "leak")
def coded(_: Path) -> Subject:
    subject = tumours()
    codes = {"malignant": "C50", "benign": "D24"}
    subject.source["icd"] = [codes[one] for one in subject.source["target"]]
    return subject


@broken("table: the price with tax", "leak")
def taxed(_: Path) -> Subject:
    subject = homes()
    subject.source["with tax"] = (1.077 * subject.source["price"]).round(2)
    subject.recipe["inputs"]["with tax"] = {"type": "number", "scale": "log"}
    return subject


@broken("table: some sizes in another unit", "ranges")
def feet(_: Path) -> Subject:
    subject = homes()
    wrong = rng(15).random(900) < 0.05
    subject.source["size"] = np.where(wrong, 1000 * subject.source["size"], subject.source["size"])
    return subject


@broken("table: -999 for a missing age", "ranges")
def stand_in(_: Path) -> Subject:
    subject = homes()
    subject.source["age"] = np.where(rng(16).random(900) < 0.06, -999, subject.source["age"])
    return subject


@broken("table: test rows from another laboratory", "drift")
def laboratory(_: Path) -> Subject:
    subject = tumours()
    test = rng(17).random(569) < 0.2
    for name, values in subject.source.items():
        if name != "target" and "texture" in name:
            subject.source[name] = np.where(test, values + 2.5 * values.std(), values)
    return with_split(subject, test)


@broken("table: the test rows are of one class", "label_drift", "missing_classes")
def one_sided(_: Path) -> Subject:
    subject = tumours()
    kinds = np.array(subject.source["target"])
    return with_split(subject, (kinds == "benign") & (rng(18).random(569) < 0.3))


@broken("table: a random split of a course in time", "time_leak")
def course(_: Path) -> Subject:
    random = rng(19)
    load_ = np.cumsum(random.normal(size=900))
    day = (np.datetime64("2022-01-01") + np.arange(900).astype("timedelta64[D]")).astype(str).tolist()
    source = {"day": day, "wind": random.normal(size=900), "sun": random.gamma(2, 1, 900), "load": load_ + 30}
    recipe = {
        "inputs": {name: None for name in source if name != "load"},
        "outputs": {"load": {"type": "number"}},
        "fusion": {"name": "concat", "widths": [32]},
        "training": TRAINING,
    }
    return Subject(source, recipe)


@broken("table: numbers as they are", "normalisation")
def raw(_: Path) -> Subject:
    subject = tumours()
    names = [name for name in subject.source if name != "target"]
    subject.recipe["inputs"] = {name: {"type": "number", "scale": "none"} for name in names}
    return subject


@broken("table: a column whose encoder reads nothing", "ignored")
def unread(_: Path) -> Subject:
    return faulty("blind", homes(), 1, column="size")


@broken("table: training rows stand three times", "exact_duplicates")
def thrice(_: Path) -> Subject:
    subject = tumours()
    test = rng(20).random(569) < 0.3
    rows = np.concatenate([np.flatnonzero(test), *[np.flatnonzero(~test)] * 3])
    subject = take(subject, rows)
    parts = np.where(test, np.where(rng(21).random(569) < 0.4, "validation", "test"), "train")[rows]
    subject.source["split"] = parts.tolist()
    subject.recipe["data"] = {"split": {"by": "column", "column": "split"}}
    return subject


# Texts ----------------------------------------------------------------------------------------------------------------

broken("text: every fourth label is wrong", "label_noise")(lambda _: relabel(mails(), 0.25))
broken("text: copies in every split", "exact_duplicates")(lambda _: repeat(mails(), 0.3))
broken("text: one spam in two hundred", "imbalance")(lambda _: thin(mails(), 0.015, "spam"))
broken("text: the embedding is detached", "no_gradient")(lambda _: faulty("detached", mails(), 16, vocabulary=8000))
broken("text: a logarithm of negative numbers", "nonfinite")(
    lambda _: faulty("logarithm", mails(), 16, vocabulary=8000)
)
broken("text: learning rate of 3 for a Transformer", "rate")(
    lambda _: mails({"name": "transformer", "width": 32, "depth": 2, "heads": 2}, rows=400, length=64,
                    optimizer={"name": "adamw", "lr": 3.0})
)  # fmt: skip


@broken("text: every seventh is empty", "empty_texts")
def emptied(_: Path) -> Subject:
    subject = mails()
    subject.source["text"] = ["" if row % 7 == 0 else text for row, text in enumerate(subject.source["text"])]
    return subject


@broken("text: every eighth is French", "strange_language")
def french(_: Path) -> Subject:
    subject = mails()
    lines = translation("fr").read_text("utf-8").splitlines()
    longer = [line.split("\t")[1] for line in lines if line.count("\t") == 1 and len(line.split("\t")[1]) > 150]
    subject.source["text"] = [longer[row] if row % 8 == 0 else text for row, text in enumerate(subject.source["text"])]
    return subject


@broken("text: all cut at 150 characters", "cut_texts")
def shortened(_: Path) -> Subject:
    subject = mails()
    subject.source["text"] = [text[:150] for text in subject.source["text"]]
    return subject


@broken("text: the model reads eight words", "cut_texts")
def eight(_: Path) -> Subject:
    subject = mails()
    subject.recipe["inputs"]["text"]["length"] = 8
    return subject


@broken("text: UTF-8 read as Latin-1", "garbled_texts")
def garbled(_: Path) -> Subject:
    subject = mails()
    random = rng(22)
    for row in random.choice(800, 200, replace=False):
        if row < len(subject.source["text"]):
            text = subject.source["text"][row].replace("e", "é").replace("a", "ä")
            subject.source["text"][row] = text.encode().decode("latin-1")
    return subject


@broken("text: a word that only spam has", "leak")
def stamped(_: Path) -> Subject:
    subject = mails()
    subject.source["text"] = [
        f"XJunk {text}" if label == "spam" else text
        for text, label in zip(subject.source["text"], subject.source["label"], strict=True)
    ]
    return subject


@broken("text: nearly equal copies in every split", "near_duplicates")
def reworded(_: Path) -> Subject:
    subject = repeat(mails(), 0.35)
    random = rng(23)
    changed = []
    for text in subject.source["text"]:
        words = text.split()
        words[int(random.integers(len(words)))] = f"word{random.integers(10_000)}"
        changed.append(" ".join(words))
    subject.source["text"] = changed
    return subject


# Series and sound -----------------------------------------------------------------------------------------------------

broken("series: every fifth label is wrong", "label_noise")(lambda _: relabel(machines(), 0.2))
broken("series: copies in every split", "exact_duplicates")(lambda _: repeat(machines(), 0.3))
broken("series: gradients explode", "flow")(lambda _: faulty("exploding", machines(), 3))
broken("series: hyperbolic tangents at their bounds", "saturated_units")(lambda _: faulty("saturated", machines(), 3))
broken("series: batch statistics in evaluation", "evaluation_mode")(lambda _: faulty("never_evaluates", machines(), 3))
broken("series: a norm of nothing", "nonfinite")(lambda _: faulty("root", machines(), 3))
broken("series: learning rate of 1e-6", "rate")(lambda _: machines(optimizer={"name": "adamw", "lr": 1e-6}))


@broken("series: test rows from another sensor", "drift")
def sensor(_: Path) -> Subject:
    subject = machines()
    test = rng(24).random(700) < 0.2
    for row in np.flatnonzero(test):
        subject.source["course"][row] = [[2.5 * a + 1, b, c] for a, b, c in subject.source["course"][row]]
    return with_split(subject, test)


@broken("series: thousandfold values", "normalisation")
def unscaled(_: Path) -> Subject:
    subject = machines()
    subject.source["course"] = [(1000 * np.array(one) + 5000).tolist() for one in subject.source["course"]]
    subject.recipe["inputs"]["course"]["scale"] = "none"
    return subject


broken("audio: every tenth clip is silent", "sounds")(
    lambda folder: tones(folder, change=lambda i, x: 0 * x if i % 10 == 0 else x)
)
broken("audio: every sixth clip is clipped", "sounds")(
    lambda folder: tones(folder, change=lambda i, x: (8 * x).clip(-0.9, 0.9) if i % 6 == 0 else x)
)


# Healthy --------------------------------------------------------------------------------------------------------------

healthy("image: digits, convolutions")(lambda _: digits(1500))
healthy("image: digits, perceptron")(lambda _: digits(encoder={"name": "mlp", "widths": [64, 32]}))
healthy("image: digits, batch normalisation and dropout")(
    lambda _: digits(encoder={**SMALL_CNN, "batch_norm": True, "dropout": 0.25})
)
healthy("image: digits, Transformer")(
    lambda _: digits(encoder={"name": "vit", "patch": 7, "width": 32, "depth": 2, "heads": 2})
)
healthy("image: digits, an encoder of one's own")(lambda _: faulty("", digits(), 784))
healthy("image: photographs in folders")(lambda folder: photos(folder))
healthy("image: digits, augmented")(lambda _: augmented(digits()))
healthy("table: iris")(lambda _: Subject("iris"))
healthy("table: wine")(lambda _: Subject("wine"))
healthy("table: tumours")(lambda _: tumours())
healthy("table: diabetes, a number")(lambda _: Subject("diabetes"))
healthy("table: homes, mixed columns")(lambda _: homes())
healthy("text: e-mails, a bag of words")(lambda _: mails())
healthy("text: e-mails, Transformer")(
    lambda _: mails({"name": "transformer", "width": 32, "depth": 2, "heads": 2}, rows=400, length=64)
)
healthy("text: e-mails, convolutions")(
    lambda _: mails({"name": "text_cnn", "embedding": 32, "channels": 16}, rows=400, length=128)
)
healthy("text: a language model")(lambda _: language())
healthy("series: machines, GRU")(lambda _: machines())
healthy("series: machines, dilated convolutions")(lambda _: machines({"name": "tcn", "width": 16, "depth": 3}))
healthy("series: Japanese vowels")(
    lambda _: Subject(str(series("JapaneseVowels")), {"outputs": {"label": None}, "training": TRAINING})
)
healthy("audio: tones")(lambda folder: tones(folder))
healthy("image: a run on digits")(lambda _: as_run(digits(epochs=6)))


@healthy("series: the next value of a course")
def forecast(_: Path) -> Subject:
    random = rng(25)
    steps = np.arange(900)
    value = np.sin(steps / 6) + 0.4 * np.sin(steps / 2.1) + 0.15 * random.normal(size=900)
    recipe = {
        "data": {"reshape": {"name": "windows", "time": "step", "values": ["value"], "past": 24, "future": 1},
                 "others": "unused"},
        "inputs": {"past": {"type": "series", "encoder": {"name": "gru", "width": 16}}},
        "outputs": {"future": {"type": "series"}},
        "training": TRAINING,
    }  # fmt: skip
    return Subject({"step": steps, "value": value}, recipe)


@healthy("history: the next film")
def films(_: Path) -> Subject:
    lines = movielens().read_text("utf-8").splitlines()
    rows = [line.split(",") for line in lines[1:] if int(line.split(",")[0]) < 120]
    source: dict[str, list[Any]] = {
        name: [row[place] for row in rows] for place, name in enumerate(lines[0].split(","))
    }
    source["time"] = [float(one) for one in source["time"]]
    recipe = {
        "data": {"reshape": {"name": "history", "user": "user", "item": "item", "time": "time", "length": 20},
                 "others": "unused"},
        "inputs": {"history": {"type": "history", "length": 20,
                               "encoder": {"name": "sasrec", "width": 32, "depth": 1, "heads": 1}}},
        "outputs": {"item": {"type": "category"}},
        "training": TRAINING,
    }  # fmt: skip
    return Subject(source, recipe)


@healthy("table: ratings of films")
def ratings(_: Path) -> Subject:
    lines = movielens().read_text("utf-8").splitlines()[1:4001]
    user, item, stars, _when = zip(*(line.split(",") for line in lines), strict=True)
    return Subject(
        {"user": list(user), "item": list(item), "rating": [float(one) for one in stars]},
        {"inputs": {"user": {"type": "category"}, "item": {"type": "category"}},
         "outputs": {"rating": {"type": "number"}}, "training": TRAINING},
    )  # fmt: skip
