"""Gate 1's verdict: from anomalies to the reasons that a user reads. Pure: imports neither TensorFlow nor protobuf."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

SPAN = "span"  # in place of a split's name: the span as a whole
TOO_FEW_ROWS = "TOO_FEW_ROWS"
UNREADABLE = "UNREADABLE"
ACCEPTED, REJECTED = "accepted", "rejected"
# What ML Metadata's property holds, which MySQL bounds at 64 kB; verdict.json has everything.
_LISTED_REASONS = 100
_LISTED_DESCRIPTION = 400


@dataclass(frozen=True, order=True)
class Reason:
    """Why a span is rejected, or would be.

    Attributes:
      feature: its name; empty for the data set as a whole.
      reason: name of TFDV's anomaly type, TOO_FEW_ROWS or UNREADABLE.
      description: the anomaly in words.
      split: where it was found: names of splits, or `span` for all of them together.
      error: whether it closes the gate; False: a warning.
    """

    feature: str
    reason: str
    description: str
    split: str
    error: bool = True

    def as_dict(self) -> dict[str, str]:
        """Returns the reason as it is kept in ML Metadata."""
        return {"feature": self.feature, "reason": self.reason, "description": self.description, "split": self.split}


@dataclass(frozen=True)
class Verdict:
    """Gate 1's decision.

    Attributes:
      accepted: whether windows may use the span.
      rows: in all splits together.
      reasons: what was found, also where it was only a warning.
      splits: rows by split.
      on_anomalies: "reject" or "warn".
      drift_against: the span with which the distributions were compared; None: there was none.
    """

    accepted: bool
    rows: int
    reasons: tuple[Reason, ...] = ()
    splits: Mapping[str, int] = field(default_factory=dict)
    on_anomalies: str = "reject"
    drift_against: int | None = None

    @property
    def word(self) -> str:
        """The verdict in a word."""
        return ACCEPTED if self.accepted else REJECTED

    def to_json(self, span: int, version: int) -> str:
        """Writes verdict.json."""
        return json.dumps(
            {
                "format": 1,
                "span": span,
                "version": version,
                "verdict": self.word,
                "accepted": self.accepted,
                "rows": self.rows,
                "splits": dict(self.splits),
                "on_anomalies": self.on_anomalies,
                "drift_against": self.drift_against,
                "reasons": [asdict(reason) for reason in self.reasons],
            },
            indent=2,
        )

    def listed_reasons(self) -> str:
        """Returns the reasons as JSON, short enough for a property in ML Metadata."""
        listed = [reason.as_dict() for reason in self.reasons[:_LISTED_REASONS]]
        for entry in listed:
            entry["description"] = _shortened(entry["description"], _LISTED_DESCRIPTION)
        return json.dumps(listed)


def merge(
    span: Sequence[Reason], splits: Mapping[str, Sequence[Reason]], divided: Sequence[str] = ()
) -> tuple[Reason, ...]:
    """Merges what was found in the whole span and in its splits into one reason for each anomaly.

    The span as a whole decides: a share of missing values, or of unknown categories, that the schema allows in a span
    may well be exceeded by chance in a split of a few dozen rows. The splits say where an anomaly is.

    Args:
      span: anomalies of the splits' merged statistics.
      splits: anomalies of each split by itself.
      divided: features whose statistics could not be merged; for these the splits decide.

    Returns:
      The reasons, by feature; `split` names the splits that have the anomaly too, unless all of them have, or none.
    """
    reasons = []
    for found in span:
        if found.feature not in divided:
            where = [name for name, anomalies in splits.items() if _contains(anomalies, found)]
            text = SPAN if len(where) in (0, len(splits)) else ", ".join(where)
            reasons.append(Reason(found.feature, found.reason, found.description, text, found.error))
    for name, anomalies in splits.items():
        for found in anomalies:
            if found.feature in divided and not _contains(reasons, found):
                where = [other for other, others in splits.items() if _contains(others, found)]
                text = ", ".join(where or [name])
                reasons.append(Reason(found.feature, found.reason, found.description, text, found.error))
    return tuple(sorted(reasons))


def decide(
    reasons: Sequence[Reason],
    splits: Mapping[str, int],
    min_rows: int,
    on_anomalies: str,
    drift_against: int | None = None,
    unreadable: str = "",
) -> Verdict:
    """Decides on a span.

    Args:
      reasons: anomalies of the span.
      splits: rows by split.
      min_rows: a span with fewer rows is rejected, also where anomalies only warn: too few rows are no anomaly of the
        data but a bound that the user set.
      on_anomalies: "reject", or "warn" to accept a span in spite of anomalies.
      drift_against: the span with which the distributions were compared.
      unreadable: why the span could not be read; empty where it could. It is rejected also where anomalies only warn.
    """
    rows = sum(splits.values())
    if unreadable:
        return Verdict(False, rows, (Reason("", UNREADABLE, unreadable, SPAN),), splits, on_anomalies)
    too_few = rows < min_rows
    if too_few:
        text = f"the span has {rows:,} rows, fewer than the {min_rows:,} of `data.min_rows`"
        reasons = [Reason("", TOO_FEW_ROWS, text, SPAN), *reasons]
    closed = on_anomalies != "warn" and any(reason.error for reason in reasons)
    return Verdict(not (too_few or closed), rows, tuple(reasons), splits, on_anomalies, drift_against)


def table(reasons: Sequence[Mapping[str, str]], width: int = 120) -> str:
    """Lays reasons out for a terminal, one row a reason.

    Example:

        feature   split  anomaly                             description
        carrier   exam   ENUM_TYPE_UNEXPECTED_STRING_VALUES  Examples contain values missing from the schema: ...
        distance  span   SCHEMA_MISSING_COLUMN               The feature was present in fewer examples than expected.

    Args:
      reasons: dicts of `Reason.as_dict`.
      width: columns of the terminal; descriptions are cut there.

    Returns:
      Lines without a final line break; empty where there are no reasons.
    """
    if not reasons:
        return ""
    heads = ("feature", "split", "anomaly")
    rows = [(r["feature"] or "(all)", r["split"], r["reason"], " ".join(r["description"].split())) for r in reasons]
    widths = [max(len(head), *(len(row[i]) for row in rows)) for i, head in enumerate(heads)]
    left = max(30, width - sum(widths) - 2 * len(widths))
    lines = [(*heads, "description"), *rows]
    return "\n".join(
        "  ".join([*(text.ljust(size) for text, size in zip(line, widths, strict=False)), _shortened(line[3], left)])
        for line in lines
    )


def _contains(anomalies: Sequence[Reason], wanted: Reason) -> bool:
    return any((found.feature, found.reason) == (wanted.feature, wanted.reason) for found in anomalies)


def _shortened(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
