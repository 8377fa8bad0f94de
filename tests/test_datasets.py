"""The data sets, and the readers and writers of files.

Data sets are NumPy arrays on the host with every backend, so these tests do not use the ``xp`` fixture.
"""

import contextlib
import gzip
import hashlib
import logging
import os
import socket
import ssl
import struct
import sys
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from tests.data_files import CERTIFICATE, equal, idx_bytes, little_set
from tests.scripts import run
from xpnet import datasets
from xpnet.datasets import download, fetch, sets
from xpnet.datasets.fetch import FILES, IdxSet, load
from xpnet.errors import DatasetError

DEAD = "http://127.0.0.1:9/"  # nothing listens on the discard port; plain http is allowed only on this machine


@pytest.fixture
def arrays():
    return little_set()


@pytest.fixture
def contents(arrays):
    """The data set as the contents of its four files."""
    return {file: idx_bytes(array) for file, array in zip(FILES, [*arrays[0], *arrays[1]], strict=True)}


@pytest.fixture
def tiny(contents):
    """The data set as an IdxSet, with both kinds of checksum."""
    algorithms = ("sha256", "md5", "sha256", "md5")
    checksums = {
        file: f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}"
        for algorithm, (file, content) in zip(algorithms, contents.items(), strict=True)
    }
    return IdxSet("tiny", (DEAD,), checksums)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache, without the machine's data folder and without a proxy."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("XPNET_DATA", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(fetch, "WAITS", (0.0,))
    return tmp_path / "cache" / "xpnet" / "tiny"


@pytest.fixture
def serve():
    """Start mirrors: ``serve(pages)`` returns the address of one that answers with these bodies, or with 404.

    A page may also be a function, which receives the request's handler and answers the request.
    """
    servers = []

    def start(pages, wrap=lambda socket: socket):
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                body = pages.get(self.path.removeprefix("/"))
                if callable(body):
                    with contextlib.suppress(ConnectionError):
                        return body(self)
                self.send_response(404 if body is None else 200)
                self.send_header("Content-Length", str(len(body or b"")))
                self.end_headers()
                self.wfile.write(body or b"")

            def log_message(self, *args):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.socket = wrap(server.socket)
        server.handle_error = lambda *args: None  # a client that does not trust the certificate
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def packed(contents):
    return {f"{file}.gz": gzip.compress(content) for file, content in contents.items()}


def write(folder, contents, pack=False):
    folder.mkdir(parents=True, exist_ok=True)
    for file, content in (packed(contents) if pack else contents).items():
        (folder / file).write_bytes(content)


# --- importing ----------------------------------------------------------------------------------------------


def test_importing_the_datasets_imports_nothing_optional():
    code = "import sys, xpnet.datasets; print(*{'PIL', 'sklearn'} & set(sys.modules))"

    result = run("-c", code)

    assert result.stdout.strip() == ""


@pytest.mark.parametrize(
    ("module", "extra", "use"),
    [
        ("PIL", "data", lambda path: datasets.image_folder(path)),
        ("sklearn", "sklearn", lambda path: datasets.digits()),
    ],
)
def test_a_missing_optional_package_is_named_with_its_extra(module, extra, use, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "meta_path", [type("Hide", (), {"find_spec": hide(module)}), *sys.meta_path])
    for name in [name for name in sys.modules if name.split(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    write(tmp_path / "0", {"0.png": b""})

    with pytest.raises(ImportError, match=rf"pip install -e .*\[{extra}\]"):
        use(tmp_path)


def hide(module):
    def find_spec(name, path=None, target=None):
        if name.split(".")[0] == module:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    return find_spec


# --- finding a set on disk ----------------------------------------------------------------------------------


@pytest.mark.parametrize("pack", [False, True], ids=["plain", "gz"])
@pytest.mark.parametrize("below", ["", "tiny"])
@pytest.mark.parametrize("given", ["data_dir", "XPNET_DATA"])
def test_a_set_is_read_from_a_folder_or_the_one_named_after_it(
    tiny, arrays, contents, tmp_path, monkeypatch, given, below, pack
):
    write(tmp_path / "data" / below, contents, pack)
    data_dir = tmp_path / "data" if given == "data_dir" else None
    if given == "XPNET_DATA":
        monkeypatch.setenv("XPNET_DATA", str(tmp_path / "data"))

    loaded = load(tiny, data_dir, download=False)

    assert equal(loaded, arrays)


def test_a_set_is_read_from_the_cache(tiny, arrays, contents, cache):
    write(cache, contents)

    assert equal(load(tiny, None, download=False), arrays)


def test_data_dir_goes_before_the_environment_and_that_before_the_cache(tiny, cache, tmp_path, monkeypatch):
    """The error reports the damaged file in the folder that is read first."""
    places = [tmp_path / "given" / "tiny", tmp_path / "given", tmp_path / "environment", cache]
    monkeypatch.setenv("XPNET_DATA", str(tmp_path / "environment"))
    for place in reversed(places):
        write(place, {FILES[0]: b"damaged"})

        with pytest.raises(DatasetError) as caught:
            load(tiny, tmp_path / "given", download=False)

        assert str(caught.value).startswith(f"{place / FILES[0]}: ")


def test_each_file_may_be_in_another_place(tiny, arrays, contents, cache, tmp_path):
    write(tmp_path, {FILES[0]: contents[FILES[0]]})
    write(cache, {file: contents[file] for file in FILES[1:]})

    assert equal(load(tiny, tmp_path, download=False), arrays)


def test_a_home_folder_may_be_written_with_a_tilde(tiny, arrays, contents, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    write(tmp_path / "data", contents)

    assert equal(load(tiny, "~/data", download=False), arrays)


@pytest.mark.parametrize("pack", [False, True], ids=["plain", "gz"])
@pytest.mark.parametrize("file", FILES)
def test_a_wrong_file_is_named_with_what_was_expected_and_found(tiny, contents, tmp_path, file, pack):
    wrong = contents[file][:-1] + bytes([contents[file][-1] ^ 1])  # one wrong bit, but still an IDX file
    algorithm, expected = tiny.checksums[file].split(":")
    write(tmp_path, contents | {file: wrong}, pack)

    with pytest.raises(DatasetError) as caught:
        load(tiny, tmp_path, download=True)

    message = str(caught.value)
    assert str(tmp_path / file) in message
    assert expected in message
    assert hashlib.new(algorithm, wrong).hexdigest() in message


def test_a_truncated_gz_file_is_named(tiny, contents, tmp_path):
    write(tmp_path, contents, pack=True)
    path = tmp_path / f"{FILES[2]}.gz"
    path.write_bytes(path.read_bytes()[:-20])

    with pytest.raises(DatasetError, match=rf"{path.name}: expected a complete gzip file"):
        load(tiny, tmp_path, download=True)


def test_without_download_the_error_lists_every_folder_searched(tiny, cache, tmp_path, monkeypatch):
    monkeypatch.setenv("XPNET_DATA", str(tmp_path / "environment"))

    with pytest.raises(DatasetError, match="train-images-idx3-ubyte") as caught:
        load(tiny, tmp_path / "given", download=False)

    message = str(caught.value)
    for folder in (tmp_path / "given", tmp_path / "given" / "tiny", tmp_path / "environment" / "tiny", cache):
        assert f"  {folder}\n" in message
    assert "XPNET_DATA" in message


# --- downloading --------------------------------------------------------------------------------------------


def with_mirrors(tiny, *mirrors):
    return IdxSet(tiny.name, mirrors, tiny.checksums)


def test_a_set_is_downloaded_into_the_cache_once(tiny, arrays, contents, cache, serve):
    pages = packed(contents)
    dataset = with_mirrors(tiny, serve(pages))

    first = load(dataset, None, download=True)
    pages.clear()
    second = load(dataset, None, download=True)

    assert equal(first, arrays)
    assert equal(second, arrays)
    assert sorted(path.name for path in cache.iterdir()) == sorted(FILES)


def test_only_what_is_missing_is_downloaded(tiny, arrays, contents, cache, serve, tmp_path):
    write(tmp_path, {file: contents[file] for file in FILES[:3]})

    loaded = load(with_mirrors(tiny, serve(packed({FILES[3]: contents[FILES[3]]}))), tmp_path, download=True)

    assert equal(loaded, arrays)
    assert [path.name for path in cache.iterdir()] == [FILES[3]]


@pytest.mark.parametrize("body", [None, b"", b"<html>not here</html>", "truncated", "wrong"])
def test_the_second_mirror_carries_on_where_the_first_fails(tiny, arrays, contents, cache, serve, body):
    pages = packed(contents)
    broken = {"truncated": pages[f"{FILES[1]}.gz"][:-5], "wrong": pages[f"{FILES[3]}.gz"]}.get(body, body)
    first = serve({f"{FILES[0]}.gz": pages.pop(f"{FILES[0]}.gz"), f"{FILES[1]}.gz": broken})

    loaded = load(with_mirrors(tiny, first, serve(pages)), None, download=True)

    assert equal(loaded, arrays)
    assert sorted(path.name for path in cache.iterdir()) == sorted(FILES)


def test_a_dead_mirror_is_passed_over(tiny, arrays, contents, serve):
    assert equal(load(with_mirrors(tiny, DEAD, serve(packed(contents))), None, download=True), arrays)


def test_a_mirror_may_send_the_content_unpacked(tiny, arrays, contents, serve):
    mirror = serve({f"{file}.gz": content for file, content in contents.items()})

    assert equal(load(with_mirrors(tiny, mirror), None, download=True), arrays)


def redirect(location):
    def answer(handler):
        handler.send_response(302)
        handler.send_header("Location", location)
        handler.end_headers()

    return answer


def respond(*headers, body=b"", status=200):
    def answer(handler):
        handler.send_response(status)
        for name, value in headers:
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def reset(handler):
    linger = struct.pack("ii", 1, 0)
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    handler.connection.close()


def endless(handler):
    handler.send_response(200)
    handler.end_headers()
    for _ in range(1000):
        handler.wfile.write(bytes(2**20))


def trickle(handler):
    """Send a header, and then a byte every 50 ms for at most 5 s."""
    handler.send_response(200)
    handler.end_headers()
    for _ in range(100):
        handler.wfile.write(b"x")
        time.sleep(0.05)


def trickle_headers(handler):
    handler.wfile.write(b"HTTP/1.0 200 OK\r\n")
    for number in range(100):
        handler.wfile.write(b"X-%d: x\r\n" % number)
        time.sleep(0.05)


FAULTS = {
    "malformed redirect": redirect("http://[::1"),
    "redirect without an address": respond(status=302),
    "redirect to http": redirect("http://example.org/"),
    "redirect to ftp": redirect("ftp://127.0.0.1/"),
    "redirect to a file": redirect("file:///etc/passwd"),
    "redirect in a circle": redirect(f"/{FILES[0]}.gz"),
    "malformed length": respond(("Content-Length", "many"), body=b"x"),
    "negative length": respond(("Content-Length", "-5"), body=b"x"),
    "huge length": respond(("Content-Length", "9" * 30), body=b"x"),
    "short body": respond(("Content-Length", "500"), body=b"x"),
    "malformed chunks": respond(("Transfer-Encoding", "chunked"), body=b"zz\r\nabc"),
    "no HTTP": lambda handler: handler.wfile.write(b"SSH-2.0-x\r\n"),
    "no answer": lambda handler: None,
    "reset": reset,
    "endless": endless,
    "slow": trickle,
    "slow headers": trickle_headers,
    "server error": respond(status=503),
    "bomb": respond(body=gzip.compress(b"\0\0\x08\x01\0\0\0\x05" + bytes(2**20))),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_whatever_is_wrong_with_one_mirror_the_next_carries_on(tiny, arrays, contents, serve, monkeypatch, fault):
    monkeypatch.setattr(download, "GRACE", 0.5)
    first = serve({f"{FILES[0]}.gz": FAULTS[fault]})

    loaded = load(with_mirrors(tiny, first, serve(packed(contents))), None, download=True)

    assert equal(loaded, arrays)


@pytest.mark.parametrize(
    ("fault", "named"),
    [
        ("redirect to http", r"expected an https address. Received: 'http://example.org/'"),
        ("huge length", r"expected at most 67,108,864 bytes. Received: more"),
        ("endless", r"expected at most 67,108,864 bytes. Received: more"),
        ("slow", r"bytes per second. Received: \d+ bytes in 0 s"),
        ("slow headers", r"bytes per second. Received: 0 bytes in 0 s"),
        ("short body", r"IncompleteRead"),
        ("server error", r"503"),
    ],
)
def test_the_error_of_a_mirror_is_named(tiny, serve, monkeypatch, fault, named):
    monkeypatch.setattr(download, "GRACE", 0.3)

    with pytest.raises(DatasetError, match=named):
        load(with_mirrors(tiny, serve({f"{FILES[0]}.gz": FAULTS[fault]})), None, download=True)


@pytest.mark.parametrize(
    "url", ["http://example.org/", "ftp://127.0.0.1/", "file:///", "http://127.0.0.1.example.org/"]
)
def test_an_address_that_is_not_https_is_never_asked(tiny, url, monkeypatch):
    monkeypatch.setattr(urllib.request, "build_opener", None)

    with pytest.raises(DatasetError, match="expected an https address"):
        load(with_mirrors(tiny, url), None, download=True)


def test_a_certificate_that_nobody_vouches_for_is_refused(tiny, arrays, contents, serve, tmp_path):
    (tmp_path / "own.pem").write_text(CERTIFICATE)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "own.pem")
    pages = packed(contents)
    imposter = serve(pages, lambda plain: context.wrap_socket(plain, server_side=True)).replace("http", "https")

    with pytest.raises(DatasetError, match="CERTIFICATE_VERIFY_FAILED"):
        load(with_mirrors(tiny, imposter), None, download=True)

    assert equal(load(with_mirrors(tiny, imposter, serve(pages)), None, download=True), arrays)


@pytest.mark.parametrize("fault", ["server error", "reset", "short body"])
def test_a_failure_that_may_pass_is_tried_again_later(tiny, arrays, contents, serve, monkeypatch, fault):
    monkeypatch.setattr(fetch, "WAITS", (0.0, 0.01))
    pages = packed(contents)
    page, asked = pages[f"{FILES[1]}.gz"], []

    def at_second_try(handler):
        asked.append(1)
        (FAULTS[fault] if len(asked) == 1 else respond(body=page))(handler)

    pages[f"{FILES[1]}.gz"] = at_second_try

    loaded = load(with_mirrors(tiny, serve(pages)), None, download=True)

    assert equal(loaded, arrays)


def test_a_failure_that_stays_is_not_tried_again(tiny, serve, monkeypatch):
    monkeypatch.setattr(fetch, "WAITS", (0.0, 0.01))
    asked = []

    def answer(handler):
        asked.append(1)
        respond(status=404)(handler)

    with pytest.raises(DatasetError, match="404"):
        load(with_mirrors(tiny, serve({f"{FILES[0]}.gz": answer})), None, download=True)

    assert len(asked) == 1


def test_an_archive_must_have_its_own_checksum_too(tiny, arrays, contents, serve):
    pages = packed(contents)
    archives = {FILES[1]: hashlib.sha256(pages[f"{FILES[1]}.gz"]).hexdigest()}
    packed_otherwise = pages | {f"{FILES[1]}.gz": gzip.compress(contents[FILES[1]], 1, mtime=1)}

    with pytest.raises(DatasetError, match=f"expected a file with sha256 {archives[FILES[1]]}"):
        load(IdxSet("tiny", (serve(packed_otherwise),), tiny.checksums, archives), None, download=True)

    assert equal(load(IdxSet("tiny", (serve(pages),), tiny.checksums, archives), None, download=True), arrays)


@pytest.mark.parametrize("damage", [lambda content: content[:-1], lambda content: b"", lambda content: content + b"x"])
def test_a_damaged_file_in_the_cache_is_downloaded_again_and_that_is_said(
    tiny, arrays, contents, cache, serve, caplog, damage
):
    write(cache, contents | {FILES[2]: damage(contents[FILES[2]])})

    loaded = load(with_mirrors(tiny, serve(packed(contents))), None, download=True)

    assert equal(loaded, arrays)
    assert f"{FILES[2]}: expected" in caplog.text
    assert "downloaded again" in caplog.text
    assert equal(load(tiny, None, download=False), arrays)


@pytest.fixture
def homeless(monkeypatch):
    """A user without a home directory, as in some containers."""
    pwd = pytest.importorskip("pwd", reason="needs the POSIX user database")
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name)

    def unknown(_):
        raise KeyError("no such user")

    monkeypatch.setattr(pwd, "getpwuid", unknown)


def test_no_home_is_needed_where_the_data_is(tiny, arrays, contents, tmp_path, homeless):
    write(tmp_path, contents)

    assert equal(load(tiny, tmp_path, download=True), arrays)


def test_without_a_home_a_download_is_not_kept(tiny, arrays, contents, serve, homeless, caplog, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    assert equal(load(with_mirrors(tiny, serve(packed(contents))), None, download=True), arrays)

    assert "set XDG_CACHE_HOME" in caplog.text
    assert list(tmp_path.iterdir()) == []


def test_where_all_mirrors_fail_the_error_lists_what_was_tried(tiny, contents, cache, serve, tmp_path):
    pages = packed(contents) | {f"{FILES[2]}.gz": b"damaged"}
    corrupt = serve(pages)

    with pytest.raises(DatasetError) as caught:
        load(with_mirrors(tiny, DEAD, corrupt), tmp_path / "given", download=True)

    message = str(caught.value)
    assert f"  {tmp_path / 'given'}\n" in message
    assert f"  {DEAD}{FILES[0]}.gz: " in message
    assert f"  {corrupt}{FILES[2]}.gz: expected" in message
    assert "XPNET_DATA" in message
    assert sorted(path.name for path in cache.iterdir()) == sorted(FILES[:2])  # only correct files are kept


def test_several_downloads_at_once_do_not_disturb_each_other(tiny, arrays, contents, cache, serve):
    dataset = with_mirrors(tiny, serve(packed(contents)))
    start = threading.Barrier(4)

    def download(_):
        start.wait()
        return load(dataset, None, download=True)

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(download, range(4)))

    assert all(equal(result, arrays) for result in results)
    assert sorted(path.name for path in cache.iterdir()) == sorted(FILES)


def test_an_interrupted_write_leaves_nothing_behind(cache, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)

    with pytest.raises(KeyboardInterrupt):
        fetch.keep(b"content", cache, "file")

    assert list(cache.iterdir()) == []


def test_a_cache_that_cannot_be_written_costs_a_warning_only(tiny, arrays, contents, cache, serve, caplog):
    cache.parent.mkdir(parents=True)
    cache.write_bytes(b"a file where the folder should be")

    with caplog.at_level(logging.WARNING):
        loaded = load(with_mirrors(tiny, serve(packed(contents))), None, download=True)

    assert equal(loaded, arrays)
    assert "Cannot keep" in caplog.text


# --- the named data sets -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "kmnist"])
def test_the_named_sets_have_two_mirrors_and_four_checksums(name):
    dataset = getattr(sets, name.upper())

    assert dataset.name == name
    assert len({mirror.split("/")[2] for mirror in dataset.mirrors}) >= 2
    assert all(mirror.startswith("https://") and mirror.endswith("/") for mirror in dataset.mirrors)
    assert tuple(dataset.checksums) == FILES
    for checksum in dataset.checksums.values():
        algorithm, digest = checksum.split(":")
        assert len(bytes.fromhex(digest)) == hashlib.new(algorithm).digest_size
    assert set(dataset.archives) == {file for file in FILES if not dataset.checksums[file].startswith("sha256:")}
    assert all(len(bytes.fromhex(digest)) == 32 for digest in dataset.archives.values())


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "kmnist"])
def test_the_named_sets_are_looked_for_under_their_name(name, tmp_path):
    with pytest.raises(
        DatasetError, match=f"(?s){name}: expected train-images-idx3-ubyte.*Received: no such files"
    ) as caught:
        getattr(datasets, name)(data_dir=tmp_path, download=False)

    assert str(tmp_path / name) in str(caught.value)


DATA = os.environ.get("XPNET_DATA")


@pytest.mark.skipif(not (DATA and Path(DATA, "mnist").is_dir()), reason="$XPNET_DATA has no folder mnist/")
def test_mnist_is_the_real_one(monkeypatch):
    monkeypatch.setenv("XPNET_DATA", DATA)

    (x_train, y_train), (x_test, y_test) = datasets.mnist(download=False)

    assert (x_train.shape, y_train.shape) == ((60000, 28, 28), (60000,))
    assert (x_test.shape, y_test.shape) == ((10000, 28, 28), (10000,))
    assert {array.dtype for array in (x_train, y_train, x_test, y_test)} == {np.dtype(np.uint8)}
    assert y_test[:5].tolist() == [7, 2, 1, 0, 4]
    assert np.bincount(y_train).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]


def test_digits_are_always_the_same_two_parts_of_one_set():
    sklearn_datasets = pytest.importorskip("sklearn.datasets")

    (x_train, y_train), (x_test, y_test) = datasets.digits()

    assert (x_train.shape, x_test.shape) == ((1500, 8, 8), (297, 8, 8))
    assert {array.dtype for array in (x_train, y_train, x_test, y_test)} == {np.dtype(np.uint8)}
    assert x_train.max() == 16
    assert y_test[:10].tolist() == [2, 2, 9, 8, 8, 3, 6, 0, 4, 4]
    both = np.concatenate([x_train, x_test]).reshape(-1, 64), np.concatenate([y_train, y_test])
    original = sklearn_datasets.load_digits()
    assert sorted(map(tuple, np.column_stack(both))) == sorted(
        map(tuple, np.column_stack([original.data, original.target]).astype(int))
    )
