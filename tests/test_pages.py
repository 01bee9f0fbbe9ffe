"""What the pages, the YAML comments and the docstrings claim, as far as it can be checked: files and names that they
name exist, tables are complete, pictures and words are as agreed. Commands and keys: `test_shown_commands.py`."""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import yaml

from flip.contracts import hooks
from flip.messages import Fault, Withheld
from flip.version import __version__
from tests.test_layout import ORDER, ROOT, repository_files

FILES = [ROOT / name for name in sorted(repository_files()) if not name.startswith("tests/") or name.endswith(".md")]
PAGES = {path: path.read_text(encoding="utf-8") for path in FILES if path.suffix == ".md"}
README = PAGES[ROOT / "README.md"]
WRITTEN = {
    path: path.read_text(encoding="utf-8")
    for path in FILES
    if (path.suffix in {".md", ".yaml", ".py", ".j2"} or path.name == "Makefile") and path.name != "CHANGELOG.md"
}  # a changelog also names what is gone
EXPERIMENTS = sorted(path.stem for path in (ROOT / "conf" / "experiment").glob("*.yaml"))
GROUPS = sorted(path.name for path in (ROOT / "conf").iterdir() if path.is_dir())


def short(path: Path) -> str:
    """A file's name below the root."""
    return str(path.relative_to(ROOT))


def found_in(pattern: str, texts: dict[Path, str]) -> Iterator[tuple[Path, re.Match[str]]]:
    """Each match of a pattern, with the file that holds it."""
    for path, text in texts.items():
        for match in re.finditer(pattern, text, re.MULTILINE):
            yield path, match


# Files and names


def slugs(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_each_link_of_a_page_leads_somewhere() -> None:
    broken = []
    for page, match in found_in(r"""(?:\]\(|(?:src|href)=")(?!https?:|mailto:)([^)#"]*)(?:#([^)"]*))?[)"]""", PAGES):
        target = (page.parent / match[1]).resolve() if match[1] else page
        if not target.exists() or (match[2] and match[2] not in slugs(PAGES[target])):
            broken.append(f"{short(page)}: {match[0]}")
    assert broken == []


def test_each_path_of_the_repository_that_is_written_down_exists() -> None:
    roots = r"(?<![\w/.<-])(?:flip|conf|models|datamodules|tests|\.ci|\.github)/[\w.*/-]*[\w*/]"
    missing = {
        f"{short(path)}: {match[0]}"
        for path, match in found_in(roots, WRITTEN)
        if not re.search(r"[A-Z]{2,}\b(?!\.md)", match[0].replace("README", ""))
        and not [*ROOT.glob(match[0].rstrip("/"))]
    }
    assert sorted(missing) == []


def test_each_file_that_a_folders_page_names_lies_in_that_folder() -> None:
    names = r"`((?:\w+/)*\w[\w*]*\.(?:py|j2))`"
    missing = [
        f"{short(page)}: {match[1]}"
        for page, match in found_in(names, PAGES)
        if not [*page.parent.glob(match[1])] and not [*ROOT.glob(match[1])] and match[1] != "utils.py"
    ]
    assert missing == []


@cache
def defined(module: Path) -> str:
    """The source of a module or a package."""
    return (module / "__init__.py" if module.is_dir() else module.with_suffix(".py")).read_text(encoding="utf-8")


def is_there(name: str) -> bool:
    """Whether a dotted name is a module of ours, or a name in one that its source holds as a word of its own."""
    place, *rest = ROOT, *name.split(".")
    while rest and ((place / rest[0]).is_dir() or (place / rest[0]).with_suffix(".py").is_file()):
        place, rest = place / rest[0], rest[1:]
    return place != ROOT and (not rest or re.search(rf"\b{rest[0]}\b", defined(place)) is not None)


def test_each_dotted_name_of_the_code_that_is_written_down_exists() -> None:
    names = r"(?<![\w./@-])(?:flip|models|datamodules)(?:\.[A-Za-z]\w*)+(?![\w/*]|\.\w)"
    missing = {
        f"{short(path)}: {match[0]}"
        for path, match in found_in(names, WRITTEN)
        if not is_there(match[0]) and not re.search(r"\.(py|md|yaml|log)$|\.example\.|\.x\.|[A-Z]{2,}$", match[0])
    }
    assert sorted(missing) == []


# Tables, the map, the pictures, the words


def test_the_readme_has_every_experiment_in_its_table() -> None:
    assert [name for name in EXPERIMENTS if f"| `{name}` |" not in README] == []


def test_the_page_on_configuration_has_every_group() -> None:
    page = PAGES[ROOT / "conf" / "README.md"]
    assert [group for group in GROUPS if f"`{group}`" not in page] == []


def test_the_page_on_backends_explains_every_fault_and_every_rule_of_withholding() -> None:
    page = PAGES[ROOT / "flip" / "federation" / "README.md"]
    assert [each.name for each in (*Fault, *Withheld) if f"`{each.name}`" not in page] == []


@pytest.mark.parametrize(("folder", "kind"), [("datamodules", "dataset"), ("models", "model")])
def test_the_page_on_a_kind_of_class_names_everything_that_the_engine_asks_of_it(folder: str, kind: str) -> None:
    page = PAGES[ROOT / folder / "README.md"]
    assert [name for name in sorted(hooks(kind)) if f"`{name}" not in page] == []


def test_the_contributors_map_is_the_order_of_imports_that_is_tested() -> None:
    page = PAGES[ROOT / "CONTRIBUTING.md"]
    (drawn,) = re.findall(r"^ {4}(errors .*(?:\n {4}.*)*)", page, re.MULTILINE)
    lines = [set(re.findall(r"\w+", line)) for line in drawn.split("->")]
    entries = {"measure", "__main__", ""}  # files and the package itself, that hold no step of a study
    assert lines == [line - entries for line in ORDER if line - entries]


def test_the_readme_can_be_read_in_one_go() -> None:
    assert len(README.splitlines()) <= 165


def test_the_readmes_study_fits_beside_its_report() -> None:
    (study,) = re.findall(r"```yaml\n(# @package _global_\n.*?)```", README, re.DOTALL)
    assert len(study.splitlines()) <= 15


def test_the_pictures_are_small_and_each_is_shown() -> None:
    pictures = [path for path in FILES if path.suffix == ".png"]
    assert len(pictures) == 2
    assert [short(path) for path in pictures if path.stat().st_size > 200_000 or short(path) not in README] == []


def test_continuous_integration_runs_all_checks() -> None:
    steps = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]["checks"]["steps"]
    assert [step["run"] for step in steps if (ROOT / step.get("run", "-")).is_file()] == [".ci/run"]


def test_the_citation_is_of_this_version() -> None:
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == __version__


def test_pages_and_comments_are_in_plain_english() -> None:
    words = r"\b(?:mends?|mended|comes? home|came home|what becomes of|tells of|is told)\b"
    found = [f"{short(path)}: {match[0]}" for path, match in found_in(words, WRITTEN) if path.suffix != ".py"]
    assert found == []
