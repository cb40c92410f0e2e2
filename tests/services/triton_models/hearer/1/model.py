"""Hears samples and tells how many there are, their rate and their mean."""

import numpy as np
import triton_python_backend_utils as pb


class TritonPythonModel:
    def execute(self, requests):
        answers = []
        for request in requests:
            samples = pb.get_input_tensor_by_name(request, "samples").as_numpy().reshape(-1)
            rate = pb.get_input_tensor_by_name(request, "sample_rate")
            told = int(rate.as_numpy().reshape(-1)[0]) if rate is not None else 0
            said = f"{samples.size} samples at {told}, mean {samples.mean():.2f}"
            text = pb.Tensor("text", np.array([[said.encode()]], dtype=np.object_))
            answers.append(pb.InferenceResponse(output_tensors=[text]))
        return answers
