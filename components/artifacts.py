"""The one artifact type of Evergreen's own; all others in ML Metadata are TFX's, so that stock components take them."""

from tfx.types import artifact


class QuantizationReport(artifact.Artifact):
    """What quantization cost, variant by variant, and gate 3's verdict.

    * File structure: `{uri}/report.json` (see `evergreen.components.quantizer.report`) and `{uri}/report.html`.
    * Properties: `span` (the span whose exam rows measured the variants), `chosen` (the variant to publish, empty when
      there is none).
    * Custom properties: `passed` (1 open, 0 closed: what a condition in a pipeline reads), `reason` (why it is closed,
      or why nothing was quantized; empty otherwise), `withdraw` (1 where the TFLite versions that are published are to
      go, since none passed) and `table` (the report as JSON, without its details: a listing needs no file).
    """

    TYPE_NAME = "QuantizationReport"
    PROPERTIES = {
        "span": artifact.Property(type=artifact.PropertyType.INT),
        "chosen": artifact.Property(type=artifact.PropertyType.STRING),
    }
