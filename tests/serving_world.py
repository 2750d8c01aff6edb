"""Small models in base paths, and the built-in server as a real process: what tests of serving and of publishing share.

The models answer with a bias of their own, so that every answer says which version gave it.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from evergreen.components.model_server.process import free_port

START_S = 180  # generous: the machine may be loaded
TYPINGS = Path(__file__).resolve().parent.parent / "typings"


def tf2_model(folder: Path, bias: float = 0.0) -> Path:
    """Saves a TF2 SavedModel whose signatures show every way of asking.

    | signature | inputs | outputs |
    |---|---|---|
    | serving_default | examples: serialized tf.Example with a float `x` (0 where missing) | scores [n, 1] = 2x + bias |
    | raw | x: float [n] | y [n] = 2x + bias |
    | wide | x: float [n, 3] | sum [n], twice [n, 3] (without the bias) |
    | pair | a: float [n], b: int64 [n] | sum [n] = a + b, bias [n] |
    | kinds | flag: bool [n], count: int32 [n], word: string [n] | the same under `flag_out`, ... |
    | text | word: string [n] | upper: string [n], word_bytes: string [n] |
    | classify | inputs: serialized tf.Example | classes [n, 2] ("no", "yes"), scores [n, 2] |
    | regress | inputs: serialized tf.Example | outputs [n, 1] = 2x + bias |

    Args:
      folder: the version's directory, which must not exist.
      bias: what the answers add.
    """
    import tensorflow as tf

    def spec(kind: Any, name: str, *more: int) -> Any:
        return tf.TensorSpec([None, *more], kind, name=name)

    class Model(tf.Module):
        def __init__(self) -> None:
            self.bias = tf.Variable(bias, dtype=tf.float32)

        def of(self, examples: Any) -> Any:
            parsed = tf.io.parse_example(examples, {"x": tf.io.FixedLenFeature([], tf.float32, 0.0)})
            return 2 * parsed["x"] + self.bias

        @tf.function(input_signature=[spec(tf.string, "examples")])
        def by_example(self, examples: Any) -> Any:
            return {"scores": self.of(examples)[:, None]}

        @tf.function(input_signature=[spec(tf.float32, "x")])
        def raw(self, x: Any) -> Any:
            return {"y": 2 * x + self.bias}

        @tf.function(input_signature=[spec(tf.float32, "x", 3)])
        def wide(self, x: Any) -> Any:
            return {"sum": tf.reduce_sum(x, 1), "twice": 2 * x}

        @tf.function(input_signature=[spec(tf.float32, "a"), spec(tf.int64, "b")])
        def pair(self, a: Any, b: Any) -> Any:
            total = a + tf.cast(b, tf.float32)
            return {"sum": total, "bias": tf.zeros_like(total) + self.bias}

        @tf.function(input_signature=[spec(tf.bool, "flag"), spec(tf.int32, "count"), spec(tf.string, "word")])
        def kinds(self, flag: Any, count: Any, word: Any) -> Any:
            outputs = {"flag_out": flag, "count_out": count, "word_out": word}
            return {name: tf.identity(value) for name, value in outputs.items()}

        @tf.function(input_signature=[spec(tf.string, "word")])
        def text(self, word: Any) -> Any:
            return {"upper": tf.strings.upper(word), "word_bytes": tf.identity(word)}

        @tf.function(input_signature=[spec(tf.string, "inputs")])
        def classify(self, inputs: Any) -> Any:
            yes = tf.sigmoid(self.of(inputs))
            classes = tf.tile(tf.constant([["no", "yes"]]), [tf.shape(inputs)[0], 1])
            return {"classes": classes, "scores": tf.stack([1 - yes, yes], 1)}

        @tf.function(input_signature=[spec(tf.string, "inputs")])
        def regress(self, inputs: Any) -> Any:
            return {"outputs": self.of(inputs)[:, None]}

    model = Model()
    names = ("raw", "wide", "pair", "kinds", "text", "classify", "regress")
    signatures = {"serving_default": model.by_example, **{name: getattr(model, name) for name in names}}
    staged = folder.parent / f".{folder.name}"
    shutil.rmtree(staged, ignore_errors=True)
    tf.saved_model.save(model, str(staged), signatures=signatures)
    staged.rename(folder)
    return folder


def tf1_model(folder: Path, bias: float = 0.0) -> Path:
    """Saves a TF1 SavedModel (parse_example in the graph, a reference variable, a vocabulary table).

    Signatures: `serving_default` classifies and `regress` regresses tf.Examples with a float `x`, under TensorFlow
    Serving's own method names; `raw` maps x (float [n]) to y = 2x + bias; `look_up` maps word (string [n]) to its id.
    """
    import tensorflow as tf

    v1 = tf.compat.v1
    make = v1.saved_model.signature_def_utils
    with tf.Graph().as_default(), v1.Session() as session:
        kept = v1.get_variable("bias", initializer=bias, use_resource=False)
        examples = v1.placeholder(tf.string, [None], name="examples")
        parsed = v1.io.parse_example(examples, {"x": tf.io.FixedLenFeature([], tf.float32, 0.0)})
        score = 2 * parsed["x"] + kept
        classes = tf.tile(tf.constant([["no", "yes"]]), [tf.shape(examples)[0], 1])
        scores = tf.stack([1 - tf.sigmoid(score), tf.sigmoid(score)], 1)
        x = v1.placeholder(tf.float32, [None], name="x")
        word = v1.placeholder(tf.string, [None], name="word")
        table = tf.lookup.StaticVocabularyTable(
            tf.lookup.KeyValueTensorInitializer(["a", "b"], tf.constant([0, 1], tf.int64)), 1
        )
        session.run([v1.global_variables_initializer(), v1.tables_initializer()])
        builder = v1.saved_model.Builder(str(folder))
        builder.add_meta_graph_and_variables(
            session,
            ["serve"],
            {
                "serving_default": make.classification_signature_def(examples, classes, scores),
                "regress": make.regression_signature_def(examples, score),
                "raw": make.predict_signature_def({"x": x}, {"y": 2 * x + kept}),
                "look_up": make.predict_signature_def({"word": word}, {"id": table.lookup(word)}),
            },
            main_op=v1.tables_initializer(),
        )
        builder.save()
    return folder


def tflite_model(folder: Path, bias: float = 0.0) -> Path:
    """Writes `model.tflite` with the signature `serving_default`: x (float [n]) to y = 2x + bias."""
    import tensorflow as tf

    class Model(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
        def raw(self, x: Any) -> Any:
            return {"y": 2 * x + bias}

    model = Model()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([model.raw.get_concrete_function()], model)
    folder.mkdir(parents=True)
    (folder / "model.tflite").write_bytes(converter.convert())
    return folder


def example(**features: float | str | bytes) -> bytes:
    """Returns a serialized tf.Example of single values: floats, and strings as bytes."""
    import tensorflow as tf

    made = tf.train.Example()
    for name, value in features.items():
        if isinstance(value, float):
            made.features.feature[name].float_list.value.append(value)
        else:
            text = value if isinstance(value, bytes) else value.encode()
            made.features.feature[name].bytes_list.value.append(text)
    return made.SerializeToString()


class Server:
    """A running server process.

    Attributes:
      grpc, rest: its addresses as host:port.
      process: the process.
      log: the file with its standard error.
    """

    def __init__(self, process: subprocess.Popen[bytes], grpc: str, rest: str, log: Path):
        self.process, self.grpc, self.rest, self.log = process, grpc, rest, log

    def ask(self, path: str, body: Any = None, timeout: float = 60) -> tuple[int, Any]:
        """Sends a request to the REST API: a POST of `body` (as JSON unless bytes) where there is one, else a GET.

        Returns:
          The HTTP status, and the answer: parsed where it is JSON, else text.
        """
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        try:
            with urllib.request.urlopen(
                urllib.request.Request(f"http://{self.rest}{path}", data), timeout=timeout
            ) as got:
                status, text = got.status, got.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                status, text = error.code, error.read().decode()
        with contextlib.suppress(json.JSONDecodeError):
            return status, json.loads(text)
        return status, text

    def states(self, model: str) -> dict[int, str]:
        """Returns the model's versions with their states; empty where the server knows none."""
        status, answer = self.ask(f"/v1/models/{model}")
        return {int(one["version"]): one["state"] for one in answer["model_version_status"]} if status == 200 else {}

    def wait(self, model: str, version: int, state: str = "AVAILABLE", seconds: float = START_S) -> float:
        """Waits until a version is in a state, and returns after how many seconds it was."""
        start = time.monotonic()
        while self.states(model).get(version) != state:
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            taken = time.monotonic() - start
            assert taken < seconds, f"{model} {version} is not {state} after {taken:.0f} s: {self.states(model)}"
            time.sleep(0.02)
        return time.monotonic() - start

    def stop(self, sign: int = signal.SIGTERM, seconds: float = 60) -> int:
        """Sends a signal and returns the exit status."""
        self.process.send_signal(sign)
        return self.process.wait(seconds)


def command(*flags: str) -> list[str]:
    """Returns the command line of a server with these flags."""
    return [sys.executable, "-m", "evergreen.serving", *flags]


def environment() -> dict[str, str]:
    """Returns this process's environment with this checkout's `evergreen` first on the path, and a quiet TensorFlow."""
    path = os.pathsep.join(filter(None, [str(TYPINGS), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, "TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": "-1"}


@contextlib.contextmanager
def serve(folder: Path, *flags: str) -> Iterator[Server]:
    """Runs a server on free ports until the block ends; kills it in every case.

    Args:
      folder: where its log goes.
      flags: all flags but the ports.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "server.log"
    rest = free_port()
    with open(log, "wb") as file:
        process = subprocess.Popen(
            command("--port=0", f"--rest_api_port={rest}", *flags),
            stdout=file,
            stderr=file,
            env=environment(),
            start_new_session=True,
        )
    try:
        end = time.monotonic() + START_S
        while True:
            text = log.read_text(errors="replace")
            found = re.search(r"Running gRPC ModelServer at (\S+) \.\.\.", text)
            if found and "Exporting HTTP/REST API" in text:
                break
            assert process.poll() is None, f"the server ended with {process.returncode}: {text[-3000:]}"
            assert time.monotonic() < end, f"the server does not start: {text[-3000:]}"
            time.sleep(0.05)
        yield Server(process, found.group(1), f"127.0.0.1:{rest}", log)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
