"""Data sets: the MNIST family, scikit-learn's digits, and readers and writers for your own files.

Every named set is returned as ``(x_train, y_train), (x_test, y_test)``, NumPy arrays on the host: unscaled images
``uint8 (n, height, width)`` and labels ``uint8 (n,)``. A damaged, wrong or missing file raises
:class:`xpnet.errors.DatasetError`.
"""

from xpnet.datasets.folders import image_folder
from xpnet.datasets.idx import read_idx
from xpnet.datasets.sets import digits, fashion_mnist, kmnist, mnist
from xpnet.datasets.tables import label_first_csv
from xpnet.datasets.writing import write_image_folder, write_label_first_csv

__all__ = [
    "digits",
    "fashion_mnist",
    "image_folder",
    "kmnist",
    "label_first_csv",
    "mnist",
    "read_idx",
    "write_image_folder",
    "write_label_first_csv",
]
