"""Labels of versions in a `models.config`: which there are, which may be moved, and the file's text with them moved.

A client asks for `stable` or `canary` instead of a number. The labels live in two places: in the running servers, which
`HandleReloadConfigRequest` tells, and in the file that a server reads when it starts. This module knows the file; it
edits the labels of one model and leaves everything else, comments too, as it was. Telling servers lives in `watch`.
Imports no TensorFlow.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from evergreen.components import atomic
from evergreen.components.errors import ConfigError

_NAME = "publish.models_config"
# Strings, comments, brackets and the words between them: enough of the text format to find a block's borders.
_TOKEN = re.compile(r"""#[^\n]*|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|[{}<>\[\]:;,]|[^\s{}<>\[\]:;,#"']+""")


def parse(text: str, where: str) -> Any:
    """Reads a models.config.

    Args:
      text: a `tensorflow.serving.ModelServerConfig` in protobuf's text format.
      where: what to call it in an error.

    Returns:
      The message.

    Raises:
      ConfigError: it is no such message.
    """
    from google.protobuf import text_format
    from tensorflow_serving.config import model_server_config_pb2

    try:
        return text_format.Parse(text, model_server_config_pb2.ModelServerConfig())
    except text_format.ParseError as error:
        raise ConfigError(
            f"`{_NAME}` cannot be read",
            f"{where} is not a ModelServerConfig in protobuf's text format: {error}",
            "Correct the file; serving_config/models.config is an example.",
        ) from error


def read_text(path: atomic.StrPath) -> str:
    """Returns the text of a models.config.

    Args:
      path: the file.

    Raises:
      ConfigError: it cannot be read.
    """
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"`{_NAME}` cannot be read",
            f"{path}: {getattr(error, 'strerror', None) or error}",
            "Name the file that the servers read by --model_config_file.",
        ) from error


def model_config(message: Any, model: str, where: str) -> Any:
    """Finds a model's part of the message.

    Args:
      message: what `parse` returned.
      model: the model's name.
      where: what to call the file in an error.

    Returns:
      The `ModelConfig`, part of the message.

    Raises:
      ConfigError: the file does not name the model.
    """
    names = []
    for config in message.model_config_list.config:
        if config.name == model:
            return config
        names.append(config.name)
    raise ConfigError(
        f"`{_NAME}` does not name the model `{model}`",
        f"{where} names {', '.join(f'`{name}`' for name in names) or 'no model'}",
        f'Add `config {{ name: "{model}" base_path: ... model_platform: "tensorflow" }}` to it.',
    )


def read(path: atomic.StrPath, model: str) -> dict[str, int]:
    """Reads a model's labels.

    Args:
      path: the models.config.
      model: the model's name.

    Returns:
      `{label: version}`.

    Raises:
      ConfigError: the file cannot be read, or does not name the model.
    """
    return dict(model_config(parse(read_text(path), str(path)), model, str(path)).version_labels)


def edited(text: str, model: str, labels: Mapping[str, int | None], where: str) -> str:
    """Returns a models.config with labels of one model set; its other labels stay.

    Args:
      text: the file's contents.
      model: the model's name.
      labels: `{label: version}`; None takes the label away.
      where: what to call the file in an error.

    Returns:
      The new contents, which differ from the old in this model's labels only.

    Raises:
      ConfigError: the file cannot be read, or does not name the model.
    """
    from google.protobuf import text_format

    wanted = parse(text, where)
    config = model_config(wanted, model, where)
    before = dict(config.version_labels)
    after = {label: version for label, version in {**before, **labels}.items() if version is not None}
    if after == before:
        return text
    config.version_labels.clear()
    config.version_labels.update(after)
    found = _with_labels(text, model, after)
    if found is not None and parse(found, where) == wanted:
        return found
    # Written in another form of the syntax than anybody writes: the meaning is kept, the comments are not.
    return str(text_format.MessageToString(wanted))


def loaded(policy: Any, present: Collection[int]) -> set[int]:
    """Says which versions a server keeps loaded.

    Args:
      policy: the model's `ServableVersionPolicy`.
      present: the versions in the base path.

    Returns:
      Those that the policy names.
    """
    kind = policy.WhichOneof("policy_choice")
    if kind == "all":
        return set(present)
    if kind == "specific":
        return set(policy.specific.versions) & set(present)
    return set(sorted(present)[-max(1, policy.latest.num_versions) :])


def check_policy(
    config: Any, present: Collection[int], next_version: int, trial: bool, where: str, moving: Collection[str] = ()
) -> None:
    """Checks that a new version will be loaded, and that no label then points to one that is loaded no more.

    Args:
      config: the model's `ModelConfig`.
      present: the versions in the base path.
      next_version: the number that the new one gets, higher than all of these.
      trial: whether the version before it must go on answering beside it, as in a canary's trial.
      where: what to call the file in an error.
      moving: labels that move to the new version once it has proven itself.

    Raises:
      ConfigError: the policy does not do that.
    """
    policy = config.model_version_policy
    kept = loaded(policy, {*present, next_version})
    if policy.WhichOneof("policy_choice") == "specific":
        raise ConfigError(
            f"the servers would never load a new version of `{config.name}`",
            f"its model_version_policy in {where} is `specific`",
            "Take `latest { num_versions: 2 }` or `all {}`.",
        )
    gone = set(config.version_labels.values()) - loaded(policy, present)
    orphans = [
        f"`{label}` points to {version}"
        for label, version in sorted(config.version_labels.items())
        if version not in kept and not (label in moving and version in gone)
    ]
    if trial and len(kept) < 2 and present:
        orphans = orphans or ["the version before it would be unloaded"]
    if orphans:
        raise ConfigError(
            f"the servers could not keep the labels of `{config.name}` when a new version is published",
            f"{', '.join(orphans)}, and by its model_version_policy in {where} {_count(len(kept))} will be loaded",
            "Raise `latest { num_versions: ... }` there (2 for `stable` and `canary`), or move the label, and reload "
            "the servers.",
        )


def _count(number: int) -> str:
    return "only the newest version" if number == 1 else f"only the {number} newest versions"


def _with_labels(text: str, model: str, labels: Mapping[str, int]) -> str | None:
    """Edits the text by hand, or gives up (None) where it is not written as blocks in braces."""
    block = next((b for b in _blocks(text, ["model_config_list", "config"]) if _block_name(text, b) == model), None)
    if block is None:
        return None
    start, end = block
    line_start = text.rfind("\n", 0, end) + 1
    indent = re.match(r"[ \t]*", text[line_start:end])
    outer = indent.group() if indent and line_start > start else ""
    # One step deeper than the block's closing brace, which shares its column with what opened the block.
    lines = "".join(
        f'{outer}  version_labels {{ key: "{key}" value: {value} }}\n' for key, value in sorted(labels.items())
    )
    closing = text[line_start:end]
    if line_start > start and not closing.strip():
        edited_text = text[:line_start] + lines + text[line_start:]
    else:
        edited_text = text[:end] + "\n" + lines + text[end:]
    # What was there goes: the old entries all stand before the new ones.
    for one in reversed(list(_blocks(text[:end] + "}", ["version_labels"], start + 1))):
        edited_text = _without(edited_text, _entry_start(text, one[0]), one[1] + 1)
    return edited_text


def _entry_start(text: str, brace: int) -> int:
    return text.rindex("version_labels", 0, brace)


def _without(text: str, start: int, end: int) -> str:
    """Cuts a piece out, with its whole line where nothing else stands on it."""
    line = text.rfind("\n", 0, start) + 1
    stop = text.find("\n", end)
    stop = len(text) if stop < 0 else stop + 1
    if not text[line:start].strip() and not text[end:stop].strip(" \t\r\n;,"):
        return text[:line] + text[stop:]
    return text[:start] + text[end:]


def _blocks(text: str, path: list[str], start: int = 0) -> Iterator[tuple[int, int]]:
    """Yields the positions of the braces of every block at a path of field names, from a position on."""
    stack: list[tuple[str, int]] = []
    word = ""
    for token in _TOKEN.finditer(text, start):
        piece = token.group()
        if piece.startswith("#") or piece == ":":
            continue
        if piece == "{":
            stack.append((word, token.start()))
        elif piece == "}":
            if not stack:
                return
            if [name for name, _ in stack] == path:
                yield stack[-1][1], token.start()
            stack.pop()
        word = piece


def _block_name(text: str, block: tuple[int, int]) -> str | None:
    """Reads the `name` that stands directly in a block."""
    depth, pieces = 0, []
    for token in _TOKEN.finditer(text, block[0] + 1, block[1]):
        piece = token.group()
        depth += (piece == "{") - (piece == "}")
        if depth == 0 and not piece.startswith("#") and piece != ":":
            pieces.append(piece)
    for key, value in itertools.pairwise(pieces):
        if key == "name":
            return value.strip("\"'")
    return None
