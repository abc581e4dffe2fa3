"""Tar shards: what is a picture, and what may not harm."""

import io
import tarfile
from pathlib import Path

import pytest

from salience.runtime.errors import DataError
from salience.runtime.scale import shards

from .samples import read_shard, write_shard


def read(path: Path, extension: str | None = None) -> list[tuple[str, str]]:
    """Keys, and what came for each as text."""
    return [
        (key, str(found) if isinstance(found, DataError) else found.decode())
        for key, found in shards.read_pictures(path, extension)
    ]


def test_a_picture_is_what_ends_like_one_up_to_the_first_dot(tmp_path: Path) -> None:
    members = [("./a/1.jpg", b"one"), ("a/1.json", b"{}"), ("a/2.PNG", b"two"), ("a/2.seg.png", b"mask"),
               ("a/._3.jpg", b"fork"), ("README", b"text")]  # fmt: skip
    path = write_shard(tmp_path / "s.tar", members)
    assert read(path) == [("a/1", "one"), ("a/2", "two")]
    assert read(path, "seg.png") == [("a/2", "mask")]


@pytest.mark.parametrize("name", ["/etc/1.jpg", "../1.jpg", "a/../../1.jpg", "a\\1.jpg"])
def test_a_key_that_leaves_its_folder_is_an_error(tmp_path: Path, name: str) -> None:
    path = write_shard(tmp_path / "s.tar", [(name, b"x"), ("2.jpg", b"two")])
    (_, message), last = read(path)
    assert "leaves its folder" in message
    assert last == ("2", "two")


def test_the_first_picture_of_a_key_counts(tmp_path: Path) -> None:
    path = write_shard(tmp_path / "s.tar", [("1.jpg", b"one"), ("2.jpg", b"two"), ("./1.png", b"again")])
    found = read(path)
    assert found[:2] == [("1", "one"), ("2", "two")]
    assert found[2][0] == "1"
    assert "has a picture already" in found[2][1]


def test_links_and_large_members_are_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "LIMIT_BYTES", 1 << 16)
    path = tmp_path / "s.tar"
    with tarfile.open(path, "w") as archive:
        link = tarfile.TarInfo("1.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
        for name, size in (("2.jpg", (1 << 16) + 1), ("3.jpg", 1 << 16)):
            member = tarfile.TarInfo(name)
            member.size = size
            archive.addfile(member, io.BytesIO(b"x" * size))
    found = read(path)
    assert [key for key, _ in found] == ["1", "2", "3"]
    assert "is a link" in found[0][1]
    assert "the limit is 65536" in found[1][1]
    assert found[2][1] == "x" * (1 << 16)


def test_a_header_may_not_ask_for_all_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "LIMIT_BYTES", 1 << 16)
    path = tmp_path / "s.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo("1.jpg")
        member.pax_headers = {"comment": "x" * (1 << 17)}
        archive.addfile(member)
    ((key, message),) = read(path)
    assert key == ""
    assert "asks for too much" in message


@pytest.mark.parametrize(("cut", "keys"), [(514, ["1"]), (1024, ["1", ""]), (1100, ["1", ""]), (1600, ["1", "2"])])
def test_a_shard_that_is_cut_off_gives_what_came_before_and_an_error(tmp_path: Path, cut: int, keys: list[str]) -> None:
    path = write_shard(tmp_path / "s.tar", [("1.jpg", b"one"), ("2.jpg", b"2" * 600)])
    path.write_bytes(path.read_bytes()[:cut])
    found = read(path)
    assert [key for key, _ in found] == keys
    assert all(value == "one" for _, value in found[:-1])
    assert "is the file whole?" in found[-1][1]


def test_damage_in_the_middle_is_no_end(tmp_path: Path) -> None:
    path = write_shard(tmp_path / "s.tar", [(f"{index}.jpg", b"x") for index in range(4)])
    data = bytearray(path.read_bytes())
    data[2048:2560] = b"\xff" * 512
    path.write_bytes(data)
    found = read(path)
    assert [key for key, _ in found] == ["0", "1", ""]
    assert "damaged or cut off" in found[-1][1]


@pytest.mark.parametrize("data", [b"", b"no shard" * 1000, bytes(10240)])
def test_what_is_no_shard_or_empty_is_an_error(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "s.tar"
    path.write_bytes(data)
    ((key, message),) = read(path)
    assert key == ""
    assert str(path) in message


def test_a_shard_is_written_whole_and_the_same_every_time(tmp_path: Path) -> None:
    for name in ("a.tar", "b.tar"):
        with shards.write_shard(tmp_path / name) as writer:
            writer.add("folder/1", b"png")
            writer.add("2", b"other")
    assert read_shard(tmp_path / "a.tar") == [("folder/1.png", b"png"), ("2.png", b"other")]
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    with pytest.raises(RuntimeError), shards.write_shard(tmp_path / "c.tar"):
        raise RuntimeError
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar", "b.tar"]
