"""What SpanExampleGen takes from the `data` section of the configuration."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

SPLITS = ("train", "validation", "exam")
FORMATS = ("parquet", "csv", "tfrecord")
WHOLE_SPAN = "span"


@dataclass(frozen=True)
class Settings:
    """How a span is split, and how CSV is written.

    Attributes:
      time: column by which a span is ordered; None: the exam is drawn by a hash.
      split_key: column whose hash divides training from validation; None: each row by itself.
      exam: share of the rows that the exam holds at least, or `"span"` for all of them.
      validation: share of the rest.
      delimiter: what separates CSV fields.
    """

    time: str | None = None
    split_key: str | None = None
    exam: float | str = 0.25
    validation: float = 0.1
    delimiter: str = ","

    @property
    def cuts_by_time(self) -> bool:
        """Whether the exam is the tail of the span, for which all values of `time` must be known first."""
        return self.time is not None and self.exam != WHOLE_SPAN and bool(self.exam)

    @property
    def key_columns(self) -> list[str]:
        """The columns that decide the split, each once."""
        if self.exam == WHOLE_SPAN:
            return []
        return list(dict.fromkeys(name for name in (self.time, self.split_key) if name))

    def to_json(self) -> str:
        """Writes these settings and nothing else, so that the cache key changes only with what matters here."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_section(cls, text: str) -> Settings:
        """Reads the `data` section of a configuration, or what `to_json` wrote.

        Args:
          text: a JSON object; keys that are not of use here are passed over.
        """
        section: dict[str, Any] = json.loads(text)
        known = {name: section[name] for name in cls.__dataclass_fields__ if name in section}
        if "csv" in section:
            known["delimiter"] = section["csv"].get("delimiter", ",")
        return cls(**known)
