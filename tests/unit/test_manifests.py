"""The manifests in infra/kubernetes: what Kubernetes, KubeRay and Ray make of them."""

from __future__ import annotations

import copy
import re
import shlex
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from packaging.version import Version

from geosweep.pipeline import Job
from tests.docs import ROOT, check_command, commands
from tests.infra import (
    INFRA,
    KUBERNETES,
    NAME,
    SECRET,
    documents,
    groups,
    header,
    header_commands,
    nodes,
    of_kind,
    pods,
    ray_cluster,
)
from tests.kuberay import SPECS

KUBERNETES_VERSION = "1.32"
MANIFESTS = sorted(KUBERNETES.glob("*.yaml"))
RAYCLUSTER = KUBERNETES / "raycluster.yaml"
RAYJOB = KUBERNETES / "rayjob.yaml"
WITH_RAY = [path for path in MANIFESTS if "headGroupSpec" in path.read_text()]
TOKEN = "geosweep-token"


def check(document: dict[str, Any]) -> None:
    """Hold a document to the schemas of whoever takes it."""
    if not document["apiVersion"].startswith("ray.io/"):
        kubernetes_validate.validate(document, KUBERNETES_VERSION, strict=True)
        return
    assert document["apiVersion"] == "ray.io/v1"
    jsonschema.validate(document["spec"], SPECS[document["kind"]])
    for node in nodes(document["spec"]):
        if "template" in node:
            template = {"apiVersion": "v1", "kind": "PodTemplate", "template": node["template"]}
            kubernetes_validate.validate(template, KUBERNETES_VERSION, strict=True)


def bytes_of(quantity: str) -> int:
    number, unit = re.fullmatch(r"(\d+)([KMG]i)?", quantity).groups()  # type: ignore[union-attr]
    return int(number) << {None: 0, "Ki": 10, "Mi": 20, "Gi": 30}[unit]


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_kubernetes_and_kuberay_know_every_field(path):
    for document in documents(path):
        check(document)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda spec: spec.update(rayVerison="2.60.0"),
        lambda spec: spec["autoscalerOptions"].update(version="v3"),
        lambda spec: spec["headGroupSpec"]["rayStartParams"].update({"num-cpus": 0}),
        lambda spec: spec["workerGroupSpecs"][0].update(minReplicas="none"),
        lambda spec: spec["workerGroupSpecs"][0].pop("groupName"),
        lambda spec: spec["workerGroupSpecs"][0]["template"]["spec"].update(graceSeconds=30),
        lambda spec: spec["headGroupSpec"]["template"]["spec"]["containers"][0].update(env={}),
    ],
)
def test_a_wrong_field_is_found(wrong):
    cluster = copy.deepcopy(of_kind(RAYCLUSTER, "RayCluster"))
    check(cluster)
    wrong(cluster["spec"])
    with pytest.raises(jsonschema.ValidationError):
        check(cluster)


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_manifests_are_whole_and_their_job_is_valid(path):
    jobs = []
    for document in documents(path):
        assert NAME.fullmatch(document["metadata"]["name"])
        if document["kind"] == "ConfigMap":
            job = Job.from_dict(yaml.safe_load(document["data"]["job.yaml"]))
            assert job.output.path.startswith("s3://")
            jobs.append(document["metadata"]["name"])
    mounted = []
    for pod in pods(path):
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        for container in pod["containers"]:
            for mount in container["volumeMounts"]:
                if mount["mountPath"] == "/etc/geosweep":
                    mounted.append(volumes[mount["name"]]["configMap"]["name"])
                assert mount["name"] in volumes
            assert {"requests", "limits"} <= set(container["resources"])
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert [source["secretRef"]["name"] for source in container["envFrom"]] == [
                "geosweep-storage"
            ]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
    assert mounted == jobs  # by the one container that runs the command


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_manifests_hold_no_secrets_and_name_those_to_be_made(path):
    for document in documents(path):
        assert document["kind"] != "Secret"
        for node in nodes(document):
            if "name" in node and SECRET.search(str(node["name"])):
                assert "value" not in node
    assert not re.search(r"[a-z]+://[^/\s]*@", path.read_text())
    made = set(re.findall(r"kubectl create secret generic ([\w-]+)", header(path)))
    meant = {node["secretRef"]["name"] for node in nodes(documents(path)) if "secretRef" in node}
    meant |= {node["secretName"] for node in nodes(documents(path)) if "secretName" in node}
    assert made == meant


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_versions_are_those_of_the_image(path):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    images = {container["image"] for pod in pods(path) for container in pod["containers"]}
    tag = f"geosweep:{project['version']}"  # and no registry's host
    assert images <= {tag, f"{tag}-cuda"}
    if path in WITH_RAY:
        (pin,) = re.findall(
            r"^ray==(.*)$", (INFRA / "constraints.txt").read_text(), flags=re.MULTILINE
        )
        assert ray_cluster(path)["rayVersion"] == pin
        assert Version(pin) <= Version(version("ray"))  # what is handed out was tested once


@pytest.mark.parametrize("path", WITH_RAY, ids=lambda path: path.stem)
def test_groups_of_ray_nodes_are_sound(path):
    cluster = ray_cluster(path)
    head, *workers = groups(cluster)
    assert head["rayStartParams"]["num-cpus"] == "0"
    for group in workers:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
        assert NAME.fullmatch(group["groupName"])
    for group in (head, *workers):
        spec = group["template"]["spec"]
        (container,) = spec["containers"]
        # Ray would take it for the place of its logs, and KubeRay's autoscaler looks in /tmp/ray.
        assert "TMPDIR" not in {entry["name"] for entry in container["env"]}
        if cluster.get("enableInTreeAutoscaling"):
            assert spec["restartPolicy"] == "Never"  # the autoscaler's version 2 asks for it


@pytest.mark.parametrize("path", [RAYCLUSTER, RAYJOB], ids=lambda path: path.stem)
def test_clusters_survive_the_loss_of_spot_nodes_and_spill_nothing(path):
    cluster = ray_cluster(path)
    assert cluster["enableInTreeAutoscaling"] is True
    assert cluster["authOptions"] == {"mode": "token", "secretName": TOKEN}
    head, *workers = groups(cluster)
    # The autoscaler beside the head asks Kubernetes for pods by the service account's token.
    assert "automountServiceAccountToken" not in head["template"]["spec"]
    assert "tolerations" not in head["template"]["spec"]
    assert [group["groupName"] for group in workers] == ["gpu", "cpu"]
    for group in workers:
        spec, start = group["template"]["spec"], group["rayStartParams"]
        (container,) = spec["containers"]
        requests, limits = container["resources"]["requests"], container["resources"]["limits"]
        assert start["num-cpus"] == requests["cpu"]
        assert requests["memory"] == limits["memory"]
        shared = next(volume for volume in spec["volumes"] if volume["name"] == "shm")["emptyDir"]
        assert shared["medium"] == "Memory"
        store = int(start["object-store-memory"])
        assert store < bytes_of(shared["sizeLimit"]) < bytes_of(limits["memory"])
        assert {"name": "shm", "mountPath": "/dev/shm"} in container["volumeMounts"]
        assert container["lifecycle"]["preStop"]["exec"]["command"][-1] == "ray stop"
        assert 20 <= spec["terminationGracePeriodSeconds"] <= 120  # a spot node's notice
        gpus = limits.get("nvidia.com/gpu", 0)
        assert requests.get("nvidia.com/gpu", 0) == gpus
        assert int(start.get("num-gpus", 0)) == gpus
        assert container["image"].endswith("-cuda") is bool(gpus)
        tolerated = {toleration["key"] for toleration in spec.get("tolerations", [])}
        assert tolerated == ({"nvidia.com/gpu", "example.org/spot"} if gpus else set())
        assert spec["nodeSelector"] != head["template"]["spec"]["nodeSelector"] or not gpus


def test_the_two_clusters_differ_in_numbers_and_the_job_alone():
    one, other = (copy.deepcopy(ray_cluster(path)) for path in (RAYCLUSTER, RAYJOB))
    for cluster in (one, other):
        del cluster["autoscalerOptions"]["idleTimeoutSeconds"]
        for group in groups(cluster):
            for key in ("minReplicas", "replicas", "maxReplicas"):
                group.pop(key, None)
        head = cluster["headGroupSpec"]["template"]["spec"]
        (container,) = head["containers"]
        container["volumeMounts"] = [m for m in container["volumeMounts"] if m["name"] != "job"]
        head["volumes"] = [volume for volume in head["volumes"] if volume["name"] != "job"]
    assert one == other


@pytest.mark.parametrize("path", [RAYCLUSTER, RAYJOB], ids=lambda path: path.stem)
def test_rays_autoscaler_reads_the_groups(path):
    reader = pytest.importorskip("ray.autoscaler._private.kuberay.autoscaling_config")
    cluster = ray_cluster(path)
    metadata = {"name": "geosweep", "namespace": "default"}
    found = reader._derive_autoscaling_config_from_ray_cr({"metadata": metadata, "spec": cluster})
    kinds = found["available_node_types"]
    assert kinds["headgroup"]["resources"]["CPU"] == 0
    assert (kinds["gpu"]["resources"]["CPU"], kinds["gpu"]["resources"]["GPU"]) == (8, 1)
    assert "GPU" not in kinds["cpu"]["resources"]
    for group in cluster["workerGroupSpecs"]:
        kind = kinds[group["groupName"]]
        assert kind["min_workers"] == group["minReplicas"]
        assert kind["max_workers"] == group["maxReplicas"]
    idle = cluster["autoscalerOptions"]["idleTimeoutSeconds"]
    assert found["idle_timeout_minutes"] == idle / 60


def test_the_rayjob_runs_once_and_takes_its_cluster_down():
    spec = of_kind(RAYJOB, "RayJob")["spec"]
    program, *words = shlex.split(spec["entrypoint"])
    assert program == "geosweep"
    assert words == ["run", "/etc/geosweep/job.yaml", "--address", "auto"]
    check_command(words)
    assert spec["shutdownAfterJobFinishes"] is True
    assert 0 < spec["ttlSecondsAfterFinished"] <= 3600
    assert spec["backoffLimit"] == 1
    assert spec["activeDeadlineSeconds"] > 24 * 3600
    (gpu,) = [g for g in spec["rayClusterSpec"]["workerGroupSpecs"] if g["groupName"] == "gpu"]
    content = of_kind(RAYJOB, "ConfigMap")["data"]["job.yaml"]
    asked = Job.from_dict(yaml.safe_load(content)).cluster.autoscale
    assert asked is not None
    assert asked.gpus == gpu["maxReplicas"] * int(gpu["rayStartParams"]["num-gpus"])


def test_the_raycluster_costs_its_head_alone_until_a_job_asks_or_a_group_is_raised():
    cluster = of_kind(RAYCLUSTER, "RayCluster")
    for group in cluster["spec"]["workerGroupSpecs"]:
        assert group["minReplicas"] == group["replicas"] == 0
    (patch,) = re.findall(r"-p '(\[.*\])'", header(RAYCLUSTER))
    (change,) = yaml.safe_load(patch)
    target: Any = cluster
    *steps, last = change["path"].strip("/").split("/")
    for step in steps:
        target = target[int(step) if isinstance(target, list) else step]
    assert (target["groupName"], change["op"]) == ("cpu", "replace")
    assert target[last] < change["value"] <= target["maxReplicas"]


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_what_a_header_tells_to_type_is_there(path):
    text = header_commands(path)
    for words in commands(text):
        check_command(words)
    named = {f"{d['kind'].lower()}/{d['metadata']['name']}" for d in documents(path)}
    for kind, name in re.findall(r"kubectl (?:patch|delete|wait) (\w+) ([\w-]+)", header(path)):
        assert f"{kind}/{name}" in named
    assert f"-f {path.name}" in text


def test_headers_are_read():
    assert "kubectl apply -f raycluster.yaml" in header_commands(RAYCLUSTER)
    assert Path(header(RAYJOB).split("kubectl apply -f ")[1].split()[0]).suffix == ".yaml"
