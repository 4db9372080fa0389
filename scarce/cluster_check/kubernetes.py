"""Kubernetes files: schemas of the package kubernetes-validate, and the structure of KubeRay's own kinds."""

import re
from collections.abc import Iterator
from typing import Any

import yaml

from scarce.cluster_check.common import (
    Check,
    ClusterFile,
    Fault,
    Pins,
    Shape,
    as_list,
    as_map,
    fits_a_trial,
    is_variable,
    shape,
    shell_syntax,
)
from scarce.errors import UserError

KUBERNETES = "1.34"
"""The version of Kubernetes whose schemas are used."""

# KubeRay 1.6, ray.io/v1; its definitions are in no package, so only names and types of fields are looked at.
_KUBERAY = ("RayCluster", "RayJob")
_CLUSTER: Shape = {
    "rayVersion": str,
    "authOptions": dict,
    "enableInTreeAutoscaling": bool,
    "autoscalerOptions": dict,
    "headGroupSpec": dict,
    "workerGroupSpecs": list,
    "gcsFaultToleranceOptions": dict,
    "headServiceAnnotations": dict,
    "managedBy": str,
    "networkPolicy": dict,
    "suspend": bool,
    "tlsOptions": dict,
    "upgradeStrategy": dict,
}
_AUTH: Shape = {"mode": str, "secretName": str, "enableK8sTokenAuth": bool}
_AUTOSCALER: Shape = {
    "version": str,
    "idleTimeoutSeconds": int,
    "upscalingMode": str,
    "resources": dict,
    "image": str,
    "imagePullPolicy": str,
    "securityContext": dict,
    "env": list,
    "envFrom": list,
    "volumeMounts": list,
}
_GROUP: Shape = {"template": dict, "rayStartParams": dict, "resources": dict, "labels": dict}
_HEAD: Shape = {**_GROUP, "serviceType": str, "headService": dict, "enableIngress": bool}
_WORKERS: Shape = {
    **_GROUP,
    "groupName": str,
    "replicas": int,
    "minReplicas": int,
    "maxReplicas": int,
    "idleTimeoutSeconds": int,
    "numOfHosts": int,
    "priority": int,
    "scaleStrategy": dict,
    "suspend": bool,
}
_JOB: Shape = {
    "rayClusterSpec": dict,
    "entrypoint": str,
    "submissionMode": str,
    "backoffLimit": int,
    "shutdownAfterJobFinishes": bool,
    "ttlSecondsAfterFinished": int,
    "activeDeadlineSeconds": int,
    "preRunningDeadlineSeconds": int,
    "clusterSelector": dict,
    "deletionStrategy": dict,
    "entrypointNumCpus": (int, float),
    "entrypointNumGpus": (int, float),
    "entrypointResources": str,
    "jobId": str,
    "managedBy": str,
    "metadata": dict,
    "runtimeEnvYAML": str,
    "submitterConfig": dict,
    "submitterPodTemplate": dict,
    "suspend": bool,
}
_GRACE_S = 30  # scarce.cluster.node_notice waits up to 25 s for the trials, then ends Ray


def schemas(file: ClusterFile, _pins: Pins) -> Iterator[Fault]:
    """Every document, and every pod template of KubeRay's, against the schema of its kind."""
    for index, document in enumerate(file.documents):
        if document.get("kind") not in _KUBERAY:
            yield from _against_schema(file, index, (), document)
            continue
        for where, group in _groups(document):
            template = {"template": group.get("template")}
            whole = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "template"}, **template}
            yield from _against_schema(file, index, where, whole)


def _against_schema(
    file: ClusterFile, index: int, where: tuple[str | int, ...], document: dict[str, Any]
) -> Iterator[Fault]:
    try:
        import kubernetes_validate
    except ImportError as error:
        raise UserError(
            "checking Kubernetes files takes the package kubernetes-validate: pip install 'scarce[cluster]'"
        ) from error
    if not isinstance(document.get("kind"), str) or not isinstance(document.get("apiVersion"), str):
        yield Fault(file.line(document=index), "no kind or no apiVersion: every Kubernetes document has both")
        return
    try:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
    except kubernetes_validate.SchemaNotFoundError as error:
        yield Fault(file.line("kind", document=index), f"{error.message}: is kind or apiVersion misspelt?")
    except kubernetes_validate.ValidationError as error:
        path = (*where, *error.path)
        misspelt = re.findall(r"'(\S+)' (?:was|were)", error.message) if "Additional" in error.message else []
        text = " ".join(error.message.split())[-300:]
        yield Fault(file.line(*path, *misspelt[:1], document=index), f"{'.'.join(map(str, path))}: {text}")


def _groups(document: dict[str, Any]) -> Iterator[tuple[tuple[str | int, ...], dict[str, Any]]]:
    """The head's group and the workers', each with its path."""
    base: tuple[str, ...] = ("spec",)
    spec = as_map(document.get("spec"))
    if document.get("kind") == "RayJob":
        base, spec = (*base, "rayClusterSpec"), as_map(spec.get("rayClusterSpec"))
    if "headGroupSpec" in spec:
        yield (*base, "headGroupSpec"), as_map(spec["headGroupSpec"])
    for number, group in enumerate(as_list(spec.get("workerGroupSpecs"))):
        yield (*base, "workerGroupSpecs", number), as_map(group)


def kuberay(file: ClusterFile, pins: Pins) -> Iterator[Fault]:
    """Fields of RayCluster and RayJob, the versions, the token, autoscaling."""
    for index, document in enumerate(file.documents):
        if document.get("kind") not in _KUBERAY:
            continue

        def at(*path: str | int, index: int = index) -> int:
            return file.line(*path, document=index)

        if document.get("apiVersion") != "ray.io/v1":
            yield Fault(at("apiVersion"), f"apiVersion {document.get('apiVersion')}, expected ray.io/v1")
        base: tuple[str, ...] = ("spec",)
        spec = as_map(document.get("spec"))
        if document["kind"] == "RayJob":
            yield from shape(file, spec, _JOB, "a RayJob's spec", "spec", document=index)
            entrypoint = spec.get("entrypoint", "")
            if not entrypoint:
                yield Fault(at("spec"), "no entrypoint: which command is the job?")
            if problem := shell_syntax(str(entrypoint)):
                yield Fault(at("spec", "entrypoint"), f"bash: {problem}")
            if spec.get("backoffLimit") and "--resume" not in str(entrypoint):
                yield Fault(at("spec", "backoffLimit"), "tried again from the start: add --resume to the entrypoint")
            if spec.get("shutdownAfterJobFinishes") is not True:
                yield Fault(at("spec"), "the cluster outlives its job: write shutdownAfterJobFinishes: true")
            base, spec = ("spec", "rayClusterSpec"), as_map(spec.get("rayClusterSpec"))
        yield from shape(file, spec, _CLUSTER, "a RayCluster's spec", *base, document=index)

        if spec.get("rayVersion") != pins.packages.get("ray"):
            yield Fault(
                at(*base, "rayVersion"),
                f"rayVersion {spec.get('rayVersion')}, but requirements.lock has {pins.packages.get('ray')}",
            )
        auth = as_map(spec.get("authOptions"))
        where = (*base, "authOptions")
        yield from shape(file, auth, _AUTH, "authOptions", *where, document=index)
        if auth.get("mode") != "token" or not auth.get("secretName"):
            yield Fault(at(*where), "no token: write authOptions {mode: token, secretName: ...}")
        scaler = as_map(spec.get("autoscalerOptions"))
        where = (*base, "autoscalerOptions")
        yield from shape(file, scaler, _AUTOSCALER, "autoscalerOptions", *where, document=index)
        if spec.get("enableInTreeAutoscaling") is not True:
            yield Fault(at(*base), "no autoscaling: write enableInTreeAutoscaling: true")
        timeout = scaler.get("idleTimeoutSeconds")
        if not isinstance(timeout, int) or not 60 <= timeout <= 3600:
            yield Fault(at(*where), f"idleTimeoutSeconds is {timeout}, expected 60 to 3600: idle workers cost as much")
        yield from _limits(as_map(scaler.get("resources")), "the autoscaler", at(*where))
        notes = as_map(as_map(document.get("metadata")).get("annotations"))
        if notes.get("ray.io/overwrite-container-cmd") != "true":
            yield Fault(
                at("metadata"), 'KubeRay replaces the commands: annotate ray.io/overwrite-container-cmd: "true"'
            )


def pods(file: ClusterFile, _pins: Pins) -> Iterator[Fault]:
    """What a schema does not ask of the pods: limits, probes, no root, a GPU where one is claimed, time to save."""
    claims = _claims(file)
    for index, document in enumerate(file.documents):
        for where, group in _groups(document):
            head = where[-1] == "headGroupSpec"

            def at(*path: str | int, where: tuple[str | int, ...] = where, index: int = index) -> int:
                return file.line(*where, *path, document=index)

            what = "head" if head else str(group.get("groupName", "a worker group"))
            yield from shape(file, group, _HEAD if head else _WORKERS, what, *where, document=index)
            pod = as_map(as_map(group.get("template")).get("spec"))
            containers = [as_map(container) for container in as_list(pod.get("containers"))]
            if not containers:
                yield Fault(at("template"), f"{what}: no containers")
                continue
            place = ("template", "spec", "containers", 0)
            for number, container in enumerate(containers):
                line = at("template", "spec", "containers", number)
                yield from _limits(as_map(container.get("resources")), what, line)
                for probe in ("readinessProbe", "livenessProbe"):
                    if not container.get(probe):
                        yield Fault(line, f"{what}: no {probe}: GET /api/healthz of port 52365 tells how Ray is")
                for variable in map(as_map, as_list(container.get("env"))):
                    secret = re.search(r"TOKEN$|PASSWORD|SECRET|_KEY$", str(variable.get("name")))
                    if secret and "value" in variable:
                        yield Fault(
                            line, f"{what}: {variable['name']} is a value: take it from a Secret (secretKeyRef)"
                        )
            if not as_map(pod.get("securityContext")).get("runAsNonRoot"):
                yield Fault(
                    at("template", "spec"), f"{what}: may run as root: write securityContext.runAsNonRoot: true"
                )
            if pod.get("hostNetwork"):
                yield Fault(at("template", "spec", "hostNetwork"), f"{what}: hostNetwork opens Ray's ports on the node")
            for volume in map(as_map, as_list(pod.get("volumes"))):
                claim = as_map(volume.get("persistentVolumeClaim")).get("claimName")
                if claim and str(claim) not in claims:
                    yield Fault(at("template", "spec", "volumes"), f"{what}: no file here makes the claim {claim}")
            if not any(as_map(volume).get("persistentVolumeClaim") for volume in as_list(pod.get("volumes"))):
                yield Fault(at("template", "spec"), f"{what}: no persistentVolumeClaim: results would go with the pod")
            params = as_map(group.get("rayStartParams"))
            for key, value in params.items():
                if not isinstance(value, str):
                    yield Fault(at("rayStartParams", key), f"{what}: rayStartParams.{key} must be a string: quote it")
            yield from _devices(containers[0], params, head, what, at(*place))
            if head:
                if group.get("serviceType", "ClusterIP") != "ClusterIP" or group.get("enableIngress"):
                    yield Fault(at("serviceType"), "the dashboard would be open to the outside: write ClusterIP")
            else:
                yield from _worker(group, pod, containers[0], what, at("replicas"), at(*place))


def _devices(container: dict[str, Any], params: dict[str, Any], head: bool, what: str, line: int) -> Iterator[Fault]:
    resources = as_map(container.get("resources"))
    try:
        cpus, gpus = float(params.get("num-cpus", "nan")), float(params.get("num-gpus", "nan"))
        devices = float(as_map(resources.get("limits")).get("nvidia.com/gpu", 0))
    except (TypeError, ValueError):
        yield Fault(line, f"{what}: num-cpus, num-gpus and nvidia.com/gpu must be numbers")
        return
    if gpus != devices:
        yield Fault(line, f"{what}: Ray is told of num-gpus {gpus:g}, but the limit of nvidia.com/gpu is {devices:g}")
    if head and not fits_a_trial(cpus, gpus):
        return
    if head:
        yield Fault(line, 'trials of --preset l4 fit on the head: write num-cpus: "1", num-gpus: "0"')
    elif not fits_a_trial(cpus, gpus):
        yield Fault(line, f"{what}: no trial of --preset l4 fits on num-cpus {cpus:g}, num-gpus {gpus:g}")


def _worker(
    group: dict[str, Any], pod: dict[str, Any], container: dict[str, Any], what: str, line: int, place: int
) -> Iterator[Fault]:
    low, now, high = (group.get(key, 0) for key in ("minReplicas", "replicas", "maxReplicas"))
    if all(isinstance(count, int) for count in (low, now, high)) and not low <= now <= high:
        yield Fault(line, f"{what}: replicas {now} is not between minReplicas {low} and maxReplicas {high}")
    started = " ".join(map(str, [*as_list(container.get("command")), *as_list(container.get("args"))]))
    if "exec python -m scarce.cluster.node_notice -- $KUBERAY_GEN_RAY_START_CMD" not in started:
        yield Fault(
            place,
            f"{what}: Ray does not start under scarce.cluster.node_notice: nobody tells its trials to save on SIGTERM",
        )
    if "ray" in str(as_map(as_map(container.get("lifecycle")).get("preStop"))):
        yield Fault(place, f"{what}: its preStop hook ends Ray before the trials are told to save: remove it")
    grace = pod.get("terminationGracePeriodSeconds", 30)
    if not isinstance(grace, int) or grace < _GRACE_S:
        yield Fault(place, f"{what}: terminationGracePeriodSeconds {grace}, expected {_GRACE_S} or more")


def _limits(resources: dict[str, Any], what: str, line: int) -> Iterator[Fault]:
    for part in ("requests", "limits"):
        for kind in ("cpu", "memory"):
            if kind not in as_map(resources.get(part)):
                yield Fault(line, f"{what}: no resources.{part}.{kind}")


def _claims(file: ClusterFile) -> set[str]:
    """Names of the claims that the files of this folder make."""
    made = set()
    for path in file.path.parent.glob("*.yaml"):
        try:
            documents = ClusterFile(path).documents
        except yaml.YAMLError:  # told when that file's turn comes
            continue
        for document in documents:
            if document.get("kind") == "PersistentVolumeClaim":
                made.add(str(as_map(document.get("metadata")).get("name")))
    return made


def open_doors(file: ClusterFile, _pins: Pins) -> Iterator[Fault]:
    """Services and Secrets."""
    for index, document in enumerate(file.documents):
        kind = document.get("kind")
        if kind in ("Ingress", "Gateway", "HTTPRoute"):
            yield Fault(file.line("kind", document=index), f"{kind}: the dashboard is for `kubectl port-forward`")
        if kind == "Service" and as_map(document.get("spec")).get("type", "ClusterIP") != "ClusterIP":
            yield Fault(file.line("spec", "type", document=index), "open to the outside: write type: ClusterIP")
        if kind == "Secret":
            for part in ("data", "stringData"):
                for key, value in as_map(document.get(part)).items():
                    if not is_variable(value):
                        line = file.line(part, key, document=index)
                        yield Fault(line, f"Secret {key} is a value: take it out, and use `kubectl create secret`")


def site_names(file: ClusterFile, _pins: Pins) -> Iterator[Fault]:
    """Images lie in somebody's registry."""
    for index, document in enumerate(file.documents):
        for where, group in _groups(document):
            for number, container in enumerate(
                as_list(as_map(as_map(group.get("template")).get("spec")).get("containers"))
            ):
                image = as_map(container).get("image")
                if not is_variable(image):
                    line = file.line(*where, "template", "spec", "containers", number, "image", document=index)
                    yield Fault(line, f"image {image} is a value: write ${{SCARCE_IMAGE}}")


CHECKS = (
    Check(f"Kubernetes {KUBERNETES} schemas", schemas),
    Check("services and secrets", open_doors, "structure only"),
)
KUBERAY_CHECKS = (
    Check("KubeRay kinds", kuberay, "structure only"),
    Check("pods: limits, probes, GPU, time to save", pods, "structure only"),
)
