"""What Prometheus scrapes and what Grafana draws: prometheus.yaml and a dashboard's JSON."""

import json
import re
from collections.abc import Iterator
from typing import Any

from scarce.cluster_check.common import Check, ClusterFile, Fault, Pins, Shape, as_list, as_map, shape
from scarce.watching.live_metrics import METRICS, TAGS

DISCOVERY_NAME = "prom_metrics_service_discovery.json"  # of Ray's head, which keeps it up to date
_DURATION = re.compile(r"(\d+(ms|[smhdwy]))+")
_TOP: Shape = {"global": dict, "scrape_configs": list, "rule_files": list, "remote_write": list, "alerting": dict}
_GLOBAL: Shape = {"scrape_interval": str, "scrape_timeout": str, "evaluation_interval": str, "external_labels": dict}
_JOB: Shape = {
    "job_name": str,
    "scrape_interval": str,
    "scrape_timeout": str,
    "metrics_path": str,
    "scheme": str,
    "authorization": dict,
    "file_sd_configs": list,
    "static_configs": list,
    "relabel_configs": list,
    "metric_relabel_configs": list,
}
_FILE_SD: Shape = {"files": list, "refresh_interval": str}

_DASHBOARD: Shape = {
    "title": str,
    "uid": str,
    "schemaVersion": int,
    "editable": bool,
    "refresh": str,
    "time": dict,
    "timezone": str,
    "tags": list,
    "templating": dict,
    "annotations": dict,
    "links": list,
    "panels": list,
}
_EXPORTED = {f"ray_{name}" for name in METRICS}
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^()]*)\)")
_WORDS = {"and", "or", "unless", "offset", "bool", "by", "inf", "nan"}
_GRID = 24  # columns of a Grafana dashboard


def scrape_config(file: ClusterFile, _pins: Pins) -> Iterator[Fault]:
    """Fields, types and durations, and that Ray's nodes are found."""
    config = file.documents[0]
    yield from shape(file, config, _TOP, "a Prometheus configuration")
    yield from shape(file, config.get("global", {}), _GLOBAL, "global", "global")
    yield from _durations(file, as_map(config.get("global")), "global")
    names, found = set[Any](), False
    for place, job in enumerate(as_list(config.get("scrape_configs"))):
        at = ("scrape_configs", place)
        yield from shape(file, job, _JOB, "a job", *at)
        job = as_map(job)
        yield from _durations(file, job, *at)
        name = job.get("job_name")
        if not name or str(name) in names:
            yield Fault(file.line(*at), f"job_name is {name!r}: every job has one of its own")
        names.add(str(name))
        if not job.get("file_sd_configs") and not job.get("static_configs"):
            yield Fault(file.line(*at), f"job {name} scrapes nothing: give it file_sd_configs or static_configs")
        for number, source in enumerate(as_list(job.get("file_sd_configs"))):
            where = (*at, "file_sd_configs", number)
            yield from shape(file, source, _FILE_SD, "file_sd_configs", *where)
            yield from _durations(file, as_map(source), *where)
            for path in as_list(as_map(source).get("files")):
                found |= str(path).endswith(f"/{DISCOVERY_NAME}")
                if not re.fullmatch(r"/[^*]*[^/]*\.(json|yml|yaml)", str(path)):
                    yield Fault(file.line(*where, "files"), f"file {path}: Prometheus takes absolute paths of .json")
    if not found:
        yield Fault(file.line("scrape_configs"), f"no job reads {DISCOVERY_NAME}, so that no node of Ray is found")


def _durations(file: ClusterFile, part: dict[str, Any], *path: str | int) -> Iterator[Fault]:
    for key in ("scrape_interval", "scrape_timeout", "evaluation_interval", "refresh_interval"):
        if key in part and not _DURATION.fullmatch(str(part[key])):
            yield Fault(file.line(*path, key), f"{key} is {part[key]!r}, expected a duration such as 10s")


def read_as_json(file: ClusterFile, _pins: Pins) -> Iterator[Fault]:
    """Syntax."""
    try:
        if not isinstance(json.loads(file.text), dict):
            yield Fault(1, "is no JSON object: expected a dashboard")
    except json.JSONDecodeError as error:
        yield Fault(error.lineno, f"is no JSON: {error.msg}")


def dashboard(file: ClusterFile, _pins: Pins) -> Iterator[Fault]:
    """Fields, types and places of a Grafana dashboard, and that its panels draw scarce's metrics and no others.

    JSON is YAML, so that a fault can name its line.
    """
    whole = as_map(json.loads(file.text))
    yield from shape(file, whole, _DASHBOARD, "a dashboard")
    for key in ("title", "uid", "schemaVersion", "panels"):
        if not whole.get(key):
            yield Fault(1, f"the dashboard has no {key}")
    variables = [as_map(variable) for variable in as_list(as_map(whole.get("templating")).get("list"))]
    known = {f"${{{variable.get('name')}}}" for variable in variables}
    for place, variable in enumerate(variables):
        if variable.get("type") == "query":
            line = file.line("templating", "list", place, "query")
            yield from _names_of(re.findall(r"\bray_\w+", str(variable.get("query"))), line)
    drawn, ids = set[str](), set[Any]()
    for place, panel in enumerate(map(as_map, as_list(whole.get("panels")))):
        line, title = file.line("panels", place, "title"), panel.get("title")
        if not title or not panel.get("type"):
            yield Fault(line, "a panel has no title or no type")
        if panel.get("id") in ids:
            yield Fault(file.line("panels", place, "id"), f"panel {title}: id {panel.get('id')} is another's too")
        ids.add(panel.get("id"))
        grid = as_map(panel.get("gridPos"))
        sides = [grid.get(side) for side in "xywh"]
        if not all(isinstance(side, int) for side in sides) or grid["x"] + grid["w"] > _GRID:
            yield Fault(
                file.line("panels", place, "gridPos"), f"panel {title}: gridPos needs x, y, w and h, x + w at most 24"
            )
        if as_map(panel.get("datasource")).get("uid") not in known:
            yield Fault(
                line, f"panel {title}: its data source is no variable of the dashboard, so it is one site's own"
            )
        if not panel.get("targets"):
            yield Fault(line, f"panel {title} draws nothing: give it targets")
        for number, target in enumerate(map(as_map, as_list(panel.get("targets")))):
            at = file.line("panels", place, "targets", number, "expr")
            expression = str(target.get("expr", ""))
            drawn |= set(re.findall(r"\bray_\w+", expression))
            yield from _expression(expression, at)
            for label in re.findall(r"{{\s*(\w+)\s*}}", str(target.get("legendFormat", ""))):
                if label not in TAGS:
                    yield Fault(at, f"legend {{{{{label}}}}} is no tag of the metrics: {', '.join(TAGS)}")
    for name in sorted(_EXPORTED - drawn):
        yield Fault(0, f"no panel draws {name}, which scarce/watching/live_metrics.py declares")


def _expression(expression: str, line: int) -> Iterator[Fault]:
    """What is wrong with a query by its looks; Prometheus itself is not asked."""
    bare = re.sub(r'"[^"]*"', "", expression)
    for opening, closing in ("()", "{}", "[]"):
        if bare.count(opening) != bare.count(closing):
            yield Fault(line, f"{expression!r}: {opening} and {closing} do not match")
    labels = re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", " ".join(re.findall(r"{([^{}]*)}", bare)))
    labels += [label for group in _GROUPING.findall(bare) for label in re.findall(r"\w+", group)]
    for label in labels:
        if label not in TAGS:
            yield Fault(line, f"{label} is no tag of the metrics: expected one of {', '.join(TAGS)}")
    bare = re.sub(r"{[^{}]*}|\[[^\[\]]*\]", "", _GROUPING.sub("", bare))
    names = [name for name in re.findall(r"\b[a-zA-Z_:][\w:]*\b(?!\s*\()", bare) if name.lower() not in _WORDS]
    if not names:
        yield Fault(line, f"{expression!r} names no metric")
    yield from _names_of(names, line)


def _names_of(names: list[str], line: int) -> Iterator[Fault]:
    for name in names:
        if name not in _EXPORTED:
            known = ", ".join(sorted(_EXPORTED))
            yield Fault(line, f"{name} is no metric of scarce/watching/live_metrics.py: expected one of {known}")


PROMETHEUS_CHECKS = (Check("scrape configuration", scrape_config, "structure only"),)
DASHBOARD_CHECKS = (Check("Grafana dashboard", dashboard, "structure only"),)
