"""Killed or stopped at random moments, a run ends as the one that was left alone, to the bit."""

import re
import shutil
import signal
import time
from pathlib import Path

import pytest

from tests.faults.harness import (
    COUNTS,
    FULL,
    SHORT,
    Ended,
    Whole,
    broken_off,
    command,
    moments,
    said_by,
    started,
    train_arguments,
)

KILLS = 30 if FULL else 2
FOLD_KILLS = 10 if FULL else 2
STOPS = 5 if FULL else 1
SIGNALS = [signal.SIGTERM, signal.SIGINT]


def test_sigkill_at_random_moments(long: Whole, out: Path) -> None:
    """So many kills of a run that is resumed after each; and of the next such run, where one is done before."""
    kills = 0
    for moment in moments(1, 0.0, long.training):
        got = broken_off(*long.arguments(out), after=moment, signum=signal.SIGKILL)
        assert got.status in (0, 137), got.said
        kills += got.status == 137
        if got.status == 0 or kills == KILLS:
            long.goes_on(out, forked=not FULL)
        if kills == KILLS:
            break
    COUNTS["kills at random moments"] += kills


def test_sigkill_of_the_main_process_alone(long: Whole, out: Path) -> None:
    """The process that loads its images lives for some seconds more; the run goes on at once, without it."""
    with started(*long.arguments(out)) as process:
        while "epoch 1/" not in said_by(process):
            assert process.poll() is None, said_by(process)
            time.sleep(0.005)
        process.send_signal(signal.SIGSTOP)
        busy = long.forks(*long.arguments(out))
        assert busy.status == 2
        assert re.search(rf"another process \(pid {process.pid} on .*\) trains in {out}; expected its end", busy.said)
        process.kill()
        process.wait()
        long.goes_on(out)
    COUNTS["kills of the main process alone"] += 1


@pytest.mark.parametrize("signum", SIGNALS if FULL else SIGNALS[:1])
def test_stopped_at_random_moments(signum: int, long: Whole, out: Path) -> None:
    """Each start is stopped once, be it in the training, the evaluation or the plots."""
    for _, moment in zip(range(STOPS), moments(signum, 0.0, long.training), strict=False):
        got = broken_off(*long.arguments(out), after=moment, signum=signum)
        _assert_stopped(got, signum)
    long.goes_on(out, forked=not FULL)


def test_sigkill_of_five_folds(data: Path, out: Path, tmp_path: Path) -> None:
    """Killed in whichever fold it is, and resumed until all five are done: weights, predictions and means are equal.
    Where they are done before so many kills, it begins again."""
    whole, kills = tmp_path / "whole", 0
    left_alone = command(*train_arguments(data, whole, SHORT, "--folds", "5"))
    assert left_alone.status == 0, left_alone.said
    names = ["folds.json", "out-of-fold.csv", *(f"fold-{number}/model.safetensors" for number in range(1, 6))]
    for moment in moments(5, 0.0, left_alone.seconds / 2):
        got = broken_off(*train_arguments(data, out, SHORT, "--folds", "5"), after=moment, signum=signal.SIGKILL)
        assert got.status in (0, 137), got.said
        kills += got.status == 137
        if kills == FOLD_KILLS:
            got = command(*train_arguments(data, out, SHORT, "--folds", "5"))
            assert got.status == 0, got.said
        if got.status == 0:
            assert [name for name in names if (out / name).read_bytes() != (whole / name).read_bytes()] == []
            shutil.rmtree(out)
        if kills == FOLD_KILLS:
            break
    COUNTS["kills of five folds"] += kills


@pytest.mark.skipif(not FULL, reason="in the full form: make fault-tests")
@pytest.mark.parametrize("signum", SIGNALS)
def test_stopped_before_it_trains(signum: int, long: Whole, out: Path) -> None:
    """In the imports and the scan there is nothing to save; the same command begins again."""
    for moment in (0.5, 1.5, 2.5, 3.5):
        got = broken_off(*long.arguments(out), after=moment, signum=signum, first_line=False)
        _assert_stopped(got, signum)
    long.goes_on(out)


def _assert_stopped(got: Ended, signum: int) -> None:
    """The status of the signal; in training, the state saved and how to go on. Or the run was done by then."""
    assert got.status in (0, 128 + signum), got.said
    assert "Traceback" not in got.said
    begun, done = re.search("parameters, on|resuming after", got.said), "best epoch" in got.said
    if got.status and begun and not done:
        assert f"stopped by {signal.Signals(signum).name}; the state is saved in" in got.said
        assert "--resume" in got.said
    COUNTS[f"stops by {signal.Signals(signum).name}"] += got.status != 0
