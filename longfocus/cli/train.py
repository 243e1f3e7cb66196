"""`longfocus train`: a run by a recipe; each recipe is a verb of its own, its parameters are the options."""

import re
from collections.abc import Callable
from importlib import import_module
from inspect import Parameter, Signature, getdoc, signature
from typing import Annotated, Any, get_type_hints

import typer
from typer.main import get_command


def train() -> None:
    """Teach a model to use memory, by a recipe."""


def command() -> Any:
    """The command with a verb for each recipe."""
    from longfocus.recipes import RECIPES

    app = typer.Typer(
        help=f"{getdoc(train)}\n\nA run that was stopped goes on where it was: give the same command again.",
        context_settings={"help_option_names": ["-h", "--help"]},
        subcommand_metavar="RECIPE [FIELDS]...",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )
    app.callback()(train)
    for name, help_line in RECIPES.items():
        recipe = getattr(import_module(f"longfocus.recipes.{name}"), name)
        app.command(name.replace("_", "-"), help=help_line)(_as_verb(recipe))
    return get_command(app)


def _as_verb(recipe: Callable[..., Any]) -> Callable[..., None]:
    """A function with the recipe's parameters as options, explained by its docstring, that trains what it returns."""

    def verb(**fields: Any) -> None:
        from longfocus.cli.drawing import say
        from longfocus.training.engine import train as run

        made = recipe(**fields)
        run(made, say)
        print(made.arguments.output_dir)

    hints, words = get_type_hints(recipe), _explained(getdoc(recipe) or "")
    parameters = []
    for name, given in signature(recipe).parameters.items():
        option = typer.Option(f"--{name.replace('_', '-')}", help=words.get(name))
        annotated: Any = Annotated.__class_getitem__((hints[name], option))  # type: ignore[attr-defined]
        parameters.append(Parameter(name, Parameter.KEYWORD_ONLY, default=given.default, annotation=annotated))
    # typer reads a function's parameters off its signature
    vars(verb)["__signature__"] = Signature(parameters)
    verb.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return verb


def _explained(doc: str) -> dict[str, str]:
    """What a docstring says of each argument."""
    section = re.search(r"^Args:\n(.*?)(?=^\S|\Z)", doc, re.MULTILINE | re.DOTALL)
    found = re.findall(r"^    (\w+): (.*?)(?=^    \w+: |\Z)", section[1] if section else "", re.MULTILINE | re.DOTALL)
    return {name: " ".join(words.split()) for name, words in found}
