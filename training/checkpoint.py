"""Checkpoints: `.safetensors` weights with everything needed to rebuild the network beside them."""

import json
from pathlib import Path
from typing import Any, Self

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from salience.runtime.errors import CheckpointError
from salience.runtime.files import write_atomic
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
        for key, value in network.state_dict().items()
        if not key.endswith("num_batches_tracked")
    }
    write_atomic(path, save(state, metadata=header.to_metadata()))


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
    wanted = {key: value for key, value in network.state_dict().items() if not key.endswith("num_batches_tracked")}
    wrong = sorted(
        key for key in wanted.keys() | state.keys() if key not in wanted or key not in state
        or wanted[key].shape != state[key].shape
    )  # fmt: skip
    if wrong:
        raise CheckpointError(
            f"checkpoint {path}: {len(wrong)} tensors do not fit {header.method} as its header describes it "
            f"({', '.join(wrong[:5])}{', ...' if len(wrong) > 5 else ''})."
        )
    network.load_state_dict({key: value.float() for key, value in state.items()}, strict=False)
    return header, network.eval()
