"""Goes on with a text with the tensors of TensorRT-LLM's ensemble: batched, decoupled, it tells no usage.

`settings` in its prompt gives the tensors that came; anything else is said again, word by word.
"""

import json
import re

import numpy as np
import triton_python_backend_utils as pb

FINAL = pb.TRITONSERVER_RESPONSE_COMPLETE_FINAL
NAMES = ("max_tokens", "stop_words", "top_k", "top_p", "temperature", "random_seed", "stream")


def plain(value):
    if isinstance(value, bytes):
        return value.decode()
    return round(float(value), 4) if isinstance(value, np.floating) else value.item()


class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            came = {}
            for name in NAMES:
                tensor = pb.get_input_tensor_by_name(request, name)
                if tensor is not None:
                    came[name] = [plain(value) for value in tensor.as_numpy().reshape(-1)]
            prompt = plain(pb.get_input_tensor_by_name(request, "text_input").as_numpy().reshape(-1)[0])
            words = [json.dumps(came)] if re.search(r"\bsettings\b", prompt) else re.findall(r"\s*\S+", prompt)
            words = words[: came["max_tokens"][0]]
            sender = request.get_response_sender()
            if came.get("stream") != [True]:
                words = ["".join(words)]
            for word in words:
                text = pb.Tensor("text_output", np.array([[word.encode()]], dtype=np.object_))
                chance = pb.Tensor("cum_log_probs", np.array([[0.0]], dtype=np.float32))
                sender.send(pb.InferenceResponse(output_tensors=[text, chance]))
            sender.send(flags=FINAL)
