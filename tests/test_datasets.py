"""The data sets, and the readers and writers of files.

Data sets are NumPy arrays on the host, whatever the backend, so these tests do without the ``xp`` fixture.
"""

import gzip
import hashlib
import logging
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from xpnet import datasets
from xpnet.datasets import fetch, sets
from xpnet.datasets.fetch import FILES, IdxSet, load
from xpnet.errors import DatasetError

DEAD = "http://127.0.0.1:9/"  # the discard port: nothing listens there


def idx_bytes(array):
    """The content of an IDX file, written by the definition of the format."""
    code = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}[array.dtype.str[1:]]
    header = bytes([0, 0, code, array.ndim]) + np.asarray(array.shape, dtype=">u4").tobytes()
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


def equal(left, right):
    """Equal values, shapes and types, all the way down nested pairs."""
    if isinstance(left, tuple):
        return len(left) == len(right) and all(map(equal, left, right))
    return np.array_equal(left, right) and left.dtype == right.dtype


@pytest.fixture
def arrays():
    """A little set in the shape of MNIST: ``(x_train, y_train), (x_test, y_test)``."""
    rng = np.random.default_rng(0)

    def split(n):
        return rng.integers(256, size=(n, 28, 28), dtype=np.uint8), rng.integers(10, size=n, dtype=np.uint8)

    return split(7), split(3)


@pytest.fixture
def contents(arrays):
    """The same as the content of its four files."""
    return {file: idx_bytes(array) for file, array in zip(FILES, [*arrays[0], *arrays[1]], strict=True)}


@pytest.fixture
def tiny(contents):
    """The same as a set to look for, with both kinds of checksum."""
    algorithms = ("sha256", "md5", "sha256", "md5")
    checksums = {
        file: f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}"
        for algorithm, (file, content) in zip(algorithms, contents.items(), strict=True)
    }
    return IdxSet("tiny", (DEAD,), checksums)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache, no data folder of the machine, and no proxy between us and our mirrors."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("XPNET_DATA", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return tmp_path / "cache" / "xpnet" / "tiny"


@pytest.fixture
def serve():
    """Start mirrors: ``serve(pages)`` is the address of one that answers with the given bodies, else 404."""
    pytest.importorskip("pooch")
    servers = []

    def start(pages):
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                body = pages.get(self.path.removeprefix("/"))
                self.send_response(404 if body is None else 200)
                self.send_header("Content-Length", str(len(body or b"")))
                self.end_headers()
                self.wfile.write(body or b"")

            def log_message(self, *args):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
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
    code = "import sys, xpnet.datasets; print(*{'pooch', 'requests', 'PIL', 'sklearn'} & set(sys.modules))"

    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert result.stdout.strip() == ""


@pytest.mark.parametrize(
    ("module", "extra", "use"),
    [
        ("pooch", "data", lambda path: load(IdxSet("tiny", (DEAD,), {}), path / "nowhere", True)),
        ("PIL", "data", lambda path: datasets.image_folder(path)),
        ("sklearn", "sklearn", lambda path: datasets.digits()),
    ],
)
def test_a_missing_optional_package_is_named_with_its_extra(module, extra, use, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "meta_path", [type("Hide", (), {"find_spec": hide(module)}), *sys.meta_path])
    for name in [name for name in sys.modules if name.split(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    write(tmp_path / "0", {"0.png": b""})

    with pytest.raises(ImportError, match=rf'pip install "xpnet\[{extra}\]"') as caught:
        use(tmp_path)

    if module == "pooch":  # the folders that were searched are not lost
        assert str(tmp_path / "nowhere") in caught.value.__notes__[0]


def hide(module):
    def find_spec(name, path=None, target=None):
        if name.split(".")[0] == module:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    return find_spec


# --- IDX files ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "i4", "f4", "f8"])
@pytest.mark.parametrize("shape", [(5,), (2, 3, 4), (0, 28, 28), ()])
def test_read_idx_returns_the_array_that_was_written(tmp_path, dtype, shape):
    array = np.random.default_rng(0).uniform(0, 100, size=shape).astype(dtype)
    path = tmp_path / "values"
    path.write_bytes(idx_bytes(array))

    read = datasets.read_idx(path)

    assert equal(read, array)
    assert read.flags.writeable


def test_read_idx_sees_through_gzip_whatever_the_name(tmp_path):
    array = np.arange(6, dtype=np.uint8).reshape(2, 3)
    path = tmp_path / "values"
    path.write_bytes(gzip.compress(idx_bytes(array)))

    assert equal(datasets.read_idx(str(path)), array)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "found 0 bytes"),
        (b"\0\0", "found 2 bytes"),
        (b"<!DOCTYPE html>", "begin with b'<!DOCTYP'"),
        (b"\0\0\x07\x01\0\0\0\x01\0", "begin with"),  # no such type
        (b"\0\0\x08\x03\0\0\0\x01", "found 8 bytes"),  # three axes, one length
        (b"\0\0\x08\x01\0\0\0\x05abc", r"expected 13 bytes .* found 11"),
        (b"\0\0\x08\x01\0\0\0\x05abcdefg", r"expected 13 bytes .* found 15"),
        (gzip.compress(bytes(1000), mtime=0)[:-9], "complete gzip file, found"),
        (gzip.compress(bytes(1000), mtime=0)[:-1] + b"\1", "complete gzip file, found"),  # wrong length at the end
        (b"\x1f\x8b" + bytes(50), "complete gzip file, found 52 bytes"),
    ],
)
def test_read_idx_says_what_is_wrong_with_a_file(tmp_path, content, found):
    path = tmp_path / "broken"
    path.write_bytes(content)

    with pytest.raises(DatasetError, match=f"broken: expected .*{found}|broken: {found}"):
        datasets.read_idx(path)


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
    """Whichever is read first is the one whose damaged file is reported."""
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
    wrong = contents[file][:-1] + bytes([contents[file][-1] ^ 1])  # one bit, and still an IDX file
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

    with pytest.raises(DatasetError, match=rf"{path.name}: expected a complete gzip file, found 2,\d+ bytes"):
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
    assert sorted(path.name for path in cache.iterdir()) == sorted(FILES[:2])  # only what was right is kept


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
        fetch.keep(b"content", cache / "file")

    assert list(cache.iterdir()) == []


def test_a_cache_that_cannot_be_written_costs_a_warning_only(tiny, arrays, contents, cache, serve, caplog):
    cache.parent.mkdir(parents=True)
    cache.write_bytes(b"a file where the folder should be")

    with caplog.at_level(logging.WARNING):
        loaded = load(with_mirrors(tiny, serve(packed(contents))), None, download=True)

    assert equal(loaded, arrays)
    assert "cannot keep" in caplog.text


# --- the sets with a name -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "kmnist"])
def test_the_named_sets_have_two_mirrors_and_four_checksums(name):
    dataset = getattr(sets, name.upper())

    assert dataset.name == name
    assert len({mirror.split("/")[2] for mirror in dataset.mirrors}) >= 2
    assert all(mirror.endswith("/") for mirror in dataset.mirrors)
    assert tuple(dataset.checksums) == FILES
    for checksum in dataset.checksums.values():
        algorithm, digest = checksum.split(":")
        assert len(bytes.fromhex(digest)) == hashlib.new(algorithm).digest_size


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "kmnist"])
def test_the_named_sets_are_looked_for_under_their_name(name, tmp_path):
    with pytest.raises(DatasetError, match=f"{name}: found no train-images-idx3-ubyte") as caught:
        getattr(datasets, name)(data_dir=tmp_path, download=False)

    assert str(tmp_path / name) in str(caught.value)


DATA = os.environ.get("XPNET_DATA")


@pytest.mark.skipif(not (DATA and Path(DATA, "mnist").is_dir()), reason="no mnist/ in $XPNET_DATA")
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


# --- folders of images --------------------------------------------------------------------------------------


def save_png(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    pytest.importorskip("PIL.Image").fromarray(array).save(path)


def test_image_folder_reads_what_write_image_folder_wrote(arrays, tmp_path):
    pytest.importorskip("PIL")
    (x_train, y_train), (x_test, y_test) = arrays

    datasets.write_image_folder(tmp_path / "images", *arrays)
    read = datasets.image_folder(tmp_path / "images")

    train, test = np.argsort(y_train, kind="stable"), np.argsort(y_test, kind="stable")
    assert equal(read, ((x_train[train], y_train[train]), (x_test[test], y_test[test])))
    assert equal(datasets.image_folder(tmp_path / "images" / "Train"), read[0])
    assert sorted(path.name for path in (tmp_path / "images").iterdir()) == ["Test", "Train"]


def test_image_folder_orders_labels_as_numbers_and_images_by_name(tmp_path):
    for path in ("10/a", "2/b", "2/a", "0/z"):
        save_png(tmp_path / f"{path}.png", np.full((2, 3), ord(path[-1]), np.uint8))
    save_png(tmp_path / ".trash" / "a.png", np.zeros((9, 9), np.uint8))
    (tmp_path / "2" / "notes.txt").write_text("not an image")

    x, y = datasets.image_folder(tmp_path)

    assert y.tolist() == [0, 2, 2, 10]
    assert [chr(image[0, 0]) for image in x] == ["z", "a", "b", "a"]
    assert (x.dtype, x.shape, y.dtype) == (np.uint8, (4, 2, 3), np.uint8)


def test_image_folder_numbers_names_alike_in_both_parts(tmp_path):
    for path in ("Train/ant", "Train/bee", "Train/cat", "Test/cat"):
        save_png(tmp_path / path / "1.png", np.zeros((2, 2), np.uint8))

    (_, y_train), (_, y_test) = datasets.image_folder(tmp_path)

    assert y_train.tolist() == [0, 1, 2]
    assert y_test.tolist() == [2]


def test_image_folder_turns_colours_into_grey(tmp_path):
    save_png(tmp_path / "0" / "1.png", np.full((2, 2, 3), 77, np.uint8))

    x, _ = datasets.image_folder(tmp_path)

    assert x.tolist() == [[[77, 77], [77, 77]]]


def test_image_folder_refuses_images_of_two_sizes(tmp_path):
    save_png(tmp_path / "0" / "1.png", np.zeros((2, 2), np.uint8))
    save_png(tmp_path / "1" / "odd.png", np.zeros((2, 3), np.uint8))

    with pytest.raises(DatasetError, match=r"odd.png: expected \(2, 2\) .* found \(2, 3\)"):
        datasets.image_folder(tmp_path)


@pytest.mark.parametrize(
    "damage",
    [lambda png: png[:400], lambda png: b"hello", lambda png: b"", lambda png: png[:12] + b"!" + png[13:]],
    ids=["truncated", "text", "empty", "wrong header"],
)
def test_image_folder_names_a_damaged_image(tmp_path, damage):
    path = tmp_path / "0" / "bad.png"
    save_png(path, np.random.default_rng(0).integers(256, size=(28, 28), dtype=np.uint8))
    path.write_bytes(damage(path.read_bytes()))

    with pytest.raises(DatasetError, match=r"bad.png: expected a PNG image, found"):
        datasets.image_folder(tmp_path)


def test_image_folder_refuses_16_bits_a_channel(tmp_path):
    save_png(tmp_path / "0" / "deep.png", np.full((2, 2), 40000, np.uint16))

    with pytest.raises(DatasetError, match=r"deep.png: expected 8 bits a channel, found 16"):
        datasets.image_folder(tmp_path)


@pytest.mark.parametrize("folders", [[], ["0", "1"], ["Train/0"]])
def test_image_folder_without_images_says_what_it_looks_for(tmp_path, folders):
    for folder in folders:
        (tmp_path / folder).mkdir(parents=True)

    with pytest.raises(DatasetError, match=r"expected images LABEL/\*\.png"):
        datasets.image_folder(tmp_path)


def test_write_image_folder_leaves_an_older_one_alone(arrays, tmp_path):
    (tmp_path / "Test").mkdir()

    with pytest.raises(FileExistsError, match="Test exists already"):
        datasets.write_image_folder(tmp_path, *arrays)

    assert [path.name for path in tmp_path.iterdir()] == ["Test"]


def test_write_image_folder_leaves_nothing_when_it_fails(arrays, tmp_path):
    pytest.importorskip("PIL")
    train, (x_test, y_test) = arrays

    with pytest.raises(ValueError, match=r"labels whole numbers .* Received: .* labels float64 \(3,\)"):
        datasets.write_image_folder(tmp_path / "images", train, (x_test, y_test / 2))

    assert list((tmp_path / "images").iterdir()) == []


# --- tables -------------------------------------------------------------------------------------------------


def test_label_first_csv_reads_what_write_label_first_csv_wrote(arrays, tmp_path):
    x, y = arrays[0]
    path = tmp_path / "below" / "digits.csv"

    datasets.write_label_first_csv(path, x, y)
    read = datasets.label_first_csv(path)

    assert equal(read, (x.reshape(7, 784), y))
    assert path.read_text().startswith("label,pixel0,pixel1,")
    assert [entry.name for entry in path.parent.iterdir()] == ["digits.csv"]


@pytest.mark.parametrize(
    "text",
    ["7,1,2\n0,255,3\n", "label,a,b\n7,1,2\n0,255,3", "\ufefflabel, a, b\r\n7, 1, 2\r\n0,255,3\r\n"],
)
def test_label_first_csv_takes_a_header_line_or_none(tmp_path, text):
    path = tmp_path / "table.csv"
    path.write_bytes(text.encode())

    x, y = datasets.label_first_csv(path)

    assert equal((x, y), (np.asarray([[1, 2], [255, 3]], np.uint8), np.asarray([7, 0], np.uint8)))


def test_label_first_csv_reads_a_single_row(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("7,1,2")

    x, y = datasets.label_first_csv(path)

    assert (x.tolist(), y.tolist()) == ([[1, 2]], [7])


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "the first row is ''"),
        ("label,pixel0\n", "the first row is ''"),
        ("5;1;2\n6;1;2\n", "the first row is '6;1;2"),
        ("1,2,3\n1,2\n", "columns changed from 3 to 2"),
        ("1,2,256\n", "'256'"),
        ("1,2,0.5\n", "'0.5'"),
        ("-1,2,3\n4,5,6\n", "'-1'"),
        ("1,2,\n", "''"),
        ("\0\xff\xfe", "can't decode|the first row is"),
    ],
)
def test_label_first_csv_says_what_is_wrong_with_a_file(tmp_path, text, found):
    path = tmp_path / "table.csv"
    path.write_bytes(text.encode("latin-1"))

    with pytest.raises(DatasetError, match=rf"table.csv: expected rows .* found otherwise: .*({found})"):
        datasets.label_first_csv(path)


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (np.zeros((2, 4)), np.zeros(2, np.uint8)),
        (np.zeros((2, 4), np.uint8), np.zeros(3, np.uint8)),
        (np.zeros((2, 4), np.uint8), np.asarray([0, 256])),
        (np.zeros((2, 4), np.uint8), np.asarray([0, 0.5])),
    ],
)
def test_write_label_first_csv_refuses_what_cannot_be_read_back(tmp_path, x, y):
    with pytest.raises(ValueError, match="Pixels must be uint8"):
        datasets.write_label_first_csv(tmp_path / "table.csv", x, y)

    assert list(tmp_path.iterdir()) == []
