"""The model: embeddings of the categories beside the numbers, then dense layers, then the output."""

import tf_keras
from features import CATEGORICAL, NUMERIC, key


def build_model(transform_output, hyperparameters):
    """Builds the model; the Trainer calls this inside of its distribution strategy's scope.

    Args:
      transform_output: a tft.TFTransformOutput, which knows the vocabularies.
      hyperparameters: `trainer.hyperparameters` of evergreen.yaml.

    Returns:
      A compiled tf_keras.Model of transformed features, each [batch, 1], that gives [batch, 1].
    """
    inputs = {}
    parts = []
    for name in map(key, NUMERIC):
        inputs[name] = tf_keras.Input((1,), name=name, dtype="float32")
        parts.append(inputs[name])
    for name in map(key, CATEGORICAL):
        inputs[name] = tf_keras.Input((1,), name=name, dtype="int64")
        rows = transform_output.vocabulary_size_by_name(name) + 1  # the last one is for unknown tokens
        width = min(hyperparameters.get("embedding_width", 16), rows // 2 + 1)
        # Named after its vocabulary: a warm start matches its rows by token.
        embedded = tf_keras.layers.Embedding(rows, width, name=f"{name}_embedding")(inputs[name])
        parts.append(tf_keras.layers.Flatten()(embedded))
    x = tf_keras.layers.Concatenate()(parts) if len(parts) > 1 else parts[0]
    for units in hyperparameters.get("hidden_units", [64, 32]):
        x = tf_keras.layers.Dense(units, activation="relu")(x)
        x = tf_keras.layers.Dropout(hyperparameters.get("dropout", 0.1))(x)
    optimizer = tf_keras.optimizers.Adam(hyperparameters.get("learning_rate", 0.001))
    # if binary
    output = tf_keras.layers.Dense(1, activation="sigmoid")(x)
    model = tf_keras.Model(inputs, output)
    model.compile(optimizer, loss="binary_crossentropy", metrics=[tf_keras.metrics.AUC(name="auc")])
    # else
    # The layers give a score around zero, which the label's mean and deviation turn into its unit.
    score = tf_keras.layers.Dense(1)(x)
    deviation, mean = hyperparameters.get("label_deviation", 1.0), hyperparameters.get("label_mean", 0.0)
    model = tf_keras.Model(inputs, tf_keras.layers.Rescaling(deviation, mean)(score))
    model.compile(optimizer, loss="mse", metrics=["mae"])
    # end
    return model
