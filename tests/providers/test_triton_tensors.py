"""Which tensor means what, and how values lie in them."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.providers.errors import UpstreamError
from app.providers.triton_tensors import Model, Spec, Tensor, map_of, model_of, read_tensor, tensor_of


def model(batch: int = 0, **kinds: str) -> Model:
    """Inputs, and outputs whose names begin with `out_`."""
    specs = {name.removeprefix("out_"): Spec(name.removeprefix("out_"), kind) for name, kind in kinds.items()}
    outputs = {name.removeprefix("out_") for name in kinds if name.startswith("out_")}
    return Model(
        {name: spec for name, spec in specs.items() if name not in outputs},
        {name: spec for name, spec in specs.items() if name in outputs},
        batch,
    )


def test_the_tensors_of_known_backends_are_recognised() -> None:
    found = map_of(
        model(text_input="BYTES", stream="BOOL", sampling_parameters="BYTES", exclude_input_in_output="BOOL",
              out_text_output="BYTES"),
        "chat",
    )  # fmt: skip
    assert {meaning: spec.name for meaning, spec in found.inputs.items()} == {
        "prompt": "text_input", "stream": "stream", "sampling_parameters": "sampling_parameters",
    }  # fmt: skip
    assert found.outputs == {"text": "text_output"} and found.constants == {"exclude_input_in_output": True}
    found = map_of(
        model(text_input="BYTES", max_tokens="INT32", stop_words="BYTES", random_seed="UINT64", beam_width="INT32",
              out_text_output="BYTES", out_cum_log_probs="FP32"),
        "chat",
    )  # fmt: skip
    assert found.inputs.keys() == {"prompt", "max_tokens", "stop", "seed"}


def test_the_only_tensor_of_a_type_is_taken_whatever_its_name() -> None:
    found = map_of(model(query="BYTES", out_answer="BYTES", out_score="FP32"), "chat")
    assert (found.inputs["prompt"].name, found.outputs["text"]) == ("query", "answer")
    made = model(query="BYTES", out_answer="BYTES")
    made.inputs["style"] = Spec("style", "BYTES", is_optional=True)  # which it can do without
    assert map_of(made, "chat").inputs["prompt"].name == "query"
    found = map_of(model(query="BYTES", out_vector="FP32"), "embeddings")
    assert (found.inputs["prompt"].name, found.outputs["embedding"]) == ("query", "vector")
    found = map_of(model(samples="FP32", out_text="BYTES"), "transcription")
    assert found.inputs["samples"].name == "samples" and "prompt" not in found.inputs


@pytest.mark.parametrize(
    ("made", "capability", "given", "words"),
    [
        (model(a="BYTES", b="BYTES", out_text="BYTES"), "chat", {}, r"a \(BYTES\), b \(BYTES\)"),
        (model(a="BYTES", out_x="BYTES", out_y="BYTES"), "chat", {}, r"x \(BYTES\), y \(BYTES\)"),
        (model(a="BYTES", out_text="BYTES"), "transcription", {}, "audio or samples"),
        (model(a="BYTES", out_text="BYTES"), "chat", {"inputs": {"prompt": "q"}}, "no input 'q'"),
        (model(a="BYTES", out_text="BYTES"), "chat", {"outputs": {"text": "q"}}, "no output 'q'"),
        (model(a="BYTES", out_text="BYTES"), "chat", {"constants": {"q": 1}}, "no input 'q'"),
    ],
)
def test_what_can_t_be_told_apart_is_said_with_what_there_is(
    made: Model, capability: str, given: dict[str, Any], words: str
) -> None:
    with pytest.raises(UpstreamError, match=words):
        map_of(made, capability, **given)


def test_a_config_is_read_as_both_transports_write_it() -> None:
    config = {
        "max_batch_size": 8, "model_transaction_policy": {"decoupled": True},
        "input": [{"name": "a", "data_type": "TYPE_STRING", "dims": ["-1"], "optional": True}],
        "output": [{"name": "b", "data_type": "TYPE_FP32", "dims": [384]}],
    }  # fmt: skip
    read = model_of(config)
    assert read.inputs == {"a": Spec("a", "BYTES", (-1,), True)} and read.outputs["b"].dims == (384,)
    assert (read.batch, read.is_decoupled) == (8, True)
    with pytest.raises(UpstreamError):
        model_of({"input": "nothing"})


@pytest.mark.parametrize(
    ("dims", "batch", "count", "items", "shape"),
    [
        ((1,), 0, 1, None, (1,)), ((1,), 8, 1, None, (1, 1)), ((-1,), 0, 3, None, (3,)), ((-1,), 8, 3, None, (1, 3)),
        ((1,), 8, 5, 5, (5, 1)), ((-1,), 0, 5, 5, (5,)), ((1, 1), 0, 1, None, (1, 1)), ((), 8, 5, 5, (5,)),
    ],
)  # fmt: skip
def test_a_tensor_has_the_shape_that_the_model_takes(
    dims: tuple[int, ...], batch: int, count: int, items: int | None, shape: tuple[int, ...]
) -> None:
    made = tensor_of(Spec("a", "BYTES", dims), ["x"] * count, batch, items)
    assert made.shape == shape and math.prod(shape) == count


@given(
    st.sampled_from(["BYTES", "BOOL", "INT32", "UINT64", "INT8", "FP64"]).flatmap(
        lambda kind: st.tuples(
            st.just(kind),
            st.lists(
                {"BYTES": st.binary(max_size=20), "BOOL": st.booleans(), "FP64": st.floats(allow_nan=False)}.get(
                    kind, st.integers(0, 127)
                )
            ),
        )
    )
)
def test_what_is_written_is_read_again(case: tuple[str, list[Any]]) -> None:
    kind, values = case
    raw = Tensor("a", kind, (len(values),), values).raw()
    assert list(read_tensor("a", kind, (len(values),), raw).values) == values


@pytest.mark.parametrize(
    ("kind", "raw"), [("BYTES", b"\x05\0\0\0abc"), ("BYTES", b"\x01"), ("FP32", b"abc"), ("INT64", b"x"), ("NEW", b"")]
)
def test_a_tensor_that_is_cut_or_unknown_is_a_failure(kind: str, raw: bytes) -> None:
    with pytest.raises(UpstreamError):
        read_tensor("a", kind, (1,), raw)


def test_halves_of_floats_are_read() -> None:
    assert list(read_tensor("a", "BF16", (2,), b"\x80\x3f\x00\xc0").values) == [1.0, -2.0]
    assert list(read_tensor("a", "FP16", (2,), b"\x00\x3c\x00\xc0").values) == [1.0, -2.0]
