"""Reads the analyzer caches of many spans as if they were one span's, so that more spans cost Transform no more.

TensorFlow Transform keeps the accumulators of each analyzer for each dataset, and gives every dataset whose
accumulators it reads steps of its own in Beam's pipeline: for the example's five analyzers that is 0.7 s of one core
for a span that adds a few kilobytes. But it only flattens what it has read before it merges it: the records of several
spans one after the other mean the same as those of one. So the spans that need not be read again become one dataset.
Their own caches stay as they are, and are carried on span by span.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

FOLDED = "evergreen-folded-spans"

_state = {"folds": False}


@dataclass(frozen=True)
class _Records:
    """The records of one analyzer for one dataset, not read yet.

    Attributes:
      pattern: of their files.
      pipeline: in which they are wanted.
    """

    pattern: str
    pipeline: Any


def install(folds: bool) -> None:
    """Makes TensorFlow Transform fold what it reads of caches. Calling this again only goes by the new argument.

    Args:
      folds: whether it does so from now on: where workers are in this process; others need not have our code.
    """
    from tensorflow_transform.beam import analyzer_cache, impl

    _state["folds"] = folds
    reader: Any = analyzer_cache.ReadAnalysisCacheFromFS
    if getattr(reader.expand, "folds", False):
        return
    original_read = reader.expand

    def expand(self: Any, pipeline: Any) -> Any:
        import apache_beam as beam

        if not _state["folds"] or self._source is not beam.io.ReadFromTFRecord:
            return original_read(self, pipeline)
        _ = pipeline | "Nothing" >> beam.Impulse()  # a transform without parts would be one that Beam does not know
        return {key: cache for key in self._sorted_dataset_keys if (cache := _listed(self, key, pipeline)) is not None}

    expand.folds = True  # type: ignore[attr-defined]
    reader.expand = expand

    analysis: Any = impl.AnalyzeDatasetWithCache
    original_inputs = analysis._extract_input_pvalues

    def _extract_input_pvalues(self: Any, dataset: Any) -> Any:
        data, caches, *rest = dataset
        return original_inputs(self, (*_folded(data, caches), *rest))

    analysis._extract_input_pvalues = _extract_input_pvalues


def _listed(reader: Any, key: Any, pipeline: Any) -> Any:
    """Returns a dataset's cache with `_Records` in place of what is read of them; None where it has none."""
    from tensorflow_transform.beam import analyzer_cache

    folder = analyzer_cache._get_dataset_cache_path(reader._cache_base_dir, key)
    manifest = analyzer_cache._ManifestFile(folder).read()
    if not manifest:
        return None
    entries = {
        entry: _Records(os.path.join(folder, f"{number}-*-of-*"), pipeline)
        for entry, number in manifest.items()
        if reader._should_read_cache_entry_key(entry)
    }
    return analyzer_cache.DatasetCache(entries, None)


def _folded(data: Mapping[Any, Any] | None, caches: Mapping[Any, Any] | None) -> tuple[Any, Any]:
    """Makes one dataset of all those whose rows are not needed, and has the records read.

    Args:
      data: the rows of each dataset; None for a dataset whose cache has all that is needed of it.
      caches: what was read, or is listed, of each dataset's cache.

    Returns:
      Both, with `FOLDED` in place of the datasets without rows.
    """
    from tensorflow_transform.beam import analyzer_cache

    listed = {
        key: cache
        for key, cache in (caches or {}).items()
        if cache.cache_dict and all(isinstance(entry, _Records) for entry in cache.values())
    }
    if not listed:
        return data, caches
    together = sorted(key for key, rows in (data or {}).items() if rows is None and key in listed)
    entries: dict[Any, list[_Records]] = {}
    for key in together:
        for entry, records in listed[key].items():
            entries.setdefault(entry, []).append(records)
    kept = {key: rows for key, rows in (data or {}).items() if key not in together}
    read = {key: cache for key, cache in (caches or {}).items() if key not in listed}
    for number, key in enumerate(sorted(key for key in kept if key in listed)):
        one = {entry: [records] for entry, records in listed[key].items()}
        read[key] = analyzer_cache.DatasetCache(_read(one, f"OneSpansCache{number}"), None)
    if together:
        folded = analyzer_cache.DatasetKey(FOLDED)
        kept[folded] = None
        read[folded] = analyzer_cache.DatasetCache(_read(entries, "FoldedCache"), None)
    return kept, read


def _read(entries: Mapping[Any, list[_Records]], label: str) -> dict[Any, Any]:
    import apache_beam as beam

    return {
        entry: files[0].pipeline
        | f"{label}[{number}]" >> beam.Impulse()
        | f"Read{label}[{number}]" >> beam.FlatMap(_records, [one.pattern for one in files]).with_output_types(bytes)
        for number, (entry, files) in enumerate(entries.items())
    }


def _records(_: bytes, patterns: Iterable[str]) -> Iterator[bytes]:
    from apache_beam.io import tfrecordio
    from apache_beam.io.filesystems import FileSystems

    for pattern in patterns:
        for found in sorted(FileSystems.match([pattern])[0].metadata_list, key=lambda file: file.path):
            with FileSystems.open(found.path) as file:  # which decompresses by the name's ending
                while (record := tfrecordio._TFRecordUtil.read_record(file)) is not None:
                    yield record
