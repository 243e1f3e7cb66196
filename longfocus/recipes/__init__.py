"""Recipes: each is one function that returns a run; its parameters are the fields that may be set.

To add one, write a file here with a function of its name and add a line to RECIPES.
"""

RECIPES = {
    "recall": "Teach a checkpoint to answer from memory what it read; the default model was trained with it.",
}
"""What each recipe is for; `longfocus.recipes.NAME` has the function NAME."""
