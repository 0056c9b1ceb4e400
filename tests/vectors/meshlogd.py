#!/usr/bin/env python3
"""Has meshlogd 0.5.0 itself write `meshlogd.json` beside this file, and `../data/meshlogd.jsonl`.

    python3 -m venv V && V/bin/pip install rns==1.5.7 meshlogd==0.5.0
    V/bin/python tests/vectors/meshlogd.py          the vectors: the same bytes each time
    V/bin/python tests/vectors/meshlogd.py log      the log: of new identities each time

Both programs are used as they are; nothing of them is in this repository. The log is written by three
running daemons (two on Reticulum over TCP, one alone under a free name), whose clocks say June 2025.
"""

import hashlib
import json
import random
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import RNS
from meshlog.event import Event
from meshlog.rns_transport import RNSSigner, RNSVerifier

HERE = Path(__file__).parent

PAYLOADS = {
    "empty": {},
    "order of names": {"b": 1, "a": 2, "B": 3, "": 4, "ab": 5, "a\0": 6, "é": 7, "\uffff": 8, "\U00010000": 9},
    "unicode": {"text": "häuser ẞ 漢字 \u2028 \u00a0 \ufeff"},
    "astral": {"😀": "😀 \U0010ffff \U00010000"},
    "half a pair": {"high": "\ud83d", "low": "\udc00x", "turned": "\ude00\ud83d"},
    "control and delete": {"text": "".join(map(chr, range(0x20))) + "\x7f\x80\x9f"},
    "escapes": {"text": "\" \\ / \b \f \n \r \t </script>"},
    "floats": {"n": [1.0, -0.0, 0.1, 1e16, 9999999999999998.0, 1e-07, 0.0001, 1.5e300, 5e-324, 2e23]},
    "integers": {"n": [0, -1, 2**53 + 1, 2**63, -(2**63) - 1, 2**70, 10**40]},
    "no numbers": {"n": [float("nan"), float("inf"), float("-inf")]},
    "nested": {"a": [{"b": [[], {}, [{"c": None}]]}, True, False]},
    "deep": json.loads('{"d":' * 62 + "1" + "}" * 62),
    "record": {"record": "R-1", "form": "site"},
    "set": {"record": "R-1", "field": "height", "value": 12.5},
}


def identity(label):
    """The same one each time: not a secret."""
    seed = hashlib.sha512(f"mosaik-node vectors: {label}".encode()).digest()
    return RNS.Identity.from_bytes(seed)


def vectors():
    north, south = identity("north"), identity("south")
    known = {one.hash.hex(): one for one in (north, south)}
    events = []
    for author, key in ((north.hash.hex(), north), (south.hash.hex(), None), ("base camp ⛺", None)):
        last, number = "", 0
        for name, payload in PAYLOADS.items():
            number += 1
            kind = {"record": "record.create", "set": "field.set"}.get(name, f"e.{number}")
            stamp = (1_748_736_000_000 + number // 3, number % 3 * 40_000)
            event = Event.from_parts(author, number, stamp, kind, payload, last)
            last = event.id
            if key is not None:
                signature = RNSSigner(key).sign(event.signing_bytes())
                event = Event(*(getattr(event, part) for part in Event.__dataclass_fields__ if part != "sig"), signature)
                assert RNSVerifier(known.get).verify(author, event.signing_bytes(), signature)
            assert event.is_authentic()
            wire = event.to_wire()
            events.append(
                {
                    "name": name,
                    "author": author,
                    "seq": number,
                    "wire": json.dumps(wire, separators=(",", ":")),
                    "line": json.dumps(wire),
                    "body": event.signing_bytes().decode(),
                    "id": event.id,
                    "signature": event.sig,
                }
            )
    chance = random.Random(5)
    floats = [struct.unpack("<d", chance.randbytes(8))[0] for _ in range(400)]
    floats += [chance.uniform(-1e6, 1e6) for _ in range(100)]
    floats += [sign * 10.0**power for power in range(-8, 24) for sign in (1, -1)]
    return {
        "identities": [{"public": one.get_public_key().hex(), "hash": one.hash.hex()} for one in (north, south)],
        "events": events,
        "floats": [{"bits": struct.pack(">d", one).hex(), "text": json.dumps(one)} for one in floats],
    }


SHIFTED = """
import sys, time
clock = time.time
time.time = lambda: clock() - {shift}
from meshlog.cli import main
main(sys.argv[1:])
"""


class Daemon:
    def __init__(self, base, name, *arguments):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.log = base / f"{name}.jsonl"
        program = SHIFTED.format(shift=int(time.time()) - 1_748_736_000)
        command = [sys.executable, "-c", program, "serve", "--persist", self.log, "--tcp", f"127.0.0.1:{self.port}"]
        self.process = subprocess.Popen([*command, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.monotonic() + 30
        while True:
            try:
                self.stream = socket.create_connection(("127.0.0.1", self.port)).makefile("rwb")
                break
            except OSError:
                assert time.monotonic() < until, f"{name} doesn't listen"
                time.sleep(0.1)
        self.stream.readline()

    def ask(self, method, **parameters):
        question = {"jsonrpc": "2.0", "id": 1, "method": method, "params": parameters}
        self.stream.write(json.dumps(question).encode() + b"\n")
        self.stream.flush()
        while True:
            answer = json.loads(self.stream.readline())
            if answer.get("id") == 1:
                return answer["result"]

    def emit(self, kind, **payload):
        self.ask("emit", kind=kind, payload=payload)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(10)


def reticulum(base, name, interface):
    directory = base / name
    directory.mkdir()
    config = f"[reticulum]\nenable_transport = No\nshare_instance = No\n[interfaces]\n{interface}\n"
    (directory / "config").write_text(config)
    return ["--rns", "--configdir", directory, "--identity", directory / "identity", "--gossip-interval", "1"]


def log(base):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = f"[[s]]\ntype = TCPServerInterface\nenabled = yes\nlisten_ip = 127.0.0.1\nlisten_port = {port}"
    client = f"[[c]]\ntype = TCPClientInterface\nenabled = yes\ntarget_host = 127.0.0.1\ntarget_port = {port}"
    one = Daemon(base, "one", *reticulum(base, "one", server))
    two = Daemon(base, "two", *reticulum(base, "two", client))
    one.emit("record.create", record="R-100", form="site_assessment")
    one.emit("field.set", record="R-100", field="status", value="OPENED")
    one.emit("field.set", record="R-100", field="height", value=12.5)
    one.emit("note.add", record="R-100", text="grüße 😀 \x7f")
    for number in range(5):
        two.emit("field.set", record="R-200", field="reading", value=number)
    two.emit("record.create", record="R-200", form="water_point")
    two.emit("field.set", record="R-200", field="flow", value=1e16)
    two.emit("field.set", record="R-200", field="serial", value=2**70)
    until = time.monotonic() + 60
    while one.ask("status")["event_count"] < 12:
        assert time.monotonic() < until, "they don't meet"
        time.sleep(0.2)
    # It has heard of the other's: its stamps are later.
    one.emit("field.set", record="R-200", field="reading", value=99)
    one.emit("sensor.reading", t=float("nan"))
    one.stop()
    two.stop()
    alone = Daemon(base, "one", "--author", "base")
    alone.emit("record.archive", record="R-300", archived=True)
    alone.emit("note.add", record="R-300", text="from the base")
    alone.stop()
    return (base / "one.jsonl").read_bytes()


if __name__ == "__main__":
    if sys.argv[1:] == ["log"]:
        with tempfile.TemporaryDirectory() as base:
            (HERE.parent / "data" / "meshlogd.jsonl").write_bytes(log(Path(base)))
    else:
        content = json.dumps(vectors(), indent=1, ensure_ascii=True) + "\n"
        (HERE / "meshlogd.json").write_text(content)
