"""Protobuf's text format, read by protobuf itself."""

from __future__ import annotations

import pytest
from facerecon_export.pbtxt import Name, entries, pbtxt
from google.protobuf import text_format

model_config = pytest.importorskip("tritonclient.grpc.model_config_pb2")


def test_what_is_written_is_what_protobuf_reads() -> None:
    text = 'quotes " and \\ backslashes\nlines, ünïcode and \t tabs'
    message = pbtxt(
        {
            "name": text,
            "max_batch_size": 16,
            "version_policy": {"specific": {"versions": [1, 3]}},
            "input": [
                {"name": "a", "data_type": Name("TYPE_UINT8"), "dims": [128, -1], "optional": True},
                {"name": "b", "dims": [1], "reshape": {"shape": list[int]()}},
            ],
            "parameters": entries({"key": {"string_value": text}}),
        }
    )
    read = text_format.Parse(message, model_config.ModelConfig())
    assert read.name == text
    assert read.max_batch_size == 16
    assert list(read.version_policy.specific.versions) == [1, 3]
    first, second = read.input
    assert (first.name, list(first.dims), first.optional) == ("a", [128, -1], True)
    assert first.data_type == model_config.TYPE_UINT8
    assert second.HasField("reshape")
    assert not second.reshape.shape
    assert read.parameters["key"].string_value == text
