"""The Open Inference Protocol of KServe, with our models behind it."""

from typing import Any

from kserve import InferRequest, InferResponse, Model, ModelRepository
from kserve.errors import ModelNotReady
from kserve.protocol.dataplane import DataPlane
from kserve.protocol.model_repository_extension import ModelRepositoryExtension

from .gate import Gate
from .queries import QueryError
from .served import Served, Workshop
from .tensors import input_types, output_types, query_of, read_binary, response_of


class SaliencyModel(Model):  # type: ignore[misc]
    """A `Served` bundle, as KServe calls it."""

    def __init__(self, served: Served, workshop: Workshop) -> None:
        super().__init__(served.name, return_response_headers=True)
        self.served = served
        self._images = workshop.settings.limits.images

    async def healthy(self) -> bool:
        """Whether it is loaded and warm."""
        return self.served.ready

    def load(self) -> bool:
        """KServe asks for it where a model is not ready; that is the service's own affair."""
        raise ModelNotReady(self.name)

    def get_input_types(self) -> list[dict[str, Any]]:
        """Metadata of a request's tensors."""
        return input_types(self._method())

    def get_output_types(self) -> list[dict[str, Any]]:
        """Metadata of a response's tensors."""
        return output_types(self._method())

    async def predict(
        self, payload: InferRequest, headers: dict[str, str], response_headers: dict[str, str]
    ) -> InferResponse:
        """Answer a request; the times of its stages go to the response's headers."""
        query = query_of(payload, self._method(), self._images)
        found = await self.served.answer(query)
        response_headers["Server-Timing"] = server_timing(found.stages)
        return response_of(found.answers, payload, self.name)

    def _method(self) -> str:
        if not self.served.ready:
            raise ModelNotReady(self.name)
        return self.served.loaded.method


class Plane(DataPlane):  # type: ignore[misc]
    """KServe's data plane: ready where every model is and the gate is open, and binary tensors stay binary."""

    def __init__(self, repository: "Repository", gate: Gate) -> None:
        super().__init__(model_registry=repository)
        self._gate = gate

    async def ready(self) -> bool:
        """Whether every model is loaded and warm, and the service is not about to stop."""
        return not self._gate.draining and all(
            [await model.healthy() for model in self.model_registry.get_models().values()]
        )

    def decode_inference_request(self, body: Any, headers: dict[str, str], model_name: str) -> InferRequest:
        """See `tensors.read_binary` for binary bodies; JSON is read by KServe."""
        if isinstance(body, bytes):
            header = headers.get("inference-header-content-length")
            if header is None:
                raise QueryError(
                    "request: is neither JSON (Content-Type: application/json) nor has it the header "
                    "Inference-Header-Content-Length of binary tensors."
                )
            return read_binary(body, header)
        return super().decode_inference_request(body, headers, model_name)


class Repository(ModelRepository):  # type: ignore[misc]
    """The models of a service, which clients can neither load nor unload."""

    def load(self, name: str) -> bool:
        """Refused: a bundle is loaded when its folder changes."""
        raise QueryError(f"model {name}: is loaded by the service itself when its folder changes.")

    def unload(self, name: str) -> None:
        """Refused, see `load`."""
        self.load(name)


class RepositoryExtension(ModelRepositoryExtension):  # type: ignore[misc]
    """Answers with the repository's refusal, where KServe's would hide it."""

    async def load(self, model_name: str) -> None:
        """See `Repository.load`."""
        self._model_registry.load(model_name)

    async def unload(self, model_name: str) -> None:
        """See `Repository.unload`."""
        self._model_registry.unload(model_name)


def server_timing(stages: dict[str, float]) -> str:
    """The value of the header Server-Timing: milliseconds by stage."""
    return ", ".join(f"{stage};dur={1000 * seconds:.1f}" for stage, seconds in stages.items())
