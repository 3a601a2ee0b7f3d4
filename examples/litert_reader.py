"""The same as onnx_reader.py with LiteRT, which takes one row of one size at a time:

python examples/litert_reader.py RUN/export/litert rows.csv
"""

from __future__ import annotations

import sys

import numpy as np
from onnx_reader import Model, main


def filled(array, most):
    """A row [1, T, ...] with zeros behind, of ``most`` steps; None: it has no steps."""
    if most is None:
        return array
    return np.pad(array, [(0, 0), (0, most - array.shape[1]), *[(0, 0)] * (array.ndim - 2)])


def open_litert(path, ports):
    """A file as a function from named arrays to named arrays."""
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(model_path=str(path)).get_signature_runner()
    kinds = {name: told["dtype"] for name, told in runner.get_input_details().items()}

    def one(feed, row):
        given = {}
        for number, port in enumerate(ports["inputs"]):
            array = filled(feed[port["name"]][row : row + 1], port["most"])
            given[f"args_{number}"] = array.astype(kinds[f"args_{number}"])
        found = runner(**given)
        return {output["name"]: found[f"output_{number}"] for number, output in enumerate(ports["outputs"])}

    def run(feed):
        said = [one(feed, row) for row in range(len(feed[ports["inputs"][0]["name"]]))]
        return {name: np.concatenate([row[name] for row in said]) for name in said[0]}

    return run


if __name__ == "__main__":
    main(Model(sys.argv[1], ".tflite", open_litert), sys.argv[2:])
