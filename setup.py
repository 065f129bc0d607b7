"""Builds the kernels, one library per instruction set. Each is optional: without a compiler plain torch computes."""

import platform
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

RENDERING = Path("diffusion3d/rendering")
# no -ffast-math: reordered sums would make the results differ between compilers and from run to run of the tests
FLAGS = [
    "-O3",
    "-g0",
    "-std=c++17",
    "-pthread",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-ffp-contract=off",
    "-fvisibility=hidden",
]
QUIET = ["-Wno-uninitialized"]  # GCC 12 warns of its own AVX-512 headers
X86 = {"avx512": ["-mavx512f", "-mavx512dq", "-mavx512bw", "-mavx512vl"], "avx2": ["-mavx2", "-mfma"]}


class BuildLibraries(build_ext):
    """Plain shared libraries for ctypes: no suffix of a Python version."""

    def get_ext_filename(self, fullname: str) -> str:
        return fullname.replace(".", "/") + ".so"


class AnyPython(bdist_wheel):
    """The libraries use no Python, so the wheel is bound to the platform alone."""

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


def libraries() -> list[Extension]:
    if sys.platform == "win32":
        return []
    x86 = X86 if platform.machine() in ("x86_64", "AMD64") else {}
    return [
        Extension(
            f"diffusion3d.rendering._kernels_{isa}",
            [str(RENDERING / "splat.cpp"), str(RENDERING / "hash_grid.cpp")],
            depends=[str(path) for path in sorted(RENDERING.glob("*.h"))],
            language="c++",
            extra_compile_args=[*FLAGS, *QUIET, *flags],
            extra_link_args=["-pthread"],
            optional=True,
        )
        for isa, flags in {**x86, "generic": []}.items()
    ]


setup(ext_modules=libraries(), cmdclass={"build_ext": BuildLibraries, "bdist_wheel": AnyPython})
