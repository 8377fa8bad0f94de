"""Models to and from ONNX files, and weights to and from PyTorch and Keras.

The packages that a function needs (onnx, h5py) are imported when it is called.
"""

from typing import TYPE_CHECKING

from xpnet.lazy import lazy_names

if TYPE_CHECKING:  # the names of MODULES below, for editors and type checkers
    from xpnet.interchange.keras_weights import load_keras_weights
    from xpnet.interchange.onnx_export import save_onnx
    from xpnet.interchange.onnx_import import load_onnx
    from xpnet.interchange.torch_weights import load_torch_state_dict, to_torch_state_dict

MODULES = {
    "keras_weights": ["load_keras_weights"],
    "onnx_export": ["save_onnx"],
    "onnx_import": ["load_onnx"],
    "torch_weights": ["load_torch_state_dict", "to_torch_state_dict"],
}

__getattr__, __dir__ = lazy_names(__name__, MODULES)

__all__ = ["load_keras_weights", "load_onnx", "load_torch_state_dict", "save_onnx", "to_torch_state_dict"]
