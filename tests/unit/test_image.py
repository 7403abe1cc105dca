"""infra/Dockerfile: what hadolint says of it, what goes into the image, and who it runs as."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from tests.docs import ROOT, check_command, commands
from tests.infra import INFRA, SECRET, header, header_commands

DOCKERFILE = INFRA / "Dockerfile"
CONSTRAINTS = INFRA / "constraints.txt"
HADOLINT = Path(sys.executable).parent / "hadolint"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = {"cuda": ["s3", "planetary-computer"], "cpu": ["s3", "planetary-computer", "export"]}


class Step(NamedTuple):
    """An instruction of the Dockerfile, in the stage that it belongs to."""

    stage: str
    word: str
    rest: str


def steps() -> list[Step]:
    lines = [
        line for line in DOCKERFILE.read_text().splitlines() if not line.lstrip().startswith("#")
    ]
    found, stage = [], ""
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        word, _, rest = line.strip().partition(" ")
        if word == "FROM":
            stage = rest.split(" AS ")[1]
        if word:
            found.append(Step(stage, word, " ".join(rest.split())))
    return found


def bases() -> dict[str, str]:
    """What each stage starts from."""
    return {step.stage: step.rest.split(" AS ")[0] for step in steps() if step.word == "FROM"}


def inherited(stage: str) -> Iterator[Step]:
    """The steps of a stage and of all below it, the last first."""
    while stage in bases():
        yield from reversed([step for step in steps() if step.stage == stage])
        stage = bases()[stage]


def copied() -> list[str]:
    """What the stages take from the repository."""
    return [
        source
        for step in steps()
        if step.word == "COPY" and "--from=" not in step.rest
        for source in step.rest.split()[:-1]
    ]


def pins() -> dict[str, str]:
    lines = [line for line in CONSTRAINTS.read_text().splitlines() if not line.startswith("#")]
    return dict(line.split("==") for line in lines)


def findings(text: str) -> set[str]:
    done = subprocess.run(
        [str(HADOLINT), "--no-color", "--format", "json", "-"],
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )
    return {finding["code"] for finding in json.loads(done.stdout)}


@pytest.mark.skipif(not HADOLINT.exists(), reason="hadolint has no wheel for this machine")
def test_hadolint_finds_nothing_and_would_find_something():
    text = DOCKERFILE.read_text()
    assert findings(text) == set()
    worse = text.replace("python:3.11.14-slim-bookworm AS", "python:latest AS")
    worse = worse.replace("--no-install-recommends ", "").replace("USER 1000:1000", "USER root")
    assert findings(worse) >= {"DL3007", "DL3015", "DL3002"}


def test_bases_are_pinned_to_a_patch_release_of_a_python_that_geosweep_takes():
    outside = {base for base in bases().values() if base not in bases()}
    (base,) = outside
    found = re.fullmatch(r"python:(\d+\.\d+\.\d+)-slim-[a-z]+", base)
    assert found
    assert Version(found[1]) in SpecifierSet(PROJECT["project"]["requires-python"])
    assert base in header(DOCKERFILE)  # where it is told how to pin the digest
    assert found[1].startswith(PROJECT["tool"]["pyright"]["pythonVersion"] + ".")  # what CI has


def test_the_context_holds_what_is_copied_and_nothing_else():
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line]
    rules = [line for line in lines if not line.startswith("#")]
    assert rules[0] == "*"
    allowed = [rule[1:].rstrip("/") for rule in rules if rule.startswith("!")]
    assert [rule for rule in rules[1:] if not rule.startswith("!")] == ["**/__pycache__/"]
    assert sorted({source.rstrip("/") for source in copied()}) == sorted(allowed)
    for path in allowed:
        assert (ROOT / path).exists()


def test_the_wheel_finds_all_of_the_package():
    sources = {source.rstrip("/") for source in copied()}
    packages = PROJECT["tool"]["setuptools"]["package-dir"].values()
    project = PROJECT["project"]
    needed = {Path(folder).parts[0] for folder in packages}
    needed |= {"pyproject.toml", project["readme"], *project["license-files"]}
    assert needed <= sources


@pytest.mark.parametrize("target", EXTRAS)
def test_images_run_as_a_user_without_rights_and_hold_no_secrets(target):
    chain = list(inherited(target))
    (user, *_) = [step.rest for step in chain if step.word == "USER"]
    assert user == "1000:1000"  # by number: Kubernetes' runAsNonRoot can't look names up
    made = " ".join(step.rest for step in chain if step.word == "RUN")
    assert "useradd --create-home --uid 1000" in made
    assert next(step.rest for step in chain if step.word == "ENTRYPOINT") == '["geosweep"]'
    assert next(step.rest for step in chain if step.word == "CMD") == '["--help"]'
    words = {step.word for step in steps()}
    assert not words & {"ADD", "VOLUME", "HEALTHCHECK", "EXPOSE"}
    for step in steps():
        if step.word in {"ARG", "ENV"}:
            names = re.findall(r"(\w+)=", step.rest) or step.rest.split()
            assert not [name for name in names if SECRET.search(name)]
        assert not re.search(r"[a-z]+://", step.rest)  # nothing from elsewhere but by pip and apt


def test_kuberay_and_the_launcher_find_their_programs():
    (install,) = [step.rest for step in steps() if "apt-get install" in step.rest]
    assert {"wget", "openssh-client", "rsync", "libexpat1"} <= set(install.split())
    paths = [step.rest for step in steps() if step.stage == "runtime" and "PATH" in step.rest]
    assert any("/etc/profile.d/" in path for path in paths)  # for login shells
    assert any(path.startswith("PATH=/opt/geosweep/bin:$PATH") for path in paths)


@pytest.mark.parametrize("target", EXTRAS)
def test_libraries_are_those_of_pyproject_at_the_versions_that_were_tested(target):
    (made,) = [
        step.rest for step in steps() if step.word == "RUN" and "requirements.py" in step.rest
    ]
    assert f"python requirements.py {' '.join(EXTRAS[target])} > {target}.txt" in made
    done = subprocess.run(
        [sys.executable, str(INFRA / "requirements.py"), *EXTRAS[target]],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    listed = [Requirement(line) for line in done.stdout.splitlines()]
    optional = PROJECT["project"]["optional-dependencies"]
    assert len(listed) == len(PROJECT["project"]["dependencies"]) + sum(
        len(optional[extra]) for extra in EXTRAS[target]
    )
    for requirement in listed:
        assert pins()[requirement.name.lower()] in requirement.specifier
    # The minor version of Ray must be the same everywhere, and pickles of numpy travel between nodes.
    for name in ("ray", "numpy"):
        assert Version(pins()[name]) <= Version(version(name))


def test_the_header_builds_both_targets_under_the_names_of_the_manifests():
    built = dict(
        re.findall(
            r"docker build -f infra/Dockerfile --target (\w+) -t (\S+) \.",
            header_commands(DOCKERFILE),
        )
    )
    tag = f"geosweep:{PROJECT['project']['version']}"
    assert built == {"cpu": tag, "cuda": f"{tag}-cuda"}
    assert set(built) <= set(bases())
    (words,) = commands(header_commands(DOCKERFILE))
    assert words == ["run", "job.yaml"]
    check_command(words)
