"""The metrics' names: what is exported, drawn in the dashboard and told in the docs is the same."""

import json
import re

import pytest
import yaml

from geosweep.actors import metrics as module
from geosweep.actors.metrics import COMMON_TAGS, METRICS, Exporter
from geosweep.pipeline.activity import POOLS, Activity
from geosweep.pipeline.halving import Halvings
from tests.docs import ROOT

DASHBOARD = json.loads((ROOT / "infra/metrics/grafana-dashboard.json").read_text())
EXPORTED = {name for metric in METRICS for name in metric.exported}
TAGS = {*COMMON_TAGS, *(tag for metric in METRICS for tag in metric.tags), "le"}
NAME = re.compile(r"\b(?:ray_)?geosweep_\w+")


def expressions(panel):
    return [target["expr"] for target in panel["targets"]]


@pytest.mark.parametrize("panel", DASHBOARD["panels"], ids=lambda panel: panel["title"])
def test_every_panel_is_of_exported_metrics(panel):
    assert panel["targets"]
    for expression in expressions(panel):
        names = NAME.findall(expression)
        assert names
        assert set(names) <= EXPORTED
        labels = re.findall(r"(\w+)=~", expression)
        labels += re.findall(r"\w+", " ".join(re.findall(r"by \(([^)]*)\)", expression)))
        assert set(labels) <= TAGS
        assert all(expression.count(a) == expression.count(b) for a, b in ("()", "{}", "[]"))
        # A counter's value says little; a gauge has no rate.
        for name in names:
            drawn = rf"(rate|increase)\({name}\b"
            counted = not name.endswith(("_queue", "_actors"))
            assert bool(re.search(drawn, expression)) == counted


def test_every_metric_is_in_the_dashboard():
    drawn = {
        name
        for panel in DASHBOARD["panels"]
        for expr in expressions(panel)
        for name in NAME.findall(expr)
    }
    assert [metric.name for metric in METRICS if not drawn & set(metric.exported)] == []


def test_variables_and_panels_of_the_dashboard_fit_together():
    variables = {each["name"]: each for each in DASHBOARD["templating"]["list"]}
    text = json.dumps(DASHBOARD["panels"])
    assert set(re.findall(r"\$\{?((?!__)\w+)", text)) == set(variables)
    for name in COMMON_TAGS:
        (metric,) = NAME.findall(variables[name]["query"]["query"])
        assert metric in EXPORTED
    places = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    assert len({(place["x"], place["y"]) for place in places}) == len(places)
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(places)


def test_prometheus_finds_the_nodes_where_ray_lists_them():
    from ray._private.ray_constants import PROMETHEUS_SERVICE_DISCOVERY_FILE

    config = yaml.safe_load((ROOT / "infra/metrics/prometheus.yaml").read_text())
    (scrape,) = config["scrape_configs"]
    (found,) = scrape["file_sd_configs"]
    assert found["files"] == [f"/tmp/ray/{PROMETHEUS_SERVICE_DISCOVERY_FILE}"]


def test_the_page_on_clusters_has_all_metrics():
    page = (ROOT / "docs/cluster.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(ray_geosweep_\w+)` \| (.*) \| (.*) \|$", page, flags=re.M)
    assert rows == [
        (
            metric.exported[0].removesuffix("_bucket"),
            metric.description.removesuffix("."),
            ", ".join(f"`{tag}`" for tag in metric.tags),
        )
        for metric in METRICS
    ]


def test_the_exporter_tells_differences_and_never_fails(monkeypatch):
    told = []

    class Recorded:
        def __init__(self, name, **_):
            self.name = name

        def set_default_tags(self, tags):
            assert tags == {"job_name": "trees", "node": "n1"}
            return self

        def inc(self, value, tags=None):
            told.append((self.name, value, tags))

        def set(self, value, tags):
            told.append((self.name, value, tags))
            raise RuntimeError("the agent is gone")

    for kind in ("Counter", "Gauge", "Histogram"):
        monkeypatch.setattr(module.metrics, kind, Recorded)
    exporter = Exporter("trees", "n1")
    exporter.publish(Activity(windows=5), {"detectors": 0})
    exporter.publish(Activity(windows=7, queues={"detectors": 3}), {"detectors": 2})
    exporter.scene("succeeded", 1.0)  # of a histogram that can't observe
    assert told == [
        ("geosweep_windows", 5, None),
        ("geosweep_windows", 2, None),
        ("geosweep_actor_deaths", 2, {"pool": "detectors"}),
        ("geosweep_queue", 3, {"pool": "detectors"}),
        ("geosweep_scenes", 1, {"status": "succeeded"}),
    ]
    broken = lambda *_, **__: 1 / 0  # noqa: E731
    monkeypatch.setattr(module.metrics, "Counter", broken)
    Exporter("trees", "n1").publish(Activity(windows=5), {})


def test_activities_add_up():
    queues, actors = {"readers": 1, "detectors": 0}, {"readers": 1}
    one = Activity(1, 2, 3, 4, 5, 6.0, 7.0, queues, actors, {"a": Halvings(2, 8)})
    both = one + Activity(
        *(10, 20, 30, 40, 50, 60.0, 70.0),
        {"readers": 2},
        {"detectors": 4},
        {"a": Halvings(1, 4), "b": Halvings(1, 2)},
    )
    assert both == Activity(
        *(11, 22, 33, 44, 55, 66.0, 77.0),
        {"readers": 3, "detectors": 0},
        {"readers": 1, "detectors": 4},
        {"a": Halvings(3, 4), "b": Halvings(1, 2)},
    )
    assert both.batch_halvings == 4
    assert both.busy == 66 / 77
    assert Activity().busy == 0
    assert all(getattr(both, name) > 0 for name in module._TOTALS.values())
    assert set(both.queues) <= set(POOLS)
