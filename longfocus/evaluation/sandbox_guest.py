"""The guest of a sandbox: a process that runs one program and says whether it came to its end.

`sandbox_walls.py` becomes this. It has a program and a secret word from its standard input, as JSON, and writes the
word to its standard output once the program has ended by itself, or else the error that ended it. Before that it gives
up what a program has no need of: Python tells a hook of most that reaches outside, and the hook refuses all that it
does not know to be harmless.
"""

import json
import os
import sys
import types
from collections.abc import Callable
from typing import Any

_HARMLESS = frozenset(
    {
        "array.__new__", "builtins.id", "builtins.input", "builtins.input/result", "code.__new__", "compile", "exec",
        "function.__new__", "glob.glob", "glob.glob/2", "marshal.dumps", "marshal.load", "marshal.loads",
        "object.__delattr__", "object.__getattr__", "object.__setattr__", "os.putenv", "os.unsetenv", "os.walk",
        "pathlib.Path.glob", "pathlib.Path.rglob", "pickle.find_class", "sys._getframe", "sys._getframemodulename",
        "sys.excepthook", "sys.unraisablehook", "tempfile.mkdtemp", "tempfile.mkstemp", "time.sleep",
    }
)  # fmt: skip
_READING = frozenset({"os.listdir", "os.scandir"})
_WRITING = frozenset({"os.mkdir", "os.remove", "os.rename", "os.rmdir"})
_WRITE_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_REFUSED_MODULES = frozenset({"_ctypes", "_posixsubprocess", "_signal", "posix"})
_REFUSED_PREFIXES = ("_test", "_xx", "_interp")
_NOT_TOLD = {"posix": ("pidfd_open", "setsid", "setpgid"), "_signal": ("pidfd_send_signal",)}
_REASON_CHARACTERS = 200


def hook(folder: str, library: tuple[str, ...]) -> Callable[[str, tuple[Any, ...]], None]:
    """What Python is to tell all that reaches outside.

    Args:
        folder: Where files may be read and written.
        library: Where files may be read and modules loaded from.
    """

    # All that it uses comes as a default: globals, builtins and a closure's cells could be changed by the program. What
    # it is told may be of classes of the program's own, which are refused before any of their methods is called.
    def audit(
        event: str,
        arguments: tuple[Any, ...],
        harmless: frozenset[str] = _HARMLESS,
        reading: frozenset[str] = _READING,
        writing: frozenset[str] = _WRITING,
        write_flags: int = _WRITE_FLAGS,
        modules: frozenset[str] = _REFUSED_MODULES,
        prefixes: tuple[str, ...] = _REFUSED_PREFIXES,
        inside: str = f"{folder}/",
        roots: tuple[str, ...] = tuple(f"{place}/" for place in library),
        kind: type = type,
        text: type = str,
        number: type = int,
        refusal: type[Exception] = PermissionError,
        null: str = os.devnull,
    ) -> None:
        if event in harmless:
            return
        if event == "import":
            name, path = arguments[:2]
            allowed = kind(name) is text and name not in modules and not name.startswith(prefixes)
            if allowed and (path is None or (kind(path) is text and path.startswith(roots) and "/../" not in path)):
                return
        elif event == "open" or event in reading or event in writing:
            paths = arguments[:2] if event == "os.rename" else arguments[:1]
            # `os.open`, which has no mode, opens folders too, and paths may be relative to those.
            change = event in writing or (event == "open" and (arguments[1] is None or arguments[2] & write_flags))
            for path in paths:
                if path is None:  # the working folder
                    path = inside
                if kind(path) is number and event == "open":  # opened before
                    continue
                if kind(path) is not text or f"/{path}/".find("/../") >= 0:
                    break
                if not path.startswith("/"):
                    path = inside + path
                path += "/"
                if not path.startswith(inside) and (change or not path.startswith(roots)) and path != null + "/":
                    break
            else:
                return
        raise refusal(f"{event} is refused here")

    return audit


def run(program: str) -> str:
    """Run a program; the error that ended it, or nothing."""
    module = types.ModuleType("program")
    sys.modules["program"] = module
    try:
        exec(compile(program, "<program>", "exec"), module.__dict__)
    except BaseException as error:
        return f"{type(error).__name__}: {error}"[:_REASON_CHARACTERS]
    return ""


def main(folder: str) -> None:
    """Run the program from standard input, with nothing left of where it came from or where its verdict goes."""
    job = json.load(sys.stdin)
    verdict, null = os.dup(1), os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    for name, functions in _NOT_TOLD.items():
        for held in (sys.modules[name], os):
            for function in functions:
                vars(held).pop(function, None)
    import _posixsubprocess

    vars(_posixsubprocess)["fork_exec"] = None  # not told either; `subprocess` can be imported, not used
    end, write = os._exit, os.write
    sys.addaudithook(hook(folder, tuple(sys.path)))
    reason = run(job["program"])
    write(verdict, (reason or job["word"]).encode(errors="replace"))
    end(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
