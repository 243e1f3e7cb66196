"""Give a LLaMA checkpoint a memory, read a long text into it once, and generate several times from there.

python examples/generate_with_memory.py FOLDER [TEXT]

Only transformers' own API; FOLDER holds a LLaMA checkpoint in Hugging Face form.
"""

import sys
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import longfocus  # makes the architecture known to the Auto classes

SAMPLE = Path(longfocus.__file__).parent / "samples" / "cask_of_amontillado.txt"
PROMPTS = ("\n\nThe story is about", "\n\nIn the end Fortunato", "\n\nThe narrator's name is")


def main(folder: str, text: str | Path = SAMPLE) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    config = longfocus.LongLlamaConfig.from_pretrained(folder)
    layers = config.num_hidden_layers
    config.mem_layers = list(range(layers * 17 // 30, layers * 24 // 30))  # where attention fetches facts
    config.window_length = min(1024, config.max_position_embeddings)
    config.window_overlap = config.last_context_length = config.window_length // 2
    model = AutoModelForCausalLM.from_pretrained(folder, config=config).eval()
    with torch.inference_mode():
        ids = tokenizer(Path(text).read_text("utf-8"), return_tensors="pt").input_ids
        state = model(ids, use_cache=False, logits_to_keep=1).past_key_values  # all of it goes to memory
        print(f"{ids.shape[1]:,} tokens read, {state.memory_length:,} in the memory of layers {config.mem_layers}")
        for prompt in PROMPTS:  # the state is a value: each prompt starts from the same one
            asked = tokenizer(prompt, return_tensors="pt", add_special_tokens=False)
            made = model.generate(**asked, past_key_values=state, max_new_tokens=20, do_sample=False)
            print(repr(tokenizer.decode(made[0], skip_special_tokens=True)))


if __name__ == "__main__":
    main(*sys.argv[1:])
