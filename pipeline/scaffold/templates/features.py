"""Turns raw columns into what the model reads. The same graph runs in training and in serving.

TensorFlow Transform calls `preprocessing_fn` once, and its analyzers (`tft.scale_to_z_score`, `tft.vocabulary`, ...) see
the training rows of the whole window. A missing number becomes the mean, and a missing text counts as an unknown one.
Move columns between the lists, or write features of your own.
"""

import re

import tensorflow as tf
import tensorflow_transform as tft

LABEL = ...
NUMERIC = ...
CATEGORICAL = ...
# Left out: ...
MOST_CATEGORIES = 1000  # the most frequent ones; the others count as unknown
LARGEST_SCORE = 10.0  # an outlier counts as so many standard deviations at most


def key(column):
    """Returns the name under which the model gets a column: names in TensorFlow hold no blanks."""
    return re.sub(r"\W", "_", column, flags=re.ASCII)


def dense(values, default):
    """Returns one value a row, [batch, 1], the default where a row has none."""
    if isinstance(values, tf.SparseTensor):
        one_each = tf.SparseTensor(values.indices, values.values, [values.dense_shape[0], 1])
        values = tf.sparse.to_dense(one_each, default)
    return tf.reshape(values, [-1, 1])


def preprocessing_fn(inputs):
    """Maps raw columns to features.

    Args:
      inputs: by column, a tensor [batch, 1], or a SparseTensor where values may be missing.

    Returns:
      By name, dense tensors [batch, 1]: scores (float32), numbers of categories (int64), and the label (float32).
    """
    outputs = {LABEL: tf.cast(dense(inputs[LABEL], 0), tf.float32)}
    for column in NUMERIC:
        # NaN is left out when the mean and the deviation are computed.
        numbers = dense(tf.cast(inputs[column], tf.float32), float("nan"))
        scores = tft.scale_to_z_score(numbers)
        scores = tf.where(tf.math.is_nan(scores), tf.zeros_like(scores), scores)
        outputs[key(column)] = tf.clip_by_value(scores, -LARGEST_SCORE, LARGEST_SCORE)
    for column in CATEGORICAL:
        # `vocab_filename` names the vocabulary: the model's layer `<name>_embedding` is matched with it by token when
        # training starts from the live model's weights.
        outputs[key(column)] = tft.compute_and_apply_vocabulary(
            dense(inputs[column], ""), top_k=MOST_CATEGORIES, num_oov_buckets=1, vocab_filename=key(column)
        )
    return outputs
