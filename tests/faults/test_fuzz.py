"""Files of strangers, made by seed: each is answered or refused in one line."""

from pathlib import Path

import pytest

from tests.faults.fuzz import KINDS, fuzz
from tests.faults.harness import COUNTS, FULL
from tests.faults.strangers import Good

COUNT, SEEDS = (1000, (0, 1, 2)) if FULL else (66, (0,))


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Good:
    return Good(tmp_path_factory.mktemp("fuzz"))


@pytest.mark.parametrize("seed", SEEDS)
def test_files_of_strangers(seed: int, good: Good) -> None:
    found = fuzz(good, seed, COUNT)
    assert not found.faults, "\n".join(found.faults)
    assert found.counts.total() == COUNT
    assert {what.rpartition(" ")[0] for what in found.counts} == set(KINDS)
    for what, times in found.counts.items():
        COUNTS[f"strangers' files {what.rpartition(' ')[2]}"] += times


def test_the_good_files_are_answered(good: Good, tmp_path: Path) -> None:
    """Else all refusals would prove nothing."""
    import convit
    from convit_onnx import OnnxClassifier
    from tests.faults.strangers import by_command, predicts

    predicts(convit.load(good.run))
    (tmp_path / "a.onnx").write_bytes(good.onnx)
    predicts(OnnxClassifier(tmp_path / "a.onnx"))
    by_command("train", "--resume", good.run, "--device", "cpu")
