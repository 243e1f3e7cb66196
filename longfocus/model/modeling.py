"""The model: LLaMA whose input is cut in windows and whose memory layers attend to all windows before.

Semantics are those of LongLLaMA (Tworkowski et al., "Focused Transformer: Contrastive Training for Context Scaling",
2023) with `window_overlap` and `sink_tokens` 0. Shapes: B batch, L input tokens, T new tokens of a window, S tokens in
the window with those held from before, V vocabulary, E hidden size.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.modeling_outputs import (
    BaseModelOutputWithPast,
    CausalLMOutputWithPast,
    SequenceClassifierOutputWithPast,
)

from .cache import LongLlamaCache
from .config import LongLlamaConfig
from .generation import LongLlamaGenerationMixin
from .inputs import count_positions, pairwise_mask, token_mask
from .layers import LongLlamaDecoderLayer, LongLlamaRMSNorm
from .rope import RotaryEmbedding
from .spill import make_room, open_window, spill_all, spill_between
from .windows import Piece, cut, put_back

State = LongLlamaCache | tuple[Any, ...] | None

AUTO_CLASSES = {
    "AutoModel": "LongLlamaModel",
    "AutoModelForCausalLM": "LongLlamaForCausalLM",
    "AutoModelForSequenceClassification": "LongLlamaForSequenceClassification",
}
"""Which class of this file each of transformers' Auto classes stands for."""


class LongLlamaPreTrainedModel(PreTrainedModel):
    """What all LongLLaMA models share with transformers."""

    config: LongLlamaConfig
    config_class = LongLlamaConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["LongLlamaDecoderLayer"]  # noqa: RUF012 - the form transformers expects
    _skip_keys_device_placement = ["past_key_values"]  # noqa: RUF012
    _supports_sdpa = True
    _keys_to_ignore_on_load_unexpected = [r"rotary_emb\.inv_freq"]  # noqa: RUF012 - LongLLaMA's older files hold it

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> None:
        """As in transformers; where our code is saved beside the weights, all Auto classes are to find theirs in it."""
        if self.is_remote_code():
            self.config.auto_map = {auto: f"modeling.{name}" for auto, name in AUTO_CLASSES.items()}
            self.config.auto_map["AutoConfig"] = "config.LongLlamaConfig"
        super().save_pretrained(save_directory, *args, **kwargs)

    def _init_weights(self, module: nn.Module) -> None:
        deviation = self.config.initializer_range
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=deviation)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
            if isinstance(module, nn.Embedding) and module.padding_idx is not None:
                nn.init.zeros_(module.weight[module.padding_idx])
        elif isinstance(module, LongLlamaRMSNorm):
            nn.init.ones_(module.weight)


class LongLlamaModel(LongLlamaPreTrainedModel):
    """The transformer without a head."""

    def __init__(self, config: LongLlamaConfig) -> None:
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size, config.pad_token_id)
        self.layers = nn.ModuleList(LongLlamaDecoderLayer(config, index) for index in range(config.num_hidden_layers))
        self.norm = LongLlamaRMSNorm(config.hidden_size, config.rms_norm_eps)
        self.rotary = RotaryEmbedding(config)
        self.gradient_checkpointing = False
        self._gradient_checkpointing_func = checkpoint  # transformers puts in another to honour its own options
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: State = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        last_context_length: int | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast | tuple[Any, ...]:
        """Run the model over an input of any length.

        Args:
            input_ids: [B, L]; or else `inputs_embeds` [B, L, E].
            attention_mask: 1 for tokens and 0 for padding; its last L columns count. Padding may stand anywhere and
                changes nothing for the tokens of a row. Or, for an input of one window, which tokens see which in it,
                [B, 1, L, L] bool; what they see of memory stays.
            position_ids: [B, L]; only differences within a window matter.
            past_key_values: A state returned before; it stays valid as it is.
            inputs_embeds: See `input_ids`.
            use_cache: Whether the final window stays in the returned state's window. If not, all of the input
                goes to memory, which is the way to read a document before asking about it.
            output_attentions: Whether to return each layer's weights over [window, memory] in the last window.
            output_hidden_states: Whether to return the hidden states between layers, for all of the input.
            return_dict: False for a tuple.
            last_context_length: In place of the configuration's.
            **kwargs: Left aside; transformers hands on more than a model needs.

        Raises:
            ValueError: Arguments that do not fit together.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("exactly one of input_ids and inputs_embeds is needed")
        use_cache = self.config.use_cache if use_cache is None else use_cache
        look = bool(self.config.output_attentions if output_attentions is None else output_attentions)
        deep = bool(self.config.output_hidden_states if output_hidden_states is None else output_hidden_states)
        return_dict = self.config.return_dict if return_dict is None else return_dict
        checkpointed = self.gradient_checkpointing and self.training and torch.is_grad_enabled()
        if inputs_embeds is None:
            inputs_embeds = self.embed_tokens(input_ids)
        batch, length, _ = inputs_embeds.shape
        state = self._state(past_key_values, batch, attention_mask, length)
        if state.window and not use_cache:
            raise ValueError("a state with tokens in its window can only be continued with use_cache=True")
        last = self.config.last_context_length if last_context_length is None else last_context_length
        pairs = pairwise_mask(attention_mask, batch, length, not state.window and length <= last)
        keep = token_mask(attention_mask, batch, length, state.window) if pairs is None else None
        positions = count_positions(position_ids, keep, state, batch, length, inputs_embeds.device)

        fresh, seen = state.live() == 0, state.seen  # rows with an empty window send each piece to memory
        outputs: list[tuple[Piece, Tensor]] = []
        between: list[list[tuple[Piece, Tensor]]] = []
        weights: tuple[Tensor, ...] | None = None
        for piece in cut(length, keep, last, self.config.stride):
            states, state, levels, weights = self.run_window(
                piece.take(inputs_embeds),
                piece.take(positions),
                state,
                keep=piece.keep,
                allowed=pairs,
                look=look and piece.final,
                deep=deep,
                checkpointed=checkpointed,
            )
            outputs.append((piece, states))
            between.append([(piece, level) for level in levels])
            if not piece.final:
                state = spill_between(state, self.config, fresh)
        if not use_cache:
            state = spill_all(state, self.config)
        state.seen = seen + length if use_cache else 0
        hidden = tuple(put_back(list(level), length) for level in zip(*between, strict=True)) if deep else None
        result = BaseModelOutputWithPast(
            last_hidden_state=put_back(outputs, length),
            past_key_values=state,
            hidden_states=hidden,
            attentions=weights,
        )
        return result if return_dict else result.to_tuple()

    def _state(self, past: State, batch: int, mask: Tensor | None, length: int) -> LongLlamaCache:
        """The state to start from, checked against the model and the batch."""
        layers = self.config.num_hidden_layers
        if past is None:
            return LongLlamaCache.of_memories({}, layers)
        if isinstance(past, tuple | list):
            past = LongLlamaCache.from_tuples(past)
            if mask is not None and past.window:  # in that form only the mask tells padding
                past.keep = mask[:, -past.window - length : -length].bool()
        if not isinstance(past, LongLlamaCache):
            if past.get_seq_length() == 0:  # an empty cache that transformers made
                return LongLlamaCache.of_memories({}, layers)
            raise ValueError(f"past_key_values is a {type(past).__name__}, expected a state that this model returned")
        if len(past.layers) != layers:
            raise ValueError(f"past_key_values has {len(past.layers)} layers, the model has {layers}")
        if past.batch is not None and past.batch != batch:
            raise ValueError(f"past_key_values has {past.batch} rows, the input has {batch}")
        for index, layer in enumerate(past.layers):
            if layer.memory is None:
                continue
            if index not in (self.config.mem_layers or ()):
                raise ValueError(
                    f"past_key_values has memory for layer {index}, which is not one of {self.config.mem_layers}"
                )
            if layer.memory.rows not in (1, batch):
                raise ValueError(f"the memory in past_key_values has {layer.memory.rows} rows, the input has {batch}")
        return past

    def run_window(
        self,
        states: Tensor,
        positions: Tensor,
        state: LongLlamaCache,
        *,
        layers: range | None = None,
        keep: Tensor | None = None,
        allowed: Tensor | None = None,
        look: bool = False,
        deep: bool = False,
        checkpointed: bool = False,
    ) -> tuple[Tensor, LongLlamaCache, list[Tensor], tuple[Tensor, ...] | None]:
        """Run one window, or some layers' part of it; first what no longer fits beside it leaves the window.

        Args:
            states: What the first of the layers takes, [B, T, E].
            positions: [B, T]; only differences within a window matter.
            state: The state before the window. Layers that are not run keep theirs.
            layers: Which layers to run; None for all of them and the norm behind them.
            keep: Which columns are tokens rather than padding, [B, T] bool; None means all.
            allowed: Which tokens of the window each new one sees, [B, 1, T, S] bool; None means all up to itself.
            look: Whether to return attention weights.
            deep: Whether to return the hidden states between layers.
            checkpointed: Whether to compute layers anew for gradients.

        Returns:
            What the last of the layers gives [B, T, E]; the state after the window; the hidden states, if asked
            for; the weights of each layer [B, H, T, S + N], if asked for.
        """
        state = make_room(state, states.shape[1], keep, self.config)
        window = open_window(state, positions, keep, self.config.sink_tokens)
        ran = range(len(self.layers)) if layers is None else layers
        turned = self.rotary.depends_on_length or any(state.layers[index].rotated is None for index in ran)
        relative = window.relative if turned else window.relative[:, -states.shape[1] :]
        rotary = self.rotary(relative, states.dtype)
        levels: list[Tensor] = []
        after = list(state.layers)
        weights: list[Tensor] = []
        for index in ran:
            if deep:
                levels.append(states)
            before = state.layers[index]
            if self.rotary.depends_on_length:
                before = replace(before, rotated=None)
            layer = self.layers[index]
            given = (
                states,
                rotary,
                self.rotary.attention_scaling,
                before,
                window.allowed if allowed is None else allowed,
                look,
            )
            if checkpointed and index % self.config.gradient_checkpoint_every_ith == 0:
                states, after[index], seen = self._gradient_checkpointing_func(layer, *given, use_reentrant=False)
            else:
                states, after[index], seen = layer(*given)
            if seen is not None:
                weights.append(seen)
        if layers is None:
            states = self.norm(states)
        if deep:
            levels.append(states)
        return states, LongLlamaCache(after, window.positions, window.keep), levels, tuple(weights) if look else None


class LongLlamaForCausalLM(LongLlamaPreTrainedModel, LongLlamaGenerationMixin):
    """The model with a language modelling head."""

    _tied_weights_keys = {"lm_head.weight": "model.embed_tokens.weight"}  # noqa: RUF012

    def __init__(self, config: LongLlamaConfig) -> None:
        super().__init__(config)
        self.model = LongLlamaModel(config)
        self.vocab_size = config.vocab_size
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: State = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        last_context_length: int | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast | tuple[Any, ...]:
        """Predict the next token at each place.

        Args:
            input_ids: See `LongLlamaModel.forward`, as for the arguments not named here.
            attention_mask: See there.
            position_ids: See there.
            past_key_values: See there.
            inputs_embeds: See there.
            labels: [B, L]; the loss is the mean cross-entropy of each place against the next label, -100 left out.
            use_cache: See there.
            output_attentions: See there.
            output_hidden_states: See there.
            return_dict: See there.
            last_context_length: See there.
            logits_to_keep: How many of the last places need logits (0: all), or which, as indices.
            **kwargs: Passed on to the loss.

        Raises:
            ValueError: Arguments that do not fit together.
        """
        return_dict = self.config.return_dict if return_dict is None else return_dict
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
            last_context_length=last_context_length,
        )
        states = outputs.last_hidden_state
        if isinstance(logits_to_keep, int):
            states = states[:, -logits_to_keep:] if logits_to_keep else states
        else:
            states = states[:, logits_to_keep]
        logits = self.lm_head(states)
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size, **kwargs)
        result = CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )
        return result if return_dict else result.to_tuple()


class LongLlamaForSequenceClassification(LongLlamaPreTrainedModel):
    """The model with a linear head on the last token of each row."""

    def __init__(self, config: LongLlamaConfig) -> None:
        super().__init__(config)
        self.num_labels = config.num_labels
        self.model = LongLlamaModel(config)
        self.score = nn.Linear(config.hidden_size, int(config.num_labels or 0), bias=False)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> SequenceClassifierOutputWithPast | tuple[Any, ...]:
        """Classify each row by its last token.

        Args:
            input_ids: [B, L]; `inputs_embeds` and the other arguments of `LongLlamaModel.forward` are passed on.
            attention_mask: [B, L]; without it, the last token of a row is its last that is not `pad_token_id`.
            labels: [B], or [B, labels] for several.
            return_dict: False for a tuple.
            **kwargs: Passed on to `LongLlamaModel.forward`.

        Raises:
            ValueError: Several rows, and neither an attention mask nor a padding id tells where they end.
        """
        return_dict = self.config.return_dict if return_dict is None else return_dict
        outputs = self.model(input_ids=input_ids, attention_mask=attention_mask, return_dict=True, **kwargs)
        states = outputs.last_hidden_state
        batch, length, _ = states.shape
        if attention_mask is not None:
            tokens = attention_mask[:, -length:].bool()
        elif self.config.pad_token_id is not None and input_ids is not None:
            tokens = input_ids != self.config.pad_token_id
        elif batch == 1:
            tokens = torch.ones((1, length), dtype=torch.bool, device=states.device)
        else:
            raise ValueError("Cannot handle batch sizes > 1 if no padding token is defined and no mask is given.")
        place = torch.arange(length, device=states.device)
        last = place.masked_fill(~tokens, 0).max(dim=1).values
        logits = self.score(states[torch.arange(batch, device=states.device), last])
        loss = None
        if labels is not None:
            loss = self.loss_function(labels=labels, pooled_logits=logits, config=self.config)
        result = SequenceClassifierOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )
        return result if return_dict else result.to_tuple()
