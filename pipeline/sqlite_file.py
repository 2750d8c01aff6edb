"""Looking at a SQLite metadata store before ML Metadata opens it, read-only.

ML Metadata creates its tables in whatever it is given, retries for half a minute on a locked file and answers with the
SQL that failed. Here each case has its words, and the file stays as it is.

Except that a process which was killed in the middle of a transaction leaves a journal, and SQLite reads the file only
when it has taken that transaction back; for this it must be allowed to write.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

LOCK_SECONDS = 5.0
# The newest layout that ml_metadata 1.16 to 1.21 read and write (MLMDEnv.schema_version).
NEWEST_SCHEMA = 10


@dataclass(frozen=True)
class Trouble:
    """Why a file cannot be used.

    Attributes:
      reason: what is wrong with it.
      mend: what to do.
    """

    reason: str
    mend: str


def examine(path: str | Path, thorough: bool = False, seconds: float = LOCK_SECONDS) -> Trouble | None:
    """Says why ML Metadata could not work with a file; changes nothing but what a killed process left half-written.

    Args:
      path: the file; a missing one is no trouble, the first run makes it.
      thorough: also let SQLite check every page, which takes seconds for a large store.
      seconds: how long to wait for whoever has locked it.

    Returns:
      The trouble, or None.
    """
    restore = "put a copy of it back, or move it away and begin anew; versions in the base path are not harmed"
    try:
        size = os.stat(path).st_size
    except FileNotFoundError:
        return None
    except OSError as error:
        return Trouble(str(error), "make the file readable")
    if size == 0:
        return Trouble("the file is empty (0 bytes), as a full disk or a copy that was cut off leaves it", restore)
    mode = "rw" if os.path.exists(f"{path}-journal") else "ro"
    try:
        with closing(sqlite3.connect(f"file:{_quoted(path)}?mode={mode}", uri=True, timeout=seconds)) as database:
            tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if tables and "MLMDEnv" not in tables:
                return Trouble("it is a SQLite file of something else, without ML Metadata's tables", restore)
            version = database.execute("SELECT schema_version FROM MLMDEnv").fetchone() if tables else None
            if version and version[0] > NEWEST_SCHEMA:
                return Trouble(
                    f"a newer ML Metadata wrote it (layout {version[0]}, this one knows {NEWEST_SCHEMA} at most)",
                    "use the release of TFX that wrote it, or a newer one",
                )
            if thorough:
                told = database.execute("PRAGMA quick_check(1)").fetchone()[0]
                if told != "ok":
                    return Trouble(f"SQLite finds it damaged: {told}", restore)
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            return Trouble(
                f"another program has held it locked for {seconds:.0f} s", "find it (`fuser FILE`), or wait for it"
            )
        return Trouble(f"SQLite cannot open it: {error}", restore)
    except sqlite3.DatabaseError as error:
        return Trouble(f"SQLite finds it damaged: {error}", restore)
    return None


def _quoted(path: str | Path) -> str:
    """Quotes what has a meaning in SQLite's file URIs."""
    return str(path).replace("%", "%25").replace("?", "%3f").replace("#", "%23")
