"""What benchmarks/serving.py compares with: the plain FastAPI app that one writes for a SavedModel.

MODEL=/models/m/1 python benchmarks/serving_fastapi.py PORT
"""

from __future__ import annotations

import os
import sys
from typing import Any

import tensorflow as tf
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

app = FastAPI()
model = tf.saved_model.load(os.environ["MODEL"])
signature = model.signatures["serving_default"]


class Rows(BaseModel):
    """A request."""

    instances: list[list[float]]


@app.post("/predict")
def predict(rows: Rows) -> Any:
    """Answers with one number for each row."""
    return {"predictions": signature(x=tf.constant(rows.instances, tf.float32))["y"].numpy().tolist()}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", access_log=False)
