import hashlib
import http.server
import threading
import urllib.parse

import pytest

from ddpm.data.dataset import DataError
from ddpm.data.download import Remote

CONTENT = b"all of the data" * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    served: list[str] = []  # noqa: RUF012

    def do_GET(self):
        self.served.append(self.path)
        if self.path == "/missing":
            self.send_error(404)
            return
        body = CONTENT[:-1] if self.path == "/cut" else CONTENT
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    Handler.served.clear()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_downloaded_once(server, tmp_path):
    remote = Remote(f"{server}/file.gz", SHA256)
    for _ in range(2):
        assert remote.fetch(tmp_path / "new").read_bytes() == CONTENT
    assert Handler.served == ["/file.gz"]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["file.gz"]


@pytest.mark.parametrize(("path", "reason"), [("missing", "Not Found"), ("cut", "what came has sha256")])
def test_a_download_that_fails_says_what_to_do(server, tmp_path, path, reason):
    with pytest.raises(DataError) as error:
        Remote(f"{server}/{path}", SHA256).fetch(tmp_path)
    for part in (f"{server}/{path}", reason, str(tmp_path / path), SHA256, "put it at"):
        assert part in str(error.value)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_nobody_answers(tmp_path):
    with pytest.raises(DataError, match="Connection refused"):
        Remote("http://127.0.0.1:9/file.gz", SHA256).fetch(tmp_path)


def test_a_file_put_there_by_hand(tmp_path):
    (tmp_path / "file.gz").write_bytes(CONTENT)
    remote = Remote("http://127.0.0.1:9/file.gz", SHA256)
    assert remote.fetch(tmp_path) == remote.fetch(tmp_path / "file.gz") == tmp_path / "file.gz"


def test_the_wrong_file_put_there_by_hand(tmp_path):
    (tmp_path / "file.gz").write_bytes(b"an error page")
    with pytest.raises(DataError, match=rf"file.gz is not the file .* expected {SHA256}\): delete it"):
        Remote("http://127.0.0.1:9/file.gz", SHA256).fetch(tmp_path)


def test_a_folder_of_its_name_is_said_to_be_one(tmp_path):
    (tmp_path / "file.gz").mkdir()
    with pytest.raises(DataError, match=r"cannot read .*file\.gz: Is a directory"):
        Remote("http://127.0.0.1:9/file.gz", SHA256).fetch(tmp_path)


def test_another_file_in_the_place_of_the_folder_is_said_to_be_one(tmp_path):
    (tmp_path / "other.gz").write_bytes(CONTENT)
    with pytest.raises(DataError, match=r"other\.gz is a file: give data\.path= the folder of file\.gz"):
        Remote("http://127.0.0.1:9/file.gz", SHA256).fetch(tmp_path / "other.gz")


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(DataError, match="cannot download"):
        Remote((tmp_path / "x").as_uri() + urllib.parse.quote("?"), SHA256).fetch(tmp_path / "taken" / "inside")
