"""The dashboard draws what is there: the jobs' metrics, and Ray's own."""

import json
import re
from pathlib import Path

from jobs.metrics import METRICS, exported_name

DASHBOARD = Path(__file__).parents[2] / "cluster" / "grafana.json"


def drawn_names() -> set[str]:
    dashboard = json.loads(DASHBOARD.read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    queries += [variable["query"] for variable in dashboard["templating"]["list"]]
    return {name for query in queries for name in re.findall(r"\bray_\w+", query)}


def test_it_draws_every_metric_of_the_jobs_and_no_other() -> None:
    exported = {exported_name(name) for name in METRICS}
    assert {name for name in drawn_names() if name.startswith("ray_fakesift_")} == exported


def test_panels_have_names_and_places_of_their_own() -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len({panel["title"] for panel in panels}) == len(panels)
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}
    assert len(places) == len(panels)
