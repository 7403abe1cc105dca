"""What is made of what Ray says about a job; the whole story is in test_submission.py."""

import subprocess
import sys

import pytest
from ray.job_submission import JobDetails

from geosweep.catalog.errors import OutputError
from geosweep.pipeline._bundle import REPORT
from geosweep.pipeline.handle import _exit_code, _readable, _reason
from geosweep.pipeline.reported import reported
from tests.outputs import make_output


def details(status, code=None, message=None):
    return JobDetails(
        type="SUBMISSION",
        entrypoint="python",
        status=status,
        driver_exit_code=code,
        message=message,
    )


@pytest.mark.parametrize(
    ("info", "code"),
    [
        (details("SUCCEEDED", 0), 0),
        (details("FAILED", 1), 1),
        (details("FAILED", 2), 2),
        (details("STOPPED"), 130),
        (details("FAILED"), 3),  # its environment could not be set up, or its node died
        (details("FAILED", -9), 3),
    ],
)
def test_exit_codes_are_those_of_a_run(info, code):
    assert _exit_code(info) == code


@pytest.mark.parametrize(
    ("info", "log", "reason"),
    [
        (details("FAILED", 2), "a\ngeosweep: The model x is gone.\n", "The model x is gone."),
        (details("FAILED", 1), f"failed: a: b\n{REPORT}{{}}\n", "Some scenes failed."),
        (details("FAILED", 1), "Traceback\nKeyError: 'a'\n", "exit code 1: KeyError: 'a'."),
        (
            details("FAILED", None, "Setup failed: pip.\nmore"),
            "",
            "Ray ended it: Setup failed: pip.",
        ),
        (details("FAILED"), "", "it gave no reason."),
    ],
)
def test_the_reason_is_our_sentence_or_else_the_last_word(info, log, reason):
    assert _reason(info, log).endswith(reason)


def test_lines_are_put_together_and_the_report_is_for_programs():
    pieces = ["first\nsec", "ond\n\n", f"{REPORT}{{", '"a": 1}\nla', "st"]
    assert list(_readable(pieces)) == ["first\n", "second\n", "\n", "last"]


REPORTED = {
    "counts": {"detections": 40, "windows_now": 0},
    "failures": [{"scene_id": "broken", "error": "truncated"}],
    "timings": {"wall": 1.0},
    "engine": "ray",
    "devices": ["cpu"],
    "windows_per_second": 0.0,
    "halvings": {"detector paint": {"times": 2, "batch_size": 4}},
}


def test_a_report_is_a_result_with_rows_where_the_output_is_seen(tmp_path):
    result = reported(REPORTED | {"output": str(make_output(tmp_path))})
    assert result.exit_code == 1
    assert result.failures[0].scene_id == "broken"
    assert len(result.to_geopandas()) == 40
    assert result.report() | {"output": ""} == REPORTED | {"output": ""}


def test_reports_from_before_batches_were_halved_are_read(tmp_path):
    older = {key: value for key, value in REPORTED.items() if key != "halvings"}
    result = reported(older | {"output": str(make_output(tmp_path))})
    assert result.report()["halvings"] == {}
    assert result.counts == REPORTED["counts"]


def test_rows_that_are_not_seen_are_an_error_that_says_so(tmp_path):
    result = reported(REPORTED | {"output": str(tmp_path / "elsewhere")})
    assert result.counts["detections"] == 40
    for ask in (result.to_geopandas, result.dataset, result.to_xarray):
        with pytest.raises(OutputError, match="elsewhere can't be read from this machine"):
            ask()


def test_an_image_that_lacks_a_package_is_told_so(tmp_path):
    code = (
        "import sys; sys.modules['rasterio'] = None\n"
        "from geosweep.pipeline.submitted import main; sys.exit(main('job.json'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert "Traceback" not in done.stderr
    assert "geosweep: the cluster's image has no package 'rasterio'" in done.stderr
