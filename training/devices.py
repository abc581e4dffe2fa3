"""The device, the number of processes and the precision of a run."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.utilities.exceptions import MisconfigurationException
from torch import nn

from salience.runtime.errors import SalienceError

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")


def open_fabric(accelerator: str, devices: int | None, precision: str, *, deterministic: bool = False) -> Fabric:
    """A launched Fabric: from here on this program runs in `devices` processes.

    Args:
        accelerator: "auto", "cpu" or "cuda".
        devices: processes, one on each GPU; None: one, or those that torchrun has started.
        precision: one of `PRECISIONS`.
        deterministic: have torch use deterministic algorithms alone, in all that follows.

    Raises:
        SalienceError: the precision is unknown, or this machine lacks the devices.
    """
    if precision not in PRECISIONS:
        raise SalienceError(f"--precision {precision}: not known; choose one of {', '.join(PRECISIONS)}.")
    if precision == "16-mixed" and (accelerator == "cpu" or not torch.accelerator.is_available()):
        raise SalienceError("--precision 16-mixed: it needs a GPU, on the CPU choose bf16-mixed.")
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts
        torch.use_deterministic_algorithms(True)
    local, nodes = _processes(devices)
    try:
        fabric = Fabric(
            accelerator=accelerator, devices=local, num_nodes=nodes, precision=precision,  # type: ignore[arg-type]
        )  # fmt: skip
        fabric.launch()
    except (ValueError, RuntimeError, MisconfigurationException) as error:
        raise SalienceError(
            f"--accelerator {accelerator} --devices {local} --precision {precision}: not possible here "
            f"({' '.join(str(error).split())})."
        ) from error
    return fabric


@contextmanager
def determinism_explained() -> Iterator[None]:
    """What torch says of an operation that has no deterministic form, as one sentence."""
    try:
        yield
    except RuntimeError as error:
        if "does not have a deterministic implementation" not in str(error):
            raise
        operation = str(error).split()[0]
        raise SalienceError(
            f"--deterministic: {operation} has no deterministic form on this device; leave --deterministic out."
        ) from error


def synchronise_norms(network: nn.Module, fabric: Fabric) -> None:
    """Turn the batch norms below `network` into ones that share their statistics among the GPUs.

    Raises:
        SalienceError: the run is on the CPU, which torch's synchronised batch norm does not support.
    """
    if fabric.device.type != "cuda":
        raise SalienceError("--sync-norm: works on GPUs alone; leave it out, or give --accelerator cuda.")
    from timm import layers  # torch's own conversion would lose the activation in timm's batch norms

    convert: Any = layers.convert_sync_batchnorm  # type: ignore[attr-defined]
    convert(network)


def _processes(devices: int | None) -> tuple[int, int]:
    """Processes on each machine, and machines."""
    if not torch.distributed.is_torchelastic_launched():
        return devices or 1, 1
    local, world = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["WORLD_SIZE"])
    if devices not in (None, local):
        raise SalienceError(f"--devices {devices}: torchrun has started {local} processes here; leave --devices out.")
    return local, world // local
