"""The way in of the `longfocus` command, and the sign that this process is the command line.

`import longfocus` registers our model with transformers, which takes seconds. `longfocus --help` should not wait for
that, but Python runs `longfocus/__init__.py` before anything in `longfocus.cli`; so the command starts here, outside
the package, and `longfocus/__init__.py` leaves the registration out where this module was imported before it.
Nothing but the installed command should import it.
"""


def main() -> None:
    """Run the command line."""
    from longfocus.cli import main as run

    run()
