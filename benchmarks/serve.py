"""A server under load: many clients on one Book, its memory over time, and whether it survives being killed.

    python benchmarks/serve.py BOOK.txt
    python benchmarks/serve.py BOOK.txt --minutes 30
    python benchmarks/serve.py BOOK.txt --kill

Starts `longfocus serve` with a shelf of its own and uploads the document. The clients then ask at once, each a few
questions in turn, streaming; each has a key of its own, as different users would. First-token times are those that a
client sees, its time in the queue included. With `--minutes`, questions, uploads, deletions, broken requests and
clients that hang up go on for so long, and the server's resident memory is told. With `--kill`, it is killed while it
reads and answers, and started again.
"""

import argparse
import json
import os
import random
import re
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2

QUESTIONS = ("Who is this about?", "Where does it take place?", "What happened to the old lady?", "How does it end?")


class Server:
    """`longfocus serve` in a process of its own."""

    def __init__(self, folder: Path, keys: list[str], options: list[str]):
        (folder / "keys").write_text("\n".join(keys))
        command = [sys.executable, "-c", "import longfocus_cli; longfocus_cli.main()", "serve", "--port", "0"]
        command += ["--key-file", str(folder / "keys"), *options]
        environment = os.environ | {"LONGFOCUS_BOOKS": str(folder / "books")}
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
        found = None
        for line in self.process.stderr:
            if found := re.search(r"at (http://[^/]+)/v1", line):
                break
            print(line.rstrip(), file=sys.stderr)
        if not found:
            sys.exit("the server did not start")
        self.base = found[1]
        threading.Thread(target=lambda: [print(line, end="") for line in self.process.stderr], daemon=True).start()
        self.keys = keys

    def client(self, number: int = 0) -> httpx2.Client:
        """A client with a key of its own."""
        headers = {"Authorization": f"Bearer {self.keys[number]}"}
        return httpx2.Client(base_url=self.base, headers=headers, timeout=3600, verify=False, trust_env=False)

    def upload(self, path: Path) -> str:
        """Give it a document; returns the Book's name."""
        with self.client() as client, path.open("rb") as file:
            return client.post("/v1/books", files={"file": (path.name, file)}).raise_for_status().json()["id"]

    def book(self, name: str) -> dict:
        """How a Book stands."""
        with self.client() as client:
            return client.get(f"/v1/books/{name}").json()

    def until(self, name: str, status: str) -> dict:
        """The Book, once it stands so."""
        while (book := self.book(name))["status"] != status:
            if book["status"] in ("failed", "unusable"):
                sys.exit(f"{name}: {book['error']}")
            time.sleep(0.2)
        return book

    def megabytes(self) -> float:
        """Its resident memory."""
        with self.client() as client:
            found = re.search(r"^process_resident_memory_bytes (\S+)", client.get("/metrics").text, re.MULTILINE)
            return float(found[1]) / 1e6


def ask(client, book: str, question: str, tokens: int, hang_up: bool = False) -> dict:
    """One question in a stream: how it went, and when its first word came."""
    body = {"model": f"default@{book}", "messages": [{"role": "user", "content": question}], "max_tokens": tokens}
    begun, first, finished = time.perf_counter(), None, False
    try:
        with client.stream("POST", "/v1/chat/completions", json={**body, "stream": True}) as response:
            if response.status_code != 200:
                response.read()
                return {"how": str(response.status_code)}
            for line in response.iter_lines():
                if '"content":"' in line and '"content":""' not in line:
                    first = first or time.perf_counter() - begun
                    if hang_up:
                        return {"how": "hung up"}
                if '"error"' in line:
                    return {"how": json.loads(line.removeprefix("data: "))["error"]["code"]}
                finished = finished or '"finish_reason":"' in line
    except httpx2.HTTPError as error:
        return {"how": type(error).__name__}
    return {"how": "answered" if finished else "cut short", "first": first, "total": time.perf_counter() - begun}


def load(server: Server, book: str, clients: int, each: int, tokens: int) -> None:
    def one(number):
        with server.client(number) as client:
            return [ask(client, book, QUESTIONS[(number + turn) % len(QUESTIONS)], tokens) for turn in range(each)]

    begun = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        asked = [answer for answers in pool.map(one, range(clients)) for answer in answers]
    seconds = time.perf_counter() - begun
    firsts = sorted(answer["first"] for answer in asked if answer.get("first"))
    print(f"{clients} clients, {each} questions each, up to {tokens} tokens an answer")
    print(f"  outcomes                  {dict(Counter(answer['how'] for answer in asked))}")
    print(f"  answers                   {len(firsts) / seconds:8.2f} a second")
    if firsts:
        middle, late = firsts[len(firsts) // 2], firsts[int(len(firsts) * 0.95)]
        print(f"  first word, with waiting  {middle:8.2f} s (median), {late:.2f} s (95 %), {firsts[-1]:.2f} s (last)")
    print(f"  resident memory           {server.megabytes():8.0f} MB")


def mixed(server: Server, book: str, document: Path, minutes: float, tokens: int) -> None:
    """Mixed use by eight clients, with the memory told ten times."""
    until, outcomes, chance = time.monotonic() + minutes * 60, Counter(), random.Random(0)
    short = document.read_bytes()[:20_000]

    def one(number):
        with server.client(number) as client:
            while time.monotonic() < until:
                kind = chance.random()
                if kind < 0.7:
                    outcomes[ask(client, book, chance.choice(QUESTIONS), tokens, kind < 0.1)["how"]] += 1
                elif kind < 0.8:
                    response = client.post("/v1/books", files={"file": ("part.txt", short)})
                    outcomes[f"upload {response.status_code}"] += 1
                    if response.status_code == 201:
                        time.sleep(chance.random() * 5)
                        gone = client.delete(f"/v1/books/{response.json()['id']}")
                        outcomes[f"delete {gone.status_code}"] += 1
                elif kind < 0.9:
                    broken = client.post("/v1/chat/completions", content=b"{" * chance.randint(1, 9999))
                    outcomes[f"broken {broken.status_code}"] += 1
                else:
                    outcomes[f"list {client.get('/v1/books').status_code}"] += 1

    print(f"mixed use for {minutes:g} minutes")
    with ThreadPoolExecutor(8) as pool:
        running = [pool.submit(one, number) for number in range(8)]
        for step in range(11):
            print(f"  after {minutes * step / 10:5.1f} min   {server.megabytes():8.0f} MB resident", flush=True)
            time.sleep(max(minutes * 6, 0) if step < 10 else 0)
        for each in running:
            each.result()
    print(f"  outcomes {dict(sorted(outcomes.items()))}")


def killed(server: Server, document: Path, start) -> Server:
    book = server.upload(document)
    while not server.book(book)["tokens_read"]:
        time.sleep(0.1)
    with server.client() as client:
        body = {"model": "default", "messages": [{"role": "user", "content": "Who?"}], "max_tokens": 500}
        with client.stream("POST", "/v1/chat/completions", json={**body, "stream": True}) as stream:
            next(stream.iter_lines())
            before = server.book(book)
            server.process.kill()
    server.process.wait()
    begun = time.perf_counter()
    again = start()
    print(f"killed at token {before['tokens_read']:,} of {before['tokens']:,}, while it answered")
    print(f"  started again in          {time.perf_counter() - begun:8.2f} s")
    first = again.book(book)
    print(f"  goes on at                {first['tokens_read']:8,} ({first['status']})")
    whole = again.until(book, "ready")
    print(f"  read to the end           {whole['tokens_read']:8,} tokens")
    with again.client() as client:
        print(f"  a question                {ask(client, book, QUESTIONS[0], 8)['how']:>8}")
    return again


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("document", type=Path)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--questions", type=int, default=2, help="of each client")
    parser.add_argument("--tokens", type=int, default=24, help="of an answer")
    parser.add_argument("--minutes", type=float, default=0.0, help="of mixed use")
    parser.add_argument("--kill", action="store_true")
    args, options = parser.parse_known_args()
    keys = [secrets.token_hex(16) for _ in range(max(args.clients, 8))]
    with tempfile.TemporaryDirectory(prefix="longfocus-serve-") as folder:
        server = Server(Path(folder), keys, options)
        try:
            begun = time.perf_counter()
            book = server.upload(args.document)
            tokens = server.until(book, "ready")["tokens"]
            print(f"uploaded and read {tokens:,} tokens in {time.perf_counter() - begun:.1f} s")
            load(server, book, args.clients, args.questions, args.tokens)
            if args.minutes:
                mixed(server, book, args.document, args.minutes, args.tokens)
            if args.kill:
                server = killed(server, args.document, lambda: Server(Path(folder), keys, options))
        finally:
            server.process.terminate()
            server.process.wait()


if __name__ == "__main__":
    main()
