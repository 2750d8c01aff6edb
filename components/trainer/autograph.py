"""TensorFlow 2.16 rewrites the source of tf_keras while it traces a training step, which is slow.

AutoGraph leaves the packages on its list alone; `keras` is on it in every version, `tf_keras` since a later one (2.21
has it). The functions of tf_keras need no rewriting, and the user's own layers are still converted.
"""

from __future__ import annotations


def leave_tf_keras_alone() -> None:
    """Puts tf_keras on AutoGraph's list where it is not."""
    from tensorflow.python.autograph.core import config

    if not any(rule.matches("tf_keras") for rule in config.CONVERSION_RULES):
        config.CONVERSION_RULES = (config.DoNotConvert("tf_keras"), *config.CONVERSION_RULES)
