"""Checkpoints: `.safetensors` weights with everything needed to rebuild the network beside them."""

import hashlib
import json
from pathlib import Path
from typing import Any, Self

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from salience.runtime.errors import CheckpointError
from salience.runtime.files import atomic_path
from salience.runtime.tables import entry

from .networks import NETWORKS
from .preprocessing import Preprocessing

FORMAT = "salience-checkpoint/1"


class CheckpointHeader(BaseModel):
    """The metadata of a checkpoint file.

    `network` are the settings of `NETWORKS[method]`, `training` a free summary (data, epochs, scores).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: str
    network: dict[str, Any]
    preprocessing: Preprocessing
    training: dict[str, Any] = {}

    def to_metadata(self) -> dict[str, str]:
        """As safetensors metadata, which maps strings to strings."""
        return {"format": FORMAT, "header": self.model_dump_json()}

    @classmethod
    def from_metadata(cls, metadata: dict[str, str], *, path: Path) -> Self:
        """Parse and check; `path` is for the message."""
        if metadata.get("format") != FORMAT:
            raise CheckpointError(
                f"checkpoint {path}: its metadata says {metadata.get('format', 'nothing')!r}, expected "
                f"{FORMAT!r}; only files written by training/train.py can be exported."
            )
        try:
            return cls.model_validate(json.loads(metadata["header"]))
        except (KeyError, ValueError, ValidationError) as error:
            raise CheckpointError(f"checkpoint {path}: its header is damaged ({error}).") from error


def build_network(method: str, settings: dict[str, Any]) -> nn.Module:
    """The network of `method` with `settings`, randomly initialised.

    Raises:
        CheckpointError: a setting is unknown or out of range.
    """
    network_type = entry(NETWORKS, method, what="method")
    try:
        parsed = network_type.settings_type.model_validate(settings)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise CheckpointError(f"network settings of {method}: {problems}.") from error
    network: nn.Module = network_type(parsed)
    return network


def save_checkpoint(
    path: Path, network: nn.Module, header: CheckpointHeader, *, dtype: torch.dtype = torch.float32
) -> None:
    """Write `network`'s tensors, floats as `dtype`, and `header` to `path`, whole or not at all."""
    state = {
        key: (value.to(dtype) if value.is_floating_point() else value).contiguous().cpu()
        for key, value in _tensors(network).items()
    }
    data = save(state, metadata=header.to_metadata())
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.writelines(_ordered(data))


def load_checkpoint(path: Path) -> tuple[CheckpointHeader, nn.Module]:
    """Header and network, in eval mode and fp32, of a checkpoint file.

    Raises:
        CheckpointError: the file is missing, damaged, or does not fit the network that it names.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = CheckpointHeader.from_metadata(file.metadata() or {}, path=path)
            state: dict[str, Tensor] = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"checkpoint {path}: cannot be read as safetensors ({error}).") from error
    network = build_network(header.method, header.network)
    if wrong := _unfit(_tensors(network), state):
        raise CheckpointError(
            f"checkpoint {path}: {len(wrong)} tensors do not fit {header.method} as its header describes it "
            f"({_some(wrong)})."
        )
    network.load_state_dict({key: value.float() for key, value in state.items()}, strict=False)
    return header, network.eval()


def initial_network(path: Path, *, method: str, changes: dict[str, Any]) -> tuple[CheckpointHeader, nn.Module]:
    """Header of a checkpoint, and its network with `changes` of its settings, to be trained further.

    All tensors are the checkpoint's; only a last layer for other classes keeps its random values.

    Raises:
        CheckpointError: as `load_checkpoint`; or the file is of another method, or `changes` want other tensors.
    """
    header, source = load_checkpoint(path)
    if header.method != method:
        raise CheckpointError(
            f"--initial {path}: a checkpoint of {header.method}, expected one of {method}; of another method "
            "--weights takes the backbone alone."
        )
    network = build_network(method, header.network | changes)
    fresh = () if network.settings == source.settings else tuple(getattr(network, "fresh", ()))
    wanted, given = (
        {key: value for key, value in _tensors(module).items() if not key.startswith(fresh)}
        for module in (network, source)
    )
    if wrong := _unfit(wanted, given):
        raise CheckpointError(
            f"--initial {path}: {len(wrong)} tensors do not fit the network that is asked for ({_some(wrong)}); "
            "leave --backbone and --network as they were in its training."
        )
    network.load_state_dict(given, strict=False)
    return header, network


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _tensors(network: nn.Module) -> dict[str, Tensor]:
    """What a checkpoint stores of `network`."""
    return {key: value for key, value in network.state_dict().items() if not key.endswith("num_batches_tracked")}


def _unfit(wanted: dict[str, Tensor], given: dict[str, Tensor]) -> list[str]:
    """Names that only one of the two has, and those whose shapes differ."""
    both = wanted.keys() & given.keys()
    return sorted((wanted.keys() ^ given.keys()) | {key for key in both if wanted[key].shape != given[key].shape})


def _some(names: list[str]) -> str:
    return f"{', '.join(names[:5])}{', ...' if len(names) > 5 else ''}"


def _ordered(data: bytes) -> tuple[bytes, memoryview]:
    """A safetensors file in two parts, with its metadata in order: the library writes them in any."""
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8 bytes
    return len(text).to_bytes(8, "little") + text, memoryview(data)[end:]
