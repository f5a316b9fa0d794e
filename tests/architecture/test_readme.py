"""The README's map is the territory, and its commands are the ones that CI runs."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
NOT_MAPPED = {"__pycache__", "migrations"}


def folders_in_readme() -> set[str]:
    """Paths of the tree, from its indentation."""
    block = README.split("src/mooring/ ", 1)[1].split("```", 1)[0]
    found, stack = {"src/mooring"}, ["src/mooring"]
    for line in block.splitlines()[1:]:
        indent, name = re.match(r"( *)(\w+)/", line).groups()  # type: ignore[union-attr]
        stack[len(indent) // 2 :] = [name]
        found.add("/".join(stack))
    return found


def test_the_tree_in_the_readme_is_the_one_on_disk() -> None:
    on_disk = {"src/mooring", "tests", "benchmarks", "tools", "docs"} | {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "src/mooring").rglob("*/")
        if path.is_dir() and not NOT_MAPPED & set(path.parts)
    }
    assert folders_in_readme() == on_disk


def test_every_link_in_the_docs_leads_somewhere() -> None:
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), f"{page}: {target}"


def test_every_document_that_the_code_cites_exists() -> None:
    for source in (ROOT / "src").rglob("*.py"):
        for cited in re.findall(r"docs/[\w./-]+\.md", source.read_text("utf-8")):
            assert (ROOT / cited).exists(), f"{source}: {cited}"


def test_no_module_outgrows_its_reader() -> None:
    long = {
        path.relative_to(ROOT).as_posix(): lines
        for path in (ROOT / "src").rglob("*.py")
        if (lines := path.read_text("utf-8").count("\n")) > 400
    }
    assert long == {}
