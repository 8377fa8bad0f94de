"""The import ladder of docs/architecture.md, read from the syntax trees. Host-side, so no backend."""

import ast
import importlib
import inspect

import pytest

from tests.scripts import ROOT, run

PACKAGE = ROOT / "xpnet"
LADDER = [  # the modules of a line may import each other and the lines above
    {"checks", "errors", "files", "keywords", "lazy", "signals", "tables", "tensorfile", "tree", "watcher", "workshop"},
    {"backend"},
    {"random", "functions", "groups", "initializers", "ranks", "schedules", "datasets"},
    {"layers"},
    {"losses", "metrics", "optimizers"},
    {
        "averages",
        "callbacks",
        "checkpoint",
        "comparison",
        "description",
        "divergence",
        "evaluation",
        "explanation",
        "gradients",
        "history",
        "inputs",
        "inspection",
        "packing",
        "progress",
        "settings",
        "sources",
        "state",
        "step",
        "weights",
    },
    {"plan"},
    {"loop"},
    {"run"},
    {"model"},
    {"ensemble", "restore"},
    {"many"},
    {"distributed", "interchange", "playground", "plotting", "sklearn"},
    {"reporting"},
    {"__init__"},
    {"cli"},
    {"__main__"},
]
TESTED_TOGETHER = {
    "backend",
    "callbacks",
    "cli",
    "datasets",
    "interchange",
    "losses",
    "metrics",
    "optimizers",
    "playground",
    "reporting",
    "plotting",
    "sklearn",
    "sources",
}  # tests/test_PART*.py
LIBRARIES = {"numpy", "cupy", "torch", "jax", "array_api_strict", "array_api_compat"}
HOST_NUMPY = {"averages", "checks", "cli", "random", "initializers", "datasets", "loop", "state", "evaluation",
              "ensemble", "inputs", "interchange", "many", "model", "plotting", "inspection", "explanation", "comparison",
              "gradients", "playground", "settings", "sklearn", "sources", "weights", "checkpoint", "packing", "run",
              "tensorfile", "reporting", "distributed", "ranks"}  # fmt: skip
LONG = {
    "model",
    "layers/activations",
    "layers/recurrent",
    "schedules",
}  # up to 540 lines, many of them docstrings; other modules up to 310
BASES = {
    "Layer",
    "Container",
    "Wrapper",
    "DropoutBase",
    "Recurrent",
    "Callback",
    "Backend",
    "Settings",
}  # not abstract
MODULES = sorted(path.relative_to(PACKAGE).with_suffix("").as_posix() for path in PACKAGE.rglob("*.py"))


def imports(module):
    """Yield (name, whether inside a function) for every import of a module."""
    tree = ast.parse((PACKAGE / f"{module}.py").read_text(encoding="utf-8"))
    inside = {n for f in ast.walk(tree) if isinstance(f, (ast.FunctionDef, ast.Lambda)) for n in ast.walk(f)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node in inside) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module == "xpnet":
            yield from ((f"xpnet.{alias.name}", node in inside) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module, node in inside


def rung(part):
    return next(i for i, names in enumerate(LADDER) if part in names)


@pytest.mark.parametrize("module", MODULES)
def test_imports_run_downwards_and_stand_at_the_top(module):
    part = module.split("/")[0]
    for name, inside_function in imports(module):
        assert not inside_function, f"{module} imports {name} inside a function"
        if name.startswith("xpnet."):
            assert rung(name.split(".")[1]) <= rung(part), f"{module} imports {name}, which stands above it"


@pytest.mark.parametrize("module", [m for m in MODULES if not m.startswith("backend/")])
def test_only_the_backend_knows_an_array_library(module):
    known = {name.split(".")[0] for name, _ in imports(module)} & LIBRARIES
    host_side = any(module == name or module.startswith(name + "/") for name in HOST_NUMPY)

    assert known <= ({"numpy"} if host_side else set())


def test_import_brings_no_optional_package():
    code = """
import sys, xpnet
optional = {"cupy", "torch", "jax", "array_api_strict", "matplotlib", "sklearn", "scipy", "PIL", "safetensors",
            "xpnet.checkpoint", "xpnet.inspection", "xpnet.tables",
            "mpi4py", "onnx", "onnxruntime", "h5py", "keras", "tensorboard", "zarr", "pandas", "polars", "pyarrow"}
print(sorted(optional & set(sys.modules)))
"""
    done = run("-c", code)

    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("path", [*PACKAGE.rglob("*.py"), *(ROOT / "tests").glob("*.py")], ids=lambda path: path.stem)
def test_private_names_are_used_where_they_are_defined(path):
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    methods = {node.name for node in nodes if isinstance(node, ast.FunctionDef)}
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module.startswith("xpnet"):
            assert not [alias.name for alias in node.names if alias.name.startswith("_")], node.module
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and PACKAGE in path.parents:
            private = node.attr.startswith("_") and not node.attr.endswith("__")
            assert not private or node.value.id in ("self", "cls") or node.attr in methods, ast.unparse(node)


@pytest.mark.parametrize("module", [m for m in MODULES if not m.startswith("backend/")])
def test_a_class_is_a_base_or_final(module):
    """No class overrides a method that another class computes with. Shared code is in a base class or in a function."""
    members = vars(importlib.import_module(f"xpnet.{module.replace('/', '.')}")).values()
    for cls in (member for member in members if inspect.isclass(member)):
        for base in cls.__bases__:
            if base.__module__.startswith("xpnet") and not base.__name__.startswith("_"):
                assert inspect.isabstract(base) or base.__name__ in BASES, f"{cls.__name__} is a {base.__name__}"


@pytest.mark.parametrize("module", [m for m in MODULES if not m.endswith("__")])
def test_its_tests_are_found_by_its_name(module):
    part, _, name = module.rpartition("/")
    names = [name, part] if part in TESTED_TOGETHER else [name]

    assert any([*(ROOT / "tests").glob(f"test_{name}*.py")] for name in names)


@pytest.mark.parametrize("module", MODULES)
def test_modules_are_short(module):
    lines = (PACKAGE / f"{module}.py").read_text(encoding="utf-8").splitlines()

    assert len(lines) <= (540 if module in LONG else 310)
