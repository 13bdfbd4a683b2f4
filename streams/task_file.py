"""From a user's Python file to its Task; whatever is wrong with the file is said in one line.

A *source* is the callable `task.source`: each call gives a new iterator over the task's moments (Ask, Truth,
Observation) in event-time order, with the same ids every time. It runs in the services as well as here, so
the file's folder stays importable for what it imports later.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import re
import sys
import traceback
from collections.abc import Iterator, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import CodeType, ModuleType

from streams.task import Task, TaskError


def load_tasks(paths: Sequence[Path]) -> list[Task]:
    """The Task of each file, in order; raises TaskError, also if two have the same name."""
    files: dict[str, Path] = {}
    tasks = []
    for path in paths:
        task = load_task(path)
        if task.name in files:
            where = f"{path} and {files[task.name]} both define"
            if Path(path).resolve() == files[task.name].resolve():
                where = f"{path} is given twice: it defines"
            raise TaskError(f"{where} the task {task.name!r}: a name may stand for one task only")
        files[task.name] = Path(path)
        tasks.append(task)
    return tasks


def load_task(path: Path) -> Task:
    """Execute the file and give its one module-level Task; raises TaskError with file and line."""
    path = Path(path)
    tree, code = _compile(path, _read(path))
    package, root = _home(path.absolute().parent)
    if str(root) not in sys.path:
        # Last, so that a neighbour called like a library does not take its place in the services.
        sys.path.append(str(root))
    if not package:
        _refuse_hidden(path, tree)
    return _only_task(path, _execute(path, code, package), tree)


def _read(path: Path) -> bytes:
    if path.is_dir():
        found = sorted(each.name for each in path.glob("*.py") if each.stem != "__init__")
        names = f" (it holds {_some(found)})" if found else ""
        raise TaskError(f"{path} is a folder{names}: name a Python file in it")
    if path.suffix != ".py":
        raise TaskError(f"{path} is no Python file: a task file's name ends in .py")
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise TaskError(
            f"there is no file {path}: `driftlog task new NAME` writes a task to begin with"
        ) from None
    except OSError as error:
        raise TaskError(f"{path} cannot be read: {error.strerror}") from error


def _compile(path: Path, source: bytes) -> tuple[ast.Module, CodeType]:
    try:
        tree = ast.parse(source, str(path))
        return tree, compile(tree, str(path.absolute()), "exec", dont_inherit=True)
    except SyntaxError as error:
        raise TaskError(
            f"{path}:{error.lineno or 1}: syntax error: {_one_line(error.msg)}"
        ) from error
    except (ValueError, RecursionError) as error:
        raise TaskError(f"{path}:1: not Python source: {_one_line(error)}") from error


def _home(folder: Path) -> tuple[str, Path]:
    """Dotted name of the package that the folder is ('' if none), and the folder that packages start from."""
    names: list[str] = []
    while (folder / "__init__.py").is_file():
        names.insert(0, folder.name)
        folder = folder.parent
    return ".".join(names), folder


def _refuse_hidden(path: Path, tree: ast.Module) -> None:
    """A neighbour whose name is taken by another module would be that other one without a word."""
    folder = path.absolute().parent
    for name, line in _imported(tree):
        beside = (folder / f"{name}.py", folder / name / "__init__.py")
        if not any(file.is_file() for file in beside):
            continue
        try:
            spec = importlib.util.find_spec(name)
        except ValueError:  # a module that was made without a spec
            spec = None
        origin = spec.origin if spec else None
        if origin is None or Path(origin).resolve() not in [file.resolve() for file in beside]:
            raise TaskError(
                f"{path}:{line}: import {name}: the {name} beside this file is hidden by"
                f" {origin or 'another module'}: give it another name"
            )


def _imported(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Top-level names of all absolute imports, with their lines."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for each in node.names:
                yield each.name.partition(".")[0], node.lineno
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.partition(".")[0], node.lineno


def _execute(path: Path, code: CodeType, package: str) -> ModuleType:
    # A name of its own: a task file may be called like a module that somebody else needs.
    digest = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]
    name = "_".join(["task_file", re.sub(r"\W", "_", path.stem), digest])
    file = path.absolute()
    try:
        if package:
            _import_package(package, file.parent)
            name = f"{package}.{name}"
        module = importlib.util.module_from_spec(ModuleSpec(name, None, origin=str(file)))
        module.__file__ = str(file)
        sys.modules[name] = module
        exec(code, module.__dict__)  # noqa: S102 - the user's own file, which the user asked to run
    except (Exception, SystemExit) as error:
        sys.modules.pop(name, None)
        raise TaskError(what_happened(path, error)) from error
    return module


def _import_package(package: str, folder: Path) -> None:
    """Make the file's package importable, also if another folder has taken its name."""
    module = importlib.import_module(package)
    if str(folder) not in module.__path__:
        module.__path__.append(str(folder))


def _only_task(path: Path, module: ModuleType, tree: ast.Module) -> Task:
    found: dict[int, tuple[str, Task]] = {}
    for name, value in vars(module).items():
        if isinstance(value, Task):
            found.setdefault(id(value), (name, value))
    if len(found) == 1:
        return next(iter(found.values()))[1]
    if found:
        lines = _bound(tree)
        names = ", ".join(
            f"{name} = {task.name!r} (line {lines.get(name, '?')})" for name, task in found.values()
        )
        raise TaskError(f"{path} defines {len(found)} tasks, {names}: give each a file of its own")
    names = _some([name for name in vars(module) if not name.startswith("_")])
    raise TaskError(
        f"{path} defines no Task{f', only {names}' if names else ''}: write `task = Task(...)`"
        " at the top level; `driftlog task new NAME` shows how"
    )


def _bound(tree: ast.Module) -> dict[str, int]:
    """The line where each name of the file last gets its value."""
    lines: dict[str, int] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            lines[node.id] = node.lineno
        elif isinstance(node, ast.Import | ast.ImportFrom):
            lines |= {each.asname or each.name: node.lineno for each in node.names}
    return lines


def what_happened(path: Path, error: BaseException) -> str:
    """`file:line: what`, for an error out of the user's file; the line is the last one in that file."""
    file = str(path.absolute())
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename == file and frame.lineno
    ]
    where = f"{path}:{lines[-1] if lines else 1}"
    if isinstance(error, TaskError):
        return f"{where}: {_one_line(error)}"
    if isinstance(error, SyntaxError):
        return f"{where}: syntax error in {error.filename}, line {error.lineno}: {error.msg}"
    if isinstance(error, SystemExit):
        return f"{where}: the file ends the program; it may only define the task"
    if isinstance(error, ModuleNotFoundError) and error.name:
        return (
            f"{where}: there is no module {error.name!r}: install it, or correct the import"
            " (modules beside the file are found)"
        )
    told = _one_line(error)
    return f"{where}: {type(error).__name__}{f': {told}' if told else ''}; correct this line"


def _one_line(what: object) -> str:
    return " ".join(str(what).split())


def _some(names: Sequence[str], limit: int = 8) -> str:
    return ", ".join(names[:limit]) + (", ..." if len(names) > limit else "")
