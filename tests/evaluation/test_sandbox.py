"""The sandbox: what ends by itself passes, what does harm fails within the limits, and nothing is left of either.

Each wall is tried alone too: the hook without those of the kernel, and those of the kernel without the hook.
"""

import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest

from longfocus.errors import RequestError
from longfocus.evaluation import sandbox, sandbox_guest
from longfocus.evaluation.sandbox import Limits, Sandbox, possible_walls

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="programs of models are run on Linux only")
LIMITS = Limits(seconds=1, clock_seconds=20, memory_bytes=256 << 20)
PATIENCE = LIMITS.clock_seconds + 10

TRIES = """
import json
done = []
for attempt in json.loads({!r}):
    try:
        exec(attempt, {{"__name__": "attempt"}})
    except Exception:
        continue
    done.append(attempt)
assert not done, done
"""
FILES = [
    "open('{0}/new', 'w')",
    "open('{0}/secret', 'a')",
    "import os; os.open('{0}/new', os.O_CREAT | os.O_WRONLY)",
    "import pathlib; pathlib.Path('{0}/new').touch()",
    "import shutil; shutil.copy('/etc/passwd', '{0}/new')",
    "open('{0}/secret').read()",
    "open(b'{0}/secret').read()",
    "import pathlib; pathlib.Path('{0}/secret').read_text()",
    "open('/proc/self/maps').read()",
    "import os; os.listdir('/')",
    "import os; list(os.scandir('/'))",
    "import os; os.remove('{0}/kept/file')",
    "import shutil; shutil.rmtree('{0}/kept')",
    "import os; os.rename('{0}/kept', 'kept')",
    "import os; os.mkdir('{0}/new')",
    "import os; os.chmod('{0}/secret', 0)",
    "import os; os.truncate('{0}/secret', 0)",
    "import os; os.symlink('{0}', 'link'); open('link/secret').read()",
    "import os; os.link('{0}/secret', 'link')",
    "import sqlite3; sqlite3.connect('{0}/new')",
]
ROUNDABOUT = [
    "open('../' * 20 + '{0}/secret').read()",
    "import os; open(os.path.dirname(os.__file__) + '/..' * 20 + '{0}/secret').read()",
    "import os; open(os.path.dirname(os.__file__) + '/new', 'w')",
    "import os; os.open('new', os.O_CREAT, dir_fd=os.open(os.path.dirname(os.__file__), os.O_RDONLY))",
    "import os; os.chdir('{0}'); open('secret').read()",
    "class Path(str):\n    startswith = lambda *_: True\n    find = lambda *_: -1\nopen(Path('{0}/secret')).read()",
    "import builtins\nbuiltins.type = lambda _: str\nopen('{0}/secret').read()",
    "import __main__\n__main__._WRITE_FLAGS = 0\n__main__.hook = None\nopen('{0}/new', 'w')",
    "import sys\ntry:\n    open('{0}/secret')\nexcept PermissionError as error:\n    at = error.__traceback__\n"
    "while at.tb_next:\n    at = at.tb_next\nat.tb_frame.f_locals.update(inside='/')\nopen('{0}/secret').read()",
]
PROCESSES = [
    "import os\nif not os.fork():\n    os._exit(0)",
    "import os; os.forkpty()",
    "import os; assert os.system('true') == 0",
    "import os; os.execv('/bin/true', ['true'])",
    "import os; os.posix_spawn('/bin/true', ['true'], {{}})",
    "import subprocess; subprocess.run(['/bin/true'])",
    "import multiprocessing; multiprocessing.get_context('fork').Process(target=print).start()",
    "import _posixsubprocess; _posixsubprocess.fork_exec()",
    "import sys, _posixsubprocess; del sys.modules['_posixsubprocess']; import _posixsubprocess",
    "import sys; del sys.modules['posix']; import posix",
    "import os; os.setsid()",
    "import os; os.kill({1}, 9)",
    "import os; os.killpg({1}, 9)",
    "import os, signal; signal.pidfd_send_signal(os.pidfd_open({1}), 9)",
]
OTHER = [
    "import socket; socket.create_connection(('127.0.0.1', {2}))",
    "import socket; socket.socket().bind(('127.0.0.1', 0))",
    "import urllib.request; urllib.request.urlopen('http://127.0.0.1:{2}')",
    "import socket; socket.getaddrinfo('localhost', 80)",
    "import ctypes",
    "import _ctypes",
    "class Name(str):\n    __hash__ = str.__hash__\n    __eq__ = lambda *_: False\n__import__(Name('_ctypes'))",
    "from importlib.machinery import ExtensionFileLoader\nfrom importlib.util import module_from_spec\n"
    "from importlib.util import spec_from_loader\nopen('x.so', 'w').write('x')\n"
    "module_from_spec(spec_from_loader('x', ExtensionFileLoader('x', 'x.so')))",
    "import gc; gc.get_objects()",
    "import mmap; mmap.mmap(-1, 4096)",
    "import resource; resource.setrlimit(resource.RLIMIT_AS, (-1, -1))",
    "import sys; sys.settrace(print)",
    "import numpy",
    "import os; assert 'HOME' in os.environ or 'PATH' in os.environ",
    "import sys; assert sys.stdin.read()",
]


@pytest.fixture(scope="module", autouse=True)
def nothing_left(tmp_path_factory):
    """No folder, no process."""
    folder = tmp_path_factory.mktemp("temporary")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(folder))
        yield
    assert not list(folder.iterdir())
    commands = [" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])]
    assert not [command for command in commands if str(folder) in command]


@pytest.fixture
def victims(tmp_path):
    """A folder, a process and a server that a program would harm."""
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").write_text("kept")
    (tmp_path / "secret").write_text("secret")
    process = subprocess.Popen(["sleep", "600"], start_new_session=True)
    server = socket.create_server(("127.0.0.1", 0))
    server.setblocking(False)
    yield tmp_path, process.pid, server.getsockname()[1]
    with pytest.raises(BlockingIOError):
        server.accept()
    server.close()
    assert process.poll() is None
    process.kill()
    process.wait()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "kept", "secret"]
    assert (tmp_path / "secret").read_text() == "secret"
    assert (tmp_path / "secret").stat().st_mode & 0o777


@pytest.fixture(params=["all walls", "the hook alone"])
def run(request):
    """What runs a program."""
    walls = possible_walls() if request.param == "all walls" else ()
    return lambda program, limits=LIMITS: sandbox._run(program, limits, walls)


def attempts(programs, victims):
    return TRIES.format(json.dumps([program.format(*victims) for program in programs]))


@pytest.mark.parametrize(
    "programs", [FILES, ROUNDABOUT, PROCESSES, OTHER], ids=["files", "roundabout", "processes", "other"]
)
def test_what_reaches_outside_is_refused(run, programs, victims):
    assert run(attempts(programs, victims)).reason == ""


def test_what_reaches_outside_would_else_succeed(victims):
    """Those attempts are no strangers to Python: most of them work where nothing holds them."""
    folder = victims[0]
    (folder / "work").mkdir()
    program = "\n".join(
        (
            attempts(FILES[:1] + FILES[5:8] + FILES[9:10] + PROCESSES[:1] + PROCESSES[5:6], victims).split("assert")[0],
            "assert len(done) == 7, done",
        )
    )
    subprocess.run([sys.executable, "-I", "-S", "-c", program], cwd=folder / "work", check=True)
    (folder / "new").unlink()
    (folder / "work").rmdir()


def test_the_kernels_walls_hold_without_the_hook(victims, tmp_path_factory, monkeypatch):
    if len(possible_walls()) < 2:
        pytest.skip("this system has not all walls")
    folder = tmp_path_factory.mktemp("programs")
    for name in ("sandbox_walls.py", "sandbox_guest.py"):
        shutil.copy(Path(sandbox.__file__).with_name(name), folder)
    guest = folder / "sandbox_guest.py"
    text = guest.read_text()
    assert text.count("    sys.addaudithook(") == 1
    guest.write_text(text.replace("    sys.addaudithook(", "    print("))
    monkeypatch.setattr(sandbox, "__file__", str(folder / "sandbox.py"))
    programs = [program for program in (*FILES, *ROUNDABOUT[:5]) if "/proc" not in program]
    programs += [
        "import os; os.kill({1}, 9)",
        "import ctypes; assert not ctypes.CDLL(None).kill({1}, 9)",
        OTHER[0],
        OTHER[2],
    ]
    verdict = sandbox._run(attempts(programs, victims), LIMITS, possible_walls())
    assert verdict.reason == ""
    stays = "import os, time\nfor _ in range(3):\n    if not os.fork():\n        os.setsid()\n        time.sleep(600)"
    before = time.monotonic()
    sandbox._run(stays, LIMITS, possible_walls())  # `nothing_left` looks for them
    assert time.monotonic() - before < PATIENCE


@pytest.mark.parametrize(
    "program",
    [
        "import os; os._exit(0)",
        "import sys; sys.exit(0)",
        "raise SystemExit",
        "import os; os.abort()",
        "def again():\n    again()\nagain()",
        "assert False",
        "def (",
        "raise KeyboardInterrupt",
        "b'x' * (1 << 30)",
        "held = []\nwhile True:\n    held.append(bytes(1 << 20))",
        "open('long', 'wb').write(bytes(2 << 20))",
        "held = [open(str(number), 'w') for number in range(100)]",
        "import contextlib, os\nfor number in range(3, 32):\n    with contextlib.suppress(OSError):\n"
        "        os.write(number, b'x')",
    ],
)
def test_what_does_not_end_by_itself_fails(program):
    verdict = Sandbox(LIMITS).run(program)
    assert not verdict.passed
    assert verdict.reason


@pytest.mark.parametrize(
    "program",
    [
        "while True:\n    pass",
        "while True:\n    print('x' * 100_000)",
        "import time; time.sleep(600)",
        "import time\nwhile True:\n    try:\n        time.sleep(600)\n    except BaseException:\n        pass",
    ],
)
def test_what_does_not_end_is_ended(program):
    before = time.monotonic()
    verdict = Sandbox(Limits(1, 2)).run(program)
    assert not verdict.passed
    assert verdict.reason == "it took more than 2 seconds" or verdict.reason.startswith("it ended early")
    assert time.monotonic() - before < 10


def test_what_a_program_may_do():
    """Its folder, the standard library, long outputs that nobody keeps."""
    program = """
import asyncio, collections, dataclasses, datetime, hashlib, itertools, math, os, pathlib, random, re, statistics
import subprocess, tempfile, typing, unicodedata

assert os.listdir() == []
os.mkdir("folder")
with open("folder/file", "w") as file:
    file.write("text")
os.rename("folder/file", "file")
assert pathlib.Path("file").read_text() == open(pathlib.Path.cwd() / "file").read() == "text"
os.remove("file")
os.rmdir("folder")
with tempfile.NamedTemporaryFile() as file:
    file.write(b"x")
open(os.devnull, "w").write("x")
assert open(re.__file__).read()

@dataclasses.dataclass
class Point:
    x: "int"

assert Point(1) == Point(1)
assert hashlib.md5(b"a").hexdigest().startswith("0cc175")
print("x" * 10_000_000)
"""
    assert Sandbox(LIMITS).run(program).reason == ""


def test_programs_know_nothing_of_each_other():
    ours = Sandbox(LIMITS)
    assert ours.run("open('left', 'w').write('x')").passed
    assert ours.run("import os; assert os.listdir() == []").passed


def test_a_system_without_a_wall_is_told(monkeypatch):
    possible_walls.cache_clear()
    monkeypatch.setattr(sandbox, "_NAMESPACES", ("--no-such-namespace",))
    try:
        with pytest.warns(UserWarning, match="without namespaces"):
            assert "namespaces" not in possible_walls()
        possible_walls.cache_clear()
        monkeypatch.setattr(sandbox.sys, "platform", "darwin")
        with pytest.raises(RequestError, match="on Linux only"):
            Sandbox()
    finally:
        possible_walls.cache_clear()


def test_where_not_even_an_empty_program_runs(monkeypatch):
    possible_walls.cache_clear()
    monkeypatch.setattr(sandbox, "_command", lambda *_: ["/bin/false"])
    try:
        with pytest.raises(RequestError, match="even an empty one fails"):
            possible_walls()
    finally:
        possible_walls.cache_clear()


def test_the_hook_knows_no_names_from_outside():
    """What it uses could else be replaced by the program."""
    audit = sandbox_guest.hook("/folder", ("/library",))
    assert audit.__closure__ is None
    assert set(audit.__code__.co_names) <= {"find", "startswith"}
