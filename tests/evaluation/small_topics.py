"""Conversations in the form of LongChat's and Anima's files, with the faults that Anima's have."""

import gzip
import json
from pathlib import Path

OFFICIAL = [f"The {kind} of the {thing}" for kind in ("history", "future") for thing in ("lamp", "road", "bridge")]
FURTHER = [f"The role of {thing} in society." for thing in ("music", "orange-growing", "engines", "islands")]
ANNOUNCED = ["Howanguages shape the way we think and see", "How to raise captains"]
SAID_OTHERWISE = ["How voices carry, and why", "The keys to a quiet night", "How voices carry, and why"]


def conversation(first: str, title: str, sentences: int = 6) -> str:
    """One that opens with a sentence, and names its title at the end only where LongChat's do."""
    talk = f"\n ASSISTANT: Gladly. \n USER: Tell me more, number {len(title)}. " * sentences
    return f"USER: {first}{talk}\n USER: Thank you, let us talk about the next topic."


def announced(title: str) -> str:
    """What every conversation was to open with."""
    return f"I would like to discuss the topic of {title[0].lower()}{title[1:].rstrip('.')}. "


def write_conversations(folder: Path) -> None:
    """Six official conversations, ten of the longer test cases, and eleven of Anima's pool, of which ten differ."""
    longchat = [
        {"topic_id": number, "topic": title, "conversation": conversation(announced(title), title)}
        for number, title in enumerate(OFFICIAL + FURTHER, 1)
    ]
    texts = [(record["topic"], record["conversation"]) for record in longchat[:6]]
    texts += [(ANNOUNCED[0], conversation("I would like to discuss the topic of how languages shape the way we think "
                                          "and see. ", ANNOUNCED[0]))]  # fmt: skip
    texts += [(ANNOUNCED[1], conversation("I would like to discuss the topic of raising captains. ", ANNOUNCED[1]))]
    texts += [
        (title, conversation(f"I'd like to discuss {what}. What do you think?", title, sentences))
        for title, what, sentences in zip(
            SAID_OTHERWISE, ("how a voice carries", "quiet nights", "it"), (3, 4, 5), strict=True
        )
    ]
    anima = [
        {"TOPIC_ID": number, "TOPIC": title, "CONVERSATION": text, "SOURCE": "claude"}
        for number, (title, text) in enumerate(texts, 1)
    ]
    (folder / "longchat").mkdir()
    (folder / "anima").mkdir()
    (folder / "longchat" / "conversations_30.jsonl").write_text("\n".join(map(json.dumps, longchat[:6])), "utf-8")
    with gzip.open(folder / "longchat" / "conversations_100.jsonl.gz", "wt", encoding="utf-8") as file:
        file.write("\n".join(map(json.dumps, longchat)))
    (folder / "anima" / "extended_158_conversations.json").write_text(json.dumps(anima), "utf-8")
