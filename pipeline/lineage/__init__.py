"""Lineage: what a published version was made from, what was made from a span, what changed between two versions.

Everything is read from ML Metadata and from the manifests in the base path; nothing is written. `Lineage` answers with
the dataclasses of `records`; `tree`, `dot` and `diff` turn them into what people read. No TensorFlow and no tfx.

    from evergreen.pipeline import config, lineage

    found = lineage.Lineage(config.load("evergreen.yaml"))
    print([use.span for use in found.version().window])
"""

from evergreen.pipeline.lineage.lineage import Lineage

__all__ = ["Lineage"]
