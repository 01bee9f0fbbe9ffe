"""What may depend on what, what may stand where, and under which licenses: DESIGN's rules, read from the source."""

import ast
import importlib.metadata as metadata
import re
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("flip", "models", "datamodules")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

TOP_LEVEL = {
    "conf", "flip", "models", "datamodules", "tests", "pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md",
    "CONTRIBUTING.md", "SECURITY.md", "CITATION.cff", "Makefile", "constraints.txt",
}  # fmt: skip
UNSAFE_MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "marshal", "shelve", "joblib", "jsonpickle"}
UNSAFE_CALLS = {"eval", "exec", "os.system", "os.popen", "yaml.load", "yaml.unsafe_load", "torch.hub.load"}
UNSAFE_KEYWORDS = {"allow_pickle": True, "shell": True, "weights_only": False}
MACHINE_PATH = re.compile(r"""(?<![\w.~/}*-])/(?:home|root|Users|work|mnt|media|opt)/\w""")


@cache
def trees() -> tuple[tuple[Path, ast.Module], ...]:
    """Each source file of the three packages, relative to the root, with its syntax tree."""
    return tuple((path.relative_to(ROOT), ast.parse(path.read_text(), str(path))) for path in SOURCES)


@cache
def imported(tree: ast.AST) -> set[str]:
    """The dotted names that a piece of code imports, wherever in it."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def packages(names: set[str]) -> set[str]:
    """The first parts of dotted names."""
    return {name.partition(".")[0] for name in names}


def at_import(tree: ast.Module) -> set[str]:
    """What is imported when the module is: not in a function, nor for the type checker alone."""
    names, rest = set(), list(tree.body)
    while rest:
        node = rest.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            rest += node.orelse
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= imported(node)
        else:
            rest += [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt | ast.excepthandler)]
    return names


def repository_files() -> list[str]:
    """The files that are, or would be, committed."""
    command = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout: nothing says which files belong to the repository")
    return [name for name in listed if (ROOT / name).is_file()]


# Directions: the packages of `flip` in the order in which a study flows through them. Each may import those of the
# lines above its own; the ground files may also import each other.
ORDER = (
    {"errors", "files", "imports", "processes", "signals", "determinism", "numerics", "contracts", "metrics", "text",
     "version"},
    {"messages"},
    {"strategies", "privacy", "tracking"},
    {"config"},
    {"runs", "site"},
    {"coordinator", "report"},
    {"federation", "export"},
    {"cli"},
    {"deploy"},
    {"__main__"},
    {""},  # `flip` itself: what a notebook imports, whose two calls load the rest when they are made
)  # fmt: skip


@cache
def import_graph() -> dict[str, set[str]]:
    """Each module of the three packages with those that it imports, wherever in its code."""
    modules = {".".join(path.with_suffix("").parts).removesuffix(".__init__"): tree for path, tree in trees()}
    graph: dict[str, set[str]] = {}
    for module, tree in modules.items():
        names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        for node in (each for each in ast.walk(tree) if isinstance(each, ast.ImportFrom) and each.module):
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= inner & set(modules) or {str(node.module)}
        graph[module] = names & set(modules) - {module}
    return graph


def package_of(module: str) -> str:
    """The package, or file, of the engine that a module belongs to."""
    return module.split(".")[1] if "." in module else ""


def test_each_package_of_the_engine_imports_those_before_it_alone() -> None:
    rank = {package: place for place, line in enumerate(ORDER) for package in line}
    wrong = []
    for module, others in import_graph().items():
        own = package_of(module)
        if module.split(".")[0] == "flip":
            later = {
                other for other in others if rank[package_of(other)] >= max(rank[own], 1) and package_of(other) != own
            }
            wrong += [f"{module} -> {other}" for other in sorted(later)]
    assert wrong == []


def test_no_files_import_each_other_in_a_circle() -> None:
    graph = import_graph()
    while leaves := {name for name, others in graph.items() if not others & set(graph)}:
        graph = {name: others for name, others in graph.items() if name not in leaves}
    while tops := set(graph) - set().union(*graph.values()):
        graph = {name: others for name, others in graph.items() if name not in tops}
    assert sorted(graph) == []


@pytest.mark.parametrize(
    ("package", "others"),
    [("flip", {"models", "datamodules"}), ("models", {"flip", "datamodules"}), ("datamodules", {"flip", "models"})],
)
def test_the_three_packages_do_not_import_each_other(package: str, others: set[str]) -> None:
    wrong = {str(path): names for path, tree in trees() if path.parts[0] == package
             if (names := packages(imported(tree)) & others)}  # fmt: skip
    assert not wrong


@pytest.mark.parametrize(("library", "home"), [("flwr", "flower"), ("nvflare", "nvflare"), ("ray", "flower")])
def test_a_backend_is_imported_in_its_own_folder_alone(library: str, home: str) -> None:
    users = {str(path.parent) for path, tree in trees() if library in packages(imported(tree))}
    assert users <= {f"flip/federation/{home}"}


def test_a_backend_is_loaded_only_by_a_run_that_uses_it() -> None:
    eager = [str(path) for path, tree in trees() if packages(at_import(tree)) & {"flwr", "nvflare", "ray"}]
    assert eager == []


# Hygiene


def test_nothing_stands_beside_the_layout() -> None:
    present = {name.split("/")[0] for name in repository_files()}
    assert {name for name in present if not name.startswith(".")} <= TOP_LEVEL


def test_no_file_is_above_250_lines() -> None:
    lengths = {str(path): len((ROOT / path).read_text().splitlines()) for path, _ in trees()}
    assert {name: lines for name, lines in lengths.items() if lines > 250} == {}


def test_no_function_is_above_40_lines() -> None:
    lengths = {
        f"{path}:{node.name}": (node.end_lineno or node.lineno) - node.lineno + 1
        for path, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert {name: lines for name, lines in lengths.items() if lines > 40} == {}


def test_signatures_of_the_engine_say_any_no_more_often_than_they_did() -> None:
    found = 0
    for function in (node for path, tree in trees() if path.parts[0] == "flip" for node in ast.walk(tree)):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            given = [each.annotation for each in ast.walk(function.args) if isinstance(each, ast.arg)]
            found += sum("Any" in re.findall(r"\w+", ast.unparse(each)) for each in [*given, function.returns] if each)
    assert found <= 155  # parameters and returns; lower it with each that finds its type


def test_no_module_is_called_utils() -> None:
    assert [path for path in SOURCES if path.stem in {"util", "utils", "helpers", "common", "misc"}] == []


def test_no_path_of_a_machine_stands_in_the_repository() -> None:
    found = []
    for name in repository_files():
        try:
            lines = (ROOT / name).read_text().splitlines()
        except UnicodeDecodeError:
            continue
        found += [f"{name}:{at}: {line.strip()}" for at, line in enumerate(lines, 1) if MACHINE_PATH.search(line)]
    assert found == []


def test_nothing_that_a_peer_sends_can_run_as_code() -> None:
    wrong = []
    for path, tree in trees():
        wrong += [f"{path}: import {name}" for name in packages(imported(tree)) & UNSAFE_MODULES]
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            what, keywords = ast.unparse(call.func), {one.arg: ast.unparse(one.value) for one in call.keywords}
            unsafe = [name for name, value in UNSAFE_KEYWORDS.items() if keywords.get(name) == str(value)]
            if what == "torch.load" and keywords.get("weights_only") != "True":
                unsafe.append("without weights_only=True")
            if unsafe or what in UNSAFE_CALLS:
                wrong.append(f"{path}:{call.lineno}: {what} {' '.join(unsafe)}")
    assert wrong == []


# Dependencies


def requirements() -> dict[str, Requirement]:
    """The declared dependencies by canonical name."""
    return {canonicalize_name(one.name): one for one in map(Requirement, PROJECT["dependencies"])}


def used_packages() -> set[str]:
    """The foreign packages that the code imports, or that a `_target_` of the configuration names."""
    names = {name for _, tree in trees() for name in packages(imported(tree))}
    for path in (ROOT / "conf").rglob("*.yaml"):
        names |= packages(set(re.findall(r"^[^#\n]*_target_:\s*[\"']?([\w.]+)", path.read_text(), re.MULTILINE)))
    return names - set(PACKAGES) - set(sys.stdlib_module_names) - {"null"}


@cache
def installed() -> Mapping[str, list[str]]:
    """The distributions that each importable package comes from."""
    return metadata.packages_distributions()


def distributions(package: str) -> set[str]:
    """The canonical names of the distributions that an importable package comes from."""
    return {canonicalize_name(name) for name in installed().get(package, [package])}


def test_each_import_is_a_declared_dependency() -> None:
    undeclared = {package for package in used_packages() if not distributions(package) & set(requirements())}
    assert undeclared <= {"ray"}  # declared as flwr[simulation], which pins the release that it works with


def test_each_declared_dependency_is_imported() -> None:
    used = {name for package in used_packages() for name in distributions(package)}
    assert set(requirements()) - used == set()


def test_each_dependency_is_pinned_within_its_range() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    pins = {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}
    extras = [Requirement(text) for group in PROJECT["optional-dependencies"].values() for text in group]
    wanted = [one for one in (*requirements().values(), *extras) if one.name != PROJECT["name"]]
    assert [str(one) for one in wanted if not one.specifier.contains(pins.get(canonicalize_name(one.name), ""))] == []
    assert pins["torch"] == "2.13.0"  # a newer one, or an open range, may be a CUDA build of several GB


# Licenses: everything that an installation brings is free to use in a hospital's closed product. GPL, AGPL and LGPL are
# refused by name; what remains must be permissive, or MPL-2.0, which asks only that changes to its own files be shown.

PERMISSIVE = re.compile(
    r"MIT|BSD|Apache|ISC|PSF|Python Software Foundation|MPL-2\.0|Mozilla Public License 2|Public Domain", re.IGNORECASE
)
COPYLEFT = re.compile(r"\b[AL]?GPL|GNU (Affero|Lesser|Library|General)|SSPL|EUPL|proprietary", re.IGNORECASE)
REVIEWED: dict[str, str] = {}  # a distribution whose metadata names no license: where it was read, and what it is


def installed_closure() -> dict[str, metadata.Distribution]:
    """Every distribution that the declared dependencies bring on this platform, with the extras that they ask for."""
    found: dict[str, metadata.Distribution] = {}
    seen: set[tuple[str, str]] = set()
    rest = list(requirements().values())
    while rest:
        wanted = rest.pop()
        name = canonicalize_name(wanted.name)
        found.setdefault(name, metadata.distribution(name))
        for extra in {"", *wanted.extras} - {extra for known, extra in seen if known == name}:
            seen.add((name, extra))
            needs = map(Requirement, found[name].requires or [])
            rest += [need for need in needs if need.marker is None or need.marker.evaluate({"extra": extra})]
    return found


def license_of(distribution: metadata.Distribution) -> str:
    """What a distribution's metadata says: the SPDX expression, else the classifiers, else a text's first line."""
    about = distribution.metadata
    if expression := about.get("License-Expression"):
        return expression
    named = [one.split("::")[-1].strip() for one in about.get_all("Classifier") or [] if one.startswith("License ::")]
    text = (about.get("License") or "").strip().partition("\n")[0]
    return ", ".join(named) or (text if text != "UNKNOWN" else "")


def test_no_dependency_is_under_a_copyleft_license() -> None:
    licenses = {name: REVIEWED.get(name) or license_of(one) for name, one in installed_closure().items()}
    assert len(licenses) > 100  # the closure is read, not an empty list
    assert {name: text for name, text in licenses.items() if COPYLEFT.search(text)} == {}
    assert {name: text for name, text in licenses.items() if not PERMISSIVE.search(text)} == {}


def test_the_reviewed_table_holds_only_what_has_no_license_in_its_metadata() -> None:
    closure = installed_closure()
    assert [name for name in REVIEWED if name not in closure or license_of(closure[name])] == []


def test_the_projects_own_license_is_the_whole_of_apache_2() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert PROJECT["license"] == "Apache-2.0"
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text
