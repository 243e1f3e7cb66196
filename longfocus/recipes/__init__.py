"""Recipes: each is one function that returns a run; its parameters are the fields that may be set.

To add one, write a file here with a function of its name and add a line to RECIPES.
"""

RECIPES = {
    "fot": "Teach a checkpoint to use memory on plain documents, as LongLLaMA was made (cross-batch).",
    "dictionary": "Make a tiny model that looks words up in a dictionary of any length, the test of what memory holds.",
    "full_attention": "Take a checkpoint to 100,000 tokens of full attention, in the manner of Anima 100K.",
    "recall": "Teach a checkpoint to answer from memory what it read; the default model was trained with it.",
    "tuning": "Tune a checkpoint to follow instructions and to converse, with memory layers or with full attention.",
}
"""What each recipe is for; `longfocus.recipes.NAME` has the function NAME."""
