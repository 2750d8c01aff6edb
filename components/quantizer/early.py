"""Conversions that begin before gate 3, on a core that would otherwise idle.

The preprocessing is converted beside the Trainer, and the model beside the Evaluator: both keep one core busy for
longer than that takes. What comes of it counts only where gate 2 opens, and the Quantizer asks for just that. Where it
asks for something else, or nobody has begun anything, it begins anew.
"""

from __future__ import annotations

from evergreen.components import ahead, model_layout
from evergreen.components.quantizer import report, worker
from evergreen.components.quantizer.settings import CALIBRATED, QuantizeSettings
from evergreen.components.quantizer.worker import Worker

_begun: list[Worker] = []


def preprocessing(transform_graph: str, label: str, settings: QuantizeSettings) -> None:
    """Begins to convert the preprocessing, in the belief that the model takes all of its features.

    Args:
      transform_graph: URI of the TransformGraph.
      label: the transformed feature that no model takes.
      settings: the section `quantize`.
    """
    import tensorflow_transform as tft

    if not _is_possible(settings):
        return
    features = tft.TFTransformOutput(transform_graph).transformed_feature_spec()
    _worker(settings).begin(worker.preprocessing(transform_graph, [name for name in features if name != label]))


def model(uri: str, settings: QuantizeSettings) -> None:
    """Begins to convert a model that is trained, into what needs no calibration.

    Args:
      uri: of the Model artifact.
      settings: the section `quantize`.
    """
    core = model_layout.core_dir(uri)
    if not _is_possible(settings) or not model_layout.is_saved_model(core):
        return
    for variant in report.needs_baseline(settings):
        if variant not in CALIBRATED:
            _worker(settings).begin(worker.conversion(core, variant, select=settings.allow_select_ops))


def take(settings: QuantizeSettings) -> Worker:
    """Hands over the worker with what was begun, or another one.

    Args:
      settings: the section `quantize`.

    Returns:
      The worker, to be closed by the caller.
    """
    return _begun.pop() if _begun else Worker(settings.convert_seconds)


def end() -> None:
    """Gives up what nobody took."""
    while _begun:
        _begun.pop().__exit__()


def _is_possible(settings: QuantizeSettings) -> bool:
    return bool(settings.variants) and ahead.cores() > 1


def _worker(settings: QuantizeSettings) -> Worker:
    if not _begun:
        _begun.append(Worker(settings.convert_seconds))
        ahead.at_end(end)
    return _begun[0]
