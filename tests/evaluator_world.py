"""What ChampionExam and the Evaluator find: a span's examples and models of known quality, small and real.

TensorFlow is imported inside the functions.
"""

import os

import numpy as np

ROWS = {"train": 200, "validation": 50, "exam": 900}
CARRIERS = ["AA", "UA", "WN"]

# How much of what decides the label each model sees, and how much noise it adds.
MODELS = {"good": (2.0, 0.0), "worse": (2.0, 3.0)}


def build(folder):
    """Fills `folder` (a Path) with everything; the fixture `build_once` shares it between tests."""
    write_examples(f"{folder}/examples", rows())
    for name, (signal, noise) in MODELS.items():
        write_model(f"{folder}/{name}", f"{signal} * x + {noise} * noise")
    write_model(f"{folder}/nan", "x / tf.cast(x < 1.0, tf.float32) * 0.0")
    write_model(f"{folder}/wide", "tf.concat([x, x], axis=1)")
    write_model(f"{folder}/gone", "gone", features=("gone",))


def rows(seed=0):
    """Columns by split: `x` decides `late`, `noise` does not; the carrier `WN` is rare and some rows have none."""
    generator = np.random.default_rng(seed)
    found = {}
    for split, size in ROWS.items():
        x = generator.normal(size=size)
        carrier = generator.choice([*CARRIERS, None], size, p=[0.6, 0.35, 0.03, 0.02])
        found[split] = {
            "x": x.tolist(),
            "noise": generator.normal(size=size).tolist(),
            "late": [int(value) for value in generator.random(size) < 1 / (1 + np.exp(1 - 2 * x))],
            "carrier": [None if value is None else str(value) for value in carrier],
            "day": [int(value) for value in np.arange(size) * 30 // size],
        }
    return found


def write_examples(uri, columns_by_split, suffix="", files=2):
    """Writes each split in the layout of an Examples artifact; a value of None leaves the feature out."""
    import tensorflow as tf

    def feature(value):
        if isinstance(value, str):
            return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value.encode()]))
        if isinstance(value, int):
            return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
        return tf.train.Feature(float_list=tf.train.FloatList(value=[value]))

    for split, columns in columns_by_split.items():
        folder = os.path.join(uri, f"Split-{split}")
        os.makedirs(folder)
        records = []
        for values in zip(*columns.values(), strict=True):
            present = {n: feature(v) for n, v in zip(columns, values, strict=True) if v is not None}
            records.append(tf.train.Example(features=tf.train.Features(feature=present)).SerializeToString())
        for index in range(files):
            path = os.path.join(folder, f"data_tfrecord-{index:05}-of-{files:05}{suffix}")
            with tf.io.TFRecordWriter(path, "GZIP" if suffix == ".gz" else "") as writer:
                for record in records[index * len(records) // files : (index + 1) * len(records) // files]:
                    writer.write(record)


def write_model(uri, formula, features=("x", "noise")):
    """Writes a Model artifact whose `serving_default` answers with `formula` of the features, as a probability."""
    import tensorflow as tf

    code = compile(formula, formula, "eval")

    class Model(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
        def serve(self, examples):
            spec = {name: tf.io.FixedLenFeature([1], tf.float32) for name in features}
            return {"predictions": tf.sigmoid(eval(code, {"tf": tf}, tf.io.parse_example(examples, spec)))}

    model = Model()
    tf.saved_model.save(model, f"{uri}/Format-Serving", signatures={"serving_default": model.serve})
