"""Models to and from ONNX files, and weights to and from PyTorch and Keras.

The packages that a function needs (onnx, h5py) are imported when it is called.
"""

from typing import TYPE_CHECKING

from xpnet.lazy import lazy_names

if TYPE_CHECKING:  # the names of MODULES below, for editors and type checkers
    from xpnet.interchange.onnx_export import save_onnx

MODULES = {
    "onnx_export": ["save_onnx"],
}

__getattr__, __dir__ = lazy_names(__name__, MODULES)

__all__ = ["save_onnx"]
