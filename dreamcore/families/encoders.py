"""Text encoders by the class that model_index.json names: what a run must know of each, whatever family it serves.

Stable Diffusion 1 has been trained with others than CLIP: Taiyi's is a BERT.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EncoderClass:
    """What differs between text encoders; names are those of published weights."""

    positions: int | None
    """Tokens that it sees at most, unless its configuration says; None: any number, as it has no table of positions."""
    lora_layers: tuple[str, ...] = ()
    """Endings of the names of the layers that get LoRA factors; none: it never trains."""
    layers: str = ""
    """What the names of its layers begin with, before their numbers."""
    table: str = ""
    """Name of the weight that has a row for each token; empty: no new rows come beside it."""
    after: tuple[str, ...] = ()
    """Beginnings of the names of what comes after the layers and before its last state."""
    beside: tuple[str, ...] = ()
    """Beginnings of the names of what its last state does not depend on."""
    dropout: tuple[str, ...] = ()
    """Fields of its configuration that are set to zero: a run's numbers hang on its seed alone, and on every backend
    they are the same."""
    generates: bool = False
    """Whether it is a language model, which has a cache that is not wanted and answers with the next word besides."""
    nested: str | None = None
    """The field of its configuration that describes the part that reads words, where it reads images too."""


CLIP = EncoderClass(
    positions=77,
    lora_layers=("q_proj", "k_proj", "v_proj", "out_proj"),
    layers="text_model.encoder.layers",
    table="text_model.embeddings.token_embedding.weight",
    after=("text_model.final_layer_norm.",),
    dropout=("attention_dropout",),
)
BERT = EncoderClass(
    positions=512,
    lora_layers=("self.query", "self.key", "self.value", "attention.output.dense"),
    layers="encoder.layer",
    table="embeddings.word_embeddings.weight",
    beside=("pooler.",),
    dropout=("hidden_dropout_prob", "attention_probs_dropout_prob"),
)
T5 = EncoderClass(positions=None, table="shared.weight")
LANGUAGE_MODEL = EncoderClass(positions=None, dropout=("attention_dropout",), generates=True)
WITH_IMAGES = EncoderClass(positions=None, generates=True, nested="text_config")

ENCODERS = {
    "CLIPTextModel": CLIP,
    "CLIPTextModelWithProjection": CLIP,
    "BertModel": BERT,
    "T5EncoderModel": T5,
    "Gemma2Model": LANGUAGE_MODEL,
    "Gemma2ForCausalLM": LANGUAGE_MODEL,
    "LlamaForCausalLM": LANGUAGE_MODEL,
    "Qwen3Model": LANGUAGE_MODEL,
    "Qwen3ForCausalLM": LANGUAGE_MODEL,
    "Qwen2_5_VLForConditionalGeneration": WITH_IMAGES,
    "Qwen3VLModel": WITH_IMAGES,
    "Mistral3Model": WITH_IMAGES,
    "Mistral3ForConditionalGeneration": WITH_IMAGES,
}
