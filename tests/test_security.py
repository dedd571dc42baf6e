"""What no module of ours does: unpickle, run code of a model's repository, read YAML with tags, run a shell."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
#: Modules whose loading runs code.
UNSAFE_MODULES = {"pickle", "cPickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "jsonpickle"}
#: Builtins and functions that run what they are given.
UNSAFE_CALLS = {
    "eval",
    "exec",
    "os.system",
    "os.popen",
    "yaml.load",
    "yaml.load_all",
    "yaml.unsafe_load",
    "yaml.full_load",
}
#: What a call may never be given: the name of an argument, and the value.
UNSAFE_ARGUMENTS = {("trust_remote_code", True), ("allow_pickle", True), ("weights_only", False), ("shell", True)}


def faults(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            yield from ((node.lineno, name) for name in names if name.partition(".")[0] in UNSAFE_MODULES)
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in UNSAFE_CALLS:
                yield node.lineno, called
            if called == "torch.load" and "weights_only" not in {keyword.arg for keyword in node.keywords}:
                yield node.lineno, "torch.load without weights_only"
            for keyword in node.keywords:
                if isinstance(keyword.value, ast.Constant) and (keyword.arg, keyword.value.value) in UNSAFE_ARGUMENTS:
                    yield node.lineno, f"{keyword.arg}={keyword.value.value}"


def test_no_module_runs_what_it_reads() -> None:
    modules = [
        path for room in ("curation", "training", "app", "data", "siftune") for path in (ROOT / room).rglob("*.py")
    ]
    assert len(modules) > 250
    found = {
        path.relative_to(ROOT).as_posix(): found
        for path in modules
        if (found := list(faults(ast.parse(path.read_text(encoding="utf-8")))))
    }
    assert found == {}


def test_the_check_finds_what_it_looks_for() -> None:
    code = """
import pickle, shelve
from joblib import load
yaml.load(text, Loader=yaml.Loader)
torch.load(path)
AutoModel.from_pretrained(name, trust_remote_code=True)
np.load(path, allow_pickle=True)
subprocess.run(command, shell=True)
eval(text)
model.eval()
yaml.safe_load(text)
torch.load(path, weights_only=True)
"""
    assert len(list(faults(ast.parse(code)))) == 9
