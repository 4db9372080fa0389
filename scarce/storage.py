"""Where data and runs lie: a path, or a URL of S3, of Google Cloud Storage or of another disk.

Buckets are reached through Arrow's file systems, with the credentials that their owners' tools use (environment
variables, configuration files, the machine's role), never with any in the URL.
"""

import io
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import BinaryIO, TypeVar
from urllib.parse import parse_qsl

import pyarrow as pa
from pyarrow import fs

from scarce.errors import UserError
from scarce.files import atomic_path

OPTIONS = {
    "s3": ("region", "scheme", "endpoint_override", "anonymous"),
    "gs": ("scheme", "endpoint_override", "anonymous"),
    "file": (),
}  # what may stand behind the "?" of a URL, by its scheme
PATIENCE_S = 10.0  # for a connection to a bucket, before Arrow says that there is none
AT_ONCE = 16  # requests to a bucket side by side: one waits mostly
Key = TypeVar("Key")
Value = TypeVar("Value")


@dataclass(frozen=True)
class Remote:
    """A folder or file behind a URL; written and joined as a path is."""

    base: str  # scheme://bucket/folder, or file:///folder, without a slash at its end
    query: str = ""  # how to reach it, such as region=eu-west-1

    @property
    def name(self) -> str:
        """The last part, as of a path."""
        return self.base.rpartition("/")[2]

    def __truediv__(self, part: str) -> "Remote":
        return replace(self, base=f"{self.base}/{part}")

    def __str__(self) -> str:
        return f"{self.base}?{self.query}" if self.query else self.base


Place = Path | Remote


def place_of(text: str | Path) -> Place:
    """The absolute path or the URL that a user's text stands for.

    Raises:
        UserError: it is a URL that can't be used.
    """
    scheme, separator, rest = str(text).partition("://")
    if not separator or isinstance(text, Path):
        return Path(text).absolute()
    base, _, query = rest.partition("?")
    base = base.rstrip("/")
    if scheme not in OPTIONS:
        raise UserError(
            f"{text}: expected a path, s3://bucket/folder, gs://bucket/folder or file:///folder, found {scheme}://"
        )
    options = dict(parse_qsl(query, keep_blank_values=True))
    if "@" in base.partition("/")[0] or any("key" in option or "token" in option for option in options):
        raise UserError(
            f"{scheme}:// URLs are written to config.json and must hold no credentials: expected them in the "
            "environment (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, GOOGLE_APPLICATION_CREDENTIALS) or in their "
            "tools' configuration files; for a public bucket add ?anonymous=true"
        )
    for option in options:
        if option not in OPTIONS[scheme]:
            raise UserError(f"{text}: expected {', '.join(OPTIONS[scheme]) or 'nothing'} after the ?, found {option}")
    if scheme == "file":
        if not base.startswith("/"):
            raise UserError(f"{text}: expected file:/// and an absolute path, found {base or 'nothing'}")
    elif not re.fullmatch(r"[a-z0-9][a-z0-9._-]*[a-z0-9]", base.partition("/")[0]):
        raise UserError(f"{text}: expected {scheme}:// and the name of a bucket, found {base.partition('/')[0]!r}")
    return Remote(f"{scheme}://{base}", query)


def require_path(flag: str, value: str | Path, instead: str) -> None:
    """`UserError` if the value of a flag that takes a path is a URL; `instead` says what to do."""
    if re.match(r"[a-z][a-z0-9+.-]+:/", str(value)):  # a `Path` of a URL has lost its second slash
        raise UserError(f"{flag}: expected a path on this machine, found the URL {value}: {instead}")


def connect(place: Place) -> tuple[fs.FileSystem, str]:
    """The file system that a place lies in, and its path there."""
    if isinstance(place, Path):
        return fs.LocalFileSystem(), str(place)
    scheme, _, path = place.base.partition("://")
    options = dict(parse_qsl(place.query))
    if scheme == "file":
        return fs.LocalFileSystem(), path
    endpoint = options.get("endpoint_override")
    if scheme == "s3" and not endpoint:
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    before, separator, host = (endpoint or "").rpartition("://")
    make = _s3 if scheme == "s3" else _gcs
    return make(
        bucket=path.partition("/")[0],
        region=options.get("region"),
        scheme=before if separator else options.get("scheme", "https"),
        endpoint=host,
        anonymous=options.get("anonymous", "").lower() in ("1", "true", "yes"),
    ), path


@cache  # a client costs a tenth of a second
def _s3(*, bucket: str, region: str | None, scheme: str, endpoint: str, anonymous: bool) -> fs.S3FileSystem:
    # Without a region Amazon is asked for the bucket's. Other servers have but one, whatever they call it.
    region = region or ("us-east-1" if endpoint else fs.resolve_s3_region(bucket))
    return fs.S3FileSystem(
        region=region,
        scheme=scheme,
        endpoint_override=endpoint or None,
        anonymous=anonymous,
        connect_timeout=PATIENCE_S,
        request_timeout=PATIENCE_S,
    )


@cache
def _gcs(*, bucket: str, region: str | None, scheme: str, endpoint: str, anonymous: bool) -> fs.GcsFileSystem:
    return fs.GcsFileSystem(
        scheme=scheme,
        endpoint_override=endpoint or None,
        anonymous=anonymous,
        retry_time_limit=timedelta(seconds=PATIENCE_S),  # by default a quarter of an hour
    )


def read_bytes(place: Place) -> bytes:
    """A file's content; `FileNotFoundError` if there is none, `OSError` if it can't be had."""
    if isinstance(place, Path):
        return place.read_bytes()  # whose errors name the file
    filesystem, path = connect(place)
    content = io.BytesIO()
    _copy_whole(filesystem, path, content)
    return content.getvalue()


def download(place: Place, target: Path) -> None:
    """Copy a file to the disk, atomically."""
    filesystem, path = connect(place)
    with atomic_path(target) as temporary, open(temporary, "wb") as file:
        _copy_whole(filesystem, path, file)


def _copy_whole(filesystem: fs.FileSystem, path: str, target: BinaryIO) -> None:
    """Copy a file, again if it grew meanwhile: Arrow asks for its size first, and cuts what it then reads to that."""
    while True:
        target.seek(0)
        target.truncate()
        with filesystem.open_input_stream(path) as source:
            shutil.copyfileobj(source, target, 1 << 24)
        if target.tell() == filesystem.get_file_info(path).size:
            return


def upload(content: bytes | pa.Buffer, place: Remote) -> None:
    """Write a file. Whoever reads it meanwhile sees the old one or the whole new one."""
    filesystem, path = connect(place)
    if isinstance(filesystem, fs.LocalFileSystem):
        with atomic_path(Path(path)) as temporary:
            temporary.write_bytes(content)
        return
    # One write of all there is: a stream that is closed half-written would be a whole object.
    with filesystem.open_output_stream(path) as stream:
        stream.write(content)


def copy(source: Remote, target: Remote) -> None:
    """Copy a file within a bucket, by the bucket itself."""
    filesystem, path = connect(source)
    filesystem.copy_file(path, connect(target)[1])


def remove(place: Remote) -> None:
    """Remove a file, if it is there."""
    filesystem, path = connect(place)
    with suppress(FileNotFoundError):
        filesystem.delete_file(path)


def list_files(place: Remote) -> dict[str, int]:
    """The files below a folder by their names relative to it, with their sizes in bytes; empty if there are none."""
    filesystem, path = connect(place)
    found = filesystem.get_file_info(fs.FileSelector(path, recursive=True, allow_not_found=True))
    files = {info.path.removeprefix(f"{path}/"): info.size for info in found if info.is_file}
    if strange := [name for name in files if ".." in name.split("/")]:  # would be written outside of a local copy
        raise UserError(f"{place} holds a file of the name {strange[0]!r}: expected none with .. in it; remove it")
    return files


def side_by_side(function: Callable[[Key], Value], keys: Iterable[Key]) -> list[Value]:
    """The function of each of the keys, in their order: what waits for a bucket waits together."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(function, keys))


@contextmanager
def explained(place: Place) -> Iterator[None]:
    """Say in a line why a bucket can't be used. What is wrong with a local disk goes its usual way."""
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        if isinstance(place, Path):
            raise
        raise UserError(
            f"{place} can't be used ({reason_of(error)}): check the bucket's name and region, your credentials and the "
            "network"
        ) from error


def reason_of(error: Exception) -> str:
    """What Arrow's errors say, without what its libraries add."""
    text = " ".join(str(error).split()).partition(" error_info=")[0].partition("; Details:")[0]
    return text.rpartition("AWS Error ")[2].rpartition("with a last message of ")[2][:300]
