"""The house rules that code can check (DESIGN.md, sections 2, 5 and 8)."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from helpers import ROOT, SOURCE, run_python

import tersor

MODULES = sorted(SOURCE.rglob("*.py"))
DECODER_PARTS = ("errors.py", "core", "format", "coders", "ops")
"""What stands above the line of DESIGN.md, section 2."""
ABOVE = [m for m in MODULES if m.relative_to(SOURCE).parts[0] in DECODER_PARTS]
DECODING = [*ABOVE, SOURCE / "__init__.py", *sorted((SOURCE / "runtime").glob("*.py"))]
"""All that runs when a file is decoded."""
ALLOWED_TERSOR = ("tersor._core", "tersor.errors", *(f"tersor.{p}" for p in ("core", "format", "coders", "ops")))
BANNED_MODULES = {"pickle", "marshal", "shelve", "importlib", "runpy", "code", "codeop", "imp", "ctypes", "dill"}
BANNED_NAMES = {"eval", "exec", "compile", "__import__", "globals", "breakpoint"}


def label(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix()


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """Full names of what a module imports, wherever in it, and the lines."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{label(path)}:{node.lineno}: relative import"
            for alias in node.names:
                yield f"{node.module}.{alias.name}", node.lineno


def allowed_above_the_line(path: Path, name: str) -> bool:
    top = name.split(".")[0]
    if top == "tersor":
        return any(name == part or name.startswith(f"{part}.") for part in ALLOWED_TERSOR)
    if label(path) == "coders/zstd.py" and name in ("backports.zstd", "compression.zstd"):
        return True
    return top == "numpy" or (top in sys.stdlib_module_names and top != "compression")


def test_there_is_something_above_the_line() -> None:
    assert {m.relative_to(SOURCE).parts[0] for m in ABOVE} >= {"errors.py", "format", "coders", "ops"}


@pytest.mark.parametrize("path", ABOVE, ids=label)
def test_import_line(path: Path) -> None:
    wrong = [f"line {line}: {name}" for name, line in imports(path) if not allowed_above_the_line(path, name)]
    assert wrong == []


@pytest.mark.parametrize("path", DECODING, ids=label)
def test_decoder_half_executes_nothing(path: Path) -> None:
    wrong = [f"line {n}: import {name}" for name, n in imports(path) if name.split(".")[0] in BANNED_MODULES]
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Assert):
            wrong.append(f"line {node.lineno}: assert")
        if isinstance(node, ast.Name) and node.id in BANNED_NAMES:
            wrong.append(f"line {node.lineno}: {node.id}")
    assert wrong == []


def test_every_module_is_read_in_one_sitting() -> None:
    long = {label(m): n for m in MODULES if (n := len(m.read_text(encoding="utf-8").splitlines())) > 400}
    assert long == {}


# -- decoding in an environment that has little -----------------------------------------------------------------------

DECODE = textwrap.dedent(
    """
    import sys

    class Refuse:
        def find_spec(self, name, path=None, target=None):
            if name.split(".")[0] in {"torch", "click", "rich", "safetensors", "transformers"}:
                raise ImportError(f"decoding must not import {name}")

    sys.meta_path.insert(0, Refuse())
    import tersor

    weights = tersor.load(sys.argv[1])
    tersor.verify(sys.argv[1])
    tersor.decompress(sys.argv[1], sys.argv[2])
    with tersor.open(sys.argv[1]) as file:
        file["w"]
    half = {"engine", "sources", "methods", "allocate", "journal", "compare", "cli", "report"}
    loaded = {m.split(".")[1] for m in sys.modules if m.startswith("tersor.")} & half
    foreign = {m for m in ("torch", "click", "rich", "safetensors", "pickle", "asyncio") if m in sys.modules}
    print(sorted(loaded | (foreign - {"pickle"})), len(weights))
    """
)


@pytest.mark.parametrize("settings", [{"ratio": 6}, {"lossless": True}], ids=str)
def test_decoding_imports_no_torch_and_nothing_of_the_compressing_half(
    tmp_path: Path, settings: dict[str, float]
) -> None:
    w = np.random.default_rng(0).standard_normal((100, 300)).astype(np.float32)
    tersor.compress({"w": w, "b": w[0].copy()}, tmp_path / "a.tsr", **settings)
    result = run_python(DECODE, str(tmp_path / "a.tsr"), str(tmp_path / "a.safetensors"))
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.strip() == "[] 2"


def test_importing_the_package_is_light() -> None:
    result = run_python("import sys, tersor; print('torch' in sys.modules, 'tersor.engine' in sys.modules)")
    assert result.stdout.split() == ["False", "False"], result.stderr


# -- the specification and the code name the same errors --------------------------------------------------------------


def codes_in_the_code() -> set[str]:
    """First arguments of what makes a `FormatError`, and of `fail` and `number`, which pass theirs on."""
    codes: set[str] = set()
    for path in MODULES:
        for node in ast.walk(tree_of(path)):
            if not isinstance(node, ast.Call):
                continue
            name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            arguments = node.args[:1] if name in {"FormatError", "UnsupportedError", "LimitError", "fail"} else []
            if name == "number":
                arguments = node.args[2:3]
            codes |= {a.value for a in arguments if isinstance(a, ast.Constant) and isinstance(a.value, str)}
    return codes


def codes_in_the_specification() -> set[str]:
    text = (ROOT / "spec" / "FORMAT.md").read_text(encoding="utf-8")
    section = text.split("## 9. Error codes")[1].split("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("|") and "`" in line]
    return set(re.findall(r"`(\w+)`", " ".join(rows)))


def test_error_codes_match_the_specification() -> None:
    from tersor.ops.chunks import _MEANING

    streams = {f"stream_{name}" for name in _MEANING}
    fixed = codes_in_the_code() | streams
    assert fixed - codes_in_the_specification() == set()
    assert codes_in_the_specification() - fixed == set()


def test_codes_in_the_text_of_the_specification_are_in_its_list() -> None:
    text = (ROOT / "spec" / "FORMAT.md").read_text(encoding="utf-8").split("## 9. Error codes")[0]
    cited = set(re.findall(r"`(\w+)`", " ".join(re.findall(r"\[((?:`\w+`(?:, )?)+)[^\]]*\]", text))))
    assert cited - codes_in_the_specification() == set()
    assert len(cited) > 25


# -- documentation ----------------------------------------------------------------------------------------------------


def undocumented(path: Path) -> Iterator[str]:
    tree = tree_of(path)
    if not ast.get_docstring(tree):
        yield "the module"
    scopes: list[tuple[str, list[ast.stmt]]] = [("", tree.body)]
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_") and node.name[0].isupper():
            scopes.append((f"{node.name}.", node.body))
    for prefix, body in scopes:
        for node in body:
            named = isinstance(node, (ast.FunctionDef, ast.ClassDef))
            if named and not node.name.startswith("_") and not ast.get_docstring(node):
                yield prefix + node.name


@pytest.mark.parametrize("path", MODULES, ids=label)
def test_public_docstrings(path: Path) -> None:
    assert list(undocumented(path)) == []


def test_everything_public_exists_and_is_documented() -> None:
    for name in tersor.__all__:
        assert name == "__version__" or getattr(tersor, name).__doc__, name
    assert len(tersor.__all__) <= 12
    with pytest.raises(AttributeError, match="nonsense"):
        tersor.nonsense  # noqa: B018


# -- the tree ---------------------------------------------------------------------------------------------------------


def tracked() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    return [ROOT / line for line in listed.stdout.splitlines()]


def test_no_machine_paths() -> None:
    pattern = re.compile(rb"(?<![\w.:/])/(?:home|root|Users|work|mnt|opt)/\w|[A-Z]:\\\\\w")
    here = Path(__file__)
    found = []
    for path in tracked():
        if path == here or not path.is_file() or path.suffix in {".tsr", ".png", ".safetensors"}:
            continue
        for number, line in enumerate(path.read_bytes().splitlines(), 1):
            if pattern.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line[:120].decode(errors='replace')}")
    assert found == []
