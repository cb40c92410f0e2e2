"""Hears a WAV file in base64 and tells how long it is, and in which language it was said to be."""

import base64
import io
import wave

import numpy as np
import triton_python_backend_utils as pb


class TritonPythonModel:
    def execute(self, requests):
        answers = []
        for request in requests:
            content = base64.b64decode(pb.get_input_tensor_by_name(request, "audio").as_numpy()[0])
            language = pb.get_input_tensor_by_name(request, "language")
            told = language.as_numpy()[0].decode() if language is not None else "no language"
            with wave.open(io.BytesIO(content)) as file:
                seconds = file.getnframes() / file.getframerate()
            said = f"A sound of {seconds:.2f} seconds in {told}."
            text = pb.Tensor("text", np.array([said.encode()], dtype=np.object_))
            answers.append(pb.InferenceResponse(output_tensors=[text]))
        return answers
