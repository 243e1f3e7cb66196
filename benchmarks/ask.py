"""Asking a Book: time to the first token from a cold process and from a warm one, and writing speed.

    longfocus read BOOK.txt
    python benchmarks/ask.py BOOK.txt

"cold" is a new process, its imports included; "warm" the same process asked again. Writing speed is measured with the
whole Book in memory and with an empty memory, on the same window and the same number of tokens. Last, some questions
are asked one after the other and all at once.
"""

import argparse
import time

from own_process import tell, told_by

QUESTION = "What happened to the old lady?"
MANY = (
    QUESTION,
    "What was found in the grate?",
    "Who bought strychnine at the chemist's shop?",
    "Where did Poirot live?",
    "What did the doctor say about the poison?",
    "Why was Alfred Inglethorp arrested?",
    "Who inherits the house?",
    "What was in the coffee?",
)


def once(book: str, quantize: str) -> dict:
    begun = time.perf_counter()
    from longfocus.asking.generation import Sampling
    from longfocus.cli.options import open_session

    session = open_session(book, None, "usual", quantize=quantize)
    opened = time.perf_counter() - begun
    stream = session.stream(QUESTION, sampling=Sampling(max_new_tokens=8))
    next(stream)
    cold = time.perf_counter() - begun
    for _ in stream:
        pass
    warm = [session.ask(QUESTION, sampling=Sampling(max_new_tokens=2)).timings.first_token for _ in range(5)]
    return {
        "entries": session.book.progress.entries,
        "opened": opened,
        "cold": cold,
        "warm": sorted(warm)[2],
        "full": writing(session, session.state),
        "full_cited": writing(session, None),
        "empty": writing(session, without_memory(session.state)),
        **several(session),
    }


def several(session) -> dict[str, float]:
    """Seconds for a question and an answer of 32 tokens, asked one after the other and all at once."""
    from longfocus.asking.generation import Sampling
    from longfocus.asking.together import ask_together

    session.loaded.model.generation_config.eos_token_id = -1  # so that answers are of one length
    how = {"sampling": Sampling(max_new_tokens=32)}
    begun = time.perf_counter()
    for question in MANY:
        session.ask(question, **how)
    apart = time.perf_counter() - begun
    begun = time.perf_counter()
    for _ in ask_together(session, MANY, **how):
        pass
    return {"apart": apart / len(MANY), "together": (time.perf_counter() - begun) / len(MANY)}


def without_memory(state):
    from dataclasses import replace

    from longfocus.model.cache import LongLlamaCache

    return LongLlamaCache([replace(layer, memory=None) for layer in state.layers], state.positions)


def writing(session, state, tokens: int = 48) -> float:
    """Tokens per second over `tokens` single steps, the median of three runs; None: with account of attention kept."""
    import torch

    from longfocus.asking.account import AttentionAccount

    ids = session.question_ids(QUESTION)
    model = session.loaded.model
    runs = []
    for _ in range(3):
        with torch.inference_mode():
            start = state or session.watched_state(AttentionAccount(len(session.book.ids)))
            output = model(
                torch.tensor([ids]),
                past_key_values=start,
                use_cache=True,
                last_context_length=len(ids),
                logits_to_keep=1,
            )
            begun = time.perf_counter()
            for _ in range(tokens):
                token = output.logits[:, -1:].argmax(-1)
                output = model(token, past_key_values=output.past_key_values, use_cache=True, logits_to_keep=1)
            runs.append(tokens / (time.perf_counter() - begun))
    return sorted(runs)[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("book")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--quantize", default="auto", help="how weights are packed, as for `longfocus ask`")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        tell(once(args.book, args.quantize))
        return
    runs = []
    for _ in range(args.runs):
        begun = time.perf_counter()
        runs.append(told_by(__file__, args.book, "--quantize", args.quantize, "--one"))
        runs[-1]["process"] = time.perf_counter() - begun
    middle = {name: sorted(run[name] for run in runs)[len(runs) // 2] for name in runs[0]}
    print(f"entries in memory               {middle['entries']:>10,}")
    print(f"cold process to first token     {middle['cold']:>10.2f} s")
    print(f"  of which imports and opening  {middle['opened']:>10.2f} s")
    print(f"warm to first token             {middle['warm']:>10.2f} s")
    print(f"writing, empty memory           {middle['empty']:>10.1f} tokens/s")
    for name, label in (("full", "writing, whole Book in memory"), ("full_cited", "the same, keeping account")):
        print(f"{label:<31} {middle[name]:>10.1f} tokens/s ({middle[name] / middle['empty']:.0%})")
    for name, label in (("apart", "one after the other"), ("together", "all at once")):
        print(f"{f'{len(MANY)} questions, {label}':<31} {middle[name]:>10.2f} s each")


if __name__ == "__main__":
    main()
