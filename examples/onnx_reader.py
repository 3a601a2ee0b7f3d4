"""Answers of an exported model, with NumPy and ONNX Runtime (and what its columns need, see cells.py):

    python examples/onnx_reader.py RUN/export/onnx rows.csv
    python examples/onnx_reader.py RUN/export/onnx photo.png

prints a line of JSON for each row. All that is known of the model stands in model.json beside it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from cells import READERS, Tokens, aligned, answer, rows_of, write

BATCH = 16


def open_onnx(path, ports):
    """A file as a function from named arrays to named arrays."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(feed):
        return dict(zip(names, session.run(names, feed), strict=True))

    return run


class Model:
    """An exported model: its graphs, opened by ``open_file``, and the facts beside them."""

    def __init__(self, folder, suffix=".onnx", open_file=open_onnx):
        folder = Path(folder)
        path = folder / "model" if folder.is_dir() else folder.with_suffix("")
        self.facts = json.loads(path.with_suffix(".json").read_text("utf-8"))
        self.columns = self.facts["columns"]
        for name, column in self.columns.items():
            if column["type"] == "text":
                column["tokens"] = Tokens(column, f"{path}_{name}.tokenizer")
        self.run = {
            part: open_file(f"{path}{f'_{part}' if part else ''}{suffix}", ports)
            for part, ports in self.facts["parts"].items()
        }

    def feed(self, part, rows, base):
        """What a graph that reads the input takes, by the names of its inputs."""
        arrays = []
        for name in self.facts["inputs"]:
            cells = [row.get(name, row.get(None)) for row in rows]
            arrays += READERS[self.columns[name]["type"]](cells, self.columns[name], base)
        ports = self.facts["parts"][part]["inputs"]
        return {port["name"]: array for port, array in zip(ports, arrays, strict=True)}

    def predict(self, rows, base=Path()):
        """A mapping of answers for each row."""
        told = [{} for _ in rows]
        if "" in self.run:
            found = self.run[""](self.feed("", rows, base))
            for output in self.facts["parts"][""]["outputs"]:
                column, array = self.columns[output["column"]], found[output["name"]]
                if output["kind"] == "alignment":
                    answers = [{output["column"]: text} for text in aligned(array, column)]
                else:
                    answers = answer(output, array, column)
                for row, one in zip(told, answers, strict=True):
                    row.update(one)
        for text in self.facts["texts"]:
            encode, column = self.run.get("encoder"), self.columns[text["column"]]
            feed = self.feed("encoder", rows, base) if encode else {}
            prompts = [[] if encode else column["tokens"].encode(row[text["column"]]) for row in rows]
            written = write(self.facts, text, encode, self.run["step"], feed, prompts)
            for row, one in zip(told, written, strict=True):
                row[text["column"]] = one
        return told


def main(model, inputs):
    """Print the answers for files of rows, pictures or sounds."""
    for path in inputs:
        rows, base = rows_of(path)
        for start in range(0, len(rows), BATCH):
            for told in model.predict(rows[start : start + BATCH], base):
                print(json.dumps(told, ensure_ascii=False))


if __name__ == "__main__":
    main(Model(sys.argv[1]), sys.argv[2:])
