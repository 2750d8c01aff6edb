"""What lies in the data directory, as far as the scheduler cares: names, sizes and times, no contents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from evergreen.components.errors import EvergreenError
from evergreen.pipeline import spans
from evergreen.pipeline.config import Config


@dataclass(frozen=True)
class Look:
    """One look at the spans.

    Attributes:
      complete: by label, the files of the newest complete version, hashed by names, sizes and times; oldest span first.
      missing: by label, why a span may not be read yet.
      problem: why there is no span at all; empty where there is one.
    """

    complete: Mapping[str, str] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    problem: str = ""

    @property
    def newest(self) -> str | None:
        """The newest complete span's label."""
        return next(reversed(list(self.complete)), None)


def look(config: Config) -> Look:
    """Looks at the data directory.

    Args:
      config: the project's configuration.
    """
    try:
        found = spans.discover(config.data)
    except EvergreenError as error:
        return Look(problem=f"{error.headline}: {error.reason}")
    except OSError as error:
        return Look(problem=str(error))
    # `discover` lists a span's versions in their order, so the last complete one stays.
    complete = {span.label: f"{span.version}.{span.quick_digest}" for span in found if span.complete}
    missing = {span.label: span.reason for span in found if not span.complete and span.label not in complete}
    return Look(complete, missing)
