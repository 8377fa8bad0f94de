"""The named data sets: MNIST, its drop-in replacements, and scikit-learn's small digits."""

from __future__ import annotations

import numpy as np

from xpnet.datasets.fetch import IdxSet, load
from xpnet.datasets.files import Split
from xpnet.errors import optional_import
from xpnet.files import StrPath

MNIST = IdxSet(
    name="mnist",
    mirrors=(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
    checksums={
        "train-images-idx3-ubyte": "sha256:ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
        "train-labels-idx1-ubyte": "sha256:65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
        "t10k-images-idx3-ubyte": "sha256:0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
        "t10k-labels-idx1-ubyte": "sha256:ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    },
)

FASHION_MNIST = IdxSet(
    name="fashion_mnist",
    mirrors=(
        "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        "https://fashion-mnist.s3.eu-central-1.amazonaws.com/",
    ),
    checksums={
        "train-images-idx3-ubyte": "sha256:c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
        "train-labels-idx1-ubyte": "sha256:bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
        "t10k-images-idx3-ubyte": "sha256:5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
        "t10k-labels-idx1-ubyte": "sha256:0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    },
)

KMNIST = IdxSet(
    name="kmnist",
    mirrors=(
        # a pinned copy with the IDX files; first, because the authors' server is often unreachable
        "https://huggingface.co/datasets/tanganke/kmnist/resolve/53810959241e8f35890445245170c8cec0672f81/raw/",
        "https://codh.rois.ac.jp/kmnist/dataset/kmnist/",
    ),
    checksums={  # the SHA-256 of the uncompressed files is not published
        "train-images-idx3-ubyte": "md5:92be26ec9822e900ac425d0a0aa84ced",
        "train-labels-idx1-ubyte": "md5:949e75301f8813e0dc5800dcc320fc52",
        "t10k-images-idx3-ubyte": "md5:bf305b8cd328700fbc17f5acbc2856d2",
        "t10k-labels-idx1-ubyte": "md5:9f55f451c0988b028eccdf7d5cc265ab",
    },
    archives={
        "train-images-idx3-ubyte": "51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4",
        "train-labels-idx1-ubyte": "e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17",
        "t10k-images-idx3-ubyte": "edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5",
        "t10k-labels-idx1-ubyte": "20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c",
    },
)


def mnist(data_dir: StrPath | None = None, download: bool = True) -> tuple[Split, Split]:
    """MNIST: handwritten digits, 60,000 for training and 10,000 for testing, 28x28 pixels.

    Each of the four files, plain or ``.gz``, comes from the first of these places that has it: ``data_dir``,
    ``$XPNET_DATA``, the cache (``~/.cache/xpnet/mnist``), a public mirror. In the first two, the folder ``mnist`` is
    searched before the folder itself. The checksum of the content must be correct. Downloads are kept in the cache. A
    damaged file in the cache is downloaded again, with a warning.

    Parameters
    ----------
    data_dir : path-like, optional
        A folder to search first.
    download : bool, default True
        Whether to download files that no folder has.

    Returns
    -------
    (x_train, y_train), (x_test, y_test) : uint8 arrays
        Images ``(n, 28, 28)`` with values 0 to 255, and labels ``(n,)`` with values 0 to 9.

    Raises
    ------
    DatasetError
        A file is damaged, is not the expected file, or is not found. The message lists every place and error.
    """
    return load(MNIST, data_dir, download)


def fashion_mnist(data_dir: StrPath | None = None, download: bool = True) -> tuple[Split, Split]:
    """Fashion-MNIST: ten kinds of clothing. Arguments, shapes, search order and errors are as in :func:`mnist`."""
    return load(FASHION_MNIST, data_dir, download)


def kmnist(data_dir: StrPath | None = None, download: bool = True) -> tuple[Split, Split]:
    """Kuzushiji-MNIST: ten cursive Japanese characters. Arguments, shapes, search order and errors are as in :func:`mnist`."""
    return load(KMNIST, data_dir, download)


def digits() -> tuple[Split, Split]:
    """The 1,797 handwritten digits that come with scikit-learn, 8x8 pixels.

    The split is always the same: after one fixed shuffle, the first 1,500 are for training and the other 297 for testing.
    This function needs the extra ``sklearn``.

    Returns
    -------
    (x_train, y_train), (x_test, y_test) : uint8 arrays
        Images ``(n, 8, 8)`` with values 0 to **16**, and labels ``(n,)`` with values 0 to 9.
    """
    bunch = optional_import("sklearn.datasets", "sklearn").load_digits()
    order = np.random.RandomState(0).permutation(len(bunch.target))  # NumPy guarantees that this stream never changes
    x, y = bunch.images[order].astype(np.uint8), bunch.target[order].astype(np.uint8)
    return (x[:1500], y[:1500]), (x[1500:], y[1500:])
