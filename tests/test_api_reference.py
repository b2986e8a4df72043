"""The API reference is built from docstrings, and says so when it cannot be."""

from __future__ import annotations

from pathlib import Path

import facerecon_rt
import pytest

from tests.conftest import build_api

ROOT = Path(__file__).parents[1]


def test_the_reference_is_built_without_a_warning(api_reference: Path) -> None:
    page = (api_reference / "facerecon_rt.html").read_text()
    for name in facerecon_rt.__all__:
        assert f'id="{name}"' in page, name
    assert "jaw points lie on the visible" in page.lower()
    for package in ("facerecon_rt", "facerecon_export"):
        code = next(ROOT.glob(f"*/{package}"))
        for module in code.rglob("*.py"):
            if not module.name.startswith("_"):
                assert (api_reference / module.relative_to(code.parent)).with_suffix(".html").is_file(), module
    assert not (api_reference / "facerecon_training.html").exists()


@pytest.mark.parametrize(
    ("module", "said"),
    [
        ('"""As `nowhere.thing` of others, `lacking.there` of ours."""\n', None),
        ('"""See `lacking.gone`."""\n', "lacking says `lacking.gone`, which does not exist"),
        ('"""A `Gone` is."""\n', "lacking says `Gone`, which does not exist"),
        ('"""It is."""\n\ndef there() -> "Gone":\n    """It."""\n', "name 'Gone' is not defined"),
        ('"""It is."""\nimport gone\n', "No module named 'gone'"),
    ],
)
def test_what_leads_nowhere_ends_it(tmp_path: Path, module: str, said: str | None) -> None:
    package = tmp_path / "made"
    package.mkdir()
    (package / "__init__.py").write_text('"""Made for the test."""\n')
    (package / "lacking.py").write_text(module + ("" if "def there" in module else "\nthere = 1\n"))
    done = build_api(tmp_path / "api", "made")
    if said is None:
        assert (done.returncode, done.stderr) == (0, "")
    else:
        assert done.returncode == 1
        assert said in done.stderr
