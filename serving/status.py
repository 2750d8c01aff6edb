"""A version's state as ModelService reports it."""

from __future__ import annotations

from dataclasses import dataclass

import grpc

START = "START"
LOADING = "LOADING"
AVAILABLE = "AVAILABLE"
UNLOADING = "UNLOADING"
END = "END"


@dataclass(frozen=True)
class VersionStatus:
    """What became of one version.

    Attributes:
      version: its number.
      state: START (found, not loaded yet), LOADING (warm-up included), AVAILABLE (answers requests), UNLOADING (its
        last requests end) or END (unloaded, or never loaded: then `code` is not OK).
      code: OK, or why it could not be loaded.
      message: the reason in words; empty for OK.
    """

    version: int
    state: str
    code: grpc.StatusCode = grpc.StatusCode.OK
    message: str = ""
