"""The house: imports point down, and each library has its one door."""

import ast
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("storage", "cluster", "api")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
LINES_MAX = 800


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


def tops(path: Path) -> set[str]:
    return {name.partition(".")[0] for name in imports(path)}


def package(path: Path) -> str:
    return path.relative_to(ROOT).parts[0]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path: Path) -> None:
    above = PACKAGES[PACKAGES.index(package(path)) + 1 :]
    assert not tops(path) & set(above)
    assert "tests" not in tops(path)
    assert len(path.read_text().splitlines()) <= LINES_MAX


@pytest.mark.parametrize(
    ("library", "homes"),
    [
        ("lmdb", {"storage/lmdb_store.py", "storage/lmdb_tables.py"}),
        ("pysyncobj", {"cluster/seams.py"}),
    ],
)
def test_a_library_has_one_door(library: str, homes: set[str]) -> None:
    assert {str(path.relative_to(ROOT)) for path in SOURCES if library in tops(path)} <= homes


def test_http_is_seen_only_in_api() -> None:
    assert {package(path) for path in SOURCES if "aiohttp" in tops(path)} == {"api"}


def test_every_folder_of_sources_is_packaged() -> None:
    folders = {".".join(path.relative_to(ROOT).parent.parts) for path in SOURCES}
    packaged = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    assert folders == set(packaged)


def test_what_tests_are_held_against_has_its_types_checked() -> None:
    checks = {
        f"tests.{path.parent.name}.{path.stem}"
        for folder in ("storage", "cluster")
        for path in (ROOT / "tests" / folder).glob("*.py")
        if not path.stem.startswith(("test_", "__", "conftest"))
    }
    assert checks <= set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mypy"]["modules"])


def test_nothing_is_unpickled() -> None:
    assert not [path for path in SOURCES if {"pickle", "marshal", "shelve"} & tops(path)]


@pytest.mark.parametrize("path", sorted((ROOT / "tests").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_tests_wait_on_conditions_and_never_sleep(path: Path) -> None:
    calls = {
        ast.unparse(node.func)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and not (node.args and ast.unparse(node.args[0]) in ("POLL_S", "0"))
    }
    assert not calls & {"time.sleep", "asyncio.sleep", "sleep"}
