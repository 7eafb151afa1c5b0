"An OpenAI-compatible endpoint on loopback that plays every fault it is told to, and counts what it was paid for."
import json
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PLAIN = {"500", "502", "503", "400", "401", "403", "404", "422", "429"}  # a status, and a word about it
FAULTS = ["429", "429 after", "500", "502", "503", "late", "closed", "half", "malformed", "page", "no choices",
          "no content", "no finish", "half a character"]  # all that pass


def said(body: dict) -> str:
    "What the stub answers: a function of the question."
    return f"heard {body['messages'][-1]['content']}"


def reply(body: dict, fault: str = "") -> dict:
    "A response's body, with what a fault spoils of it."
    words = sum(len(message["content"].split()) for message in body["messages"])
    choice = {"index": 0, "message": {"role": "assistant", "content": said(body)},
              "finish_reason": "length" if fault == "length" else "stop"}
    full = {"id": "1", "object": "chat.completion", "created": 0, "model": f"{body['model']}-0613", "choices": [choice],
            "usage": {"prompt_tokens": words, "completion_tokens": 2, "total_tokens": words + 2}}
    if fault in ("no choices", "no usage"):
        del full[fault.split()[1]]
    if fault in ("no content", "length in thought", "content_filter"):
        choice["message"]["content"] = None
    if fault in ("length in thought", "content_filter"):
        choice["finish_reason"] = fault.split()[0]
    if fault == "no finish":
        choice["finish_reason"] = None
    if fault == "half a character":
        choice["message"]["content"] = "\ud800"
    return full


class Handler(BaseHTTPRequestHandler):
    "Answers one connection's requests."
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # a response goes out whole

    def log_message(self, *_):
        "Nothing is printed."

    def do_POST(self):
        "Play the fault that the plan has for this try, or answer."
        stub, raw = self.server.stub, self.rfile.read(int(self.headers["content-length"]))
        body = json.loads(raw)
        question = json.dumps(body, sort_keys=True)
        with stub.lock:
            stub.tries[question] += 1
            number = stub.tries[question]
            stub.headers.append(dict(self.headers))
            stub.busy += 1
            stub.most = max(stub.most, stub.busy)
        fault = "404" if self.path != "/v1/chat/completions" else stub.plan(body, number)
        try:
            time.sleep(stub.seconds)
            if fault in ("", "length", "no usage", "length in thought", "content_filter"):
                with stub.lock:
                    stub.served[question] += 1
            if fault == "late":  # its client gives up before it ends, and rightly asks again: none of those under way
                stub.left()
            self.play(stub, fault, body)
        finally:
            if fault != "late":
                stub.left()

    def play(self, stub, fault: str, body: dict):
        "Answer in the way of a fault; '' is a whole reply."
        text = json.dumps(reply(body, fault))
        if fault.split(" ")[0] in PLAIN:
            told = stub.says or (f"{fault} for {self.headers['authorization']}" if stub.echoes else f"played {fault}")
            after = {"Retry-After": str(stub.after)} if fault.endswith("after") else {}
            self.send(int(fault[:3]), json.dumps({"error": {"message": told, "code": stub.code}}), after)
        elif fault in ("late", "closed"):
            time.sleep(stub.late if fault == "late" else 0)
            self.close_connection = True
        elif fault == "half":
            self.send(200, text[: len(text) // 2], length=len(text))
            self.close_connection = True
        elif fault == "malformed":
            self.send(200, text[: len(text) // 2])
        else:
            self.send(200, "<html>busy</html>" if fault == "page" else text)

    def send(self, status: int, text: str, headers: dict | None = None, length: int = 0):
        "Write a response; a length of one's own is a lie."
        data = text.encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(length or len(data)))
        self.end_headers()
        self.wfile.write(data)


class Listener(ThreadingHTTPServer):
    "A server whose threads do not outlive the tests."
    daemon_threads, request_queue_size = True, 256

    def handle_error(self, *_):
        "A client that went away is no news."


class StubServer:
    "The endpoint; a context manager."

    def __init__(self, plan=lambda body, number: "", seconds: float = 0.0, echoes: bool = False, after: float = 0,
                 late: float = 3.0, code: str | None = None, says: str = ""):
        self.plan = plan  # request's body, how often it was tried (from 1) -> fault
        self.seconds, self.echoes, self.after, self.late, self.code, self.says = seconds, echoes, after, late, code, says
        self.lock, self.tries, self.served, self.headers = threading.Lock(), Counter(), Counter(), []
        self.busy = self.most = 0

    def left(self):
        "One request fewer is under way."
        with self.lock:
            self.busy -= 1

    def __enter__(self):
        self.listener = Listener(("127.0.0.1", 0), Handler)
        self.listener.stub = self
        threading.Thread(target=self.listener.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.listener.shutdown()
        self.listener.server_close()

    @property
    def url(self) -> str:
        "Its address."
        return f"http://127.0.0.1:{self.listener.server_port}/v1"
