"""`make test-gpu-layers`: answers with a model's layers on a GPU, beside llama.cpp alone on the same GPU.

The llama.cpp is the one that `SAKUIN_LLAMA_LIBRARY` names. Without that variable one is built for Vulkan,
once, from the source that the package `llama-cpp-python` carries, which is left as it is; Mesa's software
device (lavapipe) is enough of a GPU for it. Run as

    python tools/llama/gpu_layers.py VERSION FOLDER

with the version of `llama-cpp-python` and the folder for its source and what is built of it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

from sakuin.backends.llama_cpp.locate import VARIABLE
from sakuin.backends.llama_cpp.report import examine
from sakuin.machine import children
from sakuin.machine.cpu import usable_cpus

TESTS = "tests/backends/llama_cpp/test_gpu_layers.py"
PACKAGES = "mesa-vulkan-drivers libvulkan-dev glslc spirv-headers"
"""Debian's: the software device, and what the build needs."""
_HEADER = Path(__file__).with_name("layer_settings.hpp")
_PARTS = ("APP", "COMMON", "EXAMPLES", "SERVER", "TESTS", "TOOLS")
_OFF = ("GGML_NATIVE", "GGML_CCACHE", *(f"LLAMA_BUILD_{part}" for part in _PARTS))
"""Options of llama.cpp's build."""


def main(version: str, folder: Path) -> int:
    """Build what is not there yet, and run the tests. The exit code is pytest's."""
    # A device that is software alone is passed over unless it is named.
    os.environ.setdefault("GGML_VK_VISIBLE_DEVICES", "0")
    if not os.environ.get(VARIABLE):
        os.environ[VARIABLE] = str(_built(version, folder.resolve()))
    found = examine()
    if found.problem is not None:
        raise SystemExit(found.problem)
    if not found.gpus:
        raise SystemExit(f"{found.library} sees no GPU here; for Vulkan in software install {PACKAGES}.")
    print(f"{found.library} (ggml {found.ggml}) on {', '.join(found.gpus)}", flush=True)
    return subprocess.run(
        children.python("-m", "pytest", "-v", TESTS), env=children.environment(), check=False
    ).returncode


def _built(version: str, folder: Path) -> Path:
    """The folder of the libraries, made where it is not there."""
    made = folder / f"made-{version}"
    done = made / "done"
    if not done.is_file():
        if shutil.which("glslc") is None:
            raise SystemExit(f"A llama.cpp for Vulkan needs Debian's packages {PACKAGES} to be built.")
        print(f"Building llama.cpp for Vulkan into {made} (10 minutes on two cores)", flush=True)
        _build(_source(version, folder), made)
        done.touch()
    return made / "bin"


def _source(version: str, folder: Path) -> Path:
    """llama.cpp's source, as the package carries it."""
    name = f"llama_cpp_python-{version}"
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / name / "pyproject.toml").is_file():
        pip = children.python("-m", "pip", "download", "--quiet", "--disable-pip-version-check")
        what = ["--no-deps", "--no-build-isolation", "--no-binary=:all:", f"llama-cpp-python=={version}"]
        subprocess.run([*pip, "--dest", str(folder), *what], env=children.environment(), check=True)
        with tarfile.open(folder / f"{name}.tar.gz") as packed:
            packed.extractall(folder, filter="data")
    return folder / name / "vendor" / "llama.cpp"


def _build(source: Path, made: Path) -> None:
    tools = Path(sys.executable).parent
    jobs = os.environ.get("CMAKE_BUILD_PARALLEL_LEVEL") or str(usable_cpus())
    flags = [f"-D{name}=OFF" for name in _OFF]
    flags += ["-DGGML_VULKAN=ON", "-DBUILD_SHARED_LIBS=ON", "-DCMAKE_BUILD_TYPE=Release"]
    flags += [f'-DCMAKE_CXX_FLAGS=-include "{_HEADER.resolve()}"']
    commands = (
        ["cmake", "-S", str(source), "-B", str(made), "-G", "Ninja", *flags],
        ["cmake", "--build", str(made), "--target", "llama", "--parallel", jobs],
    )
    made.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"}
    log = made / "build.log"
    with log.open("w") as said:
        for command in commands:
            if subprocess.run(command, env=environment, stdout=said, stderr=said, check=False).returncode:
                print(*log.read_text().splitlines()[-30:], sep="\n", file=sys.stderr)
                raise SystemExit(f"llama.cpp could not be built ({log}); it needs Debian's {PACKAGES}.")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
