"""Progress: bars on a terminal, lines elsewhere, silence if asked; failures always."""

import json
import logging
from io import StringIO

import pytest
from rich.console import Console

from geosweep.catalog.errors import JobError
from geosweep.pipeline import progress as module
from geosweep.pipeline.activity import Activity
from geosweep.pipeline.commit import SceneOutcome
from geosweep.pipeline.progress import FollowedLog, RunNumbers, RunProgress

ACTIVITY = Activity(12, 34, 5, 2 * 10**9, 10**9, 3.0, 4.0, {"readers": 1, "detectors": 0})
DONE = SceneOutcome("a", "succeeded", {}, {})
FAILED = SceneOutcome("b", "failed", {}, {}, "cut short")


def show(*, terminal, show=True, total=2, outcomes=(DONE, FAILED)):
    text = StringIO()
    console = Console(file=text, force_terminal=terminal, width=140)
    with RunProgress(total, show=show, console=console) as progress:
        progress.on_activity(ACTIVITY)
        for outcome in outcomes:
            progress.on_scene(outcome)
    return text.getvalue()


@pytest.fixture
def lines(caplog):
    caplog.set_level(logging.INFO, logger="geosweep")
    return lambda level: [r.getMessage() for r in caplog.records if r.levelno == level]


def test_bars_on_a_terminal_end_complete(lines):
    text = show(terminal=True)
    assert "sweeping" in text
    assert "2/2" in text
    assert "12 windows" in text
    assert "34 detections, 5 crops" in text
    assert "detectors 75% busy, 1.000 GB read, 2.000 GB decoded" in text
    assert "queues: readers 1, detectors 0" in text
    assert "0:00:00 left" in text
    assert lines(logging.INFO) == []


def test_lines_elsewhere_and_not_too_many(lines, monkeypatch):
    assert show(terminal=False) == ""
    first_and_last = lines(logging.INFO)
    assert len(first_and_last) == 2
    assert first_and_last[0].startswith("progress: 0 of 2 scenes (0 failed), 0 windows (")
    assert first_and_last[1].startswith(
        "progress: 2 of 2 scenes (1 failed), 0:00:00 left, 12 windows ("
    )
    assert "/s), 34 detections, 5 crops (" in first_and_last[1]
    assert first_and_last[1].endswith(
        "/s), detectors 75% busy, 1.000 GB read, 2.000 GB decoded, queues: readers 1, detectors 0"
    )
    monkeypatch.setattr(module, "LINE_EVERY_SECONDS", 0.0)
    assert show(terminal=False) == ""
    assert len(lines(logging.INFO)) == 2 + 5


def test_lines_as_often_as_the_environment_says(lines, monkeypatch):
    monkeypatch.setenv("GEOSWEEP_PROGRESS_SECONDS", "0")
    show(terminal=False)
    assert len(lines(logging.INFO)) == 5
    monkeypatch.setenv("GEOSWEEP_PROGRESS_SECONDS", "often")
    with pytest.raises(JobError, match="'often'"):
        show(terminal=False)


@pytest.mark.parametrize(
    "last",
    [
        RunNumbers(8, 9, 2, 123_456, 1234.5, 10**7),
        RunNumbers(
            8, 9, 2, 7, 0.1, 5, 6, 0.2, 1.0, 1234.567, 0.001, {"readers": 0, "croppers": 12}
        ),
        RunNumbers(8, 9, 2, 7, 0.1, 5, 6, 0.2, 0.07, 0.5, 0.25, {}, 360_000 + 61),
    ],
)
def test_a_line_gives_its_numbers_back(last):
    first = RunNumbers(1, 9, 0, 5, 0.5, 7, seconds_left=12)
    log = f"detectors: cpu\n{first}\nscene b failed: progress: none\n{last}\nand then more"
    assert RunNumbers.parse(log) == last
    assert json.loads(json.dumps(last.to_dict())) == last.to_dict()
    assert RunNumbers.parse("2 scenes in the plan") is None


def test_a_line_of_an_older_geosweep_is_understood_as_far_as_it_goes():
    line = "progress: 1 of 9 scenes (0 failed), 5 windows (0.5/s), 7 detections"
    assert RunNumbers.parse(line) == RunNumbers(1, 9, 0, 5, 0.5, 7)


def test_time_left_goes_by_this_runs_scenes_alone(monkeypatch):
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr(module.time, "monotonic", lambda: float(next(clock)))
    progress = RunProgress(10, show=False)
    for _ in range(4):
        progress.on_standing()
    assert progress.numbers.seconds_left is None
    progress.on_scene(DONE)
    numbers = progress.numbers
    assert numbers.scenes_done == 5
    elapsed = numbers.seconds_left / 5
    assert elapsed == float(next(clock)) - 10


@pytest.mark.parametrize("terminal", [True, False])
def test_silence_if_asked_but_for_failures(lines, monkeypatch, terminal):
    monkeypatch.setattr(module, "LINE_EVERY_SECONDS", 0.0)
    assert show(terminal=terminal, show=False) == ""
    assert lines(logging.INFO) == []
    assert lines(logging.WARNING) == ["scene b failed: cut short"]


def test_an_error_in_the_run_leaves_the_terminal_in_order():
    text = StringIO()
    console = Console(file=text, force_terminal=True, width=140)
    with pytest.raises(KeyError), RunProgress(1, show=True, console=console):
        raise KeyError
    hidden, shown = "\x1b[?25l", "\x1b[?25h"
    assert text.getvalue().rindex(shown) > text.getvalue().rindex(hidden)


def test_nothing_to_do_is_shown_as_done():
    assert "0/0" in show(terminal=True, total=0, outcomes=())


def test_a_log_that_is_followed_is_shown_whole_with_a_bar():
    text = StringIO()
    console = Console(file=text, force_terminal=True, width=140)
    with FollowedLog(console) as log:
        log.write("detectors: [bold]cpu[/bold]\n")
        log.write(f"{RunNumbers(3, 12, 0, 40, 2.5, 99)}\n")
        log.write("x" * 300 + "\n")
        log.write(f"{RunNumbers(12, 12, 0, 160, 2.5, 400)}\n")
    shown = text.getvalue()
    assert "detectors: [bold]cpu[/bold]" in shown
    assert "x" * 300 in shown
    assert "progress:" not in shown
    assert "12/12" in shown
    assert "160 windows (2.5/s), 400 detections, 0 crops" in shown
