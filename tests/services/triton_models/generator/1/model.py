"""Goes on with a text as the vLLM backend does: deterministic, decoupled, a word a token.

Its prompt steers it: `count:N` gives N numbers, `wait:MS` waits before each of them, `fail:N` breaks after N,
`crash` ends the process, `sampling` gives the sampling parameters; anything else is said again, word by word.
Where the file named in `PORTICO_TRITON_NOTES` is, it notes each beginning, cancellation and end.
"""

import json
import os
import re
import threading
import time

import numpy as np
import triton_python_backend_utils as pb

FINAL = pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL


def note(text):
    path = os.environ.get("PORTICO_TRITON_NOTES")
    if path:
        with open(path, "a") as file:
            file.write(f"{time.monotonic():.6f} {' '.join(text.split())}\n")


def given(request, name, otherwise):
    tensor = pb.get_input_tensor_by_name(request, name)
    return otherwise if tensor is None else tensor.as_numpy().reshape(-1)[0]


def number(prompt, name, otherwise):
    found = re.search(rf"\b{name}:(\d+)", prompt)
    return int(found[1]) if found else otherwise


def text_of(value):
    return value.decode() if isinstance(value, bytes) else str(value)


def answer(text, finish, read, wrote, asked):
    tensors = [pb.Tensor("text_output", np.array([text.encode()], dtype=np.object_))]
    if asked["return_finish_reason"]:
        tensors.append(pb.Tensor("finish_reason", np.array([finish.encode()], dtype=np.object_)))
    if asked["return_num_input_tokens"]:
        tensors.append(pb.Tensor("num_input_tokens", np.array([read], dtype=np.uint32)))
    if asked["return_num_output_tokens"]:
        tensors.append(pb.Tensor("num_output_tokens", np.array([wrote], dtype=np.uint32)))
    return pb.InferenceResponse(output_tensors=tensors)


class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            prompt = text_of(given(request, "text_input", b""))
            if re.search(r"\bcrash\b", prompt):
                os._exit(1)
            sampling = json.loads(text_of(given(request, "sampling_parameters", b"{}")))
            names = ("return_finish_reason", "return_num_input_tokens", "return_num_output_tokens")
            asked = {name: bool(given(request, name, False)) for name in names}
            stream = bool(given(request, "stream", False))
            repeats = not stream and not bool(given(request, "exclude_input_in_output", False))
            arguments = (request.get_response_sender(), prompt, sampling, stream, repeats, asked)
            threading.Thread(target=self.write, args=arguments, daemon=True).start()

    def write(self, sender, prompt, sampling, stream, repeats, asked):
        count, pause, fails = (
            number(prompt, "count", None),
            number(prompt, "wait", 0) / 1000,
            number(prompt, "fail", None),
        )
        limit = int(sampling.get("max_tokens", 1 << 20))
        if re.search(r"\bsampling\b", prompt):
            words = [json.dumps(sampling, sort_keys=True)]
        elif count is not None:
            words = [f"{place} " for place in range(count)]
        else:
            words = re.findall(r"\s*\S+", prompt)
        finish = "length" if len(words) > limit else "stop"
        words = words[:limit]
        read = len(prompt.split())
        note(f"begin {prompt[:40]}")
        said = []
        for place, word in enumerate(words):
            if pause:
                time.sleep(pause)
            if sender.is_cancelled():
                note(f"cancelled {prompt[:40]}")
                sender.send(flags=FINAL)
                return
            if place == fails:
                sender.send(pb.InferenceResponse(error=pb.TritonError(f"out of memory after {place}")), flags=FINAL)
                return
            said.append(word)
            if stream:
                last = finish if place == len(words) - 1 else "None"
                sender.send(answer(word, last, read, 1, asked))
        if not stream:
            text = (prompt if repeats else "") + "".join(said)
            sender.send(answer(text, finish, read, len(said), asked))
        note(f"end {prompt[:40]}")
        sender.send(flags=FINAL)
