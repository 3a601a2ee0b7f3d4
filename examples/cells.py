"""Cells to arrays and back, as the facts beside an exported model say: NumPy and the standard library, and per column
type Pillow, soundfile with soxr, or tokenizers. Nothing of zhixing is imported.

Each reader takes the cells of a column (None where one is empty) and its facts, and gives what the graph takes: values
[B, ...], or for rows of unequal length values [B, T, ...] with a mask [B, T]. An unreadable cell is a ValueError.
"""

from __future__ import annotations

import csv
import functools
import json
import math
import re
import unicodedata
from datetime import UTC, datetime
from pathlib import Path
from statistics import NormalDist
from types import SimpleNamespace

import numpy as np

PAD, UNKNOWN, BEGIN, END, FIRST = 0, 1, 2, 3, 4
HAN = "\u3005\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003fffd"
KANA = "\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\uff66-\uff9f"
CLOSING = frozenset(",.;:!?%)]}，。；：！？、％）】》」』”’…")
OPENING = frozenset("([{（【《「『“‘$#@")


def rows_of(path):
    """The rows of a CSV or JSON-lines file; a picture or sound is a row of its own, under the name None."""
    path = Path(path)
    if path.suffix == ".csv":
        with path.open(encoding="utf-8", newline="") as file:
            return [{key: value or None for key, value in row.items()} for row in csv.DictReader(file)], path.parent
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip()], path.parent
    return [{None: path.name}], path.parent


def padded(rows, dtype, tail=()):
    """Rows of unequal length as one array [B, T, ...] with its mask [B, T], T at least 1."""
    lengths = np.array([len(row) for row in rows])
    mask = np.arange(max(1, lengths.max())) < lengths[:, None]
    values = np.zeros((*mask.shape, *tail), dtype)
    for row, cells in enumerate(rows):
        values[row, : len(cells)] = cells
    return values, mask


# Numbers, classes, dates -------------------------------------------------------------------------------------------


def bend(x, settings, state):
    """What comes before standardising."""
    if settings["scale"] == "log":
        return np.sign(x) * np.log1p(np.abs(x))
    if settings["scale"] == "quantile":
        knots, grid = np.array(state["knots"]), np.linspace(0, 1, len(state["knots"]))
        out = np.full_like(x, np.nan)
        for row, column in zip(*np.nonzero(~np.isnan(x)), strict=True):
            own = knots[:, column]
            low = np.interp(x[row, column], own, grid)
            high = 1 - np.interp(-x[row, column], -own[::-1], grid)
            out[row, column] = NormalDist().inv_cdf(float(np.clip((low + high) / 2, 1e-4, 1 - 1e-4)))
        return out
    return x


def number(cells, facts, base):
    length, state = facts["state"]["length"], facts["state"]
    raw = np.full((len(cells), length), np.nan)
    for row, cell in enumerate(cells):
        for place, part in enumerate(cell if isinstance(cell, list) else [cell]):
            if part is not None and str(part).strip():
                raw[row, place] = float(part)
    scaled = (bend(raw, facts["settings"], state) - state["mean"]) / state["std"]
    missing = np.isnan(scaled)
    out = np.where(missing, 0.0, scaled)
    return [np.concatenate([out, missing], 1).astype(np.float32) if state["indicator"] else out.astype(np.float32)]


def word(cell):
    """A cell as text; None where it is blank. A whole number that is stored as a float has no ``.0``."""
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, float) and cell.is_integer() and abs(cell) < 2.0**53:
        cell = int(cell)
    return None if cell is None or not str(cell).strip() else str(cell).strip()


def category(cells, facts, base):
    classes = facts["state"]["classes"]
    index = {name: code for code, name in enumerate(classes)}
    words = [word(cell) for cell in cells]
    return [np.array([len(classes) + 1 if one is None else index.get(one, len(classes)) for one in words], np.int64)]


def date(cells, facts, base):
    state, day, out = facts["state"], 86_400, []
    for cell in cells:
        if cell is None or not str(cell).strip():
            out.append([0.0] * (9 if state["has_time"] else 7) + [1.0])
            continue
        when = datetime.fromisoformat(str(cell))
        when = when if when.tzinfo else when.replace(tzinfo=UTC)
        seconds = when.timestamp()
        days = math.floor(seconds / day)
        start = datetime.fromtimestamp(days * day, UTC)
        of_year = start.timetuple().tm_yday - 1
        year = 366 if start.year % 4 == 0 and (start.year % 100 or start.year % 400 == 0) else 365
        following = datetime(start.year + start.month // 12, start.month % 12 + 1, 1, tzinfo=UTC)
        month = (following - start.replace(day=1)).days
        turns = [of_year / year, (start.day - 1) / month, (days + 3) % 7 / 7]
        turns += [seconds % day / day] if state["has_time"] else []
        cycles = [wave(2 * math.pi * turn) for turn in turns for wave in (math.sin, math.cos)]
        out.append([(seconds - state["mean"]) / state["std"], *cycles, 0.0])
    return [np.array(out, np.float32)]


# Rows of unequal length --------------------------------------------------------------------------------------------


def history(cells, facts, base):
    ids = {item: code + 2 for code, item in enumerate(facts["state"]["items"])}
    rows = []
    for cell in cells:
        items = cell.split(facts["settings"]["separator"]) if isinstance(cell, str) else cell or []
        known = [ids.get(one, UNKNOWN) for one in map(word, items) if one is not None]
        rows.append(known[-facts["settings"]["length"] :])
    return padded(rows, np.int64)


def series(cells, facts, base):
    settings, state = facts["settings"], facts["state"]
    mean, gaps, rows = np.array(state["mean"]), np.array(state["gaps"], bool), []
    for cell in cells:
        cell = json.loads(cell) if isinstance(cell, str) else cell or []
        steps = [step if isinstance(step, list) else [step] for step in cell][: state["steps"]]
        x = np.array([[np.nan if v is None else float(v) for v in step] for step in steps]).reshape(-1, len(mean))
        if np.isnan(x).all():
            x = x[:0]
        if settings["scale"] == "row" and len(x):
            std = np.nanstd(x, axis=0)
            scaled = (x - np.nanmean(x, axis=0)) / np.where(std > 0, std, 1)
        else:
            scaled = (x - mean) / state["std"]
        missing = np.isnan(scaled)
        for step in range(len(scaled)):  # the last value that is known; the mean where there is none
            scaled[step] = np.where(missing[step], scaled[step - 1] if step else 0.0, scaled[step])
        rows.append(np.concatenate([scaled, missing[:, gaps]], axis=1))
    return padded(rows, np.float32, (len(mean) + int(gaps.sum()),))


@functools.cache
def word_pattern(apart):
    planes = (*range(0x300, 0x1F000), *range(0xE0100, 0xE01F0))
    marks = "".join(chr(code) for code in planes if unicodedata.category(chr(code))[0] == "M")
    letter = rf"(?:[^\W{apart}]|[{marks}])" if apart else rf"[\w{marks}]"
    return re.compile((f"[{apart}]+|" if apart else "") + rf"{letter}+(?:['’]{letter}+)*|\S")


def words_of(text, segment):
    """Words and punctuation marks; ``segment`` says what a run of Chinese or Japanese characters is."""
    if segment == "none":
        return word_pattern("").findall(text)
    if segment == "rjieba":
        import rjieba
    words = []
    for run in word_pattern(HAN + KANA).findall(text):
        chinese = re.match(f"[{HAN + KANA}]", run)
        words += (list(run) if segment == "character" else rjieba.cut(run)) if chinese else [run]
    return words


class Tokens:
    """A column's tokenizer, of the file beside the model or of the lists in its facts."""

    def __init__(self, facts, path):
        self.kind, self.state = facts["settings"]["tokenizer"], facts["state"]["tokenizer"]
        if "json" in self.state:
            from tokenizers import Tokenizer

            self.library = Tokenizer.from_file(str(path) + ".json")
            self.library.encode_special_tokens = True
        elif "model" in self.state or "pieces" in self.state:
            from sentencepiece import SentencePieceProcessor

            self.library = SentencePieceProcessor(model_file=str(path) + ".model")
            if "pieces" in self.state:
                self.library = Pieces(self.library, self.state["pieces"]["numbers"])
        entries = self.state.get("entries", [])
        self.entries, self.ids = entries, {entry: FIRST + place for place, entry in enumerate(entries)}
        self.begins = self.ends = False
        if self.kind == "published":  # whose ids stand in another order here
            published = self.state["facts"]
            special = published["special"]
            self.order = [*special, *(token for token in range(published["rows"]) if token not in special)]
            self.ours = {token: place for place, token in enumerate(self.order) if place >= FIRST}
            self.begins, self.ends = published["begins"], published["ends"]

    def encode(self, text):
        if self.kind in ("word", "character"):
            parts = words_of(text, self.state["segment"]) if self.kind == "word" else text
            return [self.ids.get(part, UNKNOWN) for part in parts]
        if self.kind == "byte":
            return [FIRST + byte for byte in text.encode()]
        if self.kind == "sentencepiece":
            return self.library.encode(text)
        ids = self.library.encode(text, add_special_tokens=False).ids
        return [self.ours.get(token, UNKNOWN) for token in ids] if self.kind == "published" else ids

    def decode(self, ids):
        if self.kind == "word":
            return joined(["[unknown]" if token < FIRST else self.entries[token - FIRST] for token in ids])
        if self.kind == "character":
            return "".join("\ufffd" if token < FIRST else self.entries[token - FIRST] for token in ids)
        if self.kind == "byte":
            return bytes(token - FIRST for token in ids if token >= FIRST).decode(errors="replace")
        if self.kind == "sentencepiece":
            return self.library.decode([int(token) for token in ids]).replace("▁", " ")
        if self.kind == "published":
            return self.library.decode([self.order[token] for token in ids if token >= FIRST])
        text = self.library.decode([int(token) for token in ids])
        return joined(text.split()) if self.kind == "wordpiece" else text


class Pieces:
    """SentencePiece whose pieces have numbers of their own, as Marian's do. A text may begin with the name of the
    language that it is to be put into, such as >>fr<<."""

    def __init__(self, processor, numbers):
        self.processor, self.numbers = processor, numbers
        self.pieces = {number: piece for piece, number in numbers.items()}

    def encode(self, text, add_special_tokens=False):
        name = text[: text.find("<<") + 2] if text.startswith(">>") else ""
        name = name if name in self.numbers else ""
        pieces = [name] * bool(name) + self.processor.encode(text[len(name) :], out_type=str)
        return SimpleNamespace(ids=[self.numbers.get(piece, self.numbers["<unk>"]) for piece in pieces])

    def decode(self, ids):
        pieces = [self.pieces[number] for number in ids if number in self.pieces]
        return self.processor.decode_pieces(pieces).replace("▁", " ").strip()


def joined(words):
    """Words as text, with spaces where they are usual."""
    text, chinese = "", re.compile(f"[{HAN + KANA}]")
    for one in words:
        close = one in CLOSING or text[-1:] in OPENING
        both = chinese.match(text[-1:]) or text[-1:] in "，。；：！？、"
        text += ("" if not text or close or (both and chinese.match(one)) else " ") + one
    return text


def text(cells, facts, base):
    settings, tokens, rows = facts["settings"], facts["tokens"], []
    room = settings["length"] - tokens.begins - tokens.ends
    for cell in cells:
        parts = cell if isinstance(cell, list) else [cell or ""]
        if settings["normalise"] != "none":
            parts = [unicodedata.normalize(settings["normalise"].upper(), part) for part in parts]
        parts = [part.lower() for part in parts] if settings["lowercase"] else parts
        lists = isinstance(cell, list)
        ids = [tokens.ids.get(part, UNKNOWN) for part in parts] if lists else tokens.encode(parts[0])
        ids = ids[:room]
        rows.append([BEGIN] * bool(tokens.begins and ids) + list(ids) + [END] * bool(tokens.ends and ids))
    return padded(rows, np.int64)


# Files -------------------------------------------------------------------------------------------------------------


def image(cells, facts, base):
    from PIL import Image, ImageOps

    settings, state = facts["settings"], facts["state"]
    height, width = state["size"]
    mode, bicubic, out = ("L" if state["channels"] == 1 else "RGB"), Image.Resampling.BICUBIC, []
    for cell in cells:
        picture = Image.open(base / cell)
        if picture.width * picture.height > settings["max_pixels"]:
            raise ValueError(f"{cell}: more than {settings['max_pixels']} pixels")
        if picture.format == "JPEG":
            picture.draft(mode, (2 * max(height, width),) * 2)
        picture = ImageOps.exif_transpose(picture)
        if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
            layer = picture.convert("RGBA")
            picture = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
        picture = picture.convert(mode)
        if picture.size != (width, height):
            if settings["fit"] == "crop":
                picture = ImageOps.fit(picture, (width, height), bicubic)
            elif settings["fit"] == "stretch":
                picture = picture.resize((width, height), bicubic)
            else:
                share = min(width / picture.width, height / picture.height)
                inner = max(1, round(picture.width * share)), max(1, round(picture.height * share))
                whole = Image.new(mode, (width, height))
                whole.paste(picture.resize(inner, bicubic), ((width - inner[0]) // 2, (height - inner[1]) // 2))
                picture = whole
        array = np.asarray(picture, np.uint8)
        out.append(array[None] if array.ndim == 2 else array.transpose(2, 0, 1))
    return [np.stack(out)]


def audio(cells, facts, base):
    import soundfile
    import soxr

    settings, rows = facts["settings"], []
    rate, most = settings["rate"], round(facts["state"]["longest"] * settings["rate"])
    for cell in cells:
        with soundfile.SoundFile(base / cell) as file:
            own = file.samplerate
            wanted = min(file.frames, math.ceil((most / rate + 0.1) * own))
            wave = file.read(wanted, dtype="float32", always_2d=True)
        wave = wave.mean(axis=1) if wave.shape[1] > 1 else wave[:, 0]
        wave = wave if own == rate else soxr.resample(wave, own, rate)
        samples = np.rint(wave * np.float32(32768)).clip(-32768, 32767).astype(np.int16)[:most]
        rows.append(samples)
    return padded(rows, np.int16)


READERS = {
    "number": number, "category": category, "date": date, "history": history, "series": series, "text": text,
    "image": image, "audio": audio,
}  # fmt: skip


# Answers -----------------------------------------------------------------------------------------------------------


def plain(values):
    """Numbers of a row: one by itself, several in a list; what has no value is None."""
    values = values[0] if np.ndim(values) and len(values) == 1 else values
    return json.loads(json.dumps(np.asarray(values).tolist()))


def answer(output, array, facts):
    """The answers of the rows [B], under the name of their column and what stands beside it."""
    name, kind, state, out = output["column"], output["kind"], facts["state"], []
    for row in array:
        if kind == "probabilities":
            best = int(row.argmax())
            out.append({name: state["classes"][best], f"{name}_probability": round(float(row[best]), 6)})
        elif kind == "chances":
            said = [label for label, chance in zip(state["classes"], row, strict=True) if chance >= output["threshold"]]
            out.append({name: said})
        elif kind == "token_probabilities":
            best = row.argmax(-1)
            out.append({name: [state["classes"][code - 1] for code in best if code]})
        elif kind == "numbers":
            out.append({name: plain(row[:, 0] if row.ndim == 2 and row.shape[1] == 1 else row)})
        elif kind == "quantiles":
            levels = zip(output["levels"], np.moveaxis(row, -1, 0), strict=True)
            out.append({f"{name}_quantile_{level:g}": plain(values) for level, values in levels})
    return out


# Texts that are written --------------------------------------------------------------------------------------------


def write(facts, text, encode, step, feed, prompts):
    """Texts, token by token, the likeliest one each time: for ``feed``, what the encoder takes of some rows, or, where
    there is no input, for ``prompts``. ``encode`` and ``step`` map named arrays to named arrays."""
    column, rows = facts["columns"][text["column"]], len(prompts)
    begin = [[*text["begin"], *prompt] for prompt in prompts]
    tokens, real = padded(begin, np.int64)
    room = np.full(rows, text["most"]) if encode else np.minimum(text["most"], text["length"] - real.sum(1) + 1)
    ports = {port["name"]: port for port in facts["parts"]["step"]["inputs"][1:]}
    state = encode(feed) if encode else {}
    for name, port in ports.items():
        if name not in state:  # nothing is remembered yet
            sides = [rows if side == "batch" else 0 if isinstance(side, str) else side for side in port["shape"]]
            state[name] = np.zeros(sides, port["dtype"])
    written, ended = [[] for _ in range(rows)], np.zeros(rows, bool)
    for count in range(1, int(room.max()) + 1):
        found = step({"tokens": tokens, **state})
        best = found["scores"][:, text["end"] :].argmax(1) + text["end"]  # what comes before END is never written
        for row in np.flatnonzero(~ended):
            written[row].append(int(best[row]))
        ended |= (best == text["end"]) | (count >= room)
        if ended.all():
            break
        tokens = np.where(ended, PAD, best)[:, None]
        state = {name: found.get(f"next_{name}", state[name]) for name in ports}
    plain_ids = [[token for token in row if token != text["end"]] for row in written]
    return [column["tokens"].decode(row) for row in plain_ids]


def aligned(array, column):
    """The likeliest text, one token or nothing a step."""
    texts = []
    for best in array.argmax(-1):
        before = np.concatenate([[PAD], best[:-1]])
        kept = [int(token) for token in best[(best != PAD) & (best != before)]]
        texts.append(column["tokens"].decode(kept[: kept.index(END)] if END in kept else kept))
    return texts
