"""Build the site as `make docs` does, and look every public name up in it."""

import shutil
import subprocess
import sysconfig
import tomllib
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
REFERENCE = {
    "backbone": "backbone",
    "deltamem_agents": "agents",
    "deltamem_agents.archive": "archive",
    "deltamem_agents.policy": "policy",
}


def pages(entries: Any) -> set[str]:
    """Return the files that a navigation names."""
    if isinstance(entries, str):
        return {entries}
    parts = entries if isinstance(entries, list) else entries.values()
    return set().union(*(pages(part) for part in parts))


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build every page, with warnings as errors."""
    folder = tmp_path_factory.mktemp("site")
    # Settings and pages are copied: where links lead is what would be built.
    shutil.copytree(ROOT / "docs", folder / "docs")
    shutil.copy(ROOT / "zensical.toml", folder)
    for name in ("backbone", "deltamem_agents"):
        (folder / name).symlink_to(ROOT / name)
    command = [f"{sysconfig.get_path('scripts')}/zensical", "build", "--strict", "--clean"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "site"


def test_every_page_is_in_the_navigation() -> None:
    """A page that no menu names would not be found."""
    nav = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))["project"]["nav"]
    assert pages(nav) == {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}


def test_the_site_has_every_page(site: Path) -> None:
    """Each Markdown file became a page."""
    for page in (ROOT / "docs").rglob("*.md"):
        assert (site / page.relative_to(ROOT / "docs")).with_suffix(".html").is_file()


@pytest.mark.parametrize("package", REFERENCE)
def test_the_reference_has_every_public_name(site: Path, package: str) -> None:
    """Each exported name has an entry; errors are described once, where they are defined."""
    text = (site / "reference" / f"{REFERENCE[package]}.html").read_text(encoding="utf-8")
    module = import_module(package)
    own = [name for name in module.__all__ if getattr(module, name).__module__.startswith(package)]
    assert [name for name in own if f'id="{package}.{name}"' not in text] == []
