"""The same as onnx_reader.py with ExecuTorch, which takes one row at a time:

python examples/executorch_reader.py RUN/export/executorch rows.csv
"""

from __future__ import annotations

import sys

import numpy as np
from onnx_reader import Model, main


def open_executorch(path, ports):
    """A file as a function from named arrays to named arrays."""
    import torch
    from executorch.runtime import Runtime

    program = Runtime.get().load_program(str(path))
    method = program.load_method("forward")

    def one(arrays):
        return [tensor.numpy().copy() for tensor in method.execute([torch.from_numpy(array) for array in arrays])]

    def run(feed):
        arrays = [np.ascontiguousarray(feed[port["name"]]) for port in ports["inputs"]]
        said = [one([array[row : row + 1] for array in arrays]) for row in range(len(arrays[0]))]
        return {
            output["name"]: np.concatenate([row[number] for row in said])
            for number, output in enumerate(ports["outputs"])
        }

    return run


if __name__ == "__main__":
    main(Model(sys.argv[1], ".pte", open_executorch), sys.argv[2:])
