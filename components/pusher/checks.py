"""What is asked of a base path before a model is published into it. Pure: reads what it is given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from evergreen.components.atomic import StrPath
from evergreen.components.errors import ModelRejected
from evergreen.components.pusher.manifest import Manifest, utc_time

if TYPE_CHECKING:
    from evergreen.components.pusher.placing import Candidate
    from evergreen.components.pusher.versions import Hold
    from evergreen.components.pusher.withdrawal import Withdrawn


def find_published(manifests: Mapping[int, Manifest], candidate: Candidate) -> int | None:
    """Returns the newest version that holds the candidate's Model artifact; None where none does."""
    return max((v for v, manifest in manifests.items() if _carries(manifest, candidate)), default=None)


def published_already(version: int, live: int | None) -> str:
    """Says that a model is published already, and whether it is live."""
    if version == live:
        return f"This model is published already: it is the live version {version}."
    return f"This model was published already as version {version}; version {live} is live now."


def refuse_withdrawn(manifest: Manifest | None, withdrawn: Withdrawn[Any], candidate: Candidate) -> None:
    """Refuses a model that was withdrawn: a run that comes by it again must not offer it to the server again.

    Args:
      manifest: the withdrawn version's.
      withdrawn: what is known of it.
      candidate: the model that is to be published.

    Raises:
      ModelRejected: it is the same Model artifact.
    """
    if manifest is not None and _carries(manifest, candidate):
        raise ModelRejected(
            f"this model was published as version {withdrawn.version} and withdrawn",
            withdrawn.reason or f"{withdrawn.record} says so",
            f"If the reason was not the model, remove {withdrawn.path} and {withdrawn.record}, and run again.",
        )


def refuse_held(base: StrPath, hold: Hold | None) -> None:
    """Refuses every push while publishing is held.

    Raises:
      ModelRejected: it is held.
    """
    if hold is not None:
        since = f" since {hold.since}" if hold.since else ""
        raise ModelRejected(
            f"publishing into {base} is held{since}",
            hold.reason or "a rollback holds publishing until a person releases it",
            f"Release it by `evergreen release`, or remove {hold.path}, and run again.",
        )


def refuse_overtaken(live: int | None, manifest: Manifest | None, expected: str, examined_at: float | None) -> None:
    """Refuses a model that was compared with another one than what is live now.

    Args:
      live: the live version.
      manifest: its manifest; None where it has none.
      expected: URI of the model that the candidate was compared with; '' if ML Metadata knew none.
      examined_at: when that was, seconds since 1970; None if unknown.

    Raises:
      ModelRejected: another model went live meanwhile.
    """
    champion = manifest.model_uri if manifest else ""
    if expected:
        overtaken = champion != expected
    else:
        # What is live may come from another workspace, or from a lost one; then it was live before the exam. Both times
        # are whole seconds here, and within one second in doubt the push is refused.
        overtaken = manifest is not None and examined_at is not None and manifest.published >= utc_time(examined_at)
    if overtaken:
        live_words = "no version" if live is None else f"version {live} ({champion or 'of unknown origin'})"
        raise ModelRejected(
            "another model went live since this one was examined",
            f"it was compared with {expected or 'no model'}; live is {live_words}",
            "Run again: the model is examined against the new champion.",
        )


def _carries(manifest: Manifest, candidate: Candidate) -> bool:
    return manifest.carries(candidate.model_artifact_id, candidate.model_uri, candidate.model_created)
