"""`python -m longfocus`: the command line where the `longfocus` command is not on the path.

The same verbs, a few seconds later: this way in imports the package, and with it transformers, first.
"""

from longfocus.cli import main

if __name__ == "__main__":
    main()
