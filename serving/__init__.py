"""Serving: the built-in model server, for laptops, tests and machines where `tensorflow_model_server` cannot run.

    python -m evergreen.serving --model_name=NAME --model_base_path=FOLDER --rest_api_port=8501

Nothing here imports `evergreen.pipeline` or `evergreen.components`: a server knows a base path and nothing of how its
versions came to be. From the outside in: `flags` and `app`; the fronts (`grpc_front`; `rest_front` with `rest_decode`
and `rest_encode`); `service` and `inference`, which answer requests; `manager`, which keeps the versions of each
`model`; and the servables (`saved_model`, `tflite`, `batching`), which compute.
"""
