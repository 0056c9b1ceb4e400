"""Section 10 of crates/mosaik-core/FORMAT.md: events of meshlogd, and ours as theirs."""

import hashlib
import json
import re

from . import jsons, records, values
from .events import MS, Author, Event, absent, present, stamp
from .primitives import Refused, derive, hash32, refusal

LENGTH_MAX, DEPTH_MAX = 65_536, 64
KINDS = ("record.create", "field.set", "note.add", "record.archive")


def canonical(thing):
    return json.dumps(thing, sort_keys=True, separators=(",", ":"))


def _names(pairs):
    entries = dict(pairs)
    if len(entries) < len(pairs):
        raise Refused("a name twice")
    return entries


def _whole(text):
    if len(text.lstrip("-")) > 4300 or str(int(text)) != text:
        raise Refused("a number in another form")
    return int(text)


def _real(text):
    if repr(float(text)) != text:
        raise Refused("a number in another form")
    return float(text)


def _deep(thing):
    inner = thing.values() if isinstance(thing, dict) else thing if isinstance(thing, list) else None
    return 0 if inner is None else 1 + max(map(_deep, inner), default=0)


def _is(thing, *types):
    return type(thing) in types


def _text(thing):
    """Whether it is a text without lone halves of surrogate pairs."""
    return _is(thing, str) and not re.search("[\ud800-\udfff]", thing)


class Foreign:
    """One event of meshlogd."""

    def __init__(self, data):
        if len(data) > LENGTH_MAX:
            raise Refused("too long")
        try:
            wire = json.loads(
                data.decode(), object_pairs_hook=_names, parse_int=_whole, parse_float=_real
            )
        except (ValueError, RecursionError) as error:
            raise Refused("no JSON") from error
        if _deep(wire) > DEPTH_MAX:
            raise Refused("too deep")
        if not _is(wire, dict) or not set("ashkpvi") <= set(wire) <= set("ashkpvig"):
            raise Refused("other names than an event has")
        self.author, self.seq, self.stamp, self.kind, self.payload, self.prev, self.id = (
            wire[name] for name in "ashkpvi"
        )
        if not _text(self.author) or not 1 <= len(self.author.encode()) <= 256:
            raise Refused("the author")
        if not _is(self.seq, int) or not 1 <= self.seq < 1 << 64:
            raise Refused("the seq")
        if not _is(self.stamp, list) or len(self.stamp) != 2 or not all(_is(part, int) for part in self.stamp):
            raise Refused("the stamp")
        if not 0 <= self.stamp[0] < 1 << 48 or not 0 <= self.stamp[1] < 1 << 64:
            raise Refused("the stamp")
        if not _is(self.kind, str) or not _is(self.payload, dict):
            raise Refused("the kind or the payload")
        named = re.compile("[0-9a-f]{32}")
        if not _is(self.prev, str) or not (named.fullmatch(self.prev) if self.seq > 1 else self.prev == ""):
            raise Refused("the id before")
        signature = wire.get("g", "")
        if not _is(signature, str) or not re.fullmatch("([0-9a-fA-F]{128})?", signature):
            raise Refused("the signature")
        self.body = canonical(
            {"author": self.author, "seq": self.seq, "hlc": self.stamp, "kind": self.kind}
            | {"payload": self.payload, "prev": self.prev}
        )
        if self.id != meshlog_id(self.body):
            raise Refused("another id")

    def event(self):
        """As the fold takes it: with an author, a stamp, a seq and an id."""
        return Inner(
            derive("foreign author", self.author.encode()),
            stamp(self.stamp[0], min(self.stamp[1], 0xFFFF)),
            self.seq,
            derive("foreign event", self.body.encode()),
        )

    def said(self):
        """What it says of a record, by name, or nothing."""
        if re.fullmatch("[0-9a-f]{64}", self.author) or self.kind not in KINDS:
            return None
        try:
            return _meaning(self.kind, self.payload)
        except Refused:
            return None


class Inner:
    def __init__(self, author, hlc, seq, id):
        self.author, self.hlc, self.seq, self.id = author, hlc, seq, id

    def order(self):
        return self.hlc, self.author, self.seq, self.id


def meshlog_id(body):
    return hashlib.sha256(body.encode()).hexdigest()[:32]


def _meaning(kind, payload):
    def text(name, limit=None, least=0):
        held = payload.get(name)
        if not _text(held) or not least <= len(held.encode()) or limit and len(held.encode()) > limit:
            raise Refused("a text")
        return held

    said = {"record": text("record", 256, 1)}
    match kind:
        case "record.create":
            said["form"] = text("form", 128)
        case "field.set":
            if "value" not in payload:
                raise Refused("no value")
            said |= {"field": text("field", 128), "value": value(payload["value"]), "over": []}
            values.decode(values.encode(said["value"]))
            if said["field"] == "" and said["value"][0] != "text":
                raise Refused("the form of a record is not text")
        case "note.add":
            said["text"] = text("text")
        case "record.archive":
            if not _is(payload.get("archived"), bool):
                raise Refused("no bool")
            said["archived"] = payload["archived"]
    return said


def value(shown):
    """Like `jsons.from_json`, but nobody can be asked to write it otherwise."""
    match shown:
        case bool() | None:
            return jsons.from_json(shown)
        case int():
            return ("int", shown) if -(2**63) <= shown < 2**63 else ("text", str(shown))
        case str():
            if not _text(shown):
                raise Refused("half a surrogate pair")
            return "text", shown
        case list():
            return "list", [value(item) for item in shown]
        case dict():
            if len(shown) == 1 and next(iter(shown)).startswith("$"):
                [(tag, inner)] = shown.items()
                if tag == "$map" and _is(inner, dict):
                    return _map(inner)
                try:
                    if tag != "$map":
                        return _tagged(tag, inner)
                except Refused:
                    pass
            return _map(shown)
    return jsons.from_json(shown)


def _map(entries):
    if not all(_text(name) for name in entries):
        raise Refused("half a surrogate pair")
    return "map", {name: value(item) for name, item in entries.items()}


def _tagged(tag, inner):
    small = lambda part: not _is(part, int) or -(2**63) <= part < 2**63
    parts = list(inner.values()) if _is(inner, dict) else [inner]
    if not all(map(small, parts)) or _is(inner, dict) and None in parts:
        raise Refused("no such value")
    return jsons.from_json({tag: dict(inner) if _is(inner, dict) else inner})


def compose(author, seq, ms, counter, kind, payload, prev=""):
    """An event as meshlogd writes it, unsigned, the names of its payload in their order."""
    body = {"author": author, "seq": seq, "hlc": [ms, counter], "kind": kind, "payload": payload, "prev": prev}
    named = meshlog_id(canonical(body))
    payload = json.loads(canonical(payload))
    wire = {"a": author, "s": seq, "h": [ms, counter], "k": kind, "p": payload, "v": prev, "i": named}
    return json.dumps(wire, separators=(",", ":")), named


def translate(event, prev):
    """The event of ours as meshlogd has it, and its id there."""
    kind, payload = "mosaik.ref", {"event": event.id.hex()}
    said = _said(event)
    if said is not None:
        kind, payload = event.kind, said
    place = event.author.hex(), event.seq, event.hlc >> 16, event.hlc & 0xFFFF
    wire, named = compose(*place, kind, payload, prev)
    if len(wire) > LENGTH_MAX:
        wire, named = compose(*place, "mosaik.ref", {"event": event.id.hex()}, prev)
    return wire, named


def _said(event):
    reserved = any(event.kind.startswith(prefix) for prefix in records.RESERVED.split())
    data = event.payload.data
    if reserved and event.kind not in KINDS:
        return None
    assert data is not None, "whoever translates it waits for its payload"
    try:
        if not reserved:
            return {"value": jsons.to_json(values.decode(data))}
        said = records.decode(event.kind, data)
    except Refused:
        return None
    said.pop("over", None)
    if "value" in said:
        said["value"] = jsons.to_json(said["value"])
    return said


def vectors():
    return {"events": list(_events()), "translated": _translated(), "refused": list(_refused())}


def _wire(kind, payload, author="north", seq=1, ms=MS, counter=0, prev=""):
    return compose(author, seq, ms, counter, kind, payload, prev)[0]


def _show(name, wire):
    """What the fold takes of an event."""
    foreign = Foreign(wire.encode())
    event, said = foreign.event(), foreign.said()
    shown = {"name": name, "wire": wire, "id": foreign.id, "event": event.id.hex(), "author": event.author.hex()}
    shown |= {"seq": event.seq, "ms": event.hlc >> 16, "counter": event.hlc & 0xFFFF, "says": None}
    if said is not None:
        said.pop("over", None)
        if "value" in said:
            said["value"] = values.encode(said["value"]).hex()
        shown["says"] = {"kind": foreign.kind} | said
    return shown


def _events():
    long = "0123456789" * 26
    cases = [
        ("a record", "record.create", {"record": "R-1", "form": "site"}),
        ("further names are passed over", "record.create", {"record": "R-1", "form": "", "by": [1]}),
        ("no form", "record.create", {"record": "R-1"}),
        ("a note", "note.add", {"record": "R-1", "text": "häuser 😀\x7f"}),
        ("a note with half a pair", "note.add", {"record": "R-1", "text": "\ud800"}),
        ("archived", "record.archive", {"record": "R-1", "archived": True}),
        ("archived with a number", "record.archive", {"record": "R-1", "archived": 1}),
        ("the form is text", "field.set", {"record": "R-1", "field": "", "value": 1}),
        ("no record", "field.set", {"record": "", "field": "f", "value": 1}),
        ("a record of 256 bytes", "field.set", {"record": long[:256], "field": "f", "value": 1}),
        ("a record of 257 bytes", "field.set", {"record": long[:257], "field": "f", "value": 1}),
        ("a field of 129 bytes", "field.set", {"record": "r", "field": long[:129], "value": 1}),
        ("no value", "field.set", {"record": "r", "field": "f"}),
        ("another kind", "attachment.add", {"record": "r", "field": "f"}),
        ("a kind of nobody", "\ud800", {}),
    ]
    for name, kind, payload in cases:
        yield _show(name, _wire(kind, payload))
    deep = 1
    for _ in range(16):
        deep = [deep]
    inner = {"$time": "2026-11-21"}
    shown = [
        None, True, 0, -(2**63), 2**63 - 1, 2**63, -(2**63) - 1, 1180591620717411303424, 1.0, -0.0, 1e16, 1e-7,
        float("nan"), float("inf"), float("-inf"), "", "é\x7f😀", [], {}, [1, [2.5, None]], {"b": 1, "a": {"$x": 2}},
        deep, [deep], inner, {"$map": inner}, {"$map": {"$map": inner}}, {"$map": 1}, {"$x": 1}, {"$": 1},
        {"$time": 5}, {"$time": "-5"}, {"$time": 1.5}, {"$time": "2026-11-21T08:00:00+05:30"}, {"$time": "today"},
        {"$bytes": "AQI="}, {"$bytes": "AQI"}, {"$float": "NaN"}, {"$float": "-inf"}, {"$float": 1.5},
        {"$geo": {"lat": 1, "lon": -2.5}}, {"$geo": {"lat": 1, "lon": {"$float": "inf"}, "accuracy": 3.5}},
        {"$geo": {"lat": 1}}, {"$geo": {"lat": 1, "lon": 2**70}}, {"$geo": {"lat": 1, "lon": 2, "height": 3}},
        {"$geo": {"lat": 1, "lon": 2, "altitude": None}}, {"\udc00": 1},
    ]
    for number, thing in enumerate(shown):
        yield _show(f"value {number}", _wire("field.set", {"record": "r", "field": "f", "value": thing}))
    note = {"record": "r", "text": "t"}
    yield _show("a counter beyond 16 bits", _wire("note.add", note, counter=70_000))
    yield _show("the last stamp", _wire("note.add", note, ms=2**48 - 1))
    yield _show("the last seq", _wire("note.add", note, seq=2**64 - 1, prev="0f" * 16))
    yield _show("an author of ours, translated", _wire("note.add", note, author="0f" * 32))
    yield _show("64 digits in the other case are a name", _wire("note.add", note, author="0F" * 32))
    spaced = json.dumps(json.loads(_wire("note.add", note)) | {"g": "0F" * 64}, indent=1, sort_keys=True)
    yield _show("the same as a note of north, written otherwise and with a signature", spaced)
    yield _show("a note of north", _wire("note.add", note))


def _refused():
    good = json.loads(_wire("note.add", {"record": "r", "text": "t"}))

    def changed(**parts):
        wire = {name: part for name, part in (good | parts).items() if part is not ...}
        try:
            body = dict(zip(("author", "seq", "hlc", "kind", "payload", "prev"), (wire[name] for name in "ashkpv")))
            wire["i"] = parts.get("i") or meshlog_id(canonical(body))
        except KeyError:
            pass
        return json.dumps(wire)

    whole = json.dumps(good)
    bad = [
        ("empty", ""),
        ("torn", whole[:-20]),
        ("a list", f"[{whole}]"),
        ("something behind it", whole + "{}"),
        ("a mark before it", "\ufeff" + whole),
        ("no author", changed(a=...)),
        ("an empty author", changed(a="")),
        ("a long author", changed(a="x" * 257)),
        ("an author with half a pair", changed(a="\ud800")),
        ("seq 0", changed(s=0)),
        ("seq as text", changed(s="1")),
        ("seq as float", changed(s=1.0)),
        ("seq true", changed(s=True)),
        ("seq beyond 64 bits", changed(s=2**64, v="0f" * 16)),
        ("a stamp of one part", changed(h=[1])),
        ("a stamp of three parts", changed(h=[1, 2, 3])),
        ("a stamp of floats", changed(h=[1.0, 0])),
        ("a negative stamp", changed(h=[-1, 0])),
        ("a stamp of 49 bits", changed(h=[2**48, 0])),
        ("a negative counter", changed(h=[1, -1])),
        ("a kind that is a number", changed(k=1)),
        ("a payload that is a list", changed(p=[])),
        ("an id before at seq 1", changed(v="0f" * 16)),
        ("no id before at seq 2", changed(s=2)),
        ("an id before in capitals", changed(s=2, v="0F" * 16)),
        ("the id of another", changed(i="0f" * 16)),
        ("an id in capitals", changed(i=good["i"].upper())),
        ("changed behind its id", whole.replace('"t"}', '"T"}')),
        ("a signature of one byte", changed(g="00")),
        ("a signature that is null", changed(g=None)),
        ("another name", changed(x=1)),
        ("a name twice", whole[:-1] + ', "s": 1}'),
        ("a name twice in the payload", whole.replace('"text"', '"text": 1, "\\u0074ext"')),
        ("deep", changed(p={"d": json.loads("[" * 63 + "]" * 63)})),
    ]
    bad += [
        (f"the number {lexeme}", _with_number(lexeme))
        for lexeme in ("-0", "1.00", "1E5", "1e5", "1e16", "0.00001", "1e999", "01", "+1", ".5", "1.", "9" * 4301)
    ]
    for name, wire in bad:
        yield {"name": name, "wire": wire, "why": refusal(Foreign, wire.encode())}


def _with_number(lexeme):
    """An event whose id is made over the number as it stands."""
    body = f'{{"author":"n","hlc":[1,0],"kind":"k","payload":{{"n":{lexeme}}},"prev":"","seq":1}}'
    return f'{{"a":"n","s":1,"h":[1,0],"k":"k","p":{{"n":{lexeme}}},"v":"","i":"{meshlog_id(body)}"}}'


def _translated():
    author = Author("translated")
    last, prev, shown = (0, bytes(32)), "", []
    blob = hash32(b"a file")
    every = [values.decode(bytes.fromhex(one["bytes"])) for one in values.vectors()["values"]]
    said = [
        records.create("R-1", "site"),
        *(records.field_set("R-1", "f", value) for value in every if len(values.encode(value)) < 1000),
        records.field_set("R-1", "", ("text", "mast"), [bytes(8)]),
        records.note("R-1", "häuser 😀\x7f\n"),
        records.archive("R-1", True),
        records.attach("R-1", "photo", blob, 10, "image/png", "a.png"),
        records.profile("kitchen"),
        ("event.erase", bytes(3)),
        ("note.add", b"ill-typed"),
        ("app.reading", values.encode(("map", {"t": ("float", 21.5)}))),
        ("app.reading", b"no value"),
        ("foreign.meshlog", _wire("note.add", {"record": "r", "text": "t"}).encode()),
        records.note("R-1", "\x00" * 10_850),
        records.note("R-1", "\x00" * 10_900),
    ]
    for number, (kind, data) in enumerate(said, 1):
        lacking = kind in ("node.profile", "foreign.meshlog")
        payload = absent(len(data), hash32(data)) if lacking else present(data)
        event = Event(author.key, last[0] + 1, last[1], stamp(MS + number, number % 3), kind, payload)
        last = event.seq, event.id
        wire, prev = translate(event, prev)
        shown.append({"event": event.show(), "wire": wire, "id": prev})
    return shown
