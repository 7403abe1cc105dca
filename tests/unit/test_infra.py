"""The schedules in infra/: one command, that exists, and when it is run, tried again and left alone."""

from __future__ import annotations

import configparser
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.docs import ROOT, check_command
from tests.infra import INFRA, KUBERNETES, SECRET, header, of_kind, pods

CRONJOB = KUBERNETES / "update-cronjob.yaml"
RAYCRONJOB = KUBERNETES / "update-raycronjob.yaml"
SERVICE = INFRA / "systemd/geosweep-update.service"
TIMER = INFRA / "systemd/geosweep-update.timer"
CRONTAB = INFRA / "cron/geosweep-update.crontab"
COMMAND = ["geosweep", "update", "/etc/geosweep/job.yaml"]


def unit(path: Path) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, delimiters="=", comment_prefixes="#")
    parser.optionxform = str  # type: ignore[assignment]  # directives have capitals
    parser.read_string(path.read_text())
    return parser


def cron_line() -> str:
    lines = CRONTAB.read_text().splitlines()
    (line,) = [line for line in lines if line and not re.match(r"#|\w+=", line)]
    return line


def commands() -> dict[str, list[str]]:
    """What each schedule runs."""
    (pod,) = pods(CRONJOB)
    (container,) = pod["containers"]
    words = shlex.split(cron_line(), comments=True)
    start = words.index("geosweep")
    return {
        "kubernetes": container["command"] + container.get("args", []),
        "kuberay": shlex.split(
            of_kind(RAYCRONJOB, "RayCronJob")["spec"]["jobTemplate"]["entrypoint"]
        ),
        "systemd": shlex.split(unit(SERVICE)["Service"]["ExecStart"]),
        "cron": words[start : words.index(">>", start)],
    }


def is_cron(expression: str) -> bool:
    """Whether five fields hold numbers in range, ``*``, ranges, steps and lists of them."""
    fields = expression.split()
    limits = [(0, 59), (0, 23), (1, 31), (1, 12), (0, 7)]
    return len(fields) == len(limits) and all(
        (part := re.fullmatch(r"(?:\*|(\d+)(?:-(\d+))?)(?:/([1-9]\d*))?", text)) is not None
        and all(low <= int(number) <= high for number in part.groups()[:2] if number)
        and (not part[2] or int(part[1]) <= int(part[2]))
        for field, (low, high) in zip(fields, limits, strict=True)
        for text in field.split(",")
    )


@pytest.mark.parametrize("schedule", ["kubernetes", "kuberay", "systemd", "cron"])
def test_schedules_run_the_same_command_which_exists(schedule):
    words = commands()[schedule]
    assert words[:3] == COMMAND
    assert words[3:] == (["--engine", "ray", "--address", "auto"] if schedule == "kuberay" else [])
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert words[0] in scripts
    check_command(words[1:])


def test_the_cronjob_never_overlaps_and_retries_what_a_retry_helps():
    cron = of_kind(CRONJOB, "CronJob")
    assert cron["apiVersion"] == "batch/v1"
    spec = cron["spec"]
    assert is_cron(spec["schedule"])
    assert spec["concurrencyPolicy"] == "Forbid"
    assert spec["startingDeadlineSeconds"] >= 10  # below, the controller may never start it
    assert {"successfulJobsHistoryLimit", "failedJobsHistoryLimit"} <= set(spec)
    job = spec["jobTemplate"]["spec"]
    assert 0 < job["backoffLimit"] < 6
    assert job["activeDeadlineSeconds"] < 24 * 3600
    fail, ignore = job["podFailurePolicy"]["rules"]
    (container,) = job["template"]["spec"]["containers"]
    assert fail["action"] == "FailJob"
    assert fail["onExitCodes"] == {
        "containerName": container["name"],
        "operator": "In",
        "values": [1, 2],
    }
    assert ignore == {
        "action": "Ignore",
        "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
    }
    assert job["template"]["spec"]["restartPolicy"] == "Never"  # podFailurePolicy needs it
    mounted = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert {"/tmp", "/dev/shm", "/scratch"} <= mounted
    assert {entry["value"] for entry in container["env"]} == {"/scratch"}


def test_the_raycronjob_takes_its_cluster_down_and_says_that_it_is_alpha():
    cron = of_kind(RAYCRONJOB, "RayCronJob")
    assert is_cron(cron["spec"]["schedule"])
    job = cron["spec"]["jobTemplate"]
    assert job["shutdownAfterJobFinishes"] is True
    assert job["backoffLimit"] == 0
    assert "ALPHA" in header(RAYCRONJOB) and "no concurrency policy" in header(RAYCRONJOB)


def test_the_systemd_units_parse_and_belong_together():
    service, timer = unit(SERVICE), unit(TIMER)
    assert service["Service"]["Type"] == "oneshot"
    assert service["Service"]["RestartPreventExitStatus"].split() == ["1", "2"]
    assert service["Service"]["NoNewPrivileges"] == "yes"
    assert timer["Timer"]["Persistent"] == "true"
    assert "RandomizedDelaySec" in timer["Timer"]
    assert timer["Install"]["WantedBy"] == "timers.target"
    assert SERVICE.stem == TIMER.stem  # a timer starts the unit of its name
    assert not SECRET.search(service["Service"]["Environment"])


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_takes_the_units(tmp_path):
    for path in (SERVICE, TIMER):
        # geosweep isn't where systemd looks for programs; what is asked here is the rest.
        text = path.read_text().replace("ExecStart=geosweep ", "ExecStart=/bin/true ")
        (tmp_path / path.name).write_text(text)
    names = [str(tmp_path / path.name) for path in (SERVICE, TIMER)]
    done = subprocess.run(
        ["systemd-analyze", "--man=no", "verify", *names],
        capture_output=True,
        text=True,
        check=False,
    )
    if "Failed to initialize manager" in done.stderr:
        pytest.skip("systemd-analyze does not work here")
    ours = [line for line in done.stderr.splitlines() if SERVICE.stem in line]  # not the machine's
    assert not ours


@pytest.mark.skipif(shutil.which("flock") is None, reason="flock (util-linux) is not installed")
def test_cron_starts_one_pass_at_a_time_and_mails_only_failures(tmp_path):
    line = cron_line()
    assert is_cron(" ".join(line.split()[:5]))
    assert "%" not in line  # cron takes it for the end of the line
    command = line.split(maxsplit=5)[5]
    assert "flock -n -E 0 " in command  # without -E, a lock that is taken looks like failed scenes
    (tmp_path / "environment").write_text("AWS_REGION=here\n")
    script = tmp_path / "geosweep"
    script.write_text('#!/bin/sh\necho "$@" in $AWS_REGION\nexit "$CODE"\n')
    script.chmod(0o755)
    command = command.replace("/etc/geosweep/environment", str(tmp_path / "environment"))
    for code in ("0", "3"):
        environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "HOME": str(tmp_path), "CODE": code}
        done = subprocess.run(
            ["/bin/sh", "-c", command], capture_output=True, text=True, env=environment, check=False
        )
        mailed = done.stdout + done.stderr
        assert mailed == (
            "" if code == "0" else f"geosweep update: exit code {code}, see geosweep-update.log\n"
        )
    log = (tmp_path / "geosweep-update.log").read_text()
    assert log == "update /etc/geosweep/job.yaml in here\n" * 2


@pytest.mark.parametrize(
    ("expression", "valid"),
    [
        ("17 3 * * *", True),
        ("*/15 0-6 1,15 * 1-5", True),
        ("0 0 31 12 7", True),
        ("60 3 * * *", False),
        ("17 3 * *", False),
        ("17 3 0 * *", False),
        ("5-1 * * * *", False),
        ("*/0 * * * *", False),
        ("nightly * * * *", False),
    ],
)
def test_the_reader_of_cron_expressions_can_tell(expression, valid):
    assert is_cron(expression) is valid
