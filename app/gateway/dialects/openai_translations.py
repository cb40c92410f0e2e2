"""`POST /v1/audio/translations`."""

from app.gateway.dialects.openai_transcriptions import OpenAISpeechToText, TranslationRequest

DIALECT = OpenAISpeechToText("openai_translations", TranslationRequest)
