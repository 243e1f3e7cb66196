"""Make the model known to transformers' Auto classes, and let `save_pretrained` ship this code beside the weights."""

from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification

from .config import LongLlamaConfig
from .modeling import LongLlamaForCausalLM, LongLlamaForSequenceClassification, LongLlamaModel


def register() -> None:
    """Register configuration and models; calling it again changes nothing."""
    AutoConfig.register(LongLlamaConfig.model_type, LongLlamaConfig, exist_ok=True)
    LongLlamaConfig.register_for_auto_class()
    for auto, model in (
        (AutoModel, LongLlamaModel),
        (AutoModelForCausalLM, LongLlamaForCausalLM),
        (AutoModelForSequenceClassification, LongLlamaForSequenceClassification),
    ):
        auto.register(LongLlamaConfig, model, exist_ok=True)
        model.register_for_auto_class(auto.__name__)
