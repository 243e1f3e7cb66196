"""The shape of the package, held by a test.

Imports point down the layers, files stay short, the model ships alone, nothing unpickles, and `longfocus --help` does
not wait for torch.
"""

import ast
import importlib
import importlib.util
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
ROOT = REPOSITORY / "longfocus"
LAYERS = [  # a part may import itself and the parts of the layers above it in this list
    {"errors"},
    {"planning"},
    {"model"},
    {"memory", "loading"},
    {"reading", "asking", "training"},
    {"books", "recipes"},
    {"evaluation", "serving"},
    {"cli"},
    {"__main__"},
]
LEVEL = {part: level for level, parts in enumerate(LAYERS) for part in parts}
LONGEST = 400
SHIPPED_NEEDS = {"torch", "transformers"} | sys.stdlib_module_names
EMPTY_NAMES = {"util", "utils", "helper", "helpers", "manager", "managers"}
PICKLERS = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "shelve"}

FILES = sorted(ROOT.rglob("*.py"))
PROGRAMS = ("benchmarks", "examples", "recipes", "scripts", "tests")
ALL_FILES = [REPOSITORY / "longfocus_cli.py", *FILES]
ALL_FILES += sorted(path for folder in PROGRAMS for path in (REPOSITORY / folder).rglob("*.py"))


def short(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")


def part_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported_modules(path: Path) -> Iterator[str]:
    """Yield the full name of each module that a file imports, or may: `from a import b` gives `a.b`."""
    package = module_of(path) if path.name == "__init__.py" else module_of(path).rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            yield from (f"{base}.{alias.name}" for alias in node.names)


def imported_parts(path: Path) -> set[str]:
    """Return the parts of our own package that a file imports, lazily or not."""
    names = [name.split(".") for name in imported_modules(path)]
    return {parts[1] for parts in names if parts[0] == "longfocus" and len(parts) > 1}


def calls(path: Path) -> Iterator[tuple[str, dict[str, ast.expr]]]:
    """Yield each call's target as written and its keyword arguments."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), {word.arg: word.value for word in node.keywords if word.arg}


def is_true(value: ast.expr | None) -> bool:
    return isinstance(value, ast.Constant) and value.value is True


def run_python(code: str, *arguments: str, folder: Path = REPOSITORY) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=folder, capture_output=True, text=True, timeout=100
    )


def test_arrows_point_down() -> None:
    wrong = []
    for path in FILES:
        here = part_of(path)
        if here == "__init__":
            continue  # the public names come from everywhere
        assert here in LEVEL, f"{here} has no layer: name it in LAYERS and in docs/architecture.md"
        for there in imported_parts(path) - {here}:
            assert there in LEVEL, f"{here} imports {there} from longfocus itself: import it from its own module"
            if LEVEL[there] >= LEVEL[here]:
                wrong.append(f"{short(path)} may not import {there}")
    assert not wrong


def test_files_stay_short() -> None:
    """A longer one is split by idea, not by size."""
    lines = {short(path): len(path.read_text("utf-8").splitlines()) for path in FILES}
    assert not {path: count for path, count in lines.items() if count > LONGEST}


def test_names_say_something() -> None:
    """A file is named after the idea in it."""
    for path in FILES:
        words = {word for part in path.relative_to(ROOT).with_suffix("").parts for word in part.split("_")}
        assert not words & EMPTY_NAMES, short(path)


def test_modules_can_be_imported() -> None:
    for path in FILES:
        if path.name != "__main__.py":
            importlib.import_module(module_of(path))


def test_nothing_is_unpickled() -> None:
    for path in ALL_FILES:
        imported = set(imported_modules(path))
        assert not {name.split(".")[0] for name in imported} & PICKLERS, short(path)
        for function, keywords in calls(path):
            where = f"{short(path)}: {function}"
            if function == "torch.load":
                assert is_true(keywords.get("weights_only")), f"{where} unpickles without weights_only=True"
            assert not is_true(keywords.get("allow_pickle")), f"{where} unpickles with allow_pickle=True"
        hidden = imported & {"torch.load", "torch.serialization.load"}
        assert not hidden, f"{short(path)}: call it as torch.load, where this test sees it"


@pytest.mark.parametrize("path", sorted((ROOT / "model").rglob("*.py")), ids=short)
def test_model_imports_only_what_ships(path: Path) -> None:
    """transformers copies the files beside a checkpoint one by one, found by `from .name import`."""
    assert path.parent == ROOT / "model", "the shipped folder must be flat"
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            assert {alias.name.split(".")[0] for alias in node.names} <= SHIPPED_NEEDS
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            assert node.module is not None
            assert node.module.split(".")[0] in SHIPPED_NEEDS
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 1, "only files of this folder ship"
            assert node.module is not None, "`from . import name` does not ship `name`"
            assert "." not in node.module, "only files of this folder ship"


@pytest.mark.slow
def test_model_works_alone(tmp_path: Path) -> None:
    """The folder under another name, with no Longfocus to be found."""
    shutil.copytree(ROOT / "model", tmp_path / "alone", ignore=shutil.ignore_patterns("__pycache__"))
    names = sorted(f"alone.{path.stem}" for path in (ROOT / "model").glob("*.py"))
    code = """
import importlib, sys
sys.modules["longfocus"] = None
for name in sys.argv[1:]:
    importlib.import_module(name.removesuffix(".__init__"))
"""
    done = run_python(code, *names, folder=tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_the_command_answers_without_torch(option: str) -> None:
    """Runs what the installed `longfocus` runs, and looks at what that imported."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]
    module, _, function = project["scripts"]["longfocus"].partition(":")
    code = f"""
import sys
from {module} import {function}
try:
    {function}()
finally:
    heavy = {{"torch", "transformers", "numpy"}} & set(sys.modules)
    verbs = {{name for name in sys.modules if name.startswith("longfocus.cli.")}}
    assert not heavy | verbs, heavy | verbs
"""
    done = run_python(code, option)
    assert done.returncode == 0, done.stderr
    assert "longfocus" in done.stdout


def test_importing_longfocus_registers_the_model() -> None:
    """With the import that transformers' users write, in the order that import sorters give."""
    code = """
import longfocus
from transformers import AutoConfig, AutoModelForCausalLM
config = AutoConfig.for_model(longfocus.LongLlamaConfig.model_type)
assert type(config) is longfocus.LongLlamaConfig, type(config)
assert AutoModelForCausalLM._model_mapping[type(config)] is longfocus.LongLlamaForCausalLM
"""
    done = run_python(code)
    assert done.returncode == 0, done.stderr


def test_public_names_are_complete() -> None:
    import longfocus

    for name in longfocus.__all__:
        assert getattr(longfocus, name) is not None
    assert sorted(longfocus.HOMES) == list(longfocus.HOMES), "keep HOMES sorted"
    tree = ast.parse((ROOT / "__init__.py").read_text("utf-8"))
    typed = {
        alias.asname: node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.asname
    }
    assert typed == longfocus.HOMES, "the imports for type checkers and HOMES name the same things"
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = longfocus.Nothing  # type: ignore[attr-defined]
