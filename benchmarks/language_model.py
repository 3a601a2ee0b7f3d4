"""A language model of an English dictionary beside gzip and xz, on its last 2 MB.

A 4-layer Transformer learns from the 37 MB before (all but 0.5 MB for validation) for a stated number of tokens. All
three are measured in bits a byte of the same text; each entry's end counts as one byte for the model and as two for
the others, which see the text as it is.

    python -m benchmarks.language_model [--tokens 6000000] [--set training.batch_size=32 …]
"""

from __future__ import annotations

import argparse
import gzip
import json
import lzma
import re
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from .command import trained
from .data import english_dictionary

HELD_OUT, VALIDATION = 2_000_000, 200_000


def entries() -> tuple[Path, bytes]:
    """A table of the entries, with the split that each is in; and the held-out text as it stands in the file."""
    source = english_dictionary()
    text = source.read_text("utf-8", "replace")
    path = source.with_name("entries.parquet")
    rows = re.split(r"\n\n(?=\S)", text)  # an entry begins at the left border
    size, splits, held_out = 0, [], 0
    for row in reversed(rows):
        size += len(row.encode()) + 2
        splits.append("test" if size <= HELD_OUT else "validation" if size <= HELD_OUT + VALIDATION else "train")
        held_out += splits[-1] == "test"
    pq.write_table(pa.table({"text": rows, "split": splits[::-1]}), path)
    return path, ("\n\n".join(rows[-held_out:]) + "\n\n").encode()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=6_000_000)
    parser.add_argument("--set", nargs="*", default=[])
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    path, held_out = entries()
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.out or Path(scratch) / "run"
        more = [f"training.tokens={given.tokens}", *given.set]
        metrics, seconds = trained("entries.parquet --recipe language-model", folder, more, source=path)
        evaluation = json.loads((folder / "evaluation.json").read_text("utf-8"))["outputs"]["text"]
    line = {
        "command": "zhixing train entries.parquet --recipe language-model",
        "tokens": given.tokens,
        "seconds": round(seconds),
        "held_out_bytes": len(held_out),
        "bits_per_byte": round(metrics["text"]["bits_per_byte"], 4),
        "gzip_9": round(8 * len(gzip.compress(held_out, 9)) / len(held_out), 4),
        "xz_9": round(8 * len(lzma.compress(held_out, preset=9)) / len(held_out), 4),
        "samples": evaluation["samples"][:3],
    }
    print(json.dumps(line, ensure_ascii=False))


if __name__ == "__main__":
    main()
