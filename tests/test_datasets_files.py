"""IDX files and CSV tables: which are read, which are refused, that nothing is guessed, and that limits are respected.

Files become NumPy arrays on the host with every backend, so these tests do not use the ``xp`` fixture.
"""

import codecs
import gzip
import os
import pickle
import stat
import struct
import threading
import tracemalloc

import numpy as np
import pytest

from tests.data_files import equal, idx_bytes, little_set
from xpnet import datasets
from xpnet.errors import DatasetError


@pytest.fixture
def csv(tmp_path):
    """``csv(content, **options)`` writes the content to a file and reads it."""

    def read(content, name="table.csv", **options):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return datasets.label_first_csv(path, **options)

    return read


def table(x, y, dtype=np.uint8):
    return np.asarray(x, dtype), np.asarray(y, np.uint8)


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
        (b"", "expected an IDX file"),
        (b"\0\0", "expected an IDX file"),
        (b"<!DOCTYPE html>", "Received: b'<!DOCTYP'"),
        (b"\0\0\x07\x01\0\0\0\x01\0", "expected an IDX file"),  # no such type
        (b"\0\0\x08\x03\0\0\0\x01", "expected an IDX file"),  # three axes, one length
        (b"\0\0\x08\x21" + bytes(4 * 33), "at most 32"),  # NumPy 2.0 has 64 axes, others have 32
        (b"\0\0\x08\x01\0\0\0\x05abc", "expected 13 bytes .* Received: 11"),
        (b"\0\0\x08\x01\0\0\0\x05abcdefg", "expected 13 bytes .* Received: more"),
        (gzip.compress(bytes(1000), mtime=0)[:-9], "expected an IDX file"),
        (gzip.compress(idx_bytes(np.zeros(9)), mtime=0)[:-9], "expected a complete gzip file"),
        (gzip.compress(idx_bytes(np.zeros(9)), mtime=0)[:-1] + b"\1", "expected a complete gzip file"),  # wrong length
        (b"\x1f\x8b" + bytes(50), "expected a complete gzip file"),
        (b"PK\x03\x04" + bytes(50), "Unpack the archive .* Received: a zip archive"),
    ],
)
def test_read_idx_says_what_is_wrong_with_a_file(tmp_path, content, found):
    path = tmp_path / "broken"
    path.write_bytes(content)

    with pytest.raises(DatasetError, match=f"broken: .*{found}"):
        datasets.read_idx(path)


@pytest.mark.parametrize("shape", [(2**32 - 1,), (2**32 - 1,) * 3, (0, 2**32 - 1, 2**32 - 1), (2**16, 2**16)])
def test_read_idx_refuses_a_header_that_promises_too_much_before_memory_is_taken(tmp_path, shape):
    path = tmp_path / "huge"
    path.write_bytes(bytes([0, 0, 0x0E, len(shape)]) + struct.pack(f">{len(shape)}I", *shape))

    with pytest.raises(DatasetError, match=r"huge: expected at most 1,073,741,824 bytes.* pass max_bytes=\d+"):
        datasets.read_idx(path)


def test_read_idx_takes_a_limit(tmp_path):
    path = tmp_path / "values"
    path.write_bytes(idx_bytes(np.zeros(100, np.uint8)))

    with pytest.raises(DatasetError, match="max_bytes=100"):
        datasets.read_idx(path, max_bytes=99)

    assert len(datasets.read_idx(path, max_bytes=100)) == 100


@pytest.mark.parametrize("promised", [10, 2**30 - 100])
def test_read_idx_takes_memory_for_what_arrives_not_for_what_is_promised_or_packed(tmp_path, promised):
    bomb = tmp_path / "bomb.gz"
    header = b"\0\0\x08\x01" + struct.pack(">I", promised)
    bomb.write_bytes(gzip.compress(header + bytes(10 if promised > 10 else 50_000_000), 1))

    tracemalloc.start()
    with pytest.raises(DatasetError, match=r"bomb\.gz: expected"):
        datasets.read_idx(bomb)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 4e6


# --- sources that never end ---------------------------------------------------------------------------------


READERS = [datasets.read_idx, datasets.label_first_csv]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
@pytest.mark.parametrize("read", READERS)
def test_a_pipe_without_a_writer_is_refused_at_once(tmp_path, read):
    os.mkfifo(tmp_path / "pipe")

    with pytest.raises(DatasetError, match=r"pipe: expected a regular file.* Received: a pipe"):
        read(tmp_path / "pipe")


@pytest.mark.skipif(not os.path.exists("/dev/fd"), reason="no /dev/fd on this system")
@pytest.mark.parametrize("read", READERS)
def test_a_pipe_that_is_written_to_is_refused(read):
    """A pipe is never opened for reading, because the content that one reader takes is lost for the next."""
    source, sink = os.pipe()
    writer = threading.Thread(target=lambda: (os.write(sink, b"label,a\n5,1\n"), os.close(sink)))
    writer.start()
    try:
        with pytest.raises(DatasetError, match="expected a regular file"):
            read(f"/dev/fd/{source}")
    finally:
        writer.join()
        os.close(source)


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="no /dev/zero on this system")
@pytest.mark.parametrize("read", READERS)
def test_a_device_is_refused(read):
    with pytest.raises(DatasetError, match="/dev/zero: expected a regular file"):
        read("/dev/zero")


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("name", ["nowhere", ".", "zero\0byte"])
def test_a_path_that_cannot_be_read_is_named(tmp_path, read, name):
    with pytest.raises(DatasetError, match="expected a readable file"):
        read(tmp_path / name)


# --- tables: what is read -----------------------------------------------------------------------------------


def test_label_first_csv_reads_what_write_label_first_csv_wrote(tmp_path):
    x, y = little_set()[0]
    path = tmp_path / "below" / "digits.csv"

    datasets.write_label_first_csv(path, x, y)
    read = datasets.label_first_csv(path)

    assert equal(tuple(read), (x.reshape(7, 784), y))
    assert read.x.flags.writeable
    assert path.read_text().startswith("label,pixel0,pixel1,")
    assert [entry.name for entry in path.parent.iterdir()] == ["digits.csv"]


@pytest.mark.parametrize(
    "text",
    [
        "7,1,2\n0,255,3\n",
        "label,a,b\n7,1,2\n0,255,3",
        "\ufefflabel, a, b\r\n7, 1, 2\r\n0,255,3\r\n",
        "label,a,b\r7,1,2\r0,255,3\r",
        "\n\nlabel,a,b\n\n7,1,2\n  \n0,255,3\n\n",
        '"label","a, or ""A""","b"\n"7","1","2"\n"0","255","3"\n',
        "label;a;b\n7;1;2\n0;255;3\n",
        "label\ta\tb\n7\t1\t2\n0\t255\t3\n",
        "label,a,b\n 7 ,001, +2\n0,255,3\n",
    ],
    ids=[
        "no header",
        "header",
        "BOM, CRLF, spaces",
        "CR",
        "blank lines",
        "quotes",
        "semicolons",
        "tabs",
        "odd numbers",
    ],
)
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_label_first_csv_reads_common_forms(csv, text, pack):
    assert equal(tuple(csv(pack(text.encode()))), table([[1, 2], [255, 3]], [7, 0]))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_label_first_csv_knows_the_encoding_by_the_byte_order_mark(csv, encoding):
    read = csv("Straße;a\nGößweinstein;1\nÅbo;2\n".encode(encoding))

    assert read.class_names == ("Gößweinstein", "Åbo")


def test_label_first_csv_reads_utf_16_with_the_high_byte_first(csv):
    assert csv(codecs.BOM_UTF16_BE + "label,a\n5,1\n".encode("utf-16-be")).y.tolist() == [5]


def test_label_first_csv_reads_a_single_row(csv):
    assert equal(tuple(csv("7,1,2")), table([[1, 2]], [7]))


def test_label_first_csv_numbers_names_in_sorted_order(csv):
    read = csv('animal,a\ndog,1\n"cat",2\n"a, b",3\n dog ,4\n')

    assert read.y.tolist() == [2, 1, 0, 2]
    assert read.y.dtype == np.uint8
    assert read.class_names == ("a, b", "cat", "dog")


def test_labels_that_are_numbers_stand_for_themselves(csv):
    read = csv("label,a\n3,1\n01,2\n1,3\n")

    assert read.y.tolist() == [3, 1, 1]
    assert read.class_names == ("0", "1", "2", "3")


def test_class_names_survive_pickle(csv):
    read = pickle.loads(pickle.dumps(csv("kind,a\nb,1\na,2\n")))

    x, y = read
    assert (x.tolist(), y.tolist(), read.class_names) == ([[1], [2]], [1, 0], ("a", "b"))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_label_first_csv_reads_floats_when_asked(csv, dtype):
    read = csv("label,a,b\n5.0,-1,.5\n300,1e3, 2. \n", dtype=dtype)

    assert equal(read.x, np.asarray([[-1, 0.5], [1000, 2]], dtype))
    assert equal(read.y, np.asarray([5, 300], np.uint16))


@pytest.mark.parametrize("column", [-1, 2, "kind"])
def test_label_column_says_where_the_label_is(csv, column):
    assert equal(tuple(csv("a,b,kind\n1,2,7\n3,4,0\n", label_column=column)), table([[1, 2], [3, 4]], [7, 0]))


@pytest.mark.parametrize(
    ("text", "options"),
    [
        (",label,a\n0,5,9\n1,3,6\n", {"index_column": 0}),
        ("Unnamed: 0,label,a\n0,5,9\n1,3,6\n", {"index_column": 0}),
        ("id,label,a\n0,5,9\n1,3,6\n", {"index_column": "id"}),
        ("a,id,label\n9,0,5\n6,1,3\n", {"index_column": 1, "label_column": "label"}),
        ("0,5,9\n1,3,6\n", {"index_column": 0}),
    ],
)
def test_index_column_is_left_out(csv, text, options):
    assert equal(tuple(csv(text, **options)), table([[9], [6]], [5, 3]))


@pytest.mark.parametrize(
    ("header", "x", "y"), [(True, [[9, 8], [6, 5]], [5, 3]), (False, [[1, 2], [9, 8], [6, 5]], [0, 5, 3])]
)
def test_header_decides_what_a_row_of_counting_numbers_is(csv, header, x, y):
    assert equal(tuple(csv("0,1,2\n5,9,8\n3,6,5\n", header=header)), table(x, y))


def test_delimiter_may_be_any_character(csv):
    assert equal(tuple(csv("7 1 2\n0 255 3\n", delimiter=" ")), table([[1, 2], [255, 3]], [7, 0]))


# --- tables: what is refused --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"line 1: expected cells separated by .* no rows. Received: no delimiter"),
        ("\n\n \n", r"line 3: expected cells separated by .* Received: no delimiter"),
        ("label,pixel0\n", r"line 1: expected rows of labels and values.* Received: no row"),
        ("<html>\n", r"line 1: expected cells separated by .* Received: no delimiter"),
        (
            "label;a,b\n1;2,3\n",
            r"line 1: .* delimiter=';', and write decimal points.* Received: a comma and a semicolon",
        ),
        ("0,1,2\n5,9,8\n", r"line 1: .* header=True .* header=False.* Received: numbers that count the columns"),
        ("1,2,3\n5,9,8\n", r"line 1: .* numbers that count the columns"),
        ("label,0,1\n5,9,8\n", r"line 1: .* numbers that count the columns"),
        (",0,1\n0,5,9\n", r"line 1: .* numbers that count the columns"),
        ("5,x,9\n3,6,5\n", r"line 1: .* header=True.* Received: 'x'"),
        ("5,x,y\n3,6,5\n", r"line 1: .* Received: 'x'"),
        ("?,?,?\n3,6,5\n", r"line 1: .* Received: '\?'"),
        ("5,9,\n3,6,\n", r"line 1: .* Received: ''"),
        (",label,a\n0,5,9\n1,3,6\n", r"line 1: .* index_column=0 .* label_column=0.* Received: '' for the first"),
        ("Unnamed: 0,label,a\n0,5,9\n", r"line 1: .* Received: 'Unnamed: 0' for the first"),
        (
            "id,label,a\n9,5,9\n",
            r"line 1: .* Pass label_column='label'.* Received: 'id' there and 'label' in another column",
        ),
        (
            "id,a\n0,9\n1,6\n",
            r"expected labels in column 0. Pass index_column=0.* Received: numbers that count the rows",
        ),
        ("1,9\n2,6\n", r"expected labels in column 0.* Received: numbers that count the rows"),
        ("x,9,7\n3,6,5\n", r"line 1: expected labels that are all .* header=True.* Received: 'x', and '3' in line 2"),
        ("label,a\n3,6\n\nx,9\n", r"line 4: expected labels that are all numbers or all names.* Received: 'x'"),
        ("label,a,b\n3,6,5\n,7,8\n", r"line 3: expected a label.* Received: an empty cell"),
        ("1.5,2,4\n", r"line 1: expected labels that are integers from 0 to 255.* Received: '1.5'"),
        ("-1,2,3\n4,5,6\n", r"line 1: expected labels that are integers .* Number the classes from 0"),
        ("260,1,2\n", r"line 1: expected labels .* dtype='float32'.* Received: '260'"),
        ("nan,1,2\n", r"line 1: expected labels .* Received: 'nan'"),
        ("label,a,b\n1,2,3\n1,2\n", r"line 3: expected 3 cells, as in the first row.* Received: 2 cells"),
        ("label,a,b\n\n1,2,3,4\n", r"line 3: expected 3 cells, as in the first row.* Received: 4 cells"),
        ("label,a,b\n1,2,3,\n", r"line 2: expected 3 cells, as in the first row.* Received: 4 cells"),
        ("# by hand\nlabel,a\n1,2\n", r"line 1: expected cells separated by"),
        ("5,1,256\n", r"line 1: expected integers from 0 to 255. Pass dtype='float32'.* Received: '256' in column 2"),
        ("5,-1,0\n", r"line 1: .* Received: '-1'"),
        ("5,0.5,1.0\n", r"line 1: .* Pass dtype='float32'.* Received: '0.5' in column 1"),
        ("5,nan,0\n", r"line 1: .* Received: 'nan'"),
        ("a,b,c\n5,9,\n", r"line 2: .* Fill in the missing value.* Received: '' in column 2"),
        ("y,2019,2020\n5,9,8\n3,6,5\n", r"line 1: expected names or values.* header=True.* Received: 'y' and numbers"),
        ("kind,20,30\na,9,8\na,6,5\n", r"line 1: .* header=True.* Received: 'kind', a label that no other row has"),
        ("label,a,\n5,9,\n3,6,\n", r"line 1: expected a name for each column.* Received: no name for the last"),
        ("a;b;c\n5;0,5;1\n", r"line 2: .* Write a decimal point instead of a comma. Received: '0,5' in column 1"),
        ("a,b,c\n5,1_0,1\n", r"line 2: .* Received: '1_0'"),
        ("a,b,c\n5,１,1\n", r"line 2: .* Received: '１'"),
        ('label,a\n1,"2\n3,4\n', r"line 3: expected cells with matching quotes"),
        ('label,a\n1,"2"3\n', r"line 2: expected cells with matching quotes"),
        ("label,a\n1,\0\n", r"line 2: expected lines of text.* Received: a zero byte"),
        (b"label,a\n\xff\xfe,1\n", r"expected text in UTF-8"),
        ("label,a\n5,1\n".encode("utf-16-le"), r"line 1: expected lines of text.* Received: a zero byte"),
        (codecs.BOM_UTF16_LE + b"l\0,\0\n", r"expected text in UTF-8"),
        (b"BZh91AY&SY", r"Received: a bzip2 archive"),
        (gzip.compress(b"label,a\n5,1\n" * 99, mtime=0)[:-9], r"expected a complete gzip file"),
    ],
)
def test_label_first_csv_refuses_what_it_would_have_to_guess(csv, text, message):
    with pytest.raises(DatasetError, match=rf"table.csv.*{message}"):
        csv(text)


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("label,a\n5,1e39\n", {"dtype": "float32"}, "line 2: expected finite float32 numbers"),
        ("label,a\n\n5,nan\n", {"dtype": "float64"}, "line 3: expected finite float64 numbers"),
        ("label,a\n5,1_0\n", {"dtype": "float64"}, "line 2: expected numbers.* Received: '1_0'"),
        ("label,a\n70000,1\n", {"dtype": "float64"}, "from 0 to 65,535.* Received: '70000'"),
        ("label,a\n5,1\n", {"label_column": "kind"}, "line 1: expected one column named 'kind'.* Received: the names"),
        ("label,a\n5,1\n", {"label_column": 2}, "line 1: expected a column 2.* Received: 2 columns"),
        ("label,a\n5,1\n", {"delimiter": ";"}, "line 1: expected at least two columns"),
        ("label,a\n5,1\n", {"header": False}, "line 1: expected integers from 0 to 255.* Received: 'a'"),
        (
            "label,a\n5,1\n",
            {"label_column": 0, "index_column": "label"},
            "line 1: expected two columns.* Received: column 0 for both",
        ),
        ("a,b,kind\n1,2,x\n3,4,y\n", {"dtype": "float32"}, "label_column=2 .* Received: 'x' in column 2"),
        ("1.5,2,x\n3,4,y\n", {"dtype": "float32"}, "line 1: .* label_column=2.* Received: 'x'"),
        ("label,a\n5,1e39\n", {"dtype": "float32"}, "pass dtype='float64' for larger numbers"),
        (",label\n0,5\n", {"label_column": "label"}, "Received: '' for the first"),
        ("label,a\n5,1\n", {"max_bytes": 11}, "expected at most 11 bytes of text"),
    ],
)
def test_options_do_not_hide_a_fault(csv, text, options, message):
    with pytest.raises(DatasetError, match=message):
        csv(text, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"dtype": "int8"},
        {"delimiter": ""},
        {"delimiter": ";;"},
        {"delimiter": '"'},
        {"delimiter": 3},
        {"header": "infer"},
        {"header": 0},
        {"label_column": True},
        {"label_column": 1.0},
        {"index_column": [0]},
    ],
)
def test_options_are_checked(csv, options):
    with pytest.raises(ValueError, match="must be"):
        csv("5,1\n", **options)


@pytest.mark.parametrize("fill", [b" ", b"1,2\n", b"\n", b"1"])
def test_a_packed_table_is_unpacked_up_to_its_limit_only(csv, fill):
    bomb = gzip.compress(fill * (20_000_000 // len(fill)), 1)

    tracemalloc.start()
    with pytest.raises(DatasetError, match=r"table.csv.*: expected"):
        csv(bomb, max_bytes=2_000_000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 50e6


# --- writing ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (np.zeros((2, 4)), np.zeros(2, np.uint8)),
        (np.zeros((2, 4), np.uint8), np.zeros(3, np.uint8)),
        (np.zeros((2, 4), np.uint8), np.asarray([0, 256])),
        (np.zeros((2, 4), np.uint8), np.asarray([0, 0.5])),
        (np.zeros((0, 4), np.uint8), np.zeros(0, np.uint8)),
        ([[0, 1]], [0]),
    ],
)
def test_write_label_first_csv_refuses_what_cannot_be_read_back(tmp_path, x, y):
    with pytest.raises(ValueError, match="Pixels must be uint8"):
        datasets.write_label_first_csv(tmp_path / "table.csv", x, y)

    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX permissions and links")
def test_a_file_that_is_replaced_keeps_its_permissions_and_links(tmp_path):
    (tmp_path / "real.csv").write_text("old")
    (tmp_path / "real.csv").chmod(0o640)
    (tmp_path / "link.csv").symlink_to("real.csv")

    datasets.write_label_first_csv(tmp_path / "link.csv", np.zeros((2, 1), np.uint8), np.asarray([0, 0]))

    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "real.csv").read_text() == "label,pixel0\n0,0\n0,0\n"
    assert stat.S_IMODE((tmp_path / "real.csv").stat().st_mode) == 0o640


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX umask")
def test_a_new_file_has_the_permissions_of_the_umask(tmp_path):
    umask = os.umask(0o027)
    try:
        datasets.write_label_first_csv(tmp_path / "new.csv", np.zeros((2, 1), np.uint8), np.asarray([0, 0]))
    finally:
        os.umask(umask)

    assert stat.S_IMODE((tmp_path / "new.csv").stat().st_mode) == 0o640


# --- damage -------------------------------------------------------------------------------------------------


def mutations(content, rng):
    """Draw a damaged copy: bytes are changed, removed, doubled, cut off or inserted."""
    damaged = bytearray(content)
    for _ in range(rng.integers(1, 5)):
        at, size = int(rng.integers(len(damaged) + 1)), int(rng.integers(1, 9))
        kind = rng.integers(5)
        if kind == 0:
            damaged[at : at + size] = rng.bytes(len(damaged[at : at + size]))
        elif kind == 1:
            del damaged[at : at + size]
        elif kind == 2:
            damaged[at:at] = damaged[at : at + 10 * size]
        elif kind == 3:
            del damaged[at + 1 :]
        else:
            damaged[at:at] = rng.choice([b"\0", b",", b'"', b"\n", b"\r", b";", b"-1", b"1e400", b"\xff\xfe", b"#"])
    return bytes(damaged)


@pytest.mark.parametrize("form", ["csv", "csv.gz", "idx", "idx.gz"])
def test_a_damaged_file_is_read_or_refused_and_nothing_else(tmp_path, form):
    rng = np.random.default_rng(0)
    x, y = rng.integers(256, size=(9, 8), dtype=np.uint8), rng.integers(10, size=9, dtype=np.uint8)
    if form.startswith("csv"):
        datasets.write_label_first_csv(tmp_path / "whole", x, y)
        content, read = (tmp_path / "whole").read_bytes(), datasets.label_first_csv
    else:
        content, read = idx_bytes(x), datasets.read_idx
    content = gzip.compress(content, mtime=0) if form.endswith("gz") else content
    path = tmp_path / f"damaged.{form}"
    refused = 0

    for _ in range(300):
        path.write_bytes(mutations(content, rng))
        try:
            read(path)
        except DatasetError as error:
            refused += 1
            assert str(path) in str(error)  # noqa: PT017

    assert refused > 100
