"""A cluster file as the checks see it, the versions it must agree with, and the checks that fit any kind of file."""

import re
import shutil
import subprocess
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import yaml

from scarce.config import PRESETS
from scarce.errors import UserError


@dataclass(frozen=True)
class Fault:
    """What is wrong at a line (0: the file as a whole), and how to mend it."""

    line: int
    text: str


class Skip(Exception):
    """A check that cannot be made here, and why."""


@dataclass(frozen=True)
class Check:
    """A named check. `fine` is what is said where it finds no fault: how much that means."""

    name: str
    find: "Callable[[ClusterFile, Pins], Iterable[Fault]]"
    fine: Literal["ok", "structure only"] = "ok"


@dataclass(frozen=True)
class Pins:
    """The versions that cluster files must agree with."""

    packages: dict[str, str]
    """By normalised name, of requirements.lock."""
    project: str
    """scarce's own version."""
    python: tuple[int, int]
    """The Python that requirements.lock was made with: the lowest that pyproject.toml allows."""

    @classmethod
    def read(cls, root: Path) -> "Pins":
        """Those of the checkout at `root`; `UserError` where there is none."""
        try:
            lines = (root / "requirements.lock").read_text(encoding="utf-8").splitlines()
            project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        except OSError as error:
            raise UserError(
                f"expected requirements.lock and pyproject.toml in {root} to compare versions with ({error}): "
                "run this in a checkout of scarce"
            ) from error
        packages = dict(line.split("==") for line in lines if "==" in line)
        major, minor = map(int, project["requires-python"].removeprefix(">=").split(".")[:2])
        pinned = {normalised(name): version for name, version in packages.items()}
        return cls(pinned, project["version"], (major, minor))


class ClusterFile:
    """A file's text and, of a YAML file, its documents with the line of every part."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"expected a text file at {path}, found none ({error})") from error

    @cached_property
    def code(self) -> list[str]:
        """The lines without comments, so that what is said in one is not taken for what is done."""
        return [re.sub(r"(^|\s)#(?!SBATCH|!).*", "", line) for line in self.text.splitlines()]

    @cached_property
    def header(self) -> str:
        """The comments that the file begins with."""
        lines = self.text.splitlines()
        end = next((i for i, line in enumerate(lines) if not line.startswith("#")), len(lines))
        return "\n".join(lines[:end])

    @cached_property
    def _nodes(self) -> list[yaml.Node]:
        return [node for node in yaml.compose_all(self.text, yaml.SafeLoader) if node is not None]

    @cached_property
    def documents(self) -> list[dict[str, Any]]:
        """The YAML documents. `yaml.YAMLError` where they cannot be read."""
        return [as_map(document) for document in yaml.safe_load_all(self.text) if document is not None]

    def line(self, *path: str | int, document: int = 0) -> int:
        """The line, from 1, of what `path` leads to, or of the last step on the way that is there."""
        node = self._nodes[document]
        line: int = node.start_mark.line
        for step in path:
            if isinstance(node, yaml.MappingNode):
                found = [(key, value) for key, value in node.value if key.value == str(step)]
                if not found:
                    break
                line, node = found[-1][0].start_mark.line, found[-1][1]
            elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
                node = node.value[step]
                line = node.start_mark.line
            else:
                break
        return line + 1

    def repeated_keys(self) -> Iterator[Fault]:
        """Keys that a mapping has twice, of which YAML silently takes the last."""
        nodes = list(self._nodes)
        while nodes:
            node = nodes.pop()
            if isinstance(node, yaml.MappingNode):
                seen: set[str] = set()
                for key, value in node.value:
                    if key.value in seen:
                        yield Fault(key.start_mark.line + 1, f"{key.value} is there twice: remove one")
                    seen.add(key.value)
                    nodes.append(value)
            elif isinstance(node, yaml.SequenceNode):
                nodes.extend(node.value)


Shape = Mapping[str, type | tuple[type, ...]]
"""The keys that a mapping may have, and the types of their values."""


def normalised(name: str) -> str:
    """A package's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def as_map(value: Any) -> dict[str, Any]:
    """`value` if it is a mapping, else an empty one: that it is none is for the schema to say."""
    return value if isinstance(value, dict) else {}


def as_list(value: Any) -> list[Any]:
    """`value` if it is a list, else an empty one."""
    return value if isinstance(value, list) else []


def is_variable(value: Any) -> bool:
    """Whether a value is for envsubst or compose to fill in."""
    return isinstance(value, str) and re.fullmatch(r"\$\{\w+(:-[^}]*)?\}", value) is not None


def fits_a_trial(cpus: Any, gpus: Any) -> bool:
    """Whether a node of these resources would be given trials of `--preset l4`; not if they are no numbers."""
    search = PRESETS["l4"].search
    if not isinstance(cpus, int | float) or not isinstance(gpus, int | float):
        return False
    return cpus >= search.cpus_per_trial and gpus >= (search.gpus_per_trial or 0)


def shape(
    file: ClusterFile, value: Any, allowed: Shape, what: str, *path: str | int, document: int = 0
) -> Iterator[Fault]:
    """Faults in the keys of the mapping at `path`, and in the types of their values."""
    if not isinstance(value, dict):
        yield Fault(file.line(*path, document=document), f"{what} must be a mapping, found {value!r}")
        return
    for key, part in value.items():
        kinds = allowed.get(key, ())
        kinds = kinds if isinstance(kinds, tuple) else (kinds,)
        line = file.line(*path, key, document=document)
        if not kinds:
            yield Fault(line, f"{what} has no {key}: expected one of {', '.join(sorted(allowed))}")
        elif not isinstance(part, kinds) or (isinstance(part, bool) and bool not in kinds):
            names = " or ".join(kind.__name__ for kind in kinds)
            yield Fault(line, f"{what}: {key} must be a {names}, found {part!r}")


def matches(file: ClusterFile, pattern: str, flags: int = 0) -> Iterator[tuple[int, re.Match[str]]]:
    """Where a pattern occurs outside comments: lines from 1, and matches."""
    for number, line in enumerate(file.code, 1):
        for match in re.finditer(pattern, line, flags):
            yield number, match


def shell_syntax(command: str) -> str:
    """What bash has against a command's syntax; nothing if there is no bash."""
    bash = shutil.which("bash")
    if not bash:
        return ""
    ended = subprocess.run([bash, "-n", "-c", command], capture_output=True, text=True)
    return ended.stderr.strip().splitlines()[0].partition("line ")[2] if ended.returncode else ""


def read_as_yaml(file: ClusterFile, _pins: Pins) -> Iterator[Fault]:
    """Syntax, and keys that are there twice."""
    try:
        if not file.documents:
            yield Fault(0, "is empty: expected a YAML document")
        yield from file.repeated_keys()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or str(error)
        yield Fault(mark.line + 1 if mark else 0, f"is no YAML: {problem}")


def header(file: ClusterFile, _pins: Pins) -> Iterator[Fault]:
    """The commands and the cost at the top of the file."""
    for word in ("Start", "Run", "Fetch, stop"):
        if not re.search(rf"^# {word} ", file.header, re.MULTILINE):
            yield Fault(1, f"its first comment has no line '# {word}': say which command does it")
    yield from cost(file, _pins)


def cost(file: ClusterFile, _pins: Pins) -> Iterator[Fault]:
    """The cost at the top of the file: an amount, and the month of the assumption."""
    words = " ".join(file.header.replace("#", " ").split())
    stated = r"Cost .*\$\d+\.\d\d an hour.*\(assumption of 20\d\d-(0[1-9]|1[0-2])\b.*check the price list"
    if not re.search(stated, words):
        yield Fault(
            1,
            "its first comment states no cost: expected '# Cost  $0.00 an hour (assumption of YYYY-MM: ...; check the "
            "price list)'",
        )


def versions(file: ClusterFile, pins: Pins) -> Iterator[Fault]:
    """Everything with a version, comments included: the same as in requirements.lock, and none without one."""
    for number, line in enumerate(file.text.splitlines(), 1):
        for name, version in re.findall(r"([A-Za-z0-9][\w.-]*)==([\w.]+)", line):
            yield from _differs(number, name, version, pins)
        for name, version in re.findall(r"rayproject/(ray)[\w-]*:(\d[\d.]*)", line):
            yield from _differs(number, name, version, pins)
    for number, match in matches(file, r"(?:\bFROM|\bimage:)\s+[\"']?(\$\{\w+\}|[^\s\"'{},]+)"):
        image = match[1]
        name, _, tag = image.rpartition(":")
        if not is_variable(image) and (not name or "latest" in tag or not re.search(r"\d", tag)):
            yield Fault(number, f"image {image} is not pinned: name a version's tag")
        elif name == "scarce" and tag != pins.project:
            yield Fault(number, f"image {image}: scarce is at version {pins.project}, write scarce:{pins.project}")
    for number, match in matches(file, r"\bpip3? install\s+(.*)"):
        words = [word for word in match[1].replace("\\", "").split() if not word.startswith("-")]
        locked = re.search(r"(-r|--requirement)[ =]\S*requirements\.lock", match[1])
        editable = "--no-deps" in match[1] and words == ["."]
        if not locked and not editable and not (words and all("==" in word for word in words)):
            yield Fault(number, "installs packages without versions: install --requirement requirements.lock")


def _differs(line: int, name: str, version: str, pins: Pins) -> Iterator[Fault]:
    pinned = pins.packages.get(normalised(name))
    if pinned is None:
        yield Fault(line, f"{name}=={version} is not in requirements.lock: add it there, or leave it out here")
    elif pinned != version:
        yield Fault(line, f"{name} {version}, but requirements.lock has {pinned}: write {pinned}")


def python_minor(file: ClusterFile, pins: Pins, expected: tuple[int, int] | None = None) -> Iterator[Fault]:
    """Pythons named in commands: one that pyproject.toml allows and, if given, the expected one."""
    wanted = expected or pins.python
    for number, match in matches(file, r"\bpython:?(3)\.(\d+)"):
        found = (int(match[1]), int(match[2]))
        if found < pins.python:
            yield Fault(number, f"Python 3.{found[1]}: scarce needs 3.{pins.python[1]} or newer")
        elif found != wanted:
            yield Fault(number, f"Python {found[0]}.{found[1]}, expected {wanted[0]}.{wanted[1]}: write that")


_SECRETS = (
    r"-----BEGIN [A-Z ]*PRIVATE KEY",
    r"\b(?:AKIA[0-9A-Z]{16}|gh[pousr]_\w{20,}|ya29\.[\w-]{10,}|AIza[\w-]{30,}|hf_\w{20,})",
    r"\bRAY_AUTH_TOKEN[\"']?\s*[:=]\s*[\"']?(?![\"']?\$)[^\s\"']",
    r"(?i)\b[\w-]*(?:password|passwd|secret_?key|api_?key|access_?token)[\w-]*[\"']?\s*[:=]\s*[\"']?(?![$\"'/~])\w[^\s\"']{5,}",
)


def secrets(file: ClusterFile, _pins: Pins) -> Iterator[Fault]:
    """Tokens, passwords and keys."""
    for pattern in _SECRETS:
        for number, _ in matches(file, pattern):
            yield Fault(number, "holds a secret: take it out, make a new one, and name a variable or a file instead")
    for number, match in matches(file, r"\bRAY_AUTH_MODE[\"']?\s*[:=,]\s*(?:value:\s*)?[\"']?(\w+)"):
        if match[1] != "token":
            yield Fault(number, f"RAY_AUTH_MODE is {match[1]}: anyone who reaches the port could run code, write token")


def names(file: ClusterFile, _pins: Pins) -> Iterator[Fault]:
    """Projects, buckets and accounts: somebody's, so variables."""
    for number, match in matches(file, r"\b(?:gs|s3)://(?!\$)([\w.-]+)"):
        yield Fault(number, f"bucket {match[1]} is a value: write a variable, such as ${{SCARCE_BUCKET}}")
    for number, match in matches(file, r"([^\s\"']+)\s+/\S+\s+gcsfuse\b"):
        if not is_variable(match[1]):
            yield Fault(number, f"bucket {match[1]} is a value: write a variable, such as ${{SCARCE_BUCKET}}")
    for number, match in matches(file, r"\bprojects/(?!\$)([\w-]+)/"):
        if not match[1].endswith("-cloud"):  # public images, as in ubuntu-os-cloud
            yield Fault(number, f"project {match[1]} is a value: write ${{GOOGLE_CLOUD_PROJECT}}")
    for number, match in matches(file, r"@(?!\$)([\w-]+)\.iam\.gserviceaccount"):
        yield Fault(number, f"project {match[1]} is a value: write ${{GOOGLE_CLOUD_PROJECT}}")
    for number, match in matches(file, r"#SBATCH\s+(--account|--partition|-A|-p)\b"):
        yield Fault(number, f"{match[1]} is a site's own: leave it to the command line")


def no_variables(file: ClusterFile, _pins: Pins) -> Iterator[Fault]:
    """Variables that envsubst was to have filled in."""
    for number, match in matches(file, r"\$\{(?:GOOGLE_CLOUD_PROJECT|SCARCE_[A-Z]+)\}"):
        yield Fault(number, f"{match[0]} is still to be filled in: export it, and run envsubst as the file's top says")


def loopback(file: ClusterFile, _pins: Pins) -> Iterator[Fault]:
    """Nothing listens on every interface."""
    for number, match in matches(file, r"dashboard-host[\"']?\s*[=: ]\s*[\"']?([^\s\"',}]+)"):
        if match[1] not in ("127.0.0.1", "localhost", "::1"):
            yield Fault(number, f"the dashboard would listen on {match[1]}: write 127.0.0.1 and forward the port")
    for number, match in matches(file, r"(?<![\d.])0\.0\.0\.0(?![\d.])|\[::\]"):
        if "dashboard-host" not in file.code[number - 1]:
            yield Fault(number, f"listens on {match[0]}, every interface: write 127.0.0.1")


COMMON: Sequence[Check] = (
    Check("versions as in requirements.lock", versions),
    Check("no secrets, token authentication not off", secrets),
    Check("loopback", loopback),
)
