"""Reading a document into a Book: stopped anywhere, it goes on from there, and the Book is the same."""

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import warnings
import zlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

import longfocus
from longfocus.errors import BookError, DocumentError, RequestError
from longfocus.memory import writer as writing
from longfocus.memory.book import StoredBook
from longfocus.memory.layout import PROGRESS, layer_files
from longfocus.reading.documents import Document
from longfocus.reading.reader import read_steps
from longfocus.reading.tokens import tokenize


@pytest.fixture(scope="module", autouse=True)
def on_one_thread(one_thread):
    """All tests of this file."""


def read(document, loaded, folder, **options):
    return list(read_steps(document, loaded, folder, **options))


def read_some(document, loaded, folder, steps, **options):
    going = read_steps(document, loaded, folder, **options)
    done = [next(going) for _ in range(steps + 1)]
    going.close()
    return done[-1]


def equal(one: Path, other: Path) -> bool:
    """Whether two Books are equal bit for bit, in all but the time that reading took."""
    books = [StoredBook.open(folder) for folder in (one, other)]
    assert books[0].manifest == books[1].manifest
    assert replace(books[0].progress, seconds=0) == replace(books[1].progress, seconds=0)
    for name in (*layer_files(1), *layer_files(2), *(path.name for path in one.glob("window-*")), "tokens.safetensors"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
    assert len(list(one.glob("window-*"))) == len(list(other.glob("window-*"))) == 1
    return books[0].text == books[1].text


@pytest.fixture
def short(tiny_document) -> Document:
    """Some 250 tokens: nine windows."""
    return Document("Short", tiny_document.text[:1000], (0, 1000))


def test_steps_tell_how_far_reading_is(short, tiny_model, tmp_path):
    steps = read(short, tiny_model, tmp_path / "b")
    stride, total = tiny_model.model.config.stride, steps[0].total
    assert [step.tokens for step in steps] == [min(stride * n, total) for n in range(-(-total // stride) + 1)]
    assert steps[0].seconds_left is None
    assert steps[0].speed == 0
    assert steps[-1].seconds_left == 0
    assert all(step.left_out is None and step.resumed == 0 for step in steps)
    again = read(short, tiny_model, tmp_path / "b")
    assert [(step.tokens, step.resumed) for step in again] == [(total, total)]


@pytest.mark.parametrize("look_back", [0, 20, None])
def test_stopped_after_any_window_the_book_is_the_same(short, tiny_model, tmp_path, look_back):
    windows = len(read(short, tiny_model, tmp_path / "whole", look_back=look_back)) - 1
    for stop in range(windows):
        folder = tmp_path / f"stopped {stop}"
        done = read_some(short, tiny_model, folder, stop, look_back=look_back)
        assert StoredBook.open(folder, complete=False).progress.tokens == done.tokens
        with pytest.raises(BookError, match=f"to token {done.tokens} of {done.total}"):
            StoredBook.open(folder)
        assert read(short, tiny_model, folder, look_back=look_back)[0].resumed == done.tokens
        assert equal(folder, tmp_path / "whole")


def test_stopped_after_every_window(short, tiny_model, tmp_path):
    windows = len(read(short, tiny_model, tmp_path / "whole", look_back=20)) - 1
    for _ in range(windows):
        read_some(short, tiny_model, tmp_path / "often", 1, look_back=20)
    assert equal(tmp_path / "often", tmp_path / "whole")


def test_what_reading_looks_back_at_is_what_the_model_sees(tmp_path, tiny_model, short):
    """All of memory is what one call of the model over the whole document computes; nothing, or a part, is not."""
    config = tiny_model.model.config
    ids = tokenize(short, tiny_model.tokenizer).ids
    with torch.inference_mode():
        state = tiny_model.model.model(ids[None], use_cache=True, last_context_length=config.stride).past_key_values
    wanted = state.layers[2].memory.entries().keys[0].float()
    apart = {}
    for name, look_back in {"all": None, "more than there are": 10**6, "some": 30, "none": 0}.items():
        read(short, tiny_model, tmp_path / name, look_back=look_back)
        found = StoredBook.open(tmp_path / name).memories()[2].entries().keys[0].float()
        count = min(found.shape[1], wanted.shape[1])
        assert count > 100
        apart[name] = float((found[:, :count] - wanted[:, :count]).abs().max())
    assert apart["all"] == apart["more than there are"] < 0.1
    assert min(apart["some"], apart["none"]) > 0.3


READ = """
import sys, torch
torch.set_num_threads(1)
from pathlib import Path
from longfocus.loading.load import load
from longfocus.reading.documents import Document
from longfocus.reading.reader import read_steps
text = Path(sys.argv[2]).read_text(encoding="utf-8")
loaded = load(sys.argv[1], window=64, mem_layers=[1, 2], dtype="float32")
print("loaded", flush=True)
for step in read_steps(Document("A Story", text, (0, len(text))), loaded, sys.argv[3]):
    print(step.tokens, flush=True)
"""


def start(tiny_folder, text: Path, folder: Path, before: str = "") -> subprocess.Popen:
    command = [sys.executable, "-c", before + READ, str(tiny_folder), str(text), str(folder)]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "LONGFOCUS_CACHE": str(text.parent / "cache")}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)


@pytest.fixture
def story(tiny_document, tmp_path) -> Document:
    (tmp_path / "story.txt").write_text(tiny_document.text, encoding="utf-8")
    return Document("A Story", tiny_document.text, (0, len(tiny_document.text)))


FORKED = """
import json, os, signal, time
longer = 1.0  # as long as none came so far as to read: on a busy machine even the first window takes long
for kill in sys.argv[4].split(","):
    child = os.fork()
    if child == 0:
        break
    time.sleep(float(kill) * longer)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    print("killed", flush=True)
    try:
        read = json.load(open(os.path.join(sys.argv[3], "progress.json")))["tokens"]
    except FileNotFoundError:
        read = 0
    longer = longer if read else longer * 1.5
else:
    sys.exit()
"""


def test_killed_at_any_moment(story, tiny_folder, tiny_model, tmp_path):
    """SIGKILL many times, the first ones while reading begins; each time what is there is valid and is gone on with."""
    begun = time.perf_counter()
    read(story, tiny_model, tmp_path / "whole")
    longest = max(0.08, (time.perf_counter() - begun) / 10)  # on a busy machine everything takes longer
    folder, chance = tmp_path / "killed", random.Random(5)
    env = {**os.environ, "OMP_NUM_THREADS": "1", "LONGFOCUS_CACHE": str(tmp_path / "cache")}
    # most of them while it reads, the first while the Book is begun
    kills = ",".join(f"{chance.uniform(0.005, longest):.3f}" for _ in range(12))
    program = READ.replace('print("loaded", flush=True)', FORKED)
    command = [sys.executable, "-c", program]
    arguments = [str(tiny_folder), str(tmp_path / "story.txt"), str(folder), kills]
    done = subprocess.run(command + arguments, capture_output=True, text=True, env=env, timeout=100)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("killed") == 12
    assert "Error" not in done.stderr, "a process that went on refused what the one before had left"
    counted = [int(line) for line in done.stdout.split() if line.isdigit()]
    assert len(set(counted)) > 1, "no process came so far as to read"
    if (folder / "manifest.json").exists():
        StoredBook.open(folder, complete=False)
    read(story, tiny_model, folder)
    assert equal(folder, tmp_path / "whole")


OPERATIONS = ["text.txt", "tokens.safetensors", "progress.json", "layer-001.keys", "layer-002.values", "manifest.json"]


@pytest.mark.parametrize("torn", [False, True])
@pytest.mark.parametrize("name", OPERATIONS)
def test_stopped_while_a_book_is_begun(short, tiny_model, tmp_path, monkeypatch, name, torn):
    """As if killed at the first write of each file, before it or in its midst."""

    class Killed(BaseException):
        pass

    def stopping(real):
        def write(path, contents):
            if path.name != name:
                return real(path, contents)
            if torn:
                path.with_name(name + (".new" if not name.startswith("layer") else "")).write_bytes(
                    contents[: len(contents) // 2]
                )
            raise Killed

        return write

    with monkeypatch.context() as patch:
        for function in ("replace_file", "write_anew"):
            patch.setattr(writing, function, stopping(getattr(writing, function)))
        with pytest.raises(Killed):
            read(short, tiny_model, tmp_path / "b")
    read(short, tiny_model, tmp_path / "whole")
    read(short, tiny_model, tmp_path / "b")
    assert equal(tmp_path / "b", tmp_path / "whole")


@pytest.mark.parametrize("place", ["entries", "window", "progress"])
def test_a_full_disk_is_one_line_and_what_was_read_stays(short, tiny_model, tmp_path, monkeypatch, place):
    full = OSError(errno.ENOSPC, "No space left on device")
    written = []

    def failing(real):
        def write(*arguments):
            path = arguments[0]
            if place in getattr(path, "name", ""):
                written.append(path)
                if len(written) > 3:
                    raise full
            return real(*arguments)

        return write

    class Full:
        def __init__(self, file):
            self.file = file

        def write(self, data):
            written.append(data)
            if len(written) > 13:
                self.file.write(data[: len(data) // 2])
                raise full
            return self.file.write(data)

        def __getattr__(self, name):
            return getattr(self.file, name)

    with monkeypatch.context() as patch:
        if place == "entries":
            plain = writing.BookWriter._file

            def file(self, name):
                found = plain(self, name)
                self._files[name] = found if isinstance(found, Full) else Full(found)
                return self._files[name]

            patch.setattr(writing.BookWriter, "_file", file)
        for function in ("replace_file", "write_anew"):
            patch.setattr(writing, function, failing(getattr(writing, function)))
        with pytest.raises(BookError, match=r"no space left for .*; make room and read again") as refused:
            read(short, tiny_model, tmp_path / "b")
    assert len(str(refused.value).splitlines()) == 1
    held = StoredBook.open(tmp_path / "b", complete=False).progress
    assert held.tokens >= 2 * tiny_model.model.config.stride
    read(short, tiny_model, tmp_path / "whole")
    assert read(short, tiny_model, tmp_path / "b")[0].resumed == held.tokens
    assert equal(tmp_path / "b", tmp_path / "whole")


def test_a_real_limit_on_files(story, tiny_folder, tiny_model, tmp_path):
    """The operating system's own refusal, in a process of its own."""
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
    reader = start(tiny_folder, tmp_path / "story.txt", tmp_path / "b", limit)
    out, error = reader.communicate(timeout=60)
    assert reader.returncode == 1
    assert error.splitlines()[-1].startswith("longfocus.errors.BookError: no space left for ")
    assert StoredBook.open(tmp_path / "b", complete=False).progress.tokens == int(out.split()[-1]) > 200
    read(story, tiny_model, tmp_path / "b")
    read(story, tiny_model, tmp_path / "whole")
    assert equal(tmp_path / "b", tmp_path / "whole")


def test_a_second_reader_is_refused(short, tiny_model, tmp_path):
    lock = "import filelock, sys; x = filelock.FileLock(sys.argv[1]); x.acquire(); print('held', flush=True); input()"
    (tmp_path / "b").mkdir()
    command = [sys.executable, "-c", lock, str(tmp_path / "b" / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        began = time.monotonic()
        with pytest.raises(BookError, match="is being read by another process"):
            read(short, tiny_model, tmp_path / "b")
        assert time.monotonic() - began < 5
        holder.send_signal(signal.SIGKILL)
    read(short, tiny_model, tmp_path / "b")


def test_a_second_reader_in_the_same_process_is_refused(short, tiny_model, tmp_path):
    going = read_steps(short, tiny_model, tmp_path / "b")
    next(going)
    with pytest.raises(BookError, match="is being read by another process"):
        read(short, tiny_model, tmp_path / "b")
    going.close()
    read(short, tiny_model, tmp_path / "b")


def test_another_book_in_the_folder_is_refused(short, tiny_model, tiny_folder, tmp_path):
    from longfocus.loading.load import load

    read_some(short, tiny_model, tmp_path / "b", 2)
    before = {path.name: path.read_bytes() for path in (tmp_path / "b").iterdir()}
    other = Document("Other", short.text + " more", (0, 1000))
    parts = Document("Short", short.text, (0, 600))
    wide = load(tiny_folder, window=80, mem_layers=[1, 2], dtype="float32")
    layers = load(tiny_folder, window=64, mem_layers=[2], dtype="float32")
    stranger = replace(tiny_model, name="stranger", fingerprint="e" * 64)
    for line, arguments, options in [
        (r"of another document \('Short'\)", (other, tiny_model), {}),
        ("cut in another way", (parts, tiny_model), {}),
        ("cut in another way", (short, tiny_model), {"most": 50}),
        ("read by another model .*here stranger", (short, stranger), {}),
        (r"with window 64 \(here 80\)", (short, wide), {}),
        (r"with memory_layers \(1, 2\) \(here \(2,\)\)", (short, layers), {}),
        (r"with look_back 0 \(here None\)", (short, tiny_model), {"look_back": None}),
    ]:
        with pytest.raises(BookError, match=line) as refused:
            read(*arguments, tmp_path / "b", **options)
        assert "--out" in str(refused.value)
        assert before == {path.name: path.read_bytes() for path in (tmp_path / "b").iterdir()}
    read(short, tiny_model, tmp_path / "b")


def test_other_tokens_of_the_same_text_are_refused(short, tiny_model, tmp_path):
    """As after a change of the chat template, which the model's fingerprint leaves out."""
    from copy import deepcopy

    read_some(short, tiny_model, tmp_path / "b", 2)
    tokenizer = deepcopy(tiny_model.tokenizer)
    tokenizer.chat_template = "{% for m in messages %}<{{ m['content'] }}>{% endfor %}"
    with pytest.raises(BookError, match="in other tokens"):
        read(short, replace(tiny_model, tokenizer=tokenizer), tmp_path / "b")


def test_a_folder_that_holds_something_else_is_left_alone(short, tiny_model, tmp_path):
    for name in ("notes.odt", "text.txt", "manifest.json.new"):
        folder = tmp_path / name.replace(".", "-")
        folder.mkdir()
        (folder / name).write_text("mine")
        with pytest.raises(BookError, match="holds something that is no Book"):
            read(short, tiny_model, folder)
        assert [path.name for path in folder.iterdir()] == [name]
        assert (folder / name).read_text() == "mine"
    (tmp_path / "file").write_text("mine")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(BookError, match="cannot write to"):
            read(short, tiny_model, folder)


def test_a_damaged_book_is_not_read_on(short, tiny_model, tmp_path):
    read_some(short, tiny_model, tmp_path / "b", 4)
    path = tmp_path / "b" / layer_files(2)[1]
    contents = bytearray(path.read_bytes())
    contents[10] ^= 4
    path.write_bytes(contents)
    with pytest.raises(BookError, match="checksum is wrong"):
        read(short, tiny_model, tmp_path / "b")


def test_what_is_left_for_later_is_checked(short, tiny_model, tmp_path):
    """Damaged, missing, or of another model's size: one line, and the rest of the Book is left as it is."""
    folder = tmp_path / "b"
    read_some(short, tiny_model, folder, 4)
    name = max(path.name for path in folder.glob("late-*"))
    contents = (folder / name).read_bytes()
    (folder / name).write_bytes(contents[:-1] + bytes([contents[-1] ^ 1]))
    with pytest.raises(BookError, match=f"{name} was changed"):
        read(short, tiny_model, folder)
    (folder / name).unlink()
    with pytest.raises(BookError, match=f"{name} is missing"):
        read(short, tiny_model, folder)
    for shape, refusal in (((1, 5, 64), "its manifest"), ((1, 32, 32), "the model"), ((32,), "its manifest")):
        forged = save({"states": torch.zeros(shape)})
        (folder / name).write_bytes(forged)
        record = json.loads((folder / PROGRESS).read_text())
        record["state_files"][name] = zlib.crc32(forged)
        (folder / PROGRESS).write_text(json.dumps(record))
        with pytest.raises(BookError, match=f"does not fit {refusal}"):
            read(short, tiny_model, folder)
    assert not list(folder.glob("*.new"))


def test_nothing_is_left_for_later_at_the_end(short, tiny_model, tmp_path):
    read_some(short, tiny_model, tmp_path / "b", 4)
    assert list((tmp_path / "b").glob("late-*"))
    read(short, tiny_model, tmp_path / "b")
    assert not list((tmp_path / "b").glob("late-*"))


def test_what_a_killed_process_left_behind_the_records_is_cut_off(short, tiny_model, tmp_path):
    read_some(short, tiny_model, tmp_path / "b", 4)
    for name in layer_files(1):
        with open(tmp_path / "b" / name, "ab") as file:
            file.write(b"half an entry")
    (tmp_path / "b" / "window-5.safetensors").write_bytes(b"half a window")
    (tmp_path / "b" / "late-128.safetensors").write_bytes(b"half of what is left for later")
    read(short, tiny_model, tmp_path / "b")
    read(short, tiny_model, tmp_path / "whole")
    assert equal(tmp_path / "b", tmp_path / "whole")


@pytest.mark.parametrize("most", [2, 3, 50, 101])
def test_a_limit_leaves_the_middle_out(tiny_document, tiny_model, tmp_path, most):
    step = read(tiny_document, tiny_model, tmp_path / "b", most=most)[-1]
    book = StoredBook.open(tmp_path / "b")
    whole = tokenize(tiny_document, tiny_model.tokenizer)
    opening, head, tail = whole.opening, (most + 1) // 2, most // 2
    assert book.ids.tolist() == [*whole.ids[: opening + head].tolist(), *whole.ids[-tail:].tolist()]
    assert step.total == opening + most
    first, last = step.left_out
    assert book.manifest.spans == ((0, first), (last, len(book.text)))
    assert first == whole.ends[opening + head - 1]
    assert last == whole.starts[-tail]
    assert book.text == tiny_document.text, "citations are offsets into all of it"
    inside = book.starts[opening:]
    assert not ((inside >= first) & (inside < last)).any()


@pytest.mark.parametrize("less", [1, 2, 3])
def test_a_cut_within_a_character_of_several_tokens(tiny_model, tmp_path, less):
    """A fox is four bytes, and a token each: the cut may fall among those of one."""
    document = Document("Foxes", "🦊" * 30, (0, 30))
    tokens = tokenize(document, tiny_model.tokenizer)
    count = len(tokens.ids) - tokens.opening
    assert count >= 60
    for most in range(count - less, count - less - 4, -1):
        folder = tmp_path / str(most)
        step = read(document, tiny_model, folder, most=most)[-1]
        book = StoredBook.open(folder)
        assert len(book.ids) == tokens.opening + most
        assert 0 < step.left_out[0] <= step.left_out[1] < 30
        assert book.manifest.left_out == step.left_out


@pytest.mark.parametrize("dtype", ["float64", "float8_e4m3fn"])
def test_a_dtype_in_which_no_book_is_kept(short, tiny_folder, tmp_path, dtype):
    """Refused before anything is written; packed numbers do not depend on it."""
    from longfocus.loading.load import load

    loaded = load(tiny_folder, window=64, mem_layers=[1, 2], dtype="float32")
    loaded.model.config.mem_dtype = dtype
    with pytest.raises(RequestError, match=f"mem_dtype is {dtype}, .* bfloat16, float16, float32"):
        read(short, loaded, tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_what_lies_ahead_counts_with_the_books_numbers(short, tiny_folder, tmp_path):
    from longfocus.loading.load import load

    loaded = load(tiny_folder, window=64, mem_layers=[1, 2], dtype="float32")
    sizes = {}
    for dtype in ("bfloat16", "float32"):
        loaded.model.config.mem_dtype = dtype
        sizes[dtype] = read(short, loaded, tmp_path / dtype)[0].ahead.book
    entries = StoredBook.open(tmp_path / "float32").progress.entries
    assert sizes["float32"] - sizes["bfloat16"] == entries * 2 * 2 * 2 * 16 * 2  # layers, keys and values, heads


def test_read_warns_of_what_a_limit_leaves_out(short, tiny_model, tmp_path):
    for _ in range(2):  # of what was read before as well
        with pytest.warns(UserWarning, match="Short: .* characters [0-9]+ to [0-9]+ are left out"):
            book = longfocus.read(short, tiny_model, tmp_path / "b", most=50)
    assert len(book) < 60
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        longfocus.read(short, tiny_model, tmp_path / "whole")


def test_limits_that_leave_nothing_out(short, tiny_model, tmp_path):
    tokens = len(tokenize(short, tiny_model.tokenizer).ids) - 1
    assert read(short, tiny_model, tmp_path / "a", most=tokens)[-1].left_out is None
    assert read(short, tiny_model, tmp_path / "b", most=tokens - 1)[-1].left_out is not None
    for most in (1, 0, -5):
        with pytest.raises(RequestError, match="give 2 or more"):
            read(short, tiny_model, tmp_path / "c", most=most)
    assert not (tmp_path / "c").exists()


def test_only_the_body_is_read(tiny_document, tiny_model, tmp_path):
    document = Document("Part", tiny_document.text, (100, 300))
    read(document, tiny_model, tmp_path / "b")
    book = StoredBook.open(tmp_path / "b")
    opening = book.manifest.opening
    assert tiny_model.tokenizer.decode(book.ids[opening:].tolist()) == tiny_document.text[100:300]
    assert int(book.starts[opening]) == 100
    assert int(book.ends[-1]) == 300


def test_a_document_without_text(tiny_model, tmp_path):
    with pytest.raises(DocumentError, match="has no text"):
        read(Document("Empty", "", (0, 0)), tiny_model, tmp_path / "b")
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("words", [1, 3, 8])
def test_a_document_shorter_than_a_window(tiny_model, tmp_path, words):
    text = " ".join(["river"] * words)
    step = read(Document("Few", text, (0, len(text))), tiny_model, tmp_path / "b")[-1]
    book = StoredBook.open(tmp_path / "b")
    assert step.tokens == len(book.ids) == book.progress.tokens
    state = book.state(book.memories(), torch.float32)
    assert book.progress.entries + state.window == step.tokens


def test_a_book_can_be_moved(short, tiny_model, tmp_path):
    read_some(short, tiny_model, tmp_path / "b", 3)
    shutil.move(tmp_path / "b", tmp_path / "moved")
    assert read(short, tiny_model, tmp_path / "moved")[0].resumed == 3 * tiny_model.model.config.stride
