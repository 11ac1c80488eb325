import pytest

from ddpm.report import page


@pytest.fixture
def undrawn(monkeypatch):
    """Reports have no curves, which take most of the time."""
    monkeypatch.setattr(page.curves, "plots", lambda lines: [])
