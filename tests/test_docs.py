"""What the documents say about the code is what the code says."""

import re
from pathlib import Path

import pytest

from tfft import recipe, training
from tfft.cleaning import CLEANERS
from tfft.defaults import FROZEN, THAWED
from tfft.heads import POOLINGS
from tfft.recipe import CLEANING, POOLING
from tfft.tasks import TASKS, get_task

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("page", ["docs/training.md", "docs/zh/training.md"])
def test_the_table_of_defaults_is_the_codes(page: str) -> None:
    text = (ROOT / page).read_text("utf-8")
    rows = re.findall(r"^\| `--([a-z-]+)` \| ([^|]+) \| ([^|]+) \| [^|]{9,} \|$", text, flags=re.MULTILINE)
    table = {name.replace("-", "_"): (frozen.strip(), thawed.strip()) for name, frozen, thawed in rows}
    assert table == {name: (f"{FROZEN[name]}", f"{THAWED[name]}") for name in FROZEN}


def test_the_recipes_lists_are_the_codes() -> None:
    assert [*CLEANERS] == [*CLEANING]
    assert [*POOLING] == ["trained", *POOLINGS]
    assert recipe.DECAYS == training.DECAYS
    assert {*recipe.OPTIONS} == {name for task in TASKS for name in get_task(task).options}


@pytest.mark.parametrize(
    "page", [*sorted(path.relative_to(ROOT) for path in ROOT.glob("docs/**/*.md")), "README.md", "README.zh-CN.md"]
)
def test_links_lead_somewhere(page: Path | str) -> None:
    path = ROOT / page
    for target in re.findall(r"\]\(([^)#]+)\)", path.read_text("utf-8")):
        assert (path.parent / target).exists(), f"{page}: {target}"


def test_no_path_of_a_machine_and_no_placeholder_is_left() -> None:
    for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]:
        text = path.read_text("utf-8")
        assert not re.search(r"/(work|root|home)/[a-z]", text), path
        assert not re.search(r"@[A-Z]{4,}@", text), path
