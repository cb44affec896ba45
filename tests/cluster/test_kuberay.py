"""The manifests for Kubernetes: what KubeRay's own schemas say of them, and that they are closed."""

import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from cluster.submit import JobCommand, split_command
from jobs.conclude import BUNDLE

ROOT = Path(__file__).parents[2]
KUBERAY = ROOT / "cluster" / "kuberay"
CRDS = ROOT.parent / "shared" / "kuberay"
JOBS = sorted((KUBERAY / "jobs").glob("*.yaml"))
OVERLAYS = ("cpu", "gpu")


@cache
def rendered(overlay: str) -> list[dict[str, Any]]:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed: overlays cannot be merged")
    folder = KUBERAY / "overlays" / overlay
    merged = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=True)
    return list(yaml.safe_load_all(merged.stdout))


def documents(path: Path) -> list[dict[str, Any]]:
    """A file's objects, and those that a ConfigMap in it carries."""
    found = [document for document in yaml.safe_load_all(path.read_text()) if document]
    inner = [yaml.safe_load(text) for document in found for text in document.get("data", {}).values()]
    return [*found, *inner]


@cache
def validator(kind: str) -> jsonschema.Draft202012Validator:
    path = CRDS / f"ray.io_{kind.lower()}s.yaml"
    if not path.exists():
        pytest.skip(f"KubeRay's schemas are not at {CRDS}")
    # The schemas have megabytes: the loader in Python takes half a minute for them.
    versions = yaml.load(path.read_text(), yaml.CSafeLoader)["spec"]["versions"]
    schema = next(version for version in versions if version["name"] == "v1")["schema"]["openAPIV3Schema"]
    return jsonschema.Draft202012Validator(strict(schema))


def strict(schema: Any) -> Any:
    """The schema, such that a field it does not know is an error: Kubernetes drops those, which hides a typing slip."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    copy = {name: strict(part) for name, part in schema.items()}
    known = isinstance(schema.get("properties"), dict) and schema.get("type") == "object" and schema["properties"]
    if known and not schema.get("x-kubernetes-preserve-unknown-fields"):
        copy.setdefault("additionalProperties", False)
    return copy


def check(document: dict[str, Any]) -> None:
    errors = [
        f"{'/'.join(map(str, error.absolute_path))}: {error.message[:200]}"
        for error in validator(document["kind"]).iter_errors(document)
    ]
    assert errors == []


def pods(document: Any) -> Iterator[dict[str, Any]]:
    """Every pod specification within an object."""
    if isinstance(document, dict):
        if "containers" in document:
            yield document
        for part in document.values():
            yield from pods(part)
    elif isinstance(document, list):
        for part in document:
            yield from pods(part)


def everything() -> list[dict[str, Any]]:
    merged = [document for overlay in OVERLAYS for document in rendered(overlay)]
    return [*merged, *(document for path in JOBS for document in documents(path))]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_cluster_is_what_kuberay_takes(overlay: str) -> None:
    clusters = [document for document in rendered(overlay) if document["kind"] == "RayCluster"]
    assert len(clusters) == 1
    check(clusters[0])


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.stem)
def test_the_jobs_are_what_kuberay_takes(path: Path) -> None:
    checked = [document for document in documents(path) if document["kind"] in {"RayJob", "RayCronJob"}]
    assert checked
    for document in checked:
        check(document)


def test_a_slip_would_be_found() -> None:
    slipped = documents(KUBERAY / "jobs" / "preprocess.yaml")[0]
    slipped["spec"]["backOffLimit"] = 0
    with pytest.raises(AssertionError, match="backOffLimit"):
        check(slipped)


def test_the_overlays_differ_by_the_gpu_group_alone() -> None:
    groups = {}
    for overlay in OVERLAYS:
        cluster = next(document for document in rendered(overlay) if document["kind"] == "RayCluster")
        groups[overlay] = {group["groupName"]: group for group in cluster["spec"]["workerGroupSpecs"]}
    assert list(groups["cpu"]) == ["cpu"]
    assert list(groups["gpu"]) == ["cpu", "gpu"]
    assert groups["gpu"]["cpu"] == groups["cpu"]["cpu"]
    gpu = groups["gpu"]["gpu"]["template"]["spec"]
    assert gpu["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in gpu["tolerations"]
    assert all(group["minReplicas"] == group["replicas"] == 0 for group in groups["gpu"].values())


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_overlays_put_in_images_and_role(overlay: str) -> None:
    objects = rendered(overlay)
    cluster = next(document for document in objects if document["kind"] == "RayCluster")
    groups = {group["groupName"]: group for group in cluster["spec"]["workerGroupSpecs"]}
    for name, group in {"head": cluster["spec"]["headGroupSpec"], **groups}.items():
        (container,) = group["template"]["spec"]["containers"]
        target = "gpu" if name == "gpu" else "cpu"
        assert container["image"] == f"registry.example.org/fakesift:0.1.0-{target}"
        # The head may not go; a worker may.
        spot = {"key": "spot", "operator": "Exists"} in group["template"]["spec"].get("tolerations", [])
        assert spot == (name != "head")
    roles = {
        document["metadata"]["name"]: document["metadata"].get("annotations", {}).get("eks.amazonaws.com/role-arn")
        for document in objects
        if document["kind"] == "ServiceAccount"
    }
    role = "arn:aws:iam::000000000000:role/fakesift"
    assert roles == {"fakesift-head": role, "fakesift-worker": role, "fakesift-nightly": None}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_cluster_is_closed(overlay: str) -> None:
    objects = rendered(overlay)
    cluster = next(document for document in objects if document["kind"] == "RayCluster")
    assert cluster["spec"]["authOptions"] == {"mode": "token"}
    assert cluster["spec"]["headGroupSpec"]["serviceType"] == "ClusterIP"
    policies = {document["metadata"]["name"]: document for document in objects if document["kind"] == "NetworkPolicy"}
    closed = policies["fakesift-closed"]["spec"]
    assert closed == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    wanted = {"fakesift.io/ray": "true"}
    assert policies["fakesift-ray"]["spec"]["podSelector"]["matchLabels"] == wanted
    for name in ("fakesift-ray", "fakesift-nightly"):
        outside = [rule for rule in policies[name]["spec"]["egress"] if "to" not in rule]
        assert {port["port"] for rule in outside for port in rule["ports"]} == {53, 443, 6443}
    assert "ingress" not in policies["fakesift-nightly"]["spec"]
    groups = [cluster["spec"]["headGroupSpec"], *cluster["spec"]["workerGroupSpecs"]]
    assert all(wanted.items() <= group["template"]["metadata"]["labels"].items() for group in groups)
    assert all(
        document["metadata"].get("namespace") == "fakesift" for document in objects if document["kind"] != "Namespace"
    )


def test_every_pod_has_no_more_rights_than_it_needs() -> None:
    found = [pod for document in everything() for pod in pods(document)]
    assert len(found) >= 9
    for pod in found:
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["serviceAccountName"].startswith("fakesift-")
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["limits"]["memory"]
            assert not any("SECRET" in str(item) or "TOKEN" in str(item) for item in container.get("env", []))
        if pod["serviceAccountName"] == "fakesift-worker":
            assert pod["automountServiceAccountToken"] is False


def test_ray_pods_have_shared_memory() -> None:
    for document in (document for overlay in OVERLAYS for document in rendered(overlay)):
        for pod in pods(document):
            mounts = {mount["mountPath"]: mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
            volume = next(volume for volume in pod["volumes"] if volume["name"] == mounts["/dev/shm"])
            assert volume["emptyDir"]["medium"] == "Memory"


def test_nightly_jobs_neither_overlap_nor_repeat_nor_share_a_name() -> None:
    config, cron, job = documents(KUBERAY / "jobs" / "nightly-cronjob.yaml")
    assert cron["spec"]["concurrencyPolicy"] == "Forbid"
    assert cron["spec"]["jobTemplate"]["spec"]["backoffLimit"] == 0
    assert not {"name", "generateName"} & set(job["metadata"])
    (container,) = cron["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    told = {each["name"]: each["valueFrom"]["fieldRef"]["fieldPath"] for each in container["env"]}
    labels = {"JOB_NAME": "job-name", "JOB_UID": "controller-uid"}
    assert told == {name: f"metadata.labels['batch.kubernetes.io/{label}']" for name, label in labels.items()}
    sent_away, killed = cron["spec"]["jobTemplate"]["spec"]["podFailurePolicy"]["rules"]
    assert (sent_away["action"], killed["action"]) == ("Ignore", "Ignore")
    assert sent_away["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    assert killed["onExitCodes"] == {"containerName": container["name"], "operator": "In", "values": [137, 143]}
    volume = cron["spec"]["jobTemplate"]["spec"]["template"]["spec"]["volumes"][0]
    assert volume["configMap"]["name"] == config["metadata"]["name"]
    scheduled = documents(KUBERAY / "jobs" / "nightly-raycronjob.yaml")[0]
    assert scheduled["spec"]["jobTemplate"] == job["spec"]
    for name in ("preprocess.yaml", "train.yaml"):
        (document,) = documents(KUBERAY / "jobs" / name)
        assert document["spec"]["backoffLimit"] == 0
        assert "name" not in document["metadata"]
        assert document["metadata"]["generateName"]
    assert job["spec"]["backoffLimit"] == 0


def words_of(name: str) -> list[str]:
    """The command that a file of `jobs` runs."""
    found = documents(KUBERAY / "jobs" / name)[-1]["spec"]
    return list(found.get("jobTemplate", found)["entrypoint"].split()[3:])


def test_each_job_reads_what_the_one_before_it_wrote() -> None:
    _, _, faces = words_of("preprocess.yaml")[:3]
    job, trained_on, model = words_of("train.yaml")[:3]
    assert (job, trained_on) == ("train", faces)
    for name in ("nightly-cronjob.yaml", "nightly-raycronjob.yaml"):
        job, bundle = words_of(name)[:2]
        assert (job, bundle) == ("score", f"{model}/{BUNDLE}".rstrip("/"))


def test_a_drained_node_waits_for_the_head() -> None:
    objects = rendered("cpu")
    (budget,) = (document["spec"] for document in objects if document["kind"] == "PodDisruptionBudget")
    # Kubernetes reckons maxUnavailable from the owner's scale, and a RayCluster has none.
    assert budget["minAvailable"] == 1
    assert "maxUnavailable" not in budget
    cluster = next(document for document in objects if document["kind"] == "RayCluster")
    chosen = {"ray.io/cluster": cluster["metadata"]["name"], "ray.io/node-type": "head"}
    assert budget["selector"]["matchLabels"] == chosen


def test_entrypoints_are_those_of_submit() -> None:
    for path in JOBS:
        for document in documents(path):
            if document["kind"] == "RayJob":
                words = document["spec"]["entrypoint"].split()
                assert words[:3] == ["python", "-m", "jobs.cli"]
                _, command = split_command(words[3:])
                if command is not None:
                    arguments = command.arguments[:-2]
                    again = JobCommand(job=command.job, arguments=arguments)
                    assert again.entrypoint() == document["spec"]["entrypoint"]
