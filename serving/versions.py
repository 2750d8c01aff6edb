"""Which children of a base path are versions, which of them a policy wants, and what to load or unload next. Pure.

The rules are TensorFlow Serving's, except that a version which is not complete or failed to load does not take the
place of a good one under `latest`: a server that starts beside a broken newest version serves the one before it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

_INT64 = 2**63


def version_of(name: str) -> int | None:
    """Returns the version that a directory's name means; None for any other name. Leading zeros are allowed."""
    if not (name.isascii() and name.isdigit()):
        return None
    number = int(name)
    return number if number < _INT64 else None


def versions_of(names: Iterable[str]) -> dict[int, str]:
    """Returns the name of each version among the children of a base path; `7` goes before `007`."""
    found: dict[int, str] = {}
    for name in sorted(names, key=lambda name: (len(name), name), reverse=True):
        version = version_of(name)
        if version is not None:
            found[version] = name
    return found


def chosen(policy: Any, versions: Collection[int]) -> set[int]:
    """Returns the versions that a ServableVersionPolicy wants; without a choice in it, the newest one."""
    choice = policy.WhichOneof("policy_choice")
    if choice == "all":
        return set(versions)
    if choice == "specific":
        return set(policy.specific.versions) & set(versions)
    return set(sorted(versions)[-_latest(policy) :])


@dataclass(frozen=True)
class Step:
    """What to do next with one model.

    Attributes:
      wanted: versions that are served, or would be if they could be loaded.
      unload: loaded versions that nobody wants any more.
      load: the version to load, or None.
    """

    wanted: frozenset[int]
    unload: frozenset[int]
    load: int | None


def next_step(
    policy: Any,
    found: Collection[int],
    usable: Collection[int],
    due: Collection[int],
    loaded: Collection[int],
) -> Step:
    """Plans so that a model which answers goes on answering: the old version goes when a wanted one is loaded.

    Args:
      policy: the model's ServableVersionPolicy.
      found: versions that the base path holds.
      usable: those of them that are loaded, or may be as far as is known.
      due: those of them that failed and may be tried again now.
      loaded: versions that are loaded; one whose directory is gone may be among them.
    """
    served = chosen(policy, usable)
    hoped = _hoped(policy, found, usable)
    new = (served | (hoped & set(due))) - set(loaded)
    may_unload = served & set(loaded) or not chosen(policy, found)
    unload = frozenset(loaded) - served if may_unload else frozenset[int]()
    return Step(frozenset(served | hoped), unload, max(new, default=None))


def _latest(policy: Any) -> int:
    return max(policy.latest.num_versions, 1)


def _hoped(policy: Any, found: Collection[int], usable: Collection[int]) -> set[int]:
    """Returns the versions that would be chosen if they, each by itself, were usable."""
    if policy.WhichOneof("policy_choice") in ("all", "specific"):
        return chosen(policy, found)
    newest = sorted(usable)[-_latest(policy) :]
    return set(found) if len(newest) < _latest(policy) else {version for version in found if version >= newest[0]}
