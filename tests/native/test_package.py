"""The installed package: programs of others find it, build against it and run."""

import http.client
import os
import re
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from salience.runtime import load
from salience.runtime.bundle import DEFAULT_BUNDLE

from .conftest import configure, run

C_PROGRAM = """
#include <salience/salience.h>
#include <stdio.h>
int main(int count, char** values) {
  salience_detector* detector = NULL;
  if (count != 2 || salience_load(values[1], NULL, &detector) != SALIENCE_OK) {
    fprintf(stderr, "%s", salience_last_error());
    return 1;
  }
  puts(salience_version());
  salience_detector_free(detector);
  return 0;
}
"""


@pytest.fixture(scope="module")
def picture(photos: dict[str, NDArray[np.uint8]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A photograph as PPM."""
    path = tmp_path_factory.mktemp("pictures") / "chelsea.ppm"
    Image.fromarray(photos["chelsea"]).save(path)
    return path


@pytest.fixture(scope="module")
def expected(photos: dict[str, NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Python's map of it."""
    return load(backend="onnxruntime", device="cpu").predict(photos["chelsea"]).grey()


def built(name: str, installed: Path, repository: Path, folder: Path) -> Path:
    """The program of an example, built outside of the repository against the installed package alone."""
    source = shutil.copytree(repository / "runtime" / "cpp" / "examples" / name, folder / name)
    settings = (f"-DCMAKE_PREFIX_PATH={installed}", "-DCMAKE_CXX_FLAGS=-Wall -Wextra -Werror")
    assert not configure(source, folder / "build", *settings)
    run("cmake", "--build", folder / "build")
    return folder / "build" / f"salience-{'map' if name == 'tool' else name}"


@pytest.fixture(scope="module")
def tool(installed: Path, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built("tool", installed, repository, tmp_path_factory.mktemp("tool"))


@pytest.fixture(scope="module")
def service(installed: Path, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a running service; it must end well."""
    program = built("service", installed, repository, tmp_path_factory.mktemp("service"))
    with subprocess.Popen([program, DEFAULT_BUNDLE, "0"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.terminate()
        assert process.wait(timeout=20) == 0


def assert_alike(found: NDArray[np.uint8], expected: NDArray[np.uint8]) -> None:
    assert found.shape == expected.shape
    # What is half way between two levels may be rounded to either.
    assert np.abs(found.astype(int) - expected).max() <= 1


def test_what_is_installed(installed: Path) -> None:
    names = {path.name for path in (installed / "include" / "salience").iterdir()}
    assert names == {"errors.hpp", "export.h", "salience.h", "salience.hpp"}
    (folder,) = installed.glob("lib*/cmake/salience")
    config = {"salienceConfig.cmake", "salienceConfigVersion.cmake", "salienceTargets.cmake"}
    assert config <= {path.name for path in folder.iterdir()}
    for path in [*folder.iterdir(), *installed.glob("lib*/pkgconfig/*")]:
        # It may be moved: nothing names the folder that it was built or installed in.
        assert str(installed) not in path.read_text()


def test_tool_makes_pythons_map(tool: Path, picture: Path, expected: NDArray[np.uint8], tmp_path: Path) -> None:
    run(tool, DEFAULT_BUNDLE, picture, tmp_path / "map.pgm")
    assert_alike(np.asarray(Image.open(tmp_path / "map.pgm")), expected)


def test_tool_promotes(tool: Path, picture: Path, tmp_path: Path, bundle_of: Callable[[str], Path]) -> None:
    prior = np.zeros((9, 12), dtype=np.uint8)
    prior[3:6, 4:8] = 200
    Image.fromarray(prior).save(tmp_path / "prior.pgm")
    run(tool, bundle_of("lps"), picture, "--prior", tmp_path / "prior.pgm", tmp_path / "map.pgm")
    detector = load(bundle_of("lps"), backend="onnxruntime", device="cpu")
    promoted = detector.promote(np.asarray(Image.open(picture)), prior)  # type: ignore[attr-defined]
    assert_alike(np.asarray(Image.open(tmp_path / "map.pgm")), promoted.grey())


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "usage: salience-map"),
        (["{bundle}", "{picture}", "--prior", "map.pgm"], 2, "usage"),
        (["/no/bundle", "{picture}", "map.pgm"], 1, "no readable manifest.json"),
        (["{bundle}", "missing.ppm", "map.pgm"], 1, "picture missing.ppm: cannot be read"),
        (["{bundle}", "{picture}", "--class", "cat", "map.pgm"], 1, "holds multis, expected cgd"),
        (["{bundle}", "{picture}", "map.tiff"], 1, "expected the ending .png or .pgm."),
    ],
)
def test_tool_refuses(tool: Path, picture: Path, tmp_path: Path, arguments: list[str], code: int, message: str) -> None:
    filled = [part.format(bundle=DEFAULT_BUNDLE, picture=picture) for part in arguments]
    found = subprocess.run([tool, *filled], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert found.returncode == code
    assert message in found.stderr


def post(address: str, body: bytes) -> bytes:
    with urllib.request.urlopen(address, data=body, timeout=60) as response:
        content: bytes = response.read()
    return content


def test_service_makes_pythons_map(service: str, picture: Path, expected: NDArray[np.uint8], tmp_path: Path) -> None:
    body = picture.read_bytes()
    with ThreadPoolExecutor(4) as pool:
        for index, content in enumerate(pool.map(lambda _: post(service, body), range(8))):
            (tmp_path / f"{index}.pgm").write_bytes(content)
            assert_alike(np.asarray(Image.open(tmp_path / f"{index}.pgm")), expected)


@pytest.mark.parametrize(
    ("method", "path", "length", "body", "code"),
    [
        ("POST", "", "5", b"hello", 400),
        ("POST", "", "15", b"P6 2 2 255\nabcd", 400),
        ("POST", "", "16", b"P6 9 0 255\n.....", 400),
        ("POST", "", "-5", b"hello", 400),
        ("POST", "/other", "5", b"hello", 404),
        ("GET", "", "0", b"", 405),
        ("POST", "", None, b"", 411),
        ("POST", "", "99999999999", b"", 413),
        ("POST", "", "9" * 40, b"", 413),
    ],
)
def test_service_refuses(service: str, method: str, path: str, length: str | None, body: bytes, code: int) -> None:
    address = urllib.parse.urlsplit(service)
    connection = http.client.HTTPConnection(address.netloc, timeout=60)
    connection.putrequest(method, address.path + path)
    if length is not None:
        connection.putheader("Content-Length", length)
    connection.endheaders(body)
    response = connection.getresponse()
    assert response.status == code
    assert re.fullmatch(rb"[A-Z][^\n]*\.\n", response.read())
    connection.close()


def test_readmes_example_compiles(installed: Path, repository: Path, tmp_path: Path) -> None:
    (block,) = re.findall(r"```cpp\n(.*?)```", (repository / "README.md").read_text(), flags=re.DOTALL)
    include, *rest = block.strip().splitlines()
    given = "const unsigned char* pixels, std::size_t height, std::size_t width"
    program = tmp_path / "main.cpp"
    program.write_text(f"{include}\nvoid serve({given}) {{\n" + "\n".join(rest) + "\n}\n")
    compiler = os.environ.get("CXX") or shutil.which("c++")
    assert compiler
    run(compiler, "-std=c++20", "-fsyntax-only", "-Wall", "-Wno-unused-value", f"-I{installed / 'include'}", program)


def test_c_program_by_pkg_config(installed: Path, tmp_path: Path) -> None:
    compiler = os.environ.get("CC") or shutil.which("cc")
    if not shutil.which("pkg-config") or not compiler:
        pytest.skip("pkg-config and a C compiler are needed")
    (folder,) = installed.glob("lib*/pkgconfig")
    environment = os.environ | {"PKG_CONFIG_PATH": str(folder)}
    command = ["pkg-config", "--cflags", "--libs", "salience"]
    flags = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout.split()
    (tmp_path / "main.c").write_text(C_PROGRAM)
    run(compiler, "-std=c99", "-pedantic", "-Werror", tmp_path / "main.c", *flags, "-o", tmp_path / "main")
    program = [str(tmp_path / "main"), str(DEFAULT_BUNDLE)]
    environment = os.environ | {"LD_LIBRARY_PATH": str(folder.parent)}
    found = subprocess.run(program, capture_output=True, text=True, check=True, env=environment)
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", found.stdout)
