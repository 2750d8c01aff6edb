"""The flights model: embeddings and a small multi-layer perceptron, which gives the probability of a late arrival.

Flights of one hour share their weather and their fate, so a network with enough room learns the hours of its window by
heart and knows nothing about the next month. Weight decay on the dense layers is what keeps it from that; dropout alone
does not.
"""

from __future__ import annotations

from typing import Any

import tensorflow_transform as tft
import tf_keras
from features import CALENDAR, LABEL, VOCABULARIES

WIDTHS = {"carrier": 16, "route": 32, "plane_model": 16, "tailnum": 128, "weekday": 8, "hour": 16}  # of the embeddings
DEFAULTS = {"units": [512, 256], "dropout": 0.4, "l2": 0.008, "learning_rate": 0.002, "decay_steps": 600}


def build_model(transform_output: tft.TFTransformOutput, hyperparameters: dict[str, Any]) -> tf_keras.Model:
    """Builds and compiles the model.

    Args:
      transform_output: the window's transform graph: its features and the sizes of its vocabularies.
      hyperparameters: `units` (list of layer widths), `dropout` (share of the units), `l2` (weight decay of the dense
        layers), `learning_rate` (at the start) and `decay_steps` (over which it falls to nothing); what is absent is
        as in `DEFAULTS`.

    Returns:
      A model with an input [batch, 1] for each transformed feature, named as the feature, and one output [batch, 1]:
      the probability that the flight arrives late.
    """
    settings = DEFAULTS | hyperparameters
    sizes = {name: transform_output.vocabulary_size_by_name(name) + 1 for name in VOCABULARIES}  # and the unknown
    sizes |= {name: size + 1 for name, size in CALENDAR.items()}
    inputs, parts = {}, []
    for name, spec in transform_output.transformed_feature_spec().items():
        if name == LABEL:
            continue
        inputs[name] = tf_keras.Input((1,), name=name, dtype=spec.dtype)
        if name not in sizes:
            parts.append(inputs[name])
            continue
        # Named after its vocabulary: when a new window numbers the tokens anew, the Trainer finds each one's row by it.
        table = tf_keras.layers.Embedding(sizes[name], WIDTHS[name], name=f"{name}_embedding")
        parts.append(tf_keras.layers.Flatten()(table(inputs[name])))

    decay = tf_keras.regularizers.L2(settings["l2"])
    hidden = tf_keras.layers.Concatenate()(parts)
    for number, units in enumerate(settings["units"]):
        # A name of its own for each layer: a warm start finds the champion's weights by it.
        dense = tf_keras.layers.Dense(units, activation="relu", kernel_regularizer=decay, name=f"hidden_{number}")
        hidden = dense(hidden)
        hidden = tf_keras.layers.Dropout(settings["dropout"])(hidden)
    probability = tf_keras.layers.Dense(1, activation="sigmoid", kernel_regularizer=decay, name="late")(hidden)

    model = tf_keras.Model(inputs, probability)
    rate = tf_keras.optimizers.schedules.CosineDecay(settings["learning_rate"], settings["decay_steps"], alpha=0.02)
    model.compile(
        optimizer=tf_keras.optimizers.Adam(rate),
        loss=tf_keras.losses.BinaryCrossentropy(),
        metrics=[tf_keras.metrics.AUC(name="auc")],
    )
    return model
