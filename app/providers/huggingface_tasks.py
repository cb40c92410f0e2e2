"""What Hugging Face has no door of OpenAI's shape for: vectors at its router, and documents in order anywhere.

The router runs a model's own task: feature extraction, sentence similarity. An inference endpoint with Text Embeddings Inference
has OpenAI's embeddings, and ranks beside /v1.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import msgspec

from app.directory import Deployment
from app.providers.addresses import AddressPolicy
from app.providers.base import Exchange, UpstreamError, UpstreamRequest
from app.providers.http import Answer, Pool
from app.providers.http_errors import error_of
from app.providers.lenient_json import read_json
from app.providers.openai import GRACE_S, JSON, UNREADABLE, OpenAI, OpenAISettings
from app.providers.openai_embeddings import VectorsExchange, texts_of
from app.providers.openai_rerank import RerankExchange

ROUTER = "router.huggingface.co"
TASK = "/hf-inference/models/{model}/pipeline/{task}"

_vectors = msgspec.json.Decoder(list[list[float]])


class TasksRerank(RerankExchange):
    """Documents in order, of an upstream that tells their scores in a list."""

    def __init__(
        self, answer: Answer, request: UpstreamRequest, speaks: str, secret: str | None, grace_s: float
    ) -> None:
        super().__init__(answer, request, speaks, secret, grace_s)
        self._asked: Any = request.parsed

    def body(self) -> bytes:
        said = read_json(self._body)
        if isinstance(said, list):
            if not (results := _results(said, self._asked)):
                raise self._none(self._body)
            self._body = msgspec.json.encode({"results": results})
        return super().body()


def _results(said: list[Any], asked: Any) -> list[dict[str, Any]]:
    """The scores as Cohere tells them, the highest first. They come in the order of the documents, or with their places."""
    scores = []
    for place, one in enumerate(said):
        index, score = (one.get("index"), one.get("score")) if isinstance(one, dict) else (place, one)
        if type(index) is int and 0 <= index < len(asked.documents) and isinstance(score, int | float):
            scores.append((index, score))
    scores.sort(key=lambda pair: -pair[1])
    results: list[dict[str, Any]] = [
        {"index": index, "relevance_score": score} for index, score in scores[: asked.top_n]
    ]
    if asked.return_documents:
        for result in results:
            result["document"] = {"text": _text(asked.documents[result["index"]])}
    return results


def _text(document: Any) -> str:
    """A document as a text: its own, or that of an object that says which it is."""
    if isinstance(document, str):
        return document
    text = document.get("text")
    return text if isinstance(text, str) else msgspec.json.encode(document).decode()


class HuggingFaceTasks(OpenAI):
    """Hugging Face: OpenAI's format, and tasks of its own."""

    def __init__(self, settings: OpenAISettings, *, policy: AddressPolicy) -> None:
        super().__init__(settings, policy=policy)
        dial = self.dial()
        dial.origin = dial.origin._replace(path=dial.origin.path.removesuffix("/v1"))
        self._beside = Pool(dial)  # of /v1
        service = self._shape.service
        self._is_router = service == "router" or service == "auto" and dial.origin.host == ROUTER

    def open(self, request: UpstreamRequest, deployment: Deployment) -> Exchange:
        model = deployment.upstream_model
        if request.capability == "embeddings" and self._is_router:
            return self._embed(request, model)
        if request.capability == "rerank":
            return self._rank(request, model)
        return super().open(request, deployment)

    def _embed(self, request: UpstreamRequest, model: str) -> Exchange:
        exchange = VectorsExchange(request)
        texts = texts_of(request)
        answer = self._task(model, "feature-extraction", {"inputs": texts})
        try:
            said = answer.read_all()
        finally:
            answer.close()
        try:
            vectors = _vectors.decode(said)
        except (msgspec.DecodeError, UnicodeDecodeError):
            vectors = []
        if not all(vectors) or len(vectors) != len(texts):
            raise error_of(502, said, self.settings.secret, otherwise=UNREADABLE)
        exchange.take(vectors)
        return exchange

    def _rank(self, request: UpstreamRequest, model: str) -> Exchange:
        asked: Any = request.parsed
        texts = [_text(document) for document in asked.documents]
        if self._is_router:
            inputs = {"source_sentence": asked.query, "sentences": texts}
            answer = self._task(model, "sentence-similarity", {"inputs": inputs})
        else:  # other servers at an endpoint read documents
            body = {"model": model, "query": asked.query, "texts": texts, "documents": texts}
            answer = self._good(self._send("/rerank", body))
        grace_s = min(GRACE_S, self.settings.timeout_s)
        return TasksRerank(answer, request, "rerank", self.settings.secret, grace_s)

    def _task(self, model: str, task: str, body: dict[str, Any]) -> Answer:
        return self._good(self._send(TASK.format(model=quote(model, safe="/"), task=task), body))

    def _send(self, path: str, body: dict[str, Any]) -> Answer:
        headers = {"Content-Type": JSON, "Accept": JSON} | self._credentials
        return self._beside.request("POST", path, headers, [msgspec.json.encode(body)])

    def _good(self, answer: Answer) -> Answer:
        """The answer, if its status is good. Raises `UpstreamError`."""
        if 200 <= answer.status < 300:
            return answer
        raise self._refusal(answer)

    def _try(self, model: str, prompt: str, parameters: dict[str, Any]) -> None:
        try:
            super()._try(model, prompt, parameters)
        except UpstreamError as error:
            if not self._is_router or error.status not in (400, 404, 405, 422):
                raise
            try:
                self._task(model, "feature-extraction", {"inputs": [prompt]}).close()
            except UpstreamError:
                raise error from None

    def close(self) -> None:
        super().close()
        self._beside.close()
