"""Images in folders: which files are images, which folders are labels, and what each color mode means.

Images become NumPy arrays on the host with every backend, so these tests do not use the ``xp`` fixture.
"""

import os
import pickle
import struct
import tracemalloc
import zlib

import numpy as np
import pytest

from tests.data_files import equal, little_set
from xpnet import datasets
from xpnet.errors import DatasetError

Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")


@pytest.fixture
def arrays():
    return little_set()


def save(path, image, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    (image if isinstance(image, Image.Image) else Image.fromarray(np.asarray(image, np.uint8))).save(path, **options)


def gray(value, shape=(2, 2)):
    return np.full(shape, value, np.uint8)


def png(width, height, bits, kind, rows):
    """Return a PNG file with these chunks, written from the definition of the format."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


# --- which files are images, and which folders are labels -------------------------------------------------------


def test_image_folder_reads_what_write_image_folder_wrote(arrays, tmp_path):
    (x_train, y_train), (x_test, y_test) = arrays

    datasets.write_image_folder(tmp_path / "images", *arrays)
    read = datasets.image_folder(tmp_path / "images")

    train, test = np.argsort(y_train, kind="stable"), np.argsort(y_test, kind="stable")
    assert equal(tuple(map(tuple, read)), ((x_train[train], y_train[train]), (x_test[test], y_test[test])))
    assert equal(tuple(datasets.image_folder(tmp_path / "images" / "Train")), tuple(read[0]))
    assert sorted(path.name for path in (tmp_path / "images").iterdir()) == ["Test", "Train"]


def test_image_folder_reads_colors_that_write_image_folder_wrote(tmp_path):
    x = np.random.default_rng(0).integers(256, size=(4, 5, 6, 3), dtype=np.uint8)
    y = np.asarray([0, 0, 1, 300])

    datasets.write_image_folder(tmp_path, (x, y), (x, y))
    (x_train, y_train), _ = datasets.image_folder(tmp_path, color=True)

    assert equal((x_train, y_train), (x, y.astype(np.uint16)))


def test_image_folder_orders_labels_as_numbers_and_images_by_name(tmp_path):
    for path in ("10/a", "2/b", "2/a", "0/z"):
        save(tmp_path / f"{path}.png", gray(ord(path[-1]), (2, 3)))

    x, y = read = datasets.image_folder(tmp_path)

    assert y.tolist() == [0, 2, 2, 10]
    assert [chr(image[0, 0]) for image in x] == ["z", "a", "b", "a"]
    assert (x.dtype, x.shape, y.dtype) == (np.uint8, (4, 2, 3), np.uint8)
    assert read.class_names == ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10")


@pytest.mark.parametrize("parts", [("Train", "Test"), ("train", "test"), ("TRAIN", "Test")])
def test_image_folder_numbers_names_alike_in_both_parts(tmp_path, parts):
    for path in (f"{parts[0]}/ant", f"{parts[0]}/bee", f"{parts[0]}/cat", f"{parts[1]}/cat"):
        save(tmp_path / path / "1.png", gray(0))

    train, test = datasets.image_folder(tmp_path)

    assert train.y.tolist() == [0, 1, 2]
    assert test.y.tolist() == [2]
    assert train.class_names == test.class_names == ("ant", "bee", "cat")


def test_labels_may_be_called_train_and_test(tmp_path):
    save(tmp_path / "test" / "1.png", gray(1))
    save(tmp_path / "train" / "1.png", gray(2))

    read = datasets.image_folder(tmp_path)

    assert read.class_names == ("test", "train")
    assert read.x[:, 0, 0].tolist() == [1, 2]


def test_class_names_survive_pickle(tmp_path):
    save(tmp_path / "ant" / "1.png", gray(0))

    assert pickle.loads(pickle.dumps(datasets.image_folder(tmp_path))).class_names == ("ant",)


@pytest.mark.parametrize("suffix", ["bmp", "gif", "jfif", "jpg", "jpeg", "pgm", "png", "ppm", "tif", "tiff", "webp"])
def test_a_suffix_may_be_in_capital_or_small_letters(tmp_path, suffix):
    if suffix == "webp" and not pytest.importorskip("PIL.features").check("webp"):
        pytest.skip("this Pillow does not read WebP")
    lossless = {"lossless": True} if suffix == "webp" else {}
    save(tmp_path / "cats" / f"a.{suffix}", gray(10), **lossless)
    save(tmp_path / "cats" / f"b.{suffix.upper()}", gray(20), **lossless)
    save(tmp_path / "dogs" / f"c.{suffix.title()}", gray(30), **lossless)

    x, y = datasets.image_folder(tmp_path)

    assert y.tolist() == [0, 0, 1]
    assert x[:, 0, 0].tolist() == [10, 20, 30]


def test_hidden_files_and_folders_are_passed_over(tmp_path):
    save(tmp_path / "2" / "a.png", gray(10))
    save(tmp_path / "10" / "b.png", gray(20))
    save(tmp_path / ".trash" / "a.png", gray(0, (9, 9)))
    (tmp_path / "2" / "._a.png").write_bytes(b"\0\5\x16\7" + bytes(78))
    (tmp_path / "2" / ".DS_Store").write_bytes(b"")
    (tmp_path / "__MACOSX" / "2").mkdir(parents=True)
    (tmp_path / "__MACOSX" / "2" / "._a.png").write_bytes(b"\0\5\x16\7" + bytes(78))

    x, y = datasets.image_folder(tmp_path)

    assert dict(zip(x[:, 0, 0].tolist(), y.tolist(), strict=True)) == {10: 2, 20: 10}


@pytest.mark.parametrize(
    "stray", ["notes/readme.txt", "empty/", "2/notes.txt", "2/deeper/a.png", "loose.png", "2/a.heic", "2/x.png/"]
)
def test_what_is_no_image_of_a_label_changes_no_label_and_is_named_in_a_warning(tmp_path, stray):
    save(tmp_path / "2" / "a.png", gray(10))
    save(tmp_path / "10" / "b.png", gray(20))
    if stray.endswith("/"):
        (tmp_path / stray).mkdir()
    else:
        save(tmp_path / "image.png", gray(30))
        (tmp_path / stray).parent.mkdir(exist_ok=True)
        (tmp_path / "image.png").rename(tmp_path / stray)

    with pytest.warns(UserWarning, match=f"left out, because .*{stray.split('/')[0]}"):
        x, y = datasets.image_folder(tmp_path)

    assert dict(zip(x[:, 0, 0].tolist(), y.tolist(), strict=True)) == {10: 2, 20: 10}


def test_a_part_beside_train_and_test_is_named_in_a_warning(tmp_path):
    for part in ("Train", "Test", "Valid"):
        save(tmp_path / part / "0" / "1.png", gray(0))

    with pytest.warns(UserWarning, match="left out.*Valid"):
        datasets.image_folder(tmp_path)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["1", "01"], "Received: '01' and '1', which are the same label"),
        (["1", "\uff11"], "Received: '1' and '\uff11', which are the same label"),
        (["caf\u00e9", "cafe\u0301"], "are the same label"),
        (["1" * 25, "2"], "expected labels up to 65,535.*'id1{25}'.* Received: the folder '1{25}'"),
        (["2", "10", "notes"], "Received: 'notes' and '10', which would be label 0"),
    ],
)
def test_names_that_do_not_say_which_label_are_refused(tmp_path, names, message):
    for name in names:
        save(tmp_path / name / "1.png", gray(0))

    with pytest.raises(DatasetError, match=message):
        datasets.image_folder(tmp_path)


def test_one_label_under_two_names_in_two_parts_is_refused(tmp_path):
    save(tmp_path / "Train" / "01" / "1.png", gray(0))
    save(tmp_path / "Test" / "1" / "1.png", gray(0))

    with pytest.raises(DatasetError, match="Received: '01' and '1', which are the same label"):
        datasets.image_folder(tmp_path)


def test_digits_and_letters_may_stand_side_by_side(tmp_path):
    for name in "1A0a":
        save(tmp_path / name / "1.png", gray(ord(name)))

    x, y = read = datasets.image_folder(tmp_path)

    assert read.class_names == ("0", "1", "A", "a")
    assert [chr(value) for value in x[:, 0, 0]] == ["0", "1", "A", "a"]
    assert y.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("folders", [[], ["0", "1"], ["Train/0"]])
def test_image_folder_without_images_says_what_it_looks_for(tmp_path, folders):
    for folder in folders:
        (tmp_path / folder).mkdir(parents=True)

    with pytest.raises(DatasetError, match=r"expected images LABEL/IMAGE.* Received: a folder without"):
        datasets.image_folder(tmp_path)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DatasetError, match="nowhere: expected a readable file"):
        datasets.image_folder(tmp_path / "nowhere")


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX links")
def test_links_are_followed_but_never_in_a_circle(tmp_path):
    save(tmp_path / "0" / "a.png", gray(1))
    (tmp_path / "1").symlink_to("0")
    (tmp_path / "2").symlink_to(tmp_path)

    with pytest.warns(UserWarning, match="left out, because .*: 2"):
        read = datasets.image_folder(tmp_path)

    assert read.y.tolist() == [0, 1]


@pytest.mark.skipif(os.name != "posix", reason="needs POSIX links and pipes")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.symlink_to("nowhere"), "expected a readable file"),
        (lambda path: path.symlink_to(path), "expected a readable file"),
        (os.mkfifo, "expected a regular file"),
    ],
    ids=["broken link", "link to itself", "pipe"],
)
def test_an_image_that_is_no_file_is_named(tmp_path, make, message):
    save(tmp_path / "0" / "a.png", gray(1))
    make(tmp_path / "0" / "b.png")

    with pytest.raises(DatasetError, match=rf"0/b.png: {message}"):
        datasets.image_folder(tmp_path)


# --- color modes --------------------------------------------------------------------------------


def read_one(tmp_path, image, name="1.png", save_options=None, **options):
    save(tmp_path / "0" / name, image, **save_options or {})
    return datasets.image_folder(tmp_path, **options).x[0]


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "LA", "RGBA"])
def test_white_is_255_and_black_0_in_every_mode(tmp_path, mode):
    image = Image.fromarray(np.asarray([[0, 255]], np.uint8)).convert("RGB").convert(mode)

    assert read_one(tmp_path, image).tolist() == [[0, 255]]


@pytest.mark.parametrize("color", [False, True])
def test_colors_become_gray_unless_they_are_asked_for(tmp_path, color):
    image = np.asarray([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [77, 77, 77]]], np.uint8)

    read = read_one(tmp_path, image, color=color)

    assert read.tolist() == (image if color else np.asarray([[76, 150, 29, 77]])).tolist()


def test_cmyk_is_read_as_the_colors_it_stands_for(tmp_path):
    image = Image.new("CMYK", (8, 8), (0, 0, 0, 255))

    read = read_one(tmp_path, image, "1.tif")

    assert read.tolist() == np.zeros((8, 8)).tolist()


def transparent(mode):
    if mode == "P":
        image = Image.new("P", (2, 1), 0)
        image.putpalette([0, 0, 0, 200, 200, 200])
        image.putpixel((1, 0), 1)
        return image, {"transparency": 0}
    if mode in ("L", "RGB"):
        image = Image.new(mode, (2, 1), 0)
        image.putpixel((1, 0), 200 if mode == "L" else (200, 200, 200))
        return image, {"transparency": 0 if mode == "L" else (0, 0, 0)}
    image = Image.new(mode, (2, 1), 0)
    image.putpixel((1, 0), (200, 255) if mode == "LA" else (200, 200, 200, 255))
    return image, {}


@pytest.mark.parametrize("mode", ["LA", "RGBA", "P", "L", "RGB"])
def test_transparent_pixels_are_refused_or_show_the_background(tmp_path, mode):
    image, options = transparent(mode)
    save(tmp_path / "0" / "clear.png", image, **options)

    with pytest.raises(DatasetError, match=r"clear.png: .*without transparent pixels.* Pass background=255"):
        datasets.image_folder(tmp_path)

    assert datasets.image_folder(tmp_path, background=255).x.tolist() == [[[255, 200]]]
    assert datasets.image_folder(tmp_path, background=7, color=True).x.tolist() == [[[[7] * 3, [200] * 3]]]


@pytest.mark.parametrize("background", [-1, 256, 0.5, "white"])
def test_the_background_is_a_gray_value(tmp_path, background):
    with pytest.raises(ValueError, match="background must be a gray value"):
        datasets.image_folder(tmp_path, background=background)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("gray.png", png(1, 1, 16, 0, b"\0\x12\x34")),
        ("color.png", png(1, 1, 16, 2, b"\0" + 3 * b"\x12\x34")),
        ("alpha.png", png(1, 1, 16, 6, b"\0" + 4 * b"\xff\xff")),
    ],
)
def test_more_than_8_bits_a_channel_are_refused_by_name(tmp_path, name, content):
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / name).write_bytes(content)

    with pytest.raises(DatasetError, match=rf"{name}: expected 8 bits per channel.* Scale the values to 0 to 255"):
        datasets.image_folder(tmp_path)


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_tiff_of_wide_numbers_is_refused_by_name(tmp_path, dtype):
    save(tmp_path / "0" / "deep.tif", Image.fromarray(np.zeros((2, 2), dtype)))

    with pytest.raises(DatasetError, match=r"deep.tif: expected 8 bits per channel.* Received: more bits"):
        datasets.image_folder(tmp_path)


def test_an_image_is_read_upright(tmp_path):
    image = Image.fromarray(np.asarray([[1, 2, 3], [4, 5, 6]], np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6  # stored rotated to the left, so it must be rotated to the right

    assert read_one(tmp_path, image, save_options={"exif": exif}).tolist() == [[4, 1], [5, 2], [6, 3]]


def test_the_first_frame_of_an_animation_is_read(tmp_path):
    frames = [Image.new("L", (2, 2), value) for value in (10, 200)]

    read = read_one(tmp_path, frames[0], "1.gif", {"save_all": True, "append_images": frames[1:]})

    assert read.tolist() == gray(10).tolist()


# --- damage and limits --------------------------------------------------------------------------------------


def test_image_folder_names_two_images_of_two_sizes(tmp_path):
    save(tmp_path / "0" / "1.png", gray(0))
    save(tmp_path / "1" / "odd.png", gray(0, (2, 3)))

    with pytest.raises(DatasetError, match=r"odd.png: expected \(2, 2\) pixels .* as in .*1.png.* Received: \(2, 3\)"):
        datasets.image_folder(tmp_path)


@pytest.mark.parametrize(
    "damage",
    [lambda png: png[:400], lambda png: b"hello", lambda png: b"", lambda png: png[:12] + b"!" + png[13:]],
    ids=["truncated", "text", "empty", "wrong header"],
)
def test_image_folder_names_a_damaged_image(tmp_path, damage):
    path = tmp_path / "0" / "bad.png"
    save(path, np.random.default_rng(0).integers(256, size=(28, 28), dtype=np.uint8))
    path.write_bytes(damage(path.read_bytes()))

    with pytest.raises(DatasetError, match=r"bad.png: expected a complete image"):
        datasets.image_folder(tmp_path)


@pytest.mark.parametrize(("width", "height"), [(5000, 5000), (12000, 12000), (15000, 15000), (2**31 - 1, 2**31 - 1)])
def test_a_large_image_is_refused_by_its_header(tmp_path, width, height):
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "bomb.png").write_bytes(png(width, height, 1, 0, bytes(5_000_000)))

    tracemalloc.start()
    with pytest.raises(
        DatasetError, match=r"bomb.png: expected (an image of at most 16,777,216 pixels|a complete image)"
    ):
        datasets.image_folder(tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 4e6


def test_the_limits_can_be_moved(tmp_path):
    save(tmp_path / "0" / "1.png", gray(0, (3, 4)))
    save(tmp_path / "0" / "2.png", gray(0, (3, 4)))

    with pytest.raises(DatasetError, match=r"pass max_pixels=12. Received: 4 x 3"):
        datasets.image_folder(tmp_path, max_pixels=11)
    with pytest.raises(DatasetError, match=r"pass max_bytes=24. Received: 2 images, this one of shape \(3, 4\)"):
        datasets.image_folder(tmp_path, max_bytes=23)

    assert datasets.image_folder(tmp_path, max_pixels=12, max_bytes=24).x.shape == (2, 3, 4)


@pytest.mark.parametrize("suffix", ["bmp", "gif", "jpg", "png", "tif", "webp", "ppm"])
def test_a_damaged_image_is_read_or_refused_and_nothing_else(tmp_path, suffix):
    if suffix == "webp" and not pytest.importorskip("PIL.features").check("webp"):
        pytest.skip("this Pillow does not read WebP")
    rng = np.random.default_rng(0)
    path = tmp_path / "0" / f"damaged.{suffix}"
    save(path, rng.integers(256, size=(6, 7, 3), dtype=np.uint8))
    content = path.read_bytes()

    for _ in range(200):
        damaged = bytearray(content)
        for _ in range(rng.integers(1, 4)):
            at = int(rng.integers(len(damaged)))
            damaged[at : at + int(rng.integers(4))] = rng.bytes(int(rng.integers(4)))
        path.write_bytes(damaged[: int(rng.integers(1, len(damaged) + 1))] if rng.random() < 0.2 else damaged)
        try:
            datasets.image_folder(tmp_path)
        except DatasetError as error:
            assert str(path) in str(error)  # noqa: PT017


# --- writing ------------------------------------------------------------------------------------------------


def test_write_image_folder_leaves_an_older_one_alone(arrays, tmp_path):
    (tmp_path / "Test").mkdir()

    with pytest.raises(FileExistsError, match=r"expected a folder without Test. Delete it"):
        datasets.write_image_folder(tmp_path, *arrays)

    assert [path.name for path in tmp_path.iterdir()] == ["Test"]


@pytest.mark.parametrize("spoil", [lambda x, y: (x, y / 2), lambda x, y: (x, y + 70_000), lambda x, y: (x / 2, y)])
def test_write_image_folder_leaves_nothing_when_it_fails(arrays, tmp_path, spoil):
    train, (x, y) = arrays

    with pytest.raises(
        ValueError, match=r"labels must be integers .* Received: images .*\(3, 28, 28\), labels .*\(3,\)"
    ):
        datasets.write_image_folder(tmp_path / "images", train, spoil(x, y.astype(np.int64)))

    assert list((tmp_path / "images").iterdir()) == []
