"""SpanExampleGen: one version of a span, from Parquet, CSV or TFRecord files to tf.Example in three splits."""
