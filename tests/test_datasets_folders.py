"""Images in folders. NumPy arrays on the host, so these tests do without the ``xp`` fixture."""

import numpy as np
import pytest

from tests.data_files import equal, little_set
from xpnet import datasets
from xpnet.errors import DatasetError


@pytest.fixture
def arrays():
    return little_set()


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
