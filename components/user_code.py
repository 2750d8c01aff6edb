"""The user's functions: found from the YAML's folder, loaded here, and named file by file for the cache key.

A project's folder comes last on `sys.path`, so that no file of the user's hides an installed package. One process may
run several projects one after another, and a project whose files change in between: a module is thrown out of
`sys.modules` when it belongs to another project, or when its file is not what it was when it was imported.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib
import inspect
import os
import re
import sys
import traceback
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from evergreen.components.errors import ConfigError

_SPEC = re.compile(r"(?P<module>[^\W\d]\w*(\.[^\W\d]\w*)*):(?P<function>[^\W\d]\w*)")

# The project folders that this process has used, and what each of their modules' files was when it was imported: the
# time of its last change in nanoseconds and its bytes.
_projects: set[Path] = set()
_stamps: weakref.WeakKeyDictionary[ModuleType, tuple[int, int]] = weakref.WeakKeyDictionary()


def split(spec: str) -> tuple[str, str]:
    """Splits `module:function`.

    Args:
      spec: the user's text.

    Returns:
      The module's dotted name and the function's name.

    Raises:
      ConfigError: the text has another form.
    """
    match = _SPEC.fullmatch(spec)
    if match is None:
        raise ConfigError(
            f"{spec!r} names no function",
            f"received {spec!r}, expected module:function, for example model:build_model",
            "Correct it in evergreen.yaml.",
        )
    return match["module"], match["function"]


def activate(project_dir: str | Path) -> None:
    """Makes a project's modules importable, and no other project's.

    Args:
      project_dir: the folder of the YAML file.
    """
    project = Path(project_dir).resolve()
    _projects.add(project)
    sys.path[:] = [entry for entry in sys.path if entry not in {str(other) for other in _projects}]
    sys.path.append(str(project))
    loaded = list(_project_modules())
    # A changed module may have been imported by any other of the project: all of them go.
    changed = any(_stamps.setdefault(module, _stamp(module)) != _stamp(module) for _, module, _ in loaded)
    for name, _, root in loaded:
        if changed or root != project:
            del sys.modules[name]
    importlib.invalidate_caches()


def import_path(project_dir: str | Path) -> list[str]:
    """Returns the entries of `sys.path` that stand before a project's folder: what other projects brought is left out.

    Args:
      project_dir: the folder of the YAML file.
    """
    left_out = {*_projects, Path(project_dir).resolve()}
    return [entry for entry in sys.path if Path(entry or ".").resolve() not in left_out]


def load(spec: str, project_dir: str | Path) -> Callable[..., Any]:
    """Loads a user's function.

    Args:
      spec: `module:function`; the module is looked for in the project's folder, then among the installed ones.
      project_dir: the folder of the YAML file.

    Returns:
      The function.

    Raises:
      ConfigError: there is no such module or function, the import fails, or an installed module hides the project's.
    """
    module_name, function_name = split(spec)
    project = Path(project_dir).resolve()
    activate(project)
    module = _import(spec, module_name, project)
    for _, loaded, _ in _project_modules():
        _stamps.setdefault(loaded, _stamp(loaded))
    function = getattr(module, function_name, None)
    if not callable(function):
        found = f"a {type(function).__name__}" if hasattr(module, function_name) else "nothing"
        raise ConfigError(
            f"cannot load {spec}",
            f"{_place(module)} has {found} of the name {function_name!r}; "
            f"its functions: {', '.join(functions(module)) or 'none'}",
            "Correct the name in evergreen.yaml, or write the function.",
        )
    return function


def functions(module: Any) -> list[str]:
    """Returns the names of the functions that a module defines itself."""
    return sorted(
        name
        for name, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__ and not name.startswith("_")
    )


def child_environment(project_dir: str | Path) -> dict[str, str]:
    """Returns the environment for a child process that imports the user's modules.

    Args:
      project_dir: the folder of the YAML file; it comes behind everything that PYTHONPATH holds already.

    Returns:
      A copy of this process's environment with PYTHONPATH set.
    """
    project = str(Path(project_dir).resolve())
    entries = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry and entry != project]
    return {**os.environ, "PYTHONPATH": os.pathsep.join([*entries, project])}


def closure(spec: str, project_dir: str | Path) -> list[Path]:
    """Finds every file of the project that a user's module imports, without running any.

    Imports are read from the source wherever they stand, also inside of functions; what is imported by a computed name
    is not seen.

    Args:
      spec: `module:function`.
      project_dir: the folder of the YAML file.

    Returns:
      The files, sorted; none where the module is not the project's own.

    Raises:
      ConfigError: a file is not valid Python.
    """
    module_name, _ = split(spec)
    project = Path(project_dir).resolve()
    found: set[Path] = set()
    waiting = [module_name]
    seen = set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        for file in _files_of(name, project):
            if file not in found:
                found.add(file)
                waiting.extend(_imports(file, project))
    return sorted(found)


def digest(spec: str, project_dir: str | Path) -> str:
    """Hashes the module of a user's function with every module of the project that it imports.

    Args:
      spec: `module:function`.
      project_dir: the folder of the YAML file.

    Returns:
      A hexadecimal digest.
    """
    return _digest(hashes(spec, project_dir))


def hashes(spec: str, project_dir: str | Path) -> dict[str, str]:
    """Hashes what `digest` does file by file, so that two states of a project can say where they differ.

    Args:
      spec: `module:function`.
      project_dir: the folder of the YAML file.

    Returns:
      Each file's path within the project to a hexadecimal digest.
    """
    project = Path(project_dir).resolve()
    return _hashes((str(path.relative_to(project)), path) for path in closure(spec, project))


def digest_files(files: Iterable[tuple[str, Path]]) -> str:
    """Hashes names and contents of files, in the order of the names."""
    return _digest(_hashes(files))


def _hashes(files: Iterable[tuple[str, Path]]) -> dict[str, str]:
    return {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files}


def _digest(named: Mapping[str, str]) -> str:
    found = hashlib.sha256()
    for name, value in sorted(named.items()):
        found.update(f"{name}\0".encode())
        found.update(bytes.fromhex(value))
    return found.hexdigest()


def _import(spec: str, module_name: str, project: Path) -> Any:
    top = module_name.partition(".")[0]
    own = _files_of(top, project) or (project / top).is_dir()
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and (module_name == error.name or module_name.startswith(error.name + ".")):
            offered = ", ".join(sorted(path.name for path in project.glob("*.py"))) or "none"
            raise ConfigError(
                f"cannot load {spec}",
                f"there is no module {error.name!r} in {project}; the Python files there: {offered}",
                "Correct the name in evergreen.yaml, or add the file.",
            ) from error
        raise _import_failed(spec, error) from error
    except Exception as error:  # whatever a user's module does when it is imported
        raise _import_failed(spec, error) from error
    if own and _root_of(top) != project:
        raise ConfigError(
            f"cannot load {spec}",
            f"{_place(sys.modules[top])} has the same name as the project's {top} and comes first",
            "Rename the project's module.",
        )
    return module


def _import_failed(spec: str, error: Exception) -> ConfigError:
    if isinstance(error, SyntaxError):
        place = f" ({error.filename}, line {error.lineno})"
    else:
        frames = traceback.extract_tb(error.__traceback__)
        own = [frame for frame in frames if any(Path(frame.filename).is_relative_to(p) for p in _projects)]
        place = f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""
    reason = f"importing it raises {type(error).__name__}: {getattr(error, 'msg', None) or error}{place}"
    return ConfigError(f"cannot load {spec}", reason, "Correct the module; `--debug` shows the whole traceback.")


def _place(module: Any) -> str:
    return getattr(module, "__file__", None) or f"the module {module.__name__}"


@functools.lru_cache(maxsize=4096)
def _root_of_file(file: str, is_package: bool) -> Path:
    return Path(file).resolve().parent.parent if is_package else Path(file).resolve().parent


def _root_of(top: str) -> Path | None:
    """Returns the folder from which a top-level module was imported."""
    module = sys.modules.get(top)
    file = getattr(module, "__file__", None)
    if isinstance(file, str):
        return _root_of_file(file, os.path.basename(file) == "__init__.py")
    paths = list(getattr(module, "__path__", []))  # a namespace package
    return Path(paths[0]).resolve().parent if paths else None


def _project_modules() -> Iterator[tuple[str, ModuleType, Path]]:
    """Yields name and module of all that was loaded from a project's folder, each with that folder."""
    for name, module in list(sys.modules.items()):
        root = _root_of(name.partition(".")[0])
        if root is not None and root in _projects:
            yield name, module, root


def _stamp(module: ModuleType) -> tuple[int, int]:
    try:
        status = os.stat(module.__file__ or "")
    except (OSError, AttributeError):
        return (0, 0)
    return (status.st_mtime_ns, status.st_size)


def _files_of(name: str, project: Path) -> list[Path]:
    """Returns the project's files that importing a dotted name runs: the packages' `__init__` and the module."""
    files = []
    folder = project
    parts = name.split(".")
    for position, part in enumerate(parts):
        package, module = folder / part / "__init__.py", folder / f"{part}.py"
        if package.is_file():
            files.append(package)
        elif module.is_file():
            return [*files, module]
        elif not (folder / part).is_dir():
            # `from package import name`: the rest is a name inside of the package, not a module.
            return files if position > 0 else []
        folder = folder / part
    return files


def _imports(file: Path, project: Path) -> Iterator[str]:
    """Yields the dotted names that a file may import."""
    try:
        tree = ast.parse(file.read_bytes(), filename=str(file))
    except SyntaxError as error:
        raise ConfigError(
            f"{file.name} is not valid Python",
            f"{error.msg} ({file}, line {error.lineno})",
            "Correct the file.",
        ) from error
    package = file.relative_to(project).parent.parts
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            prefix = ".".join([*base, *([node.module] if node.module else [])])
            if prefix:
                yield prefix
            yield from (".".join(filter(None, [prefix, alias.name])) for alias in node.names)
