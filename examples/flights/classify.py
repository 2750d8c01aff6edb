"""Answers raw rows with a TFLite file and the LiteRT runtime alone: no TensorFlow, no preprocessing, no Evergreen.

    pip install ai-edge-litert
    python classify.py .evergreen/serving/flights_lite/<version>/model.tflite '{"carrier": "UA", "distance": 1400}'

A row is JSON; what it does not name, or names as null, is missing. Without a row, rows are read from standard input,
one a line. The file itself says which features it takes and what its answer means (`--about`).
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

SIGNATURE = "serving_default"
METADATA = b"evergreen"


def about(path: Path) -> dict:
    """Reads what the file says of itself: `features`, `output`, `labels`, `calibration`, `name`, `version`, ..."""
    model = schema.Model.GetRootAs(path.read_bytes(), 0)
    for entry in (model.Metadata(index) for index in range(model.MetadataLength())):
        if entry.Name() == METADATA:
            return json.loads(model.Buffers(entry.Buffer()).DataAsNumpy().tobytes())
    raise SystemExit(f"{path} has no metadata of Evergreen's")


class Classifier:
    """A TFLite file that takes raw features.

    Args:
      path: the file.

    Attributes:
      about: what the file says of itself.
    """

    def __init__(self, path: Path):
        self.about = about(path)
        if self.about["inputs"] != "raw":
            raise SystemExit(f"{path} takes transformed features: {', '.join(self.about['features'])}")
        self._runner = Interpreter(str(path)).get_signature_runner(SIGNATURE)
        self._inputs = self._runner.get_input_details()
        (self._output,) = self._runner.get_output_details().values()

    def __call__(self, row: dict) -> float:
        """Answers one row.

        Args:
          row: values by feature; absent and None mean missing.
        """
        if unknown := sorted(set(row) - set(self._inputs)):
            print(f"not read by the model: {', '.join(unknown)}", file=sys.stderr)
        (answer,) = self._runner(**{name: self._value(name, row.get(name)) for name in self._inputs}).values()
        scale, zero = self._output["quantization"]
        # An int8 model answers in steps; as a Python number, for its difference from the zero point needs nine bits.
        value = float(answer[0, 0])
        return (value - zero) * scale if scale else value

    def _value(self, name: str, value: object) -> np.ndarray:
        feature = self.about["features"][name]
        if value is None:
            value = float("nan") if feature["type"] == "float32" else feature["missing"]
        if feature["type"] == "string":
            return np.array([[str(value).encode()]])
        return np.array([[value]], feature["type"])


def main() -> None:
    """Prints one answer a line."""
    parser = argparse.ArgumentParser(description="Answers raw rows by a TFLite file.")
    parser.add_argument("model", type=Path, help="the file model.tflite of a published version")
    parser.add_argument("row", nargs="*", help="a row as JSON; rows from standard input without one")
    parser.add_argument("--about", action="store_true", help="print what the file says of itself, and end")
    arguments = parser.parse_args()
    if arguments.about:
        print(json.dumps(about(arguments.model), indent=1))
        return
    classify = Classifier(arguments.model)
    for line in arguments.row or sys.stdin:
        if line.strip():
            print(f"{classify(json.loads(line)):.6f}")


if __name__ == "__main__":
    main()
