"""Tensors of Triton: what a model takes and gives, how values are written as tensors, and which tensor means what.

A model tells its tensors in its own config; a preset knows the names of a backend, and a deployment's settings say the rest.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import Meta

from app.providers.errors import UpstreamError

NOTHING: Mapping[str, Any] = MappingProxyType({})

Preset = Literal["auto", "vllm", "tensorrt_llm", "python"]
Input = Literal[
    "prompt", "messages", "stream", "sampling_parameters", "max_tokens", "temperature", "top_p", "top_k", "min_p", "stop",
    "seed", "presence_penalty", "frequency_penalty", "repetition_penalty", "audio", "samples", "sample_rate", "language",
    "hint",
]  # fmt: skip
Output = Literal["text", "finish_reason", "prompt_tokens", "completion_tokens", "embedding"]
Name = Annotated[str, Meta(min_length=1, max_length=200)]

# The names by which a tensor of each meaning is recognised, the likeliest first.
INPUTS: dict[str, tuple[str, ...]] = {
    "prompt": ("text_input", "prompt", "text", "TEXT", "input_text"),
    "messages": ("messages",),
    "stream": ("stream", "streaming"),
    "sampling_parameters": ("sampling_parameters",),
    "max_tokens": ("max_tokens", "max_new_tokens", "max_length", "request_output_len"),
    "temperature": ("temperature",),
    "top_p": ("top_p", "runtime_top_p"),
    "top_k": ("top_k", "runtime_top_k"),
    "min_p": ("min_p",),
    "stop": ("stop_words", "stop"),
    "seed": ("seed", "random_seed"),
    "presence_penalty": ("presence_penalty",),
    "frequency_penalty": ("frequency_penalty",),
    "repetition_penalty": ("repetition_penalty",),
    "audio": ("audio",),
    "samples": ("samples",),
    "sample_rate": ("sample_rate", "sampling_rate"),
    "language": ("language",),
    "hint": ("prompt", "initial_prompt"),
}
OUTPUTS: dict[str, tuple[str, ...]] = {
    "text": ("text_output", "text", "TEXT", "generated_text", "output_text"),
    "finish_reason": ("finish_reason",),
    "prompt_tokens": ("num_input_tokens", "prompt_tokens"),
    "completion_tokens": ("num_output_tokens", "completion_tokens"),
    "embedding": ("embedding", "embeddings", "sentence_embedding"),
}
SPOKEN = ("audio", "samples", "sample_rate", "language", "hint")  # inputs of a model that hears
# Inputs that are sent as true wherever a model has them.
ASKED = ("exclude_input_in_output", "return_finish_reason", "return_num_input_tokens", "return_num_output_tokens")

_STRUCTS = {
    "BOOL": "?", "INT8": "b", "UINT8": "B", "INT16": "h", "UINT16": "H", "INT32": "i", "UINT32": "I", "INT64": "q",
    "UINT64": "Q", "FP16": "e", "FP32": "f", "FP64": "d",
}  # fmt: skip
_UNREADABLE = "The provider's answer has a tensor that can't be read."


class Spec(msgspec.Struct, frozen=True):
    """A tensor as a model declares it; `dims` without the batch."""

    name: str
    datatype: str
    dims: tuple[int, ...] = (1,)
    is_optional: bool = False


class Model(msgspec.Struct, frozen=True):
    """What a model says of itself. `batch` is the most items of one request, 0 for a model without batches."""

    inputs: dict[str, Spec]
    outputs: dict[str, Spec]
    batch: int = 0
    is_decoupled: bool = False


class Tensor(NamedTuple):
    """A tensor that came or goes: its values in one row, or as they lie in memory."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    values: Any

    def raw(self) -> bytes:
        """As it lies in memory."""
        if isinstance(self.values, bytes):
            return self.values
        if self.datatype == "BYTES":
            return b"".join(struct.pack("<I", len(value)) + value for value in map(_bytes, self.values))
        kind = _STRUCTS[self.datatype]
        return struct.pack(f"<{len(self.values)}{kind}", *self.values)

    def plain(self) -> Any:
        """As JSON has it: one value by itself, more in a list."""
        values = [value.decode() if isinstance(value, bytes) else value for value in self.values]
        return values[0] if len(values) == 1 and self.shape[-1:] == (1,) else values


def read_tensor(name: str, datatype: str, shape: Sequence[int], raw: bytes) -> Tensor:
    """A tensor from memory. Raises `UpstreamError` for one that is none."""
    try:
        return Tensor(name, datatype, tuple(shape), _values(datatype, raw))
    except (struct.error, ValueError, KeyError):
        raise UpstreamError(_UNREADABLE) from None


def _values(datatype: str, raw: bytes) -> Sequence[Any]:
    if datatype == "BYTES":
        texts, place = [], 0
        while place < len(raw):
            (size,) = struct.unpack_from("<I", raw, place)
            place += 4 + size
            if place > len(raw):
                raise ValueError("a text is cut")
            texts.append(raw[place - size : place])
        return texts
    if datatype == "BF16":  # the upper half of a float
        raw = b"".join(b"\0\0" + raw[place : place + 2] for place in range(0, len(raw), 2))
        datatype = "FP32"
    kind = _STRUCTS[datatype]
    if kind == "f":
        numbers = array("f")
        numbers.frombytes(raw)
        return numbers
    return struct.unpack(f"<{len(raw) // struct.calcsize(kind)}{kind}", raw)


def _bytes(value: Any) -> bytes:
    return value.encode("utf-8", "replace") if isinstance(value, str) else bytes(value)


def model_of(config: Any) -> Model:
    """A model from its config as Triton tells it, JSON read. Raises `UpstreamError`."""
    try:
        told = msgspec.convert(config, _Config, strict=False)
    except msgspec.ValidationError:
        raise UpstreamError("The model's config can't be read.") from None
    return Model(
        inputs={one.name: one.spec() for one in told.input},
        outputs={one.name: one.spec() for one in told.output},
        batch=told.max_batch_size,
        is_decoupled=told.model_transaction_policy.decoupled,
    )


class _Tensor(msgspec.Struct):
    name: str
    data_type: str
    dims: list[int] = []
    optional: bool = False

    def spec(self) -> Spec:
        kind = self.data_type.removeprefix("TYPE_").replace("STRING", "BYTES")
        return Spec(self.name, kind, tuple(self.dims), self.optional)


class _Policy(msgspec.Struct):
    decoupled: bool = False


class _Config(msgspec.Struct):
    input: list[_Tensor] = []
    output: list[_Tensor] = []
    max_batch_size: int = 0
    model_transaction_policy: _Policy = msgspec.field(default_factory=_Policy)


def _specs(**kinds: str) -> dict[str, Spec]:
    """Tensors of one value each, by name; an optional one's kind ends with a question mark."""
    return {
        name: Spec(name, kind.rstrip("?+"), (-1,) if "+" in kind else (1,), kind.endswith("?"))
        for name, kind in kinds.items()
    }


# What the models of a backend take and give, where they are not asked for their own config.
PRESETS: dict[str, Model] = {
    "vllm": Model(
        _specs(text_input="BYTES", stream="BOOL?", sampling_parameters="BYTES?", exclude_input_in_output="BOOL?",
               return_finish_reason="BOOL?", return_num_input_tokens="BOOL?", return_num_output_tokens="BOOL?"),
        _specs(text_output="BYTES", finish_reason="BYTES?", num_input_tokens="UINT32?", num_output_tokens="UINT32?"),
        is_decoupled=True,
    ),
    "tensorrt_llm": Model(
        _specs(text_input="BYTES", max_tokens="INT32", stop_words="BYTES+?", top_k="INT32?", top_p="FP32?",
               temperature="FP32?", repetition_penalty="FP32?", presence_penalty="FP32?", frequency_penalty="FP32?",
               random_seed="UINT64?", stream="BOOL?"),
        _specs(text_output="BYTES"),
        batch=1,
        is_decoupled=True,
    ),
    "python": Model(_specs(text_input="BYTES"), _specs(text_output="BYTES")),
}  # fmt: skip


# ... where they do something else than chat, whatever the preset.
_OF_CAPABILITIES: dict[str, Model] = {
    "embeddings": Model(_specs(text="BYTES+"), {"embedding": Spec("embedding", "FP32", (-1, -1))}),
    "transcription": Model(_specs(audio="BYTES", language="BYTES?", temperature="FP32?"), _specs(text="BYTES")),
}


def preset_of(preset: Preset, capability: str) -> Model:
    """The model of a preset, as one of its kind usually is."""
    return _OF_CAPABILITIES.get(capability) or PRESETS[preset]


class TensorMap(msgspec.Struct, frozen=True):
    """Which tensor of a model means what, by meaning."""

    model: Model
    inputs: dict[str, Spec]
    outputs: dict[str, str]
    constants: dict[str, Any] = {}

    @property
    def counts_each(self) -> bool:
        """Whether each answer tells its own tokens, as those of the vLLM backend do, and not perhaps those so far."""
        return "return_num_output_tokens" in self.model.inputs

    def tensor(self, meaning: str, values: Sequence[Any], items: int | None = None) -> Tensor:
        """The values as the input of that meaning: of one item, or of so many with one value each."""
        return tensor_of(self.inputs[meaning], values, self.model.batch, items)


def map_of(
    model: Model,
    capability: str,
    preset: Preset = "auto",
    inputs: Mapping[Any, str] = NOTHING,
    outputs: Mapping[Any, str] = NOTHING,
    constants: Mapping[str, Any] = NOTHING,
) -> TensorMap:
    """The map of a model: what is given holds, the rest is recognised by its name, and a tensor that is the only one of its
    type by that. Raises `UpstreamError` for what the model does not have."""
    known = PRESETS[preset] if preset in ("vllm", "tensorrt_llm") else None
    found_in: dict[str, Spec] = {}
    for meaning, name in inputs.items():
        if name not in model.inputs:
            raise UpstreamError(f"The model has no input '{name}'; it has {_list(model.inputs)}.")
        found_in[meaning] = model.inputs[name]
    hears = capability in ("transcription", "translation")
    for meaning, names in INPUTS.items():
        if meaning in found_in or (meaning in SPOKEN) is not hears:
            continue
        for name in names:
            spec = model.inputs.get(name)
            if spec is not None and spec not in found_in.values() and (known is None or name in known.inputs):
                found_in[meaning] = spec
                break
    found_out: dict[str, str] = {}
    for meaning, name in outputs.items():
        if name not in model.outputs:
            raise UpstreamError(f"The model has no output '{name}'; it has {_list(model.outputs)}.")
        found_out[meaning] = name
    for meaning, names in OUTPUTS.items():
        if meaning not in found_out and (name := next((name for name in names if name in model.outputs), "")):
            found_out[meaning] = name
    _complete(model, capability, found_in, found_out)
    given = {name: True for name in ASKED if name in model.inputs} | dict(constants)
    for name in given:
        if name not in model.inputs:
            raise UpstreamError(f"The model has no input '{name}'; it has {_list(model.inputs)}.")
    return TensorMap(model, found_in, found_out, given)


def _complete(model: Model, capability: str, inputs: dict[str, Spec], outputs: dict[str, str]) -> None:
    """Take the only tensor of a type for what must be there."""
    needed_in = {"chat": ("prompt", "messages"), "completions": ("prompt",), "embeddings": ("prompt",)}
    wanted = needed_in.get(capability, ("audio", "samples"))
    if not any(meaning in inputs for meaning in wanted):
        texts = [one for one in model.inputs.values() if one.datatype == "BYTES" and one not in inputs.values()]
        texts = [one for one in texts if not one.is_optional] or texts
        if wanted[0] != "prompt" or len(texts) != 1:
            raise UpstreamError(
                f"None of the model's inputs is known as its {' or '.join(wanted)}; it has {_list(model.inputs)}."
                " Name it in the deployment's settings."
            )
        inputs["prompt"] = texts[0]
    result, kinds = (
        ("embedding", ("FP32", "FP16", "BF16", "FP64")) if capability == "embeddings" else ("text", ("BYTES",))
    )
    if result not in outputs:
        fitting = [name for name, one in model.outputs.items() if one.datatype in kinds]
        if len(fitting) != 1:
            raise UpstreamError(
                f"None of the model's outputs is known as its {result}; it has {_list(model.outputs)}."
                " Name it in the deployment's settings."
            )
        outputs[result] = fitting[0]


def _list(specs: Mapping[str, Spec]) -> str:
    return ", ".join(f"{name} ({spec.datatype})" for name, spec in list(specs.items())[:20]) or "none"


def tensor_of(spec: Spec, values: Sequence[Any], batch: int, items: int | None = None) -> Tensor:
    """The values as a tensor of the model's shape. Raises `UpstreamError` for a value of another type."""
    if spec.datatype in ("FP16", "FP32", "FP64") and not isinstance(values, bytes):
        values = [_as(float, spec, value) for value in values]
    elif spec.datatype.startswith(("INT", "UINT")):
        values = [_as(int, spec, value) for value in values]
    elif spec.datatype == "BOOL":
        values = [bool(value) for value in values]
    size = len(values) // 4 if isinstance(values, bytes) else len(values)
    dims = (*(1 for _ in spec.dims[:-1]), size) if spec.dims else ()
    if items is not None:
        dims = tuple(1 for _ in spec.dims) if batch else (items,)
    return Tensor(spec.name, spec.datatype, (items or 1, *dims) if batch else dims, values)


def _as(kind: type[int] | type[float], spec: Spec, value: Any) -> int | float:
    try:
        return kind(value)
    except (TypeError, ValueError, OverflowError):
        raise UpstreamError(f"'{spec.name}' takes numbers.", refused=True, status=400) from None
