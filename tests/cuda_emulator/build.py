"""Builds the environment: CuPy's wheel, the emulated CUDA libraries, and the modules of CuPy that contain GPU code."""

from __future__ import annotations

import glob
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

HERE = Path(__file__).parent
SOURCE, KERNEL_INCLUDE = HERE / "source", HERE / "source" / "kernel_include"
CUPY, CUDA = "14.2.0", "13020"
OLDEST_COMPILER = 12  # the first version with _Float16 in C++
COMPILE = ["g++", "-std=c++17", "-O2", "-fPIC", "-fvisibility=hidden", "-Wall"]
RUNTIME = ["device", "memory", "stream", "graph", "kernel", "driver"]
STUBBED = {  # the prefix of names, the modules of CuPy that use them, and the emulated parts; other functions are stubs
    "libcublas.so.13": ("cublas", ["cupy_backends/cuda/libs/cublas"], ["cublas"]),
    "libcurand.so.10": ("curand", ["cupy_backends/cuda/libs/curand"], ["curand"]),
    "libcusolver.so.12": ("cusolver", ["cupy_backends/cuda/libs/cusolver", "cupyx/_cusolver"], []),
    "libcusparse.so.12": ("cusparse", ["cupy_backends/cuda/libs/cusparse"], []),
    "libcufft.so.12": ("cufft", ["cupy/cuda/cufft"], []),
    "libnccl.so.2": ("nccl", ["cupy_backends/cuda/libs/nccl"], ["nccl"]),
}
CUPY_RUNTIME, CUPY_RANDOM = "cupy_backends.cuda.api.runtime", "cupy.random._generator_api"
# libcudart contains the driver, and the other libraries are never called
EMPTY = ["libcuda.so.1", "libcublasLt.so.13", "libnvJitLink.so.13"]
NOT_SUPPORTED, RUNTIME_NOT_SUPPORTED = 15, 801
# Options for kernels. The precompiled header must be built with the same options; see nvrtc.cpp
KERNEL = ["-x", "c++-header", "-std=c++17", "-O1", "-w", "-fPIC", "-fvisibility=hidden", "-fwhole-program",
          "-fno-threadsafe-statics", "-fno-exceptions", "-fno-math-errno"]  # fmt: skip


class BuildError(Exception):
    """Something that the build needs is missing."""


def build(environment: Path) -> None:
    """Create or update the virtual environment `environment`. Do nothing if it is up to date.

    Raises
    ------
    BuildError
        The machine is not x86-64 Linux, g++ is missing or too old, or the packages are not available.
    """
    require_tools()
    stamp, wanted = environment / "cuda_emulator", fingerprint()
    if stamp.exists() and stamp.read_text() == wanted:
        return
    print(f"Building the CUDA emulator in {environment} (one to two minutes of CPU time)", flush=True)
    python = environment / "bin" / "python"
    if not python.exists():
        run(sys.executable, "-m", "venv", environment)
    stamp.unlink(missing_ok=True)
    install(python, "-r", HERE / "requirements.txt")
    with tempfile.TemporaryDirectory(prefix="cuda-emulator-") as work:
        Builder(python, Path(work)).build()
    stamp.write_text(wanted)


def require_tools() -> None:
    if sys.platform != "linux" or platform.machine() not in ("x86_64", "AMD64"):
        raise BuildError(f"it needs x86-64 Linux. Received: {sys.platform} on {platform.machine()}")
    for tool in ("g++", "nm"):
        if shutil.which(tool) is None:
            raise BuildError(
                f"{tool} is missing. Install a C++ compiler with binutils (Debian, Ubuntu: apt install g++)"
            )
    version = compiler_version()
    if int(version.split(".")[0]) < OLDEST_COMPILER:
        raise BuildError(f"g++ {OLDEST_COMPILER} or newer is needed. Received: g++ {version}")


def compiler_version() -> str:
    return subprocess.run(["g++", "-dumpfullversion"], capture_output=True, text=True, check=True).stdout.strip()


def digest(*paths: Path) -> str:
    text = hashlib.sha256(compiler_version().encode())
    for path in sorted(paths):
        text.update(path.read_bytes())
    return text.hexdigest()[:16]


def fingerprint() -> str:
    """Return a fingerprint of all files from which the environment is built."""
    files = [*SOURCE.rglob("*.*"), *HERE.glob("installed/*.py"), HERE / "requirements.txt", *HERE.glob("*.py")]
    return f"{sys.version}\n{digest(*(path for path in files if not path.name.startswith(('test_', 'conftest'))))}\n"


def run(*command, **settings) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, **settings)
    if done.returncode:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
        raise BuildError(f"this command failed: {' '.join(map(str, command))}\n{tail}")
    return done.stdout


def install(python: Path, *arguments) -> None:
    run(python, "-m", "pip", "--disable-pip-version-check", "install", "-q", *arguments, env=without_emulator())


def without_emulator() -> dict[str, str]:
    return os.environ | {"FAKECUDA": "0"}


class Builder:
    """One build. `site` is the environment's folder of packages, and `work` is a temporary folder."""

    def __init__(self, python: Path, work: Path):
        self.python, self.work = python, work
        asked = (
            "import sysconfig as s; print(s.get_path('platlib'), s.get_path('include'), s.get_config_var('EXT_SUFFIX'))"
        )
        asked += "; import numpy; print(numpy.get_include())"
        site, python_include, self.suffix, numpy_include = run(python, "-c", asked, env=without_emulator()).split()
        self.site = Path(site)
        self.lib, self.headers = self.site / "nvidia/cu13/lib", self.site / "nvidia/cu13/include"
        self.prelude = self.site / "nvidia/cu13/fakecuda"
        self.include = [f"-I{folder}" for folder in (self.headers, python_include, numpy_include)]

    def build(self) -> None:
        for folder in (self.lib, self.prelude):
            folder.mkdir(parents=True, exist_ok=True)
        sources = self.unpack_cupy()
        for path in KERNEL_INCLUDE.iterdir():
            shutil.copyfile(path, self.prelude / path.name)
        (self.prelude / "compiler_version.txt").write_text(digest(*KERNEL_INCLUDE.iterdir(), SOURCE / "nvrtc.cpp"))
        jobs = [partial(self.compile_cupy, sources, module) for module in (CUPY_RUNTIME, CUPY_RANDOM)]
        jobs += [partial(self.precompile, name, fma) for name in ("prelude_cupy", "prelude") for fma in (False, True)]
        jobs += [
            partial(self.compile, name)
            for name in (*RUNTIME, "cublas", "curand", "nccl", "sort", "nvrtc", "distributions")
        ]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for done in [pool.submit(job) for job in jobs]:
                done.result()
        self.link()

    def object(self, name: str) -> Path:
        return self.work / f"{name}.o"

    def compile(self, name: str) -> None:
        speed = ["-O3"] if name == "cublas" else []
        run(*COMPILE, *speed, *self.include, "-c", SOURCE / f"{name}.cpp", "-o", self.object(name))

    def unpack_cupy(self) -> Path:
        """Return CuPy's source distribution. Its own build needs CUDA and fails, but only after pip has unpacked it."""
        options = ["--no-clean", "--no-binary", ":all:", "--no-deps", "--no-build-isolation", "-d", self.work]
        command = [self.python, "-m", "pip", "download", *options, f"cupy=={CUPY}"]
        environment = without_emulator() | {"TMPDIR": str(self.work)}
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        found = list(self.work.glob("*/*/cupy_backends/cuda/api/runtime.pyx"))
        if not found:
            raise BuildError(f"pip did not unpack the sources of CuPy {CUPY}:\n{(done.stdout + done.stderr)[-800:]}")
        return found[0].parents[3]

    def compile_cupy(self, sources: Path, module: str) -> None:
        """Compile a module of CuPy to C++ with the wheel's Cython, and then to an object file."""
        cpp = self.work / f"{module}.cpp"
        run(self.python, HERE / "cython_module.py", module, sources, cpp, CUDA, env=without_emulator())
        own = sources.joinpath(*module.split(".")[:-1])
        run("g++", "-O1", "-w", "-fPIC", "-DCYTHON_EXTERN_C=extern \"C\"", f"-I{SOURCE / 'distributions'}", *self.include,
            f"-I{own}", "-c", cpp, "-o", self.object(module))  # fmt: skip

    def precompile(self, name: str, fma: bool) -> None:
        """Precompile the header that every kernel includes. A folder with its name holds one file for each set of options."""
        header = self.prelude / f"{name}.h"
        defined = "#define FK_WITH_CUPY\n" if name == "prelude_cupy" else ""
        header.write_text(f'{defined}#include "kernel_prelude.h"\n')
        cupy = self.site / "cupy/_core/include"
        cccl = [cupy / "cupy/_cccl" / part for part in ("cub", "thrust", "libcudacxx")]
        folders = [self.prelude, *cccl, cupy, self.headers]
        (self.prelude / f"{name}.h.gch").mkdir(exist_ok=True)
        options = ["-ffp-contract=fast", "-mfma", "-fexpensive-optimizations"] if fma else ["-ffp-contract=off"]
        run("g++", *KERNEL, *options, *(f"-I{folder}" for folder in folders), header, "-o",
            self.prelude / f"{name}.h.gch" / ("fma" if fma else "plain"))  # fmt: skip

    def link(self) -> None:
        beside = ["-Wl,-rpath,$ORIGIN", "-Wl,--no-as-needed", self.lib / "libcudart.so.13"]
        self.shared(self.lib / "libcudart.so.13", *map(self.object, RUNTIME), "-ldl", "-lpthread")
        self.shared(self.lib / "libnvrtc.so.13", self.object("nvrtc"), "-ldl")
        self.shared(self.lib / "libfakesort.so", self.object("sort"), *beside)
        for name, (prefix, modules, objects) in STUBBED.items():
            needed = [Path(path) for m in modules for path in glob.glob(str(self.site / f"{m}.*.so"))]
            objects = [self.object(o) for o in objects]
            wanted = self.symbols(prefix, *needed, undefined=True) - self.symbols(prefix, *objects)
            exported = self.work / "exported"
            exported.write_text(f"{name} {{ global: {prefix}*; local: *; }};")
            visible = f"-Wl,--version-script={exported}"
            self.shared(self.lib / name, self.stubs(wanted, NOT_SUPPORTED), *objects, visible, *beside)
        for name in EMPTY:
            self.shared(self.lib / name, self.stubs(set(), 0), *beside)
        self.link_cupy(beside[1:])

    def link_cupy(self, cudart: list) -> None:
        """Rebuild the modules of the wheel that contain NVIDIA's libraries or GPU code."""
        runtime, generator = self.object(CUPY_RUNTIME), [self.object("distributions"), self.object(CUPY_RANDOM)]
        has = self.symbols("cuda", self.lib / "libcudart.so.13", dynamic=True)
        stubs = self.stubs(self.symbols("cuda", runtime, undefined=True) - has, RUNTIME_NOT_SUPPORTED)
        for module, objects in ((CUPY_RUNTIME, [runtime, stubs]), (CUPY_RANDOM, generator)):
            path = module.replace(".", "/")
            to_lib = "../" * path.count("/") + "nvidia/cu13/lib"
            self.shared(self.site / f"{path}{self.suffix}", *objects, f"-Wl,-rpath,$ORIGIN/{to_lib}", *cudart)
        (self.site / f"cupy/cuda/thrust{self.suffix}").unlink(missing_ok=True)
        shutil.copyfile(HERE / "installed" / "thrust.py", self.site / "cupy/cuda/thrust.py")
        shutil.copyfile(HERE / "installed" / "fakecuda.py", self.site / "fakecuda.py")
        (self.site / "fakecuda.pth").write_text("import fakecuda\n")

    def shared(self, path: Path, *arguments) -> None:
        """Link a shared library and replace the old one atomically, because a process may be using it."""
        fresh = path.with_name(path.name + ".new")
        run("g++", "-shared", *arguments, "-o", fresh, f"-Wl,-soname,{path.name}")
        fresh.replace(path)

    def symbols(self, prefix: str, *files: Path, undefined: bool = False, dynamic: bool = False) -> set[str]:
        """Return the symbols that begin with `prefix`."""
        if not files:
            return set()
        dynamic = dynamic or files[0].suffix == ".so"
        listed = run("nm", *(["-D"] if dynamic else []), "--undefined-only" if undefined else "--defined-only", *files)
        return set(re.findall(rf"\b({prefix}[A-Z]\w*)(?:@|$)", listed, re.MULTILINE))

    def stubs(self, names: set[str], status: int) -> Path:
        """Return an object file with functions that report that they are not emulated."""
        text = 'int {0}(void) {{ fprintf(stderr, "fakecuda: {0} is not emulated\\n"); return {1}; }}'
        lines = [text.format(name, status) for name in sorted(names)]
        source = self.work / "stubs.c"
        source.write_text("\n".join(["#include <stdio.h>", *lines, ""]))
        run("gcc", "-fPIC", "-c", source, "-o", source.with_suffix(".o"))
        return source.with_suffix(".o")
