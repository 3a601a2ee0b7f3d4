"""The same as onnx_reader.py with OpenVINO:

python examples/openvino_reader.py RUN/export/openvino rows.csv
"""

from __future__ import annotations

import sys

from onnx_reader import Model, main


def open_openvino(path, ports):
    """A file as a function from named arrays to named arrays."""
    import openvino

    # Left alone, it computes in bfloat16 where the processor has it.
    model = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def run(feed):
        found = model(feed)
        return {output["name"]: found[output["name"]] for output in ports["outputs"]}

    return run


if __name__ == "__main__":
    main(Model(sys.argv[1], ".xml", open_openvino), sys.argv[2:])
