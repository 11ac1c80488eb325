"""The faults that `make mutants` plants are of the sources as they are."""

import sys

from commands import ROOT

sys.path.append(str(ROOT / "mutants"))
from faults import FAULTS

SOURCES = ROOT / "src" / "ddpm"


def test_every_fault_can_be_planted_in_one_place():
    strange = [fault for fault in FAULTS if (SOURCES / fault.file).read_text().count(fault.old) != 1]
    assert not strange


def test_every_fault_names_tests_that_there_are():
    def exists(test):
        file, _, name = test.partition("::")
        return (path := ROOT / "tests" / file).is_file() and f"def {name}(" * bool(name) in path.read_text()

    assert not {test for fault in FAULTS for test in fault.tests if not exists(test)}
