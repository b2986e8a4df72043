"""The contract survives its JSON, and invalid contracts are refused in one line that says what to do."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from typing import Any

import pytest
from facerecon_rt.contract import (
    BLENDSHAPES,
    CONTRACT_VERSION,
    ENSEMBLE_OUTPUTS,
    ENSEMBLE_OUTPUTS_1,
    OUTPUTS,
    OUTPUTS_1,
    SET_OUTPUTS,
    SET_OUTPUTS_1,
    ModelContract,
)
from facerecon_rt.errors import ModelRefused

CONTRACT = ModelContract(
    128, 4032, "ab12", "mobile", "int8", terms="research only", weights_sha256="cd34", code_size=64
)
CONTRACT_1 = dataclasses.replace(CONTRACT, version=1, outputs=OUTPUTS_1, code_size=0)
"""As release 0.1 wrote it, but for code_size, which it did not have."""


def with_value(name: str, value: object) -> str:
    return json.dumps({**json.loads(CONTRACT.to_json()), name: value})


def test_a_contract_survives_its_json() -> None:
    assert ModelContract.from_json(CONTRACT.to_json()) == CONTRACT


def test_fields_of_later_releases_are_left_aside() -> None:
    assert ModelContract.from_json(with_value("tongue", {"length_mm": 40})) == CONTRACT


def test_fields_with_a_default_may_be_missing() -> None:
    needed = {"input_size": 64, "vertex_count": 68, "template_sha256": "a", "backbone": "b"}
    value = {"version": CONTRACT_VERSION, "code_size": 8, **needed}
    assert ModelContract.from_json(json.dumps(value)) == ModelContract(64, 68, "a", "b", code_size=8)
    one = ModelContract(64, 68, "a", "b", outputs=OUTPUTS_1, version=1)
    assert ModelContract.from_json(json.dumps({"version": 1, **needed})) == one
    of_set = dataclasses.replace(one, outputs=SET_OUTPUTS_1, set_size=4)
    assert ModelContract.from_json(json.dumps({"version": 1, "set_size": 4, **needed})) == of_set


def test_there_are_53_blendshapes_and_9_outputs_of_which_contract_1_has_6() -> None:
    assert len(set(BLENDSHAPES)) == 53
    assert len(OUTPUTS) == 9
    assert OUTPUTS_1 == ("shape", "vertices", "expression", "crop_from_head", "landmarks", "confidence")
    assert OUTPUTS[:6] == OUTPUTS_1
    assert OUTPUTS[6:] == ("gaze", "identity", "identity_variance")


def test_a_contract_of_release_01_is_read() -> None:
    value = json.loads(CONTRACT_1.to_json())
    del value["code_size"]
    assert ModelContract.from_json(json.dumps(value)) == CONTRACT_1


@pytest.mark.parametrize(
    ("version", "set_size", "outputs"),
    [
        (2, 0, OUTPUTS),
        (2, 0, ENSEMBLE_OUTPUTS),
        (2, 4, SET_OUTPUTS),
        (1, 0, OUTPUTS_1),
        (1, 0, ENSEMBLE_OUTPUTS_1),
        (1, 4, SET_OUTPUTS_1),
    ],
)
def test_each_version_has_outputs_of_its_own(version: int, set_size: int, outputs: tuple[str, ...]) -> None:
    contract = dataclasses.replace(CONTRACT, version=version, set_size=set_size, outputs=outputs)
    assert ModelContract.from_json(contract.to_json()) == contract
    for other in ({"version": 3 - version}, {"set_size": 4 - set_size}):
        with pytest.raises(ModelRefused, match=r"outputs .* are not"):
            dataclasses.replace(contract, **other).check()  # type: ignore[arg-type]


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(ModelContract)])
@pytest.mark.parametrize("value", [None, True, 1.5, [], {}, [["jawOpen"]], [1], "a\nb", float("nan")], ids=repr)
def test_a_field_of_the_wrong_type_is_refused_in_one_line(name: str, value: Any) -> None:
    if name in ("annotation_asymmetry", "golden") and value == []:
        pytest.skip("there may be none")
    with pytest.raises(ModelRefused, match=f"{name}|blendshape names|version") as caught:
        ModelContract.from_json(with_value(name, value))
    assert "\n" not in str(caught.value)
    assert "export" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("input_size", 31, "input_size 31"),
        ("input_size", 1025, "input_size 1025"),
        ("input_size", "128", "input_size is not an integer"),
        ("vertex_count", 67, "vertex_count 67"),
        ("precision", "fp8", "'fp8' is not one of fp32, fp16, int8"),
        ("outputs", list(reversed(OUTPUTS)), "outputs"),
        ("outputs", [*OUTPUTS, "tongue"], "outputs"),
        ("blendshapes", "jawOpen", "blendshapes is not a list"),
        ("blendshapes", ["jawOpen", 1], "blendshapes is not a text"),
        ("blendshapes", ["jawOpen", "jawOpen"], "repeated"),
        ("terms", "free\nfor all", "terms is not a text of one line"),
        ("backbone", "\x1b[31mred", "backbone is not a text of one line"),
        ("version", 3, "contract version is 3, but this runtime reads 1 and 2"),
        ("version", 0, "contract version is 0, but this runtime reads 1 and 2"),
        ("version", "1", "version is not an integer"),
        ("code_size", 0, "code_size is missing"),
        ("code_size", -1, "code_size is negative"),
        ("golden", [10**309] * 340, "golden is not a list of numbers"),
        ("golden", [-(10**4000)] * 340, "golden is not a list of numbers"),
        ("annotation_asymmetry", [1e10] * 136, "annotation_asymmetry is not a list of numbers"),
        ("annotation_asymmetry", [float("-inf")] * 136, "annotation_asymmetry is not a list of numbers"),
        ("input_size", 10**400, "input_size 1000"),
        ("batch", -(10**400), "batch, set_size or code_size is negative"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused(name: str, value: object, says: str) -> None:
    with pytest.raises(ModelRefused, match=says):
        ModelContract.from_json(with_value(name, value))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is not JSON"),
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("1" * 5000, "is not JSON"),
        ("null", "has no version"),
        ("[]", "has no version"),
        ("{}", "has no version"),
        ('{"version": 9}', "contract version is 9"),
        ('{"version": 1, "input_size": 64}', "lacks backbone, template_sha256, vertex_count"),
    ],
)
def test_what_is_no_contract_is_refused(text: str, says: str) -> None:
    with pytest.raises(ModelRefused, match=says) as caught:
        ModelContract.from_json(text)
    assert "export the model again" in str(caught.value)


def test_check_refuses_what_was_built_by_hand() -> None:
    CONTRACT.check()
    with pytest.raises(ModelRefused, match="blendshapes is not a list"):
        dataclasses.replace(CONTRACT, blendshapes=["jawOpen"]).check()  # type: ignore[arg-type]
    with pytest.raises(ModelRefused, match="contract version is 3"):
        dataclasses.replace(CONTRACT, version=3).check()


def test_importing_the_package_loads_neither_torch_nor_onnx_nor_onnx_runtime() -> None:
    heavy = ("torch", "onnx", "onnxruntime", "trimesh", "scipy")
    program = f"import facerecon_rt, facerecon_rt.cli, sys; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
