"""infra/aws/cluster.yaml, as Ray's cluster launcher takes it; no cloud is asked."""

from __future__ import annotations

import copy
import re
import shlex
import subprocess
import tomllib
from typing import Any

import pytest
import yaml

from tests.docs import ROOT, check_command, commands
from tests.infra import INFRA, SECRET, header, header_commands, nodes, ray_cluster

CLUSTER = INFRA / "aws/cluster.yaml"
CONFIG: dict[str, Any] = yaml.safe_load(CLUSTER.read_text())
TYPES = CONFIG["available_node_types"]
METRICS = 8080


@pytest.fixture(scope="module")
def prepared() -> dict[str, Any]:
    """The configuration with Ray's defaults for AWS, once Ray has found it valid."""
    util = pytest.importorskip("ray.autoscaler._private.util")
    found = util.prepare_config(copy.deepcopy(CONFIG))
    util.validate_config(found)
    return found


def test_ray_takes_it_and_would_refuse_another(prepared):
    util = pytest.importorskip("ray.autoscaler._private.util")
    assert prepared["head_node_type"] == "head"
    wrong = copy.deepcopy(CONFIG) | {"max_worker": 3}
    with pytest.raises(Exception, match="max_worker"):
        util.validate_config(util.prepare_config(wrong))


def test_ray_adds_nothing_that_would_install_another_ray(prepared):
    for step in ("initialization_commands", "setup_commands", "head_setup_commands"):
        assert prepared[step] == []
    assert prepared["worker_setup_commands"] == []


def test_nodes_of_ray_are_started_by_options_that_exist():
    scripts = pytest.importorskip("ray.scripts.scripts")
    for role in ("head", "worker"):
        stop, start = CONFIG[f"{role}_start_ray_commands"]
        assert stop == "ray stop"
        program, command, *words = shlex.split(start)
        assert (program, command) == ("ray", "start")
        options = scripts.start.make_context("start", words).params
        assert options["head"] is (role == "head")
        assert options["metrics_export_port"] == METRICS
        if role == "head":
            assert options["port"] == 6379
            assert options["dashboard_host"] == "127.0.0.1"
            assert options["autoscaling_config"] == "~/ray_bootstrap_config.yaml"
        else:
            assert options["address"] == "$RAY_HEAD_IP:6379"


def test_the_containers_are_started_by_a_shell_command_that_holds_together(prepared):
    docker = pytest.importorskip("ray.autoscaler._private.docker")
    command = docker.docker_start_cmds(
        "ubuntu",
        prepared["docker"]["image"],
        prepared["file_mounts"],
        prepared["docker"]["container_name"],
        prepared["docker"]["run_options"],
        prepared["cluster_name"],
        "/home/geosweep",
        "docker",
    )
    subprocess.run(["bash", "-n", "-c", command], check=True)
    words = shlex.split(command)
    assert words[:2] == ["docker", "run"]
    assert words[-2:] == [CONFIG["docker"]["image"], "bash"]
    assert words[words.index("--entrypoint") + 1] == ""  # else it would be `geosweep bash`
    assert words[words.index("--env") + 1] == "RAY_AUTH_MODE=token"


def test_workers_are_spot_where_they_have_a_gpu_and_nobody_has_keys():
    assert CONFIG["head_node_type"] == "head"
    assert TYPES["head"]["resources"] == {"CPU": 0}
    assert CONFIG["max_workers"] >= sum(kind.get("max_workers", 0) for kind in TYPES.values())
    for name, kind in TYPES.items():
        node = kind["node_config"]
        spot = node.get("InstanceMarketOptions", {}).get("MarketType") == "spot"
        assert spot is (name == "gpu") is ("GPU" in kind["resources"])
        role = "geosweep-head" if name == "head" else "geosweep-node"
        assert node["IamInstanceProfile"] == {"Name": role}
        assert role in header(CLUSTER)
        assert node["MetadataOptions"] == {"HttpTokens": "required"}
        assert node["ImageId"] == "ami-" + "0" * 17  # a placeholder: nobody's image
    # Jobs ask for nodes.
    assert TYPES["gpu"]["min_workers"] == TYPES["cpu"]["min_workers"] == 0
    for node in nodes({key: part for key, part in CONFIG.items() if key != "file_mounts"}):
        assert {key for key in node if SECRET.search(key)} <= {"HttpTokens"}
    assert CONFIG["file_mounts"] == {"/home/geosweep/.ray/auth_token": "~/.ray/auth_token"}


def test_images_and_groups_are_those_of_kubernetes():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    tag = f"geosweep:{project['version']}"
    assert CONFIG["docker"]["image"] == f"{tag}-cuda"
    assert CONFIG["docker"]["head_image"] == TYPES["cpu"]["docker"]["worker_image"] == tag
    cluster = ray_cluster(INFRA / "kubernetes/raycluster.yaml")
    for group in cluster["workerGroupSpecs"]:
        kind, start = TYPES[group["groupName"]], group["rayStartParams"]
        assert kind["resources"]["CPU"] == int(start["num-cpus"])
        assert kind["resources"].get("GPU", 0) == int(start.get("num-gpus", 0))
        (container,) = group["template"]["spec"]["containers"]
        assert {"name": "metrics", "containerPort": METRICS} in container["ports"]


def test_what_the_header_tells_to_type_exists():
    scripts = pytest.importorskip("ray.scripts.scripts")
    text = header_commands(CLUSTER)
    for words in commands(text):
        check_command(words)
    verbs = re.findall(r"\bray ([\w-]+)((?: [-\w./]+)*)", text)
    assert [verb for verb, _ in verbs] == ["get-auth-token", "up", "dashboard", "down"]
    for verb, rest in verbs:
        command = scripts.cli.commands[verb]
        known = {name for option in command.params for name in option.opts}
        words = rest.split()
        assert {word for word in words if word.startswith("-")} <= known
        if verb != "get-auth-token":
            assert words[0] == "infra/aws/cluster.yaml"
            assert (ROOT / words[0]).exists()
