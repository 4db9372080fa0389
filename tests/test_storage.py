"""Places: what is one, what is none, and the same few operations on a disk, behind file:// and in a bucket."""

import io
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from bucket_server import bucket_server
from pyarrow.fs import FileInfo, FileType

from scarce.errors import UserError
from scarce.storage import (
    Remote,
    connect,
    copy,
    download,
    explained,
    list_files,
    place_of,
    read_bytes,
    remove,
    require_path,
    side_by_side,
    upload,
)


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Remote]:
    """A folder in a bucket of a local server."""
    folder = tmp_path_factory.mktemp("server")
    with bucket_server(folder) as query:
        yield Remote("s3://bucket/some folder", query)


@pytest.fixture(params=["s3", "file"])
def remote(request: pytest.FixtureRequest, bucket: Remote, tmp_path: Path) -> Remote:
    return bucket / tmp_path.name if request.param == "s3" else Remote(f"file://{tmp_path}")


def test_a_place_is_written_and_joined_as_a_path_is() -> None:
    place = place_of("s3://bucket/runs/?region=eu-west-1")
    assert str(place / "one" / "config.json") == "s3://bucket/runs/one/config.json?region=eu-west-1"
    assert place.name == "runs"
    assert place_of("s3://bucket").name == "bucket"
    assert place_of("gs://a_bucket.of/x") == Remote("gs://a_bucket.of/x")
    assert place_of("file:///tmp/x/") / "y" == Remote("file:///tmp/x/y")
    assert place_of("data/nih") == Path("data/nih").absolute()
    assert place_of(Path("/a/b")) == Path("/a/b")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ftp://host/x", "found ftp://"),
        ("s3://", "name of a bucket"),
        ("s3:///key", "name of a bucket"),
        ("s3://My Bucket/x", "'My Bucket'"),
        ("s3://bücket/x", "name of a bucket"),
        ("s3://bucket\n/x", "name of a bucket"),
        ("s3://bucket/x?regio=eu", "found regio"),
        ("gs://bucket/x?region=eu", "found region"),
        ("file:///x?scheme=http", "expected nothing"),
        ("file://x", "file:/// and an absolute path"),
    ],
)
def test_what_is_no_place(text: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        place_of(text)


@pytest.mark.parametrize(
    "text", ["s3://id:word@bucket/x", "s3://bucket/x?access_key=word", "s3://bucket/x?session_token=word"]
)
def test_a_url_holds_no_credentials_and_they_are_not_repeated(text: str) -> None:
    with pytest.raises(UserError, match="must hold no credentials") as caught:
        place_of(text)
    assert "word" not in str(caught.value)


def test_some_flags_take_no_url() -> None:
    require_path("--out", Path("data/s3"), "")
    require_path("--out", "data/a:/b", "")
    for url in ("s3://bucket/x", Path("gs://bucket/x")):
        with pytest.raises(UserError, match=r"--out: expected a path on this machine, found the URL .*: copy it"):
            require_path("--out", url, "copy it")


def test_files_come_back_as_they_were(remote: Remote, tmp_path: Path) -> None:
    large = bytes(range(256)) * 50_000  # of several parts
    for name, content in {"a.bin": b"a", "below/large.bin": large, "empty": b""}.items():
        upload(content, remote / name)
    assert list_files(remote) == {"a.bin": 1, "below/large.bin": len(large), "empty": 0}
    assert read_bytes(remote / "empty") == b""
    download(remote / "below/large.bin", tmp_path / "new" / "large.bin")
    assert (tmp_path / "new" / "large.bin").read_bytes() == large
    upload(b"b", remote / "a.bin")
    copy(remote / "a.bin", remote / "c.bin")
    assert read_bytes(remote / "c.bin") == b"b"
    for _ in range(2):  # one that is not there is as good as removed
        remove(remote / "a.bin")
    assert "a.bin" not in list_files(remote)
    with pytest.raises(FileNotFoundError):
        read_bytes(remote / "a.bin")
    assert list_files(remote / "nowhere") == {}


def test_a_download_that_fails_leaves_nothing(bucket: Remote, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        download(bucket / "nothing", tmp_path / "here" / "nothing")
    assert not list(tmp_path.glob("here/*"))


def test_the_endpoint_may_come_from_the_environment(bucket: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    upload(b"x", bucket / "by environment")
    host = bucket.query.partition("=")[2].partition("&")[0]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}")
    assert read_bytes(Remote(bucket.base) / "by environment") == b"x"


def test_google_cloud_storage_is_reached_through_arrow_too() -> None:
    filesystem, path = connect(place_of("gs://bucket/folder?anonymous=true"))
    assert (filesystem.type_name, path) == ("gcs", "bucket/folder")


@pytest.mark.parametrize("scheme", ["s3", "gs"])
def test_nobody_there_is_one_line_within_seconds(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scarce.storage.PATIENCE_S", 1.0)  # Google's client tries again until then
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # and does not listen
        port = unused.getsockname()[1]
        place = place_of(f"{scheme}://bucket/x?endpoint_override=127.0.0.1:{port}&scheme=http&anonymous=true")
        with pytest.raises(UserError, match=r"[Cc]ould not connect to server") as caught, explained(place):
            read_bytes(place)
    message = str(caught.value)
    assert message.startswith(f"{scheme}://bucket/x?")
    assert "credentials and the network" in message
    assert "\n" not in message
    assert len(message) < 400


def test_a_bucket_that_is_not_there(bucket: Remote) -> None:
    place = Remote("s3://no-bucket/x", bucket.query)
    with pytest.raises(UserError, match=r"NO_SUCH_BUCKET.*check the bucket's name"), explained(place):
        upload(b"x", place)


def test_a_disk_is_not_explained_as_a_bucket(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), explained(tmp_path):
        read_bytes(tmp_path / "nothing")


def test_side_by_side_keeps_the_order_and_raises() -> None:
    assert side_by_side(lambda n: n * n, range(100)) == [n * n for n in range(100)]
    with pytest.raises(ZeroDivisionError):
        side_by_side(lambda n: 1 / n, [1, 0])


class Growing:
    """A file that has grown between the first question for its size and the reading of its content."""

    def __init__(self) -> None:
        self.reads = [b'{"ended": 17', b'{"ended": 1795872592}']

    def open_input_stream(self, path: str) -> io.BytesIO:
        return io.BytesIO(self.reads.pop(0))

    def get_file_info(self, path: str) -> FileInfo:
        return FileInfo(path, type=FileType.File, size=21)


def test_a_file_that_grows_while_it_is_read_is_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Remote("s3://bucket/attempt.json")
    monkeypatch.setattr("scarce.storage.connect", lambda place: (Growing(), "attempt.json"))
    assert read_bytes(place) == b'{"ended": 1795872592}'
    download(place, tmp_path / "attempt.json")
    assert (tmp_path / "attempt.json").read_bytes() == b'{"ended": 1795872592}'
