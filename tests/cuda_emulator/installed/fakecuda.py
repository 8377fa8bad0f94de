"""Loads the emulated CUDA libraries before anything looks for NVIDIA's; imported by fakecuda.pth when Python starts."""

import ctypes
import os
import sys

CUPY = "14.2.0"
_site = os.path.dirname(os.path.abspath(__file__))
_folder = os.path.join(_site, "nvidia", "cu13", "lib")
NAMES = (
    "libcudart.so.13", "libcuda.so.1", "libnvrtc.so.13", "libcublasLt.so.13", "libnvJitLink.so.13", "libcublas.so.13",
    "libcurand.so.10", "libcusolver.so.12", "libcusparse.so.12", "libcufft.so.12", "libnccl.so.2",
)  # fmt: skip


class Counts(ctypes.Structure):
    """The work so far in this process. `moves` are copies within a device, and `waits` are calls that synchronize."""

    _fields_ = [
        (name, ctypes.c_ulonglong)
        for name in ("launches", "products", "uploads", "upload_bytes", "downloads", "download_bytes", "moves", "waits")
    ]


def counts():
    """Return the numbers of kernels, matrix products, copies and waits so far in this process, by name."""
    function = library("libcudart.so.13").fk_counts
    function.restype = Counts
    result = function()
    return {name: getattr(result, name) for name, _ in Counts._fields_}


def library(name):
    return ctypes.CDLL(os.path.join(_folder, name))


def load():
    if not os.path.isdir(os.path.join(_site, f"cupy_cuda13x-{CUPY}.dist-info")):
        sys.stderr.write(
            f"fakecuda: the emulator needs cupy-cuda13x {CUPY}. Build it again with python -m tests.cuda_emulator build, or "
            f"delete fakecuda.pth. Received: another version or none in {_site}\n"
        )
        return
    os.environ.setdefault("CUPY_ACCELERATORS", "")  # CUB's precompiled kernels need a GPU
    for name in NAMES:
        library(name)


if sys.platform == "linux" and os.environ.get("FAKECUDA", "1") != "0":
    load()
