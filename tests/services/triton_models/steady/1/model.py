"""A plain Python model that is not decoupled, with names of its own: says the prompt backwards, or fails."""

import numpy as np
import triton_python_backend_utils as pb


class TritonPythonModel:
    def execute(self, requests):
        answers = []
        for request in requests:
            prompt = pb.get_input_tensor_by_name(request, "prompt").as_numpy()[0].decode()
            limit = pb.get_input_tensor_by_name(request, "max_length")
            words = prompt.split()[::-1]
            if "fail" in words:
                answers.append(pb.InferenceResponse(error=pb.TritonError("the model is out of sorts")))
                continue
            words = words[: limit.as_numpy()[0]] if limit is not None else words
            said = pb.Tensor("generated", np.array([" ".join(words).encode()], dtype=np.object_))
            answers.append(pb.InferenceResponse(output_tensors=[said]))
        return answers
