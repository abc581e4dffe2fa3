"""The sound of a video: copied as it is where the output's container takes it, else encoded anew."""

from typing import TYPE_CHECKING, Any, Protocol

from .containers import reason

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import OutputContainer
    from av.packet import Packet


class Track(Protocol):
    """Where the packets of one sound stream go."""

    def write(self, packet: "Packet[AudioStream]") -> None:
        """Write one packet of the input."""

    def finish(self) -> list[str]:
        """Write what is held back; what went wrong, in sentences."""


class CopiedTrack:
    """Takes packets over bit by bit."""

    def __init__(self, output: "OutputContainer", source: "AudioStream") -> None:
        self._output = output
        self._stream = output.add_stream_from_template(source, opaque=True)

    def write(self, packet: "Packet[AudioStream]") -> None:
        """See `Track`."""
        packet.stream = self._stream
        self._output.mux(packet)

    def finish(self) -> list[str]:
        """See `Track`."""
        return []


class EncodedTrack:
    """Decodes and encodes: Opus for WebM, else AAC."""

    def __init__(self, output: "OutputContainer", source: "AudioStream") -> None:
        codec, rate = ("libopus", 48_000) if output.format.name == "webm" else ("aac", source.rate)
        self._output, self._source = output, source
        self._stream: Any = output.add_stream(codec, rate=rate, layout=source.layout.name)
        self._lost = 0
        self._reason = ""

    def write(self, packet: "Packet[AudioStream]") -> None:
        """See `Track`."""
        self._encode(packet)

    def finish(self) -> list[str]:
        """See `Track`."""
        self._encode(None)
        self._output.mux(self._stream.encode(None))
        return [f"{self._lost} pieces of the sound cannot be decoded ({self._reason})."] if self._lost else []

    def _encode(self, packet: "Packet[AudioStream] | None") -> None:
        import av

        try:
            frames = self._source.decode(packet)
        except av.FFmpegError as error:
            self._lost += 1
            self._reason = reason(error)
            return
        for frame in frames:
            self._output.mux(self._stream.encode(frame))


def add_track(output: "OutputContainer", source: "AudioStream") -> Track:
    """A track of `output` for a sound stream of the input, in the same language."""
    copied = source.codec_context.codec.name in output.supported_codecs
    track = CopiedTrack(output, source) if copied else EncodedTrack(output, source)
    if "language" in source.metadata:
        output.streams[-1].metadata["language"] = source.metadata["language"]
    return track
