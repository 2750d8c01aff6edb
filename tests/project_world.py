"""The smallest evergreen.yaml that is taken, for tests of what reads one and trains nothing."""

YAML = """\
name: flights
data: {path: data, pattern: "{SPAN}/*.parquet"}
schema: schema.pbtxt
features: features:preprocessing_fn
trainer: {model: "model:build_model"}
evaluate: {label: late, metrics: [auc]}
publish: {base_path: serving/flights}
"""
