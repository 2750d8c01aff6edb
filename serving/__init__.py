"""Serving: what answers requests from a base path on a machine where `tensorflow_model_server` cannot run.

Nothing here imports `evergreen.pipeline` or `evergreen.components`: a server knows a base path and nothing of how its
versions came to be. The built-in server is not there yet; `tensorflow_model_server` with the files in serving_config/
serves what Evergreen publishes.
"""
