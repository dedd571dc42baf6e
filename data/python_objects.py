"""The documented objects of the standard library and of installed packages.

Importing half of an installation is slow and noisy, and docstrings may quote the order of a set: `python_docs`
therefore does it in a process of its own with a fixed hash seed.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import inspect
import io
import logging
import pkgutil
import re
import sys
import sysconfig
import warnings
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

#: Packages that are documented besides the standard library when they are installed, and the modules where the walk
#: begins (the package itself when the tuple is empty: its public modules are found from there).
PACKAGES: dict[str, tuple[str, ...]] = {
    "click": (),
    "datasets": (),
    "jinja2": (),
    "networkx": (),
    "numpy": (),
    "pandas": (),
    "polars": (),
    # Its useful modules are not imported by the package itself.
    "pyarrow": ("pyarrow", "pyarrow.compute", "pyarrow.csv", "pyarrow.dataset", "pyarrow.fs", "pyarrow.parquet"),
    "pydantic": (),
    "requests": (),
    "rich": ("rich.console", "rich.progress", "rich.prompt", "rich.table", "rich.text", "rich.tree"),
    "scipy": (),
    "sklearn": (),
    "streamlit": (),
    "torch": (),
    # The package itself is lazy and has six thousand names: walking it would import every model it knows.
    "transformers": (
        "transformers.data",
        "transformers.generation",
        "transformers.models.llama.modeling_llama",
        "transformers.pipelines",
        "transformers.tokenization_utils_base",
        "transformers.trainer",
        "transformers.training_args",
    ),
    "trl": (),
}

#: Standard library modules that open windows, print, start programs, or hold only tests.
SKIPPED = frozenset(
    [
        "antigravity",
        "this",
        "idlelib",
        "turtle",
        "turtledemo",
        "tkinter",
        "test",
        "lib2to3",
        "ensurepip",
        "distutils",
        "msilib",
        "nt",
        "ntpath",
        "posixpath",
        "winreg",
        "winsound",
        "msvcrt",
        "sre_compile",
        "sre_constants",
        "sre_parse",
        "pydoc_data",
        "venv",
    ]
)
_SKIPPED_PARTS = frozenset(
    [
        "test",
        "tests",
        "testing",
        "conftest",
        "popen_spawn_win32",
        "core",
        "compat",
        "vendored",
        "proto",
        "internal",
        "internals",
        "web",
        "packaged_modules",
        "cython_special",
    ]
)
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{6,}")
#: Folders of this machine, which a default value or a module quoted in a signature may name.
_FOLDERS = tuple(f"{folder}/" for folder in (Path.home(), *map(sysconfig.get_path, ("purelib", "stdlib"))))


@dataclass(frozen=True, kw_only=True)
class PythonObject:
    """A public object with a docstring. `path` is its dotted name as a user writes it; `kind` is module, class,
    function, method or property; `doc` is cleaned of common indentation."""

    package: str
    path: str
    kind: str
    doc: str
    value: object = field(repr=False, compare=False)


@dataclass(frozen=True, kw_only=True)
class DocumentedObject:
    """A `PythonObject` as text, to ask questions about. `signature` is empty where Python knows none."""

    package: str
    path: str
    kind: str
    doc: str
    signature: str


def document(item: PythonObject) -> DocumentedObject:
    """`item` with its signature: apart from the walk, because it takes longer than the walk does."""
    signature = _signature(item.value, item.kind)
    return DocumentedObject(package=item.package, path=item.path, kind=item.kind, doc=item.doc, signature=signature)


def walk(package: str) -> list[PythonObject]:
    """Every documented public object of `package` (`python` is the standard library), sorted by path.

    Each object stands once under its shortest path; a method stands once for each class that has it, inherited or
    not. Objects whose text holds a memory address are left out: it would differ from run to run.
    """
    roots = _standard_library() if package == "python" else PACKAGES[package] or (package,)
    with _silence():
        objects = {item.path: item for item in _walk_modules(package, roots)}
    return [objects[path] for path in sorted(objects)]


def installed() -> list[str]:
    """Which of `PACKAGES` can be imported here, `python` first."""
    return ["python", *(name for name in sorted(PACKAGES) if importlib.util.find_spec(name) is not None)]


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        yield
    logging.disable(logging.NOTSET)


def _standard_library() -> tuple[str, ...]:
    names = []
    for top in sorted(sys.stdlib_module_names - SKIPPED):
        spec = None if top.startswith("_") else importlib.util.find_spec(top)
        if spec is None:
            continue
        names.append(top)
        for folder in spec.submodule_search_locations or ():
            inner = sorted(module.name for module in pkgutil.iter_modules([folder]))
            names += [f"{top}.{name}" for name in inner if not name.startswith("_") and name not in _SKIPPED_PARTS]
    return tuple(names)


def _walk_modules(package: str, roots: tuple[str, ...]) -> Iterator[PythonObject]:
    queue = deque(module for module in map(_import, roots) if module is not None)
    seen: set[int] = set()
    while queue:  # breadth first, so that an object is reached under its shortest path
        module = queue.popleft()
        if id(module) in seen:
            continue
        seen.add(id(module))
        yield from _documented(package, module.__name__, "module", module)
        for name in sorted(set(dir(module))):
            value = None if name.startswith("_") else _attribute(module, name)
            if isinstance(value, ModuleType):
                if package != "python" and _belongs(value.__name__, package) and _public(value.__name__):
                    queue.append(value)
            elif callable(value) and id(value) not in seen and _is_home(package, module, value):
                seen.add(id(value))
                yield from documented_members(package, f"{module.__name__}.{name}".removeprefix("builtins."), value)


def _is_home(package: str, module: ModuleType, value: object) -> bool:
    """Whether `value` is documented here: in a package anything of that package, in the standard library (where
    modules import one another) only what the module calls its own."""
    home = getattr(value, "__module__", None)
    if not isinstance(home, str):
        return package != "python" and type(value).__module__.startswith(package)
    if package != "python":
        return _belongs(home, package)
    return home == module.__name__ or home.lstrip("_") == module.__name__ or _listed(module, value)


def _listed(module: ModuleType, value: object) -> bool:
    return getattr(value, "__name__", None) in getattr(module, "__all__", ())


def _belongs(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def _public(module: str) -> bool:
    return not any(part.startswith("_") or part in _SKIPPED_PARTS for part in module.split("."))


def documented_members(package: str, path: str, value: object) -> Iterator[PythonObject]:
    """A function, or a class with its public methods and properties, as far as they have docstrings.

    Texts that hold a memory address or a folder of this machine are left out.
    """
    if not isinstance(value, type):
        yield from _documented(package, path, "function", value)
        return
    yield from _documented(package, path, "class", value)
    statics = {name: static for base in reversed(value.__mro__) for name, static in vars(base).items()}
    for name in sorted(statics):
        if not name.startswith("_"):
            kind = "property" if isinstance(statics[name], property) else "method"
            member = statics[name] if kind == "property" else _attribute(value, name)
            if kind == "property" or (callable(member) and not isinstance(member, type)):
                yield from _documented(package, f"{path}.{name}", kind, member)


def _documented(package: str, path: str, kind: str, value: object) -> Iterator[PythonObject]:
    doc = getattr(value, "__doc__", None)
    if not isinstance(doc, str) or not doc.strip() or (kind != "class" and doc == type(value).__doc__):
        return
    text = inspect.cleandoc(doc).strip()
    name = path.rpartition(".")[2]
    generated = kind == "class" and text.startswith(f"{name}(") and "\n" not in text  # what a dataclass is given
    if not generated and not _machine_bound(text):
        yield PythonObject(package=package, path=path, kind=kind, doc=text, value=value)


def _machine_bound(text: str) -> bool:
    """Whether a text would differ from run to run or from machine to machine."""
    return _ADDRESS.search(text) is not None or any(folder in text for folder in _FOLDERS)


def _signature(value: object, kind: str) -> str:
    if kind in ("module", "property"):
        return ""
    try:
        text = str(inspect.signature(value))  # type: ignore[arg-type]
    except (ValueError, TypeError, NameError, AttributeError, RecursionError):
        return ""
    return "" if _machine_bound(text) or "\n" in text or len(text) > 600 else text


def _import(name: str) -> ModuleType | None:
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit):
        return None


def _attribute(owner: object, name: str) -> object:
    try:
        return getattr(owner, name)
    except Exception:
        return None
