"""A server under load: many clients on one Book, its memory over time, and whether it survives being killed.

    python benchmarks/serve.py BOOK.txt
    python benchmarks/serve.py BOOK.txt --minutes 30
    python benchmarks/serve.py BOOK.txt --kill
    python benchmarks/serve.py BOOK.txt --over
    python benchmarks/serve.py BOOK.txt --compare

Starts `longfocus serve` with a shelf of its own and uploads the document. The clients then ask at once, each a few
questions in turn, streaming; each has a key of its own, as different users would. First-token times are those that a
client sees, its time in the queue included. With `--minutes`, questions, uploads, deletions, broken requests and
clients that hang up go on for so long, and the server's resident memory is told. With `--kill`, it is killed while it
reads and answers, and started again; both Books are asked then. With `--over`, the same load goes to a server in which
half as many questions may wait as there are clients, so that some are told to come again. With `--compare`, the same
questions are asked of a server that answers them one at a time (`--at-once 1`) as well.

Ends with verdicts, and with status 1 where one of them is bad: answers that were lost, errors other than 429, memory
that grew in the last two thirds of mixed use, a reading or a Book that did not survive the kill.
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
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from statistics import linear_regression
from typing import NamedTuple

import httpx2

MOST_GROWTH = 0.03
"""By how much of itself the least resident memory of the last third of mixed use may exceed that of the middle one."""
SAMPLES = 30
"""How often the resident memory is looked at in mixed use, at equal distances, after the first time."""
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

    def end(self) -> None:
        """Stop it."""
        self.process.terminate()
        self.process.wait()

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


class Verdicts:
    """What was found, and whether it is as it has to be."""

    def __init__(self):
        self.bad = []

    def check(self, what: str, good: bool, found: object) -> None:
        """Tell one."""
        print(f"verdict: {what:<44} {'good' if good else 'BAD'} ({found})")
        if not good:
            self.bad.append(what)

    def answers(self, outcomes: Counter, asked: int) -> None:
        """Every question has an answer, or was told to come again."""
        lost = asked - outcomes["answered"] - outcomes["429"] - outcomes["hung up"]
        self.check("no answer was lost", lost == 0, f"{lost} of {asked}")

    def errors(self, outcomes: Counter) -> None:
        """Nothing failed but what was to fail."""
        good = re.compile(r"answered|hung up|429|upload (201|429)|delete 200|broken 400|list 200")
        wrong = {how: times for how, times in outcomes.items() if not good.fullmatch(how)}
        self.check("no errors but 429", not wrong, wrong or "none")

    def memory(self, megabytes: Sequence[float], minutes: float) -> None:
        """It does not grow without end: the first third of mixed use fills what is kept.

        What a third needs at least is what was not given back in it; single samples depend on what goes on just then.
        """
        third = len(megabytes) // 3
        middle, last = min(megabytes[third:-third]), min(megabytes[-third:])
        rest = megabytes[third:]
        slope = linear_regression([minutes * step / (len(megabytes) - 1) for step in range(len(rest))], rest).slope
        found = f"least {middle:.0f}, then {last:.0f} MB, {slope:+.2f} MB a minute"
        self.check("memory has stopped to grow", last <= middle * (1 + MOST_GROWTH), found)


class Loaded(NamedTuple):
    """What came of a load: answers a second, and how many questions were told to come again."""

    rate: float
    refused: int


def load(server: Server, book: str, clients: int, each: int, tokens: int, verdicts: Verdicts) -> Loaded:
    """Many clients at once."""

    def one(number):
        with server.client(number) as client:
            return [ask(client, book, QUESTIONS[(number + turn) % len(QUESTIONS)], tokens) for turn in range(each)]

    begun = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        asked = [answer for answers in pool.map(one, range(clients)) for answer in answers]
    seconds = time.perf_counter() - begun
    firsts = sorted(answer["first"] for answer in asked if answer.get("first"))
    print(f"{clients} clients, {each} questions each, up to {tokens} tokens an answer")
    outcomes = Counter(answer["how"] for answer in asked)
    print(f"  outcomes                  {dict(outcomes)}")
    print(f"  answers                   {len(firsts) / seconds:8.2f} a second")
    if firsts:
        middle, late = firsts[len(firsts) // 2], firsts[int(len(firsts) * 0.95)]
        print(f"  first word, with waiting  {middle:8.2f} s (median), {late:.2f} s (95 %), {firsts[-1]:.2f} s (last)")
    print(f"  resident memory           {server.megabytes():8.0f} MB")
    verdicts.answers(outcomes, len(asked))
    verdicts.errors(outcomes)
    return Loaded(len(firsts) / seconds, outcomes["429"])


def mixed(server: Server, book: str, document: Path, minutes: float, tokens: int, verdicts: Verdicts) -> None:
    """Mixed use by eight clients, with the memory told on the way."""
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
        megabytes = []
        for step in range(SAMPLES + 1):
            megabytes.append(server.megabytes())
            if step % (SAMPLES // 10) == 0:
                print(f"  after {minutes * step / SAMPLES:5.1f} min   {megabytes[-1]:8.0f} MB resident", flush=True)
            time.sleep(minutes * 60 / SAMPLES if step < SAMPLES else 0)
        for each in running:
            each.result()
    print(f"  outcomes {dict(sorted(outcomes.items()))}")
    verdicts.errors(outcomes)
    verdicts.memory(megabytes, minutes)


def over(start, book: str, args: argparse.Namespace, verdicts: Verdicts) -> None:
    """More questions at once than may be answered and wait."""
    server = start("--at-once", "1", "--queue", str(max(args.clients // 2, 1)))
    print("over the bound:")
    refused = load(server, book, args.clients, args.questions, args.tokens, verdicts).refused
    server.end()
    verdicts.check("over the bound some are told to come again", refused > 0, f"{refused} times 429")


def compared(start, book: str, args: argparse.Namespace, together: float, verdicts: Verdicts) -> None:
    """The same load on a server that answers one question at a time."""
    server = start("--at-once", "1")
    alone = load(server, book, args.clients, args.questions, args.tokens, verdicts).rate
    server.end()
    print(
        f"answers a second: {together:.2f} together, {alone:.2f} one at a time: {together / max(alone, 1e-9):.2f} times"
    )


def killed(server: Server, other: str, document: Path, start, verdicts: Verdicts) -> None:
    """A server is killed while it reads and answers, and started again; another Book was whole before."""
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
        hows = [ask(client, each, QUESTIONS[0], 8)["how"] for each in (book, other)]
    print(f"  a question to each book   {' and '.join(hows)}")
    resumed = whole["tokens_resumed"]
    verdicts.check("reading went on after a kill", resumed >= before["tokens_read"], f"{resumed:,} tokens were there")
    verdicts.check("both books are asked after a kill", hows == ["answered"] * 2, " and ".join(hows))
    again.end()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("document", type=Path)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--questions", type=int, default=2, help="of each client")
    parser.add_argument("--tokens", type=int, default=24, help="of an answer")
    parser.add_argument("--minutes", type=float, default=0.0, help="of mixed use")
    parser.add_argument("--kill", action="store_true")
    parser.add_argument("--over", action="store_true", help="with more questions at once than may wait")
    parser.add_argument("--compare", action="store_true", help="with answers that are written one at a time")
    args, options = parser.parse_known_args()
    keys = [secrets.token_hex(16) for _ in range(max(args.clients, 8))]
    verdicts = Verdicts()
    with tempfile.TemporaryDirectory(prefix="longfocus-serve-") as folder, ExitStack() as running:

        def start(*more: str) -> Server:
            server = Server(Path(folder), keys, [*options, *more])
            running.callback(server.end)  # whatever happens; one that has ended ends again without harm
            return server

        server = start()
        begun = time.perf_counter()
        book = server.upload(args.document)
        tokens = server.until(book, "ready")["tokens"]
        print(f"uploaded and read {tokens:,} tokens in {time.perf_counter() - begun:.1f} s")
        together = load(server, book, args.clients, args.questions, args.tokens, verdicts).rate
        if args.minutes:
            mixed(server, book, args.document, args.minutes, args.tokens, verdicts)
        if args.kill:
            killed(server, book, args.document, start, verdicts)
        server.end()
        if args.over:
            over(start, book, args, verdicts)
        if args.compare:
            compared(start, book, args, together, verdicts)
    sys.exit(1 if verdicts.bad else 0)


if __name__ == "__main__":
    main()
