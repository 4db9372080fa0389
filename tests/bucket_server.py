"""A local server that speaks S3, with its buckets as folders, for tests that need a bucket."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from pathlib import Path
from secrets import token_hex

import pytest
from localbucket import S3Handler


@contextmanager
def bucket_server(folder: Path) -> Iterator[str]:
    """Serve the folders in `folder` as buckets, `bucket` among them; yields what stands behind the "?" of their URLs.

    The environment has credentials meanwhile, made up ones, as the server takes any.
    """
    (folder / "bucket").mkdir(parents=True, exist_ok=True)
    logging.getLogger("localbucket").setLevel(logging.ERROR)

    class Handler(S3Handler):
        data_root = folder.resolve()
        disable_nagle_algorithm = True  # it writes header and body one after the other: 40 ms an answer

        def _put(self, bucket: str, key: str) -> None:
            """Arrow marks a folder it took a file from by an object whose name ends in a slash: no file's name does."""
            if not key.endswith("/"):
                return super()._put(bucket, key)
            self._read_body()
            return self._send(200)  # type: ignore[arg-type]

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=[0.05], daemon=True)
    thread.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", token_hex(8))
        patch.setenv("AWS_SECRET_ACCESS_KEY", token_hex(16))
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        for name in ("AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
            patch.delenv(name, raising=False)
        try:
            yield f"endpoint_override=127.0.0.1:{server.server_address[1]}&scheme=http"
        finally:
            server.shutdown()
            server.server_close()
            thread.join()
