"""The warm-up requests of an export, read as the server reads them, without TensorFlow."""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError


def warm_up_requests(path: Path, messages: Any) -> Iterator[tuple[dict[str, list[bytes]], str]]:
    """Texts by name and signature of each request in a TFRecord file of `PredictionLog`s.

    Args:
        path: the file.
        messages: from `tfft.capi.messages`.

    Raises:
        ValueError: the file is damaged.
    """
    for record in _records(path.read_bytes()):
        try:
            request = messages.PredictionLog.FromString(record).predict_log.request
        except DecodeError as error:
            raise ValueError(str(error)) from None
        texts = {name: list(tensor.string_val) for name, tensor in request.inputs.items()}
        yield texts, request.model_spec.signature_name or "serving_default"


def _records(content: bytes) -> Iterator[bytes]:
    """The records of a TFRecord file: length (8 bytes), its checksum (4), record, its checksum (4)."""
    place = 0
    while place < len(content):
        try:
            (size,) = struct.unpack_from("<Q", content, place)
        except struct.error as error:
            raise ValueError(str(error)) from None
        record = content[place + 12 : place + 12 + size]
        if len(record) < size:
            raise ValueError("the file ends within it")
        yield record
        place += size + 16
