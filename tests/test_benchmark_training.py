"""The benchmark of training: what it makes of a trace, and that it runs."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


def load(name):
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.tensorflow
def test_time_within_an_event_is_not_counted_twice(tmp_path):
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    space = xplane_pb2.XSpace()
    plane = space.planes.add(name="/host:CPU")
    for number, name in enumerate(["Process", "a/b:MatMul", "Gather"]):
        plane.event_metadata[number].name = name
    for line, events in {
        "tf_Compute/1": [(0, 0, 10), (1, 2, 4), (1, 7, 1)],
        "tf_data_x/2": [(2, 0, 6)],
        "python": [(0, 0, 99)],
    }.items():
        added = plane.lines.add(name=line)
        for metadata, offset, duration in events:
            added.events.add(metadata_id=metadata, offset_ps=offset * 10**9, duration_ps=duration * 10**9)
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "vm.xplane.pb").write_bytes(space.SerializeToString())
    found = load("trace_ops").read(tmp_path, steps=2)
    assert found == {
        "(executor)": {"ms": pytest.approx(2.5), "count": 0.5},
        "MatMul": {"ms": pytest.approx(2.5), "count": 1.0},
        "(input)": {"ms": pytest.approx(3.0), "count": 0.5},
    }


def test_the_table_of_operations_begins_with_what_two_devices_add():
    one = {f"op{i}": {"ms": 1.0, "count": 2.0} for i in range(20)}
    two = {name: {"ms": values["ms"] + (name == "op7"), "count": 4.0} for name, values in one.items()}
    lines = load("training").operations({"single": one, "mirrored": two})
    assert " ".join(lines[1].split()) == "all 20.00 ms 40 x 21.00 ms 80 x 1.00 ms"
    assert lines[2].split()[0] == "op7"
    assert " ".join(lines[-1].split()) == "the 4 others 4.00 ms 8 x 4.00 ms 16 x 0.00 ms"


@pytest.mark.slow
@pytest.mark.tensorflow
def test_one_device_and_two_are_compared():
    command = [sys.executable, str(BENCHMARKS / "training.py"), "--only", "mirrored", "--steps", "60", "--profile"]
    answer = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=600)
    assert answer.returncode == 0, answer.stderr[-2000:]
    result = json.loads(answer.stdout)
    ratio = result["mirrored"]["step_ms"] / result["single"]["step_ms"]
    assert result["ratios"] == {"step_mirrored_to_single": pytest.approx(ratio)}
    assert result["operations"]["mirrored"]["_Send"]["count"] > 1
    assert abs(result["mirrored"]["val_auc"] - result["single"]["val_auc"]) < 0.05
