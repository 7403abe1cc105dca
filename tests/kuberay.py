"""The fields of KubeRay 1.6's resources, as JSON Schemas written by hand.

Taken from KubeRay's API reference (docs.ray.io, "KubeRay CRD API reference", v1.6.2). The resource
definitions themselves, a megabyte for each kind, are nowhere that a test could get them from. What is a
type of Kubernetes there (templates of pods above all) is left open here; Kubernetes' own schemas say more
about it, and `tests/unit/test_manifests.py` asks them.
"""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]


def _block(*required: str, **properties: Schema) -> Schema:
    return {
        "type": "object",
        "additionalProperties": False,
        "required": list(required),
        "properties": properties,
    }


def _one_of(*values: str) -> Schema:
    return {"enum": list(values)}


_KUBERNETES: Schema = {"type": ["object", "array"]}
_STRING: Schema = {"type": "string"}
_STRINGS: Schema = {"type": "object", "additionalProperties": _STRING}
_SWITCH: Schema = {"type": "boolean"}
_COUNT: Schema = {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}
_NUMBER: Schema = {"type": "number"}
_OPEN: Schema = {"type": "object"}

_AUTOSCALER = _block(
    env=_KUBERNETES,
    envFrom=_KUBERNETES,
    idleTimeoutSeconds=_COUNT,
    image=_STRING,
    imagePullPolicy=_one_of("Always", "IfNotPresent", "Never"),
    resources=_KUBERNETES,
    securityContext=_KUBERNETES,
    upscalingMode=_one_of("Default", "Aggressive", "Conservative"),
    version=_one_of("v1", "v2"),
    volumeMounts=_KUBERNETES,
)
_GROUP: dict[str, Schema] = {
    "labels": _STRINGS,
    "rayStartParams": _STRINGS,
    "resources": _STRINGS,
    "template": _KUBERNETES,
}
_HEAD = _block(
    "template",
    **_GROUP,
    enableIngress=_SWITCH,
    headService=_KUBERNETES,
    serviceType=_one_of("ClusterIP", "NodePort", "LoadBalancer"),
)
_WORKERS = _block(
    "groupName",
    "template",
    **_GROUP,
    groupName=_STRING,
    idleTimeoutSeconds=_COUNT,
    maxReplicas=_COUNT,
    minReplicas=_COUNT,
    numOfHosts=_COUNT,
    replicas=_COUNT,
    scaleStrategy=_OPEN,
    suspend=_SWITCH,
)
_CLUSTER = _block(
    "headGroupSpec",
    authOptions=_block(
        enableK8sTokenAuth=_SWITCH, mode=_one_of("disabled", "token"), secretName=_STRING
    ),
    autoscalerOptions=_AUTOSCALER,
    enableInTreeAutoscaling=_SWITCH,
    gcsFaultToleranceOptions=_OPEN,
    headGroupSpec=_HEAD,
    headServiceAnnotations=_STRINGS,
    managedBy=_STRING,
    rayVersion=_STRING,
    suspend=_SWITCH,
    upgradeStrategy=_OPEN,
    workerGroupSpecs={"type": "array", "items": _WORKERS},
)
_JOB = _block(
    activeDeadlineSeconds=_COUNT,
    backoffLimit=_COUNT,
    clusterSelector=_STRINGS,
    deletionStrategy=_OPEN,
    entrypoint=_STRING,
    entrypointNumCpus=_NUMBER,
    entrypointNumGpus=_NUMBER,
    entrypointResources=_STRING,
    jobId=_STRING,
    managedBy=_STRING,
    metadata=_STRINGS,
    rayClusterSpec=_CLUSTER,
    runtimeEnvYAML=_STRING,
    shutdownAfterJobFinishes=_SWITCH,
    submissionMode=_one_of("K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"),
    submitterConfig=_block(backoffLimit=_COUNT),
    submitterPodTemplate=_KUBERNETES,
    suspend=_SWITCH,
    ttlSecondsAfterFinished=_COUNT,
)
SPECS: dict[str, Schema] = {
    "RayCluster": _CLUSTER,
    "RayJob": _JOB,
    "RayCronJob": _block("schedule", "jobTemplate", schedule=_STRING, jobTemplate=_JOB),
}
"""The schema of each kind's `spec`."""
