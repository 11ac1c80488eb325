"""A sweep's records say of each cell what it was asked and how it ended."""

from dataclasses import asdict

import pytest

from ddpm.runs import records


def test_written_and_read_again(tmp_path):
    cell = records.Cell(tmp_path / "002_seed-3", ["seed=3", "max_steps=4"], ["seed=3"], "failed", "no memory", 1.5)
    cell.write()
    assert asdict(records.of(cell.folder)) == asdict(cell)
    assert (cell.name, cell.number, cell.log) == ("seed=3", 2, tmp_path / "002_seed-3.log")
    assert records.of(tmp_path / "003_seed-4") is None


def test_cells_are_in_the_order_of_their_numbers(tmp_path):
    for name in ("10_c", "9_b", "000_a"):
        records.Cell(tmp_path / name, []).write()
    (tmp_path / records.PLAN).write_text('{"overrides": ["seed=1,2"], "varying": ["seed"]}')
    assert [cell.folder.name for cell in records.within(tmp_path)] == ["000_a", "9_b", "10_c"]
    assert records.plan(tmp_path) == {"overrides": ["seed=1,2"], "varying": ["seed"]}


def test_a_damaged_record_is_named(tmp_path):
    (tmp_path / "000_a.json").write_text('{"overrides": [], "unheard of": 1}')
    with pytest.raises(ValueError, match=r"000_a\.json is not a sweep's record"):
        records.within(tmp_path)
