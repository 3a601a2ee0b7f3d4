"""The same as onnx_reader.py with PyTorch alone:

python examples/torch_reader.py RUN/export/torch rows.csv
"""

from __future__ import annotations

import sys

from onnx_reader import Model, main


def open_torch(path, ports):
    """A file as a function from named arrays to named arrays."""
    import torch

    module = torch.export.load(str(path)).module()

    def run(feed):
        with torch.no_grad():
            found = module(*(torch.from_numpy(feed[port["name"]]) for port in ports["inputs"]))
        return {output["name"]: tensor.numpy() for output, tensor in zip(ports["outputs"], found, strict=True)}

    return run


if __name__ == "__main__":
    main(Model(sys.argv[1], ".pt2", open_torch), sys.argv[2:])
