"""Whisper tiny.en on a recording longer than its window: five clips read aloud, joined several times over with pauses.

Words that are wrong, missing or added in the joined file, beside those of the clips one by one, each as often; and how
far the times of phrases that begin a clip are from where it begins. One line of JSON for each number of beams.

    OMP_NUM_THREADS=1 python -m benchmarks.long_sound [--repeats 4] [--beams 1 5]
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import numpy as np
import soundfile
import torch
from jiwer import process_words

from zhixing.heads.search import Search
from zhixing.pretrained import untrained
from zhixing.verbs.predict import predict
from zhixing.verbs.transcribe import listener_of

from .data import librivox, whisper_tiny_en
from .pretrained import words

CPU, RATE, PAUSE = torch.device("cpu"), 16_000, 0.5  # seconds between two clips


def wrong(truth: str, said: str) -> int:
    done = process_words(truth, words(said))
    return int(done.substitutions + done.deletions + done.insertions)


def heard(repeats: int, beams: int) -> dict[str, Any]:
    rows = [json.loads(line) for line in librivox().read_text("utf-8").splitlines()]
    paths = [str(librivox().parent / row["audio"]) for row in rows]
    clips = [soundfile.read(path, dtype="int16")[0] for path in paths]
    pause, folder = np.zeros(round(PAUSE * RATE), np.int16), str(whisper_tiny_en())
    parts = [part for _ in range(repeats) for clip in clips for part in (clip, pause)]
    text = {"type": "text", "length": 400, "decoder": folder, "search": {"beams": beams}}
    recipe, columns, model = untrained(
        {"inputs": {"audio": {"type": "audio", "encoder": folder}}, "outputs": {"text": text}}
    )
    alone = predict(recipe, columns, model, paths, device=CPU)["text"].to_pylist()
    listener = listener_of(columns, model, CPU)
    assert listener is not None
    started = time.perf_counter()
    segments = list(listener.segments(np.concatenate(parts), Search(beams=beams)))
    seconds = time.perf_counter() - started
    begins = np.cumsum([0, *(len(clip) + len(pause) for _ in range(repeats) for clip in clips)])[:-1] / RATE
    starts = np.array([segment.start for segment in segments])
    truth = " ".join(row["text"] for _ in range(repeats) for row in rows)
    return {
        "beams": beams,
        "sound_seconds": round(sum(map(len, parts)) / RATE, 1),
        "words": len(truth.split()),
        "wrong_in_one_file": wrong(truth, " ".join(segment.text for segment in segments)),
        "wrong_one_by_one": repeats * sum(wrong(row["text"], said) for row, said in zip(rows, alone, strict=True)),
        "phrases": len(segments),
        "clips_that_begin_a_phrase": int(sum(np.abs(starts - begin).min() < 1.0 for begin in begins)),
        "of": len(begins),
        "seconds": round(seconds, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--beams", type=int, nargs="+", default=[1, 5])
    given = parser.parse_args()
    torch.set_num_threads(1)
    for beams in given.beams:
        print(json.dumps(heard(given.repeats, beams)), flush=True)


if __name__ == "__main__":
    main()
