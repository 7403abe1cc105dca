"""Progress: bars on a terminal, lines elsewhere, silence if asked; failures always."""

import logging
from io import StringIO

import pytest
from rich.console import Console

from geosweep.pipeline import progress as module
from geosweep.pipeline.commit import SceneOutcome
from geosweep.pipeline.progress import RunProgress

DONE = SceneOutcome("a", "succeeded", {}, {})
FAILED = SceneOutcome("b", "failed", {}, {}, "cut short")


def show(*, terminal, show=True, total=2, outcomes=(DONE, FAILED)):
    text = StringIO()
    console = Console(file=text, force_terminal=terminal, width=140)
    with RunProgress(total, show=show, console=console) as progress:
        progress.on_windows(12, 34)
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
    assert "34 detections" in text
    assert lines(logging.INFO) == []


def test_lines_elsewhere_and_not_too_many(lines, monkeypatch):
    assert show(terminal=False) == ""
    assert lines(logging.INFO) == []
    monkeypatch.setattr(module, "LINE_EVERY_SECONDS", 0.0)
    assert show(terminal=False) == ""
    said = lines(logging.INFO)
    assert len(said) == 3
    assert said[-1].startswith("2 of 2 scenes, 12 windows (")
    assert said[-1].endswith("/s), 34 detections")


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
