"""The `openai` client, as it is, against a server that runs."""

import contextlib
import json
import re
import socket
import struct
import time
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest

from longfocus.asking.conversation import Conversation
from longfocus.asking.generation import Sampling
from longfocus.asking.session import Session
from longfocus.memory.book import StoredBook
from longfocus.serving.limits import Limits
from tests.serving.conftest import BOOK, running

MODEL = f"default@{BOOK}"
QUESTION = "What is the river?"
ASKED = [{"role": "user", "content": QUESTION}]


@pytest.fixture(scope="module")
def client(server):
    with server.client() as client:
        yield client


@pytest.fixture(scope="module")
def answer(endless, tiny_book_folder):
    """What the command line answers."""
    session = Session(StoredBook.open(tiny_book_folder), endless)
    return session.ask(QUESTION, sampling=Sampling(max_new_tokens=8))


def chat(client, **fields):
    return client.chat.completions.create(**{"model": MODEL, "messages": ASKED, "max_tokens": 8, **fields})


def test_models(client):
    assert [model.id for model in client.models.list()] == ["default", MODEL]
    assert client.models.retrieve(MODEL).id == MODEL
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("default@other")


def test_a_question(client, answer):
    made = chat(client)
    assert made.object == "chat.completion"
    assert made.model == MODEL
    (choice,) = made.choices
    assert (choice.message.role, choice.message.content) == ("assistant", answer.text)
    assert choice.finish_reason == "length"
    assert choice.citations == [citation.to_json() for citation in answer.citations]
    used = made.usage
    assert used.completion_tokens == 8
    assert used.prompt_tokens_details.cached_tokens > 1000
    assert used.prompt_tokens == used.prompt_tokens_details.cached_tokens + answer.timings.question_tokens
    assert used.total_tokens == used.prompt_tokens + 8


def test_a_stream_is_the_same_answer(client, answer):
    chunks = list(chat(client, stream=True, stream_options={"include_usage": True}, extra_body={"attention": 5}))
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk.id for chunk in chunks}) == 1
    assert chunks[0].choices[0].delta.role == "assistant"
    assert len(chunks) > 5
    *pieces, last, counts = chunks
    assert "".join(chunk.choices[0].delta.content for chunk in pieces) == answer.text
    assert [chunk.choices[0].finish_reason for chunk in pieces] == [None] * len(pieces)
    assert last.choices[0].finish_reason == "length"
    assert last.choices[0].citations == [citation.to_json() for citation in answer.citations]
    assert len(last.choices[0].attention) == 5
    assert (counts.choices, counts.usage.completion_tokens) == ([], 8)


def test_a_conversation(client, endless, tiny_book_folder):
    """As `longfocus chat` holds it, though the client tells it anew each time."""
    talk = Conversation(Session(StoredBook.open(tiny_book_folder), endless), Sampling(max_new_tokens=8))
    *_, first = talk.stream(QUESTION)
    assert chat(client).choices[0].message.content == first.text
    told = [*ASKED, {"role": "assistant", "content": "The stone bridge."}, {"role": "user", "content": "And why?"}]
    second = chat(client, messages=told).choices[0].message.content
    assert second != chat(client, messages=told[-1:]).choices[0].message.content
    assert second == chat(client, messages=told).choices[0].message.content


def test_several_answers_stop_strings_and_seeds(client, answer):
    made = chat(client, n=2, temperature=1.5, top_p=1, seed=1)
    assert [choice.index for choice in made.choices] == [0, 1]
    texts = [choice.message.content for choice in made.choices]
    assert texts[0] != texts[1]
    streamed = {0: "", 1: ""}
    for chunk in chat(client, n=2, temperature=1.5, top_p=1, seed=1, stream=True):
        streamed[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert list(streamed.values()) == texts
    cut = chat(client, stop=answer.text[3:5]).choices[0]
    assert cut.message.content == answer.text[: answer.text.index(answer.text[3:5])].strip()
    assert cut.finish_reason == "stop"


def test_answers_that_end_at_different_times_come_in_order(client):
    """A stop string that the second answer has and the first has not ends it first."""
    how = {"model": MODEL, "prompt": ["The river", "A lamp, and a"], "n": 2, "temperature": 1.5, "top_p": 1, "seed": 1}
    whole = client.completions.create(**how, max_tokens=8)
    texts = [choice.text for choice in whole.choices]
    stop = next(letter for letter in texts[1] if letter not in texts[0] and letter.isalpha())
    cut = client.completions.create(**how, max_tokens=8, stop=stop)
    assert [choice.index for choice in cut.choices] == [0, 1, 2, 3]
    assert [choice.text for choice in cut.choices] == [text.partition(stop)[0] for text in texts]
    assert (cut.choices[0].finish_reason, cut.choices[1].finish_reason) == ("length", "stop")
    assert cut.usage.prompt_tokens == whole.usage.prompt_tokens


def test_next_to_no_temperature_harms_nobody(client, answer):
    assert chat(client, temperature=1e-40).choices[0].message.content == answer.text


def test_a_text_to_go_on_with(client):
    whole = client.completions.create(model="default", prompt=["The river", "A"], max_tokens=6)
    assert whole.object == "text_completion"
    assert [choice.index for choice in whole.choices] == [0, 1]
    assert whole.usage.completion_tokens == 12
    pieces = client.completions.create(model="default", prompt="The river", max_tokens=6, stream=True)
    assert "".join(chunk.choices[0].text for chunk in pieces) == whole.choices[0].text


def test_errors_are_those_of_openai(client):
    with pytest.raises(openai.NotFoundError, match="no book 'other'") as caught:
        chat(client, model="default@other")
    assert caught.value.code == "book_not_found"
    for wrong in ({"model": "gpt-5"}, {"model": "default@../story"}):
        with pytest.raises(openai.NotFoundError):
            chat(client, **wrong)
    with pytest.raises(openai.BadRequestError, match="temperature") as caught:
        chat(client, temperature=7)
    assert caught.value.param == "temperature"
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError, match="tokens with its frame") as caught:
            chat(client, messages=[{"role": "user", "content": "river " * 100}], stream=stream)
        assert caught.value.code == "context_length_exceeded"
    assert chat(client).choices


def test_a_message_that_is_too_long_is_named(server, client):
    said = [
        {"role": "assistant", "content": "Hello."},
        *ASKED,
        {"role": "assistant", "content": "The lamp. " * 99},
        {"role": "user", "content": "Was there"},
        {"role": "user", "content": "a river " * 50},
        {"role": "assistant", "content": "Yes."},
        *ASKED,
    ]
    with pytest.raises(openai.BadRequestError) as caught:
        chat(client, messages=said)
    assert caught.value.code == "context_length_exceeded"
    room = server.ask("GET", "/v1/limits").json()["question_tokens"]
    wanted = rf"messages\[3\], an earlier question \('Was there a river [a-z .]+'\): .* tokens .* room for {room};"
    assert re.search(wanted, caught.value.message), caught.value.message
    assert chat(client, messages=[*said[:3], *ASKED]).choices


def test_files_are_books(client):
    files = list(client.files.list())
    assert [file.id for file in files] == [BOOK]
    assert files[0].status == "processed"
    assert client.files.retrieve(BOOK).filename == BOOK
    assert "Chapter 1" in client.files.content(BOOK).text


def long_question(server, **options):
    """A question that would take minutes, asked in a stream; returns the stream and what hangs up."""
    client = server.client()
    stream = chat(client, max_tokens=4000, stream=True, **options)
    return stream, client


def test_who_hangs_up_does_not_keep_others_waiting(server, client):
    stream, other = long_question(server)
    next(iter(stream))
    stream.close()
    other.close()
    begun = time.monotonic()
    assert chat(client).choices
    assert time.monotonic() - begun < 10


def gone(server):
    """Whether nothing is asked any more; within ten seconds."""
    for _ in range(1000):
        if server.service.worker.waiting == (0, 0) and not server.service.worker._running:
            return True
        time.sleep(0.01)
    return False


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("how", ["closed", "reset"])
def test_who_hangs_up_before_anything_came_gives_his_place_free(server, stream, how):
    """While it waits for a turn, and while it is answered."""
    body = json.dumps({"model": MODEL, "messages": ASKED, "max_tokens": 4000, "stream": stream}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"

    def hang_up(connection):
        if how == "reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()

    worker = server.service.worker
    assert gone(server)
    first, second = (socket.create_connection(("127.0.0.1", server.port)) for _ in range(2))
    first.sendall(head.encode() + body)
    while not worker._running:
        time.sleep(0.001)
    second.sendall(head.encode() + body)
    while worker.waiting != (1, 0):
        time.sleep(0.001)
    hang_up(second)
    for _ in range(1000):
        if worker.waiting == (0, 0):
            break
        time.sleep(0.01)
    assert worker.waiting == (0, 0)
    assert worker._running, "the other is answered"
    hang_up(first)
    assert gone(server)


def test_questions_that_wait_on_one_book_are_answered_together(server):
    """While one client is answered, five others ask; each gets the answer that it gets alone."""
    with contextlib.ExitStack() as opened, ThreadPoolExecutor(5) as pool:
        clients = [opened.enter_context(server.client()) for _ in range(5)]
        how = [{"max_tokens": 4 + number, "temperature": number / 4, "seed": number} for number in range(5)]
        alone = [chat(clients[0], **each).choices[0] for each in how]
        stream, other = long_question(server)
        next(iter(stream))
        asked = [pool.submit(chat, client, **each) for client, each in zip(clients, how, strict=True)]
        while server.service.worker.waiting != (5, 0):
            time.sleep(0.01)
        stream.close()
        other.close()
        found = [each.result().choices[0] for each in asked]
    assert [each.message.content for each in found] == [each.message.content for each in alone]
    assert [each.finish_reason for each in found] == ["length"] * 5
    assert {tuple(each.timings.items()) for each in found}
    counted = server.ask("GET", "/metrics").text
    assert 'longfocus_answers_at_once_bucket{le="8.0"}' in counted
    count = {le: float(re.search(rf'at_once_bucket{{le="{le}"}} (\S+)', counted)[1]) for le in ("4.0", "8.0")}
    assert count["8.0"] - count["4.0"] == 5


def test_over_the_bound_is_429_and_nothing_else_is_lost(endless, shelf):
    """Of four places one client may have two."""
    with running(endless, Limits(questions=4)) as server, ThreadPoolExecutor(2) as pool:
        stream, client = long_question(server)
        next(iter(stream))
        waiting = [pool.submit(chat, client) for _ in range(2)]
        while server.service.worker.waiting != (2, 0):
            time.sleep(0.01)
        with pytest.raises(openai.RateLimitError, match="2 of your requests are waiting") as caught:
            chat(client)
        assert int(caught.value.response.headers["retry-after"]) >= 1
        stream.close()
        assert all(each.result().choices for each in waiting)
        client.close()


def test_a_stream_that_waits_says_that_it_is_there(endless, shelf):
    with running(endless, Limits(quiet_seconds=0.05, wait_seconds=0.2)) as server:
        stream, client = long_question(server)
        next(iter(stream))
        asked = {"model": MODEL, "messages": ASKED, "stream": True}
        waits = server.ask("POST", "/v1/chat/completions", json=asked)
        assert waits.status_code == 200
        assert waits.text.startswith(": still here\n\n")
        assert "waited_too_long" in waits.text
        late = server.ask("POST", "/v1/chat/completions", json=asked | {"stream": False})
        assert (late.status_code, late.json()["error"]["code"]) == (503, "waited_too_long")
        assert server.service.worker.waiting == (0, 0)
        stream.close()
        client.close()


def test_stopping_ends_an_answer_in_good_order(endless, shelf):
    with running(endless, Limits(grace_seconds=0.2)) as server:
        stream, client = long_question(server)
        pieces = iter(stream)
        next(pieces)
        server.server.should_exit = True
        with pytest.raises(openai.APIError, match="the server stops"):
            for _ in pieces:
                pass
        client.close()
