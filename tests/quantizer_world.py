"""What a Quantizer finds, small and real: examples, a transform graph, core models and gate 2's answers.

TensorFlow and Beam are imported inside the functions.
"""

import json
import os

import numpy as np

ROWS = 600
TOKENS = 40
VOCABULARY = 1000
EVALUATE = json.dumps({"label": "late", "metrics": ["auc"], "threshold": 0.5})


def build(folder):
    """Fills `folder` (a Path) with everything; the fixture `build_once` shares it between tests."""
    root = str(folder)
    rows = raw_rows()
    write_examples(f"{root}/examples", rows)
    write_transform_graph(f"{root}/transform_graph", rows)
    write_core(f"{root}/model")
    write_core(f"{root}/sensitive", outlier=1e5)
    write_core(f"{root}/one_row", batch=1)
    write_core(f"{root}/unconvertible", activation="digamma")
    write_dense(f"{root}/dense")
    write_dense(f"{root}/far", scale=1e4)
    os.makedirs(f"{root}/from_run_fn/Format-Serving")
    write_core(f"{root}/sinh", activation="sinh")
    write_graph(f"{root}/hashing_graph", rows, raw_spec(), hashing_preprocessing_fn)
    write_evaluation(f"{root}/evaluation", root)
    for model in ("dense", "far", "sinh"):
        write_evaluation(f"{root}/{model}_evaluation", root, model)


def preprocessing_fn(inputs):
    """One number scaled, one string looked up in a vocabulary, and the label as it is."""
    import tensorflow_transform as tft

    carrier = dense(inputs["carrier"], "")
    return {
        "distance": tft.scale_to_z_score(dense(inputs["distance"], 0.0)),
        "carrier": tft.compute_and_apply_vocabulary(carrier, num_oov_buckets=1, vocab_filename="carriers"),
        "late": inputs["late"],
    }


def hashing_preprocessing_fn(inputs):
    """The same, but unknown tokens go into two buckets, for which TFLite has no hash; the rows have no unknown ones."""
    import tensorflow_transform as tft

    outputs = preprocessing_fn(inputs)
    carrier = dense(inputs["carrier"], "")
    outputs["carrier"] = tft.compute_and_apply_vocabulary(carrier, num_oov_buckets=2, vocab_filename="carriers")
    return outputs


def dense(sparse, missing):
    """Fills a sparse column."""
    import tensorflow as tf

    column = tf.SparseTensor(sparse.indices, sparse.values, [sparse.dense_shape[0], 1])
    return tf.reshape(tf.sparse.to_dense(column, missing), [-1, 1])


def raw_spec():
    """The raw features of `raw_rows`."""
    import tensorflow as tf

    return {
        "carrier": tf.io.VarLenFeature(tf.string),
        "distance": tf.io.VarLenFeature(tf.float32),
        "late": tf.io.FixedLenFeature([1], tf.int64),
    }


def raw_rows():
    """Rows whose label follows from the token and the number, a few of both missing."""
    random = np.random.default_rng(0)
    rows = []
    for _ in range(ROWS):
        token = int(random.integers(TOKENS))
        distance = float(random.normal())
        late = int(random.random() < 1 / (1 + np.exp(-(token - TOKENS / 2) / 8 - distance)))
        row = {"carrier": f"c{token}", "distance": distance, "late": late}
        missing = random.random()
        if missing < 0.05:
            del row["carrier"]
        elif missing < 0.1:
            del row["distance"]
        rows.append(row)
    return rows


def write_examples(uri, rows):
    """The splits `exam` and `train` of the same rows, two compressed files each, as our SpanExampleGen leaves them."""
    import tensorflow as tf

    kinds = {
        str: lambda v: tf.train.Feature(bytes_list=tf.train.BytesList(value=[v.encode()])),
        float: lambda v: tf.train.Feature(float_list=tf.train.FloatList(value=[v])),
        int: lambda v: tf.train.Feature(int64_list=tf.train.Int64List(value=[v])),
    }
    half = len(rows) // 2
    for split in ("exam", "train"):
        os.makedirs(f"{uri}/Split-{split}")
    for split, shard, part in [(s, *p) for s in ("exam", "train") for p in enumerate((rows[:half], rows[half:]))]:
        path = f"{uri}/Split-{split}/data_tfrecord-0000{shard}-of-00002.gz"
        with tf.io.TFRecordWriter(path, "GZIP") as writer:
            for row in part:
                features = {name: kinds[type(value)](value) for name, value in row.items()}
                writer.write(tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString())


def write_transform_graph(uri, rows):
    """Analyzes the rows and writes the TransformGraph artifact's content."""
    write_graph(uri, rows, raw_spec(), preprocessing_fn)


def write_graph(uri, rows, spec, preprocessing):
    """Analyzes rows with Beam in this process and writes a TransformGraph artifact's content."""
    import apache_beam as beam
    import tensorflow as tf
    import tensorflow_transform.beam as tft_beam
    from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
    from tensorflow_transform.tf_metadata import dataset_metadata, schema_utils

    metadata = dataset_metadata.DatasetMetadata(schema_utils.schema_from_feature_spec(spec))

    def value(row, name):
        if isinstance(spec[name], tf.io.FixedLenFeature) and not spec[name].shape:
            return row[name]
        return [row[name]] if name in row else []

    instances = [{name: value(row, name) for name in spec} for row in rows]
    with beam.Pipeline(runner=FnApiRunner()) as pipeline, tft_beam.Context(temp_dir=f"{uri}-tmp"):
        data = pipeline | beam.Create(instances)
        transform_fn = (data, metadata) | tft_beam.AnalyzeDataset(preprocessing)
        _ = transform_fn | tft_beam.WriteTransformFn(uri)
        _ = metadata | tft_beam.WriteMetadata(f"{uri}/metadata", pipeline)


def write_core(uri, outlier=0.0, batch=None, activation="sigmoid"):
    """A core model that knows the answer: the token's logit in an embedding, plus the number.

    Args:
      uri: of the Model artifact to write into.
      outlier: a weight of an embedding row that no token uses; a large one leaves int8 no steps for the others.
      batch: a constant batch size to build into the graph.
      activation: a function of `tf.math`.
    """
    import tensorflow as tf
    import tensorflow_transform as tft

    graph = tft.TFTransformOutput(os.path.join(os.path.dirname(uri), "transform_graph"))
    weights = np.zeros((VOCABULARY, 4), np.float32)
    for index, token in enumerate(graph.vocabulary_by_name("carriers")):
        weights[index] = (int(token[1:]) - TOKENS / 2) / 31
    weights[-1] = outlier
    module = tf.Module()
    module.embedding = tf.Variable(weights)

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, 1], tf.int64, name="carrier"),
            tf.TensorSpec([None, 1], tf.float32, name="distance"),
        ]
    )
    def predict(carrier, distance):
        logit = tf.reduce_sum(tf.gather(module.embedding, carrier[:, 0]), axis=1, keepdims=True)
        if batch:
            logit = tf.reshape(logit, [batch, 1])
        return {"predictions": getattr(tf.math, activation)(logit + distance)}

    tf.saved_model.save(module, f"{uri}/Core", signatures={"serving_default": predict})


def write_dense(uri, scale=1.0):
    """A core model with layers: an embedding beside the number, 64 units, one.

    Args:
      uri: of the Model artifact to write into.
      scale: of the number where it stands beside the embedding. The layer behind takes it back, so the answers are the
        same; int8 has one range for both, and a large one leaves the embedding no steps.
    """
    import tensorflow as tf

    random = np.random.default_rng(2)
    module = tf.Module()
    module.table = tf.Variable(random.normal(0, 0.5, (VOCABULARY, 4)).astype(np.float32))
    hidden = random.normal(0, 0.5, (5, 64)).astype(np.float32)
    hidden[4] /= scale
    module.hidden = tf.Variable(hidden)
    module.late = tf.Variable(random.normal(0, 0.3, (64, 1)).astype(np.float32))
    module.weights = [module.table, module.hidden, module.late]

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, 1], tf.int64, name="carrier"),
            tf.TensorSpec([None, 1], tf.float32, name="distance"),
        ]
    )
    def predict(carrier, distance):
        joined = tf.concat(
            [tf.gather(module.table, carrier[:, 0], name="rows"), distance * scale], axis=1, name="joined"
        )
        units = tf.nn.relu(tf.matmul(joined, module.hidden, name="hidden"))
        return {"predictions": tf.sigmoid(tf.matmul(units, module.late, name="late"))}

    tf.saved_model.save(module, f"{uri}/Core", signatures={"serving_default": predict})


def write_evaluation(uri, world, model="model"):
    """Predictions by the core model, row by row and by another way than the Quantizer's: TensorFlow itself."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    import tensorflow as tf
    import tensorflow_transform as tft

    graph = tft.TFTransformOutput(f"{world}/transform_graph")
    layer = graph.transform_features_layer()
    core = tf.saved_model.load(f"{world}/{model}/Core").signatures["serving_default"]
    rows = raw_rows()
    serialized = []
    for name in sorted(os.listdir(f"{world}/examples/Split-exam")):
        dataset = tf.data.TFRecordDataset(f"{world}/examples/Split-exam/{name}", compression_type="GZIP")
        serialized += list(dataset.as_numpy_iterator())
    features = layer(tf.io.parse_example(serialized, graph.raw_feature_spec()))
    predictions = core(carrier=features["carrier"], distance=features["distance"])["predictions"].numpy()[:, 0]
    columns = {
        "split": ["exam"] * ROWS + ["train"],
        "row": [*range(ROWS), 0],
        "label": [*(float(row["late"]) for row in rows), 0.0],
        "prediction": [*predictions.astype(float), 0.0],
    }
    os.makedirs(uri)
    # In the file's order the rows mean nothing: their numbers do.
    shuffled = np.random.default_rng(1).permutation(ROWS + 1)
    pq.write_table(pa.table(columns).take(pa.array(shuffled)), f"{uri}/predictions.parquet")
