"""Section 8 of crates/mosaik-core/FORMAT.md: what events say of records."""

from .primitives import Reader, Refused, deterministic, refusal, seq, text, varint
from . import values

RESERVED = "record. field. note. attachment. event. feed. author. writer. node. foreign. mosaik."


def create(record, form):
    return "record.create", text(record) + text(form)


def field_set(record, field, value, over=()):
    return "field.set", text(record) + text(field) + values.encode(value) + seq(list(over))


def note(record, string):
    return "note.add", text(record) + text(string)


def attach(record, field, blob, size, mime, name):
    return "attachment.add", text(record) + text(field) + blob + varint(size) + text(mime) + text(name)


def archive(record, archived):
    return "record.archive", text(record) + bytes([archived])


def profile(name):
    return "node.profile", text(name)


def decode(kind, data):
    """What it says, by name; nothing for a kind that isn't decoded."""
    reader = Reader(data)

    def record():
        name = reader.text(256)
        if not name:
            raise Refused("a record id is empty")
        return name

    match kind:
        case "record.create":
            said = {"record": record(), "form": reader.text(128)}
        case "field.set":
            said = {"record": record(), "field": reader.text(128), "value": values.read(reader)}
            if said["field"] == "" and said["value"][0] != "text":
                raise Refused("the form of a record is not text")
            said["over"] = [reader.raw(8) for _ in range(reader.count(16))]
        case "note.add":
            said = {"record": record(), "text": reader.text()}
        case "attachment.add":
            said = {"record": record(), "field": reader.text(128), "blob": reader.raw(32)}
            said |= {"size": reader.varint(), "mime": reader.text(), "name": reader.text()}
        case "record.archive":
            said = {"record": record(), "archived": reader.bool()}
        case "node.profile":
            said = {"name": reader.text()}
        case _:
            return None
    reader.end()
    return said


def show(said):
    shown = dict(said)
    if "value" in shown:
        shown["value"] = values.show(shown["value"])
        shown["over"] = [entry.hex() for entry in shown["over"]]
    if "blob" in shown:
        shown["blob"] = shown["blob"].hex()
    return shown


def vectors():
    over = [deterministic(f"over {i}", 8) for i in range(16)]
    blob = deterministic("a file")
    events = [
        create("r1", "site"),
        create("r", ""),
        create("x" * 256, "f" * 128),
        field_set("r1", "name", ("text", "Mühle")),
        field_set("r1", "height", ("int", -300), over[:2]),
        field_set("r1", "height", values.NULL, [over[1], over[0], over[1]]),
        field_set("é" * 128, "f" * 128, ("geo", [1.0, 2.0, None, None]), over),
        field_set("r1", "", ("text", "another form")),
        field_set("r1", "", ("text", "")),
        field_set("r1", "", ("text", "t" * 200), over[:1]),
        field_set("r1", "x", values.DEEPEST),
        note("r1", "seen\n"),
        note("\0", ""),
        attach("r1", "photo", blob, 300, "image/png", "ä.png"),
        attach("r1", "", blob, 2**64 - 1, "", ""),
        archive("r1", True),
        archive("r1", False),
        profile("kitchen"),
        profile(""),
    ]
    shown = []
    for kind, payload in events:
        said = decode(kind, payload)
        shown.append({"kind": kind} | show(said) | {"payload": payload.hex()})
    undecoded = ["event.erase", "record.rename", "field.", "node.name", "mosaik.x", "app.reading", "records"]
    for kind in undecoded:
        assert decode(kind, create("r1", "site")[1]) is None
    reserved = [prefix + "x" for prefix in RESERVED.split()] + ["record.create", "node."]
    return {
        "events": shown,
        "not_decoded": undecoded,
        "reserved": reserved,
        "not_reserved": ["records.x", "record", "sensor", "app.record.x", "noted"],
        "refused": [
            {"why": refusal(decode, kind, payload), "kind": kind, "payload": payload.hex()}
            for kind, payload in _bad(over, blob)
        ],
    }


def _bad(over, blob):
    for kind, payload in [create("r", "f"), note("r", "t"), archive("r", True), profile("n")]:
        yield kind, payload + b"\0"
        yield kind, payload[:-1]
        yield kind, b""
    for kind, payload in [field_set("r", "f", values.NULL, over[:2]), attach("r", "f", blob, 1, "m", "n")]:
        yield kind, payload + b"\0"
        yield kind, payload[:-1]
    yield create("", "f")
    yield create("r" * 257, "f")
    yield create("r", "f" * 129)
    yield create("r", "é" * 65)
    yield field_set("", "f", values.NULL)
    yield field_set("r" * 257, "f", values.NULL)
    yield field_set("r", "f" * 129, values.NULL)
    yield field_set("r", "f", values.NULL, over + over[:1])
    yield field_set("r", "f", values.NULL, over[:1] * 17)
    yield field_set("r", "", values.NULL)
    yield field_set("r", "", ("int", 1))
    yield field_set("r", "", ("bytes", b"form"))
    yield field_set("r", "f", ("list", [values.DEEPEST]))
    yield "field.set", text("r") + text("f") + b"\x0a" + b"\0"
    yield "field.set", text("r") + text("f") + b"\0" + b"\x80\0"
    yield note("", "t")
    yield note("r" * 257, "t")
    yield "note.add", text("r") + b"\1\xff"
    yield "note.add", b"\1\xff" + text("t")
    yield attach("", "f", blob, 1, "m", "n")
    yield attach("r", "f" * 129, blob, 1, "m", "n")
    yield "attachment.add", text("r") + text("f") + blob + b"\x81\0" + text("m") + text("n")
    yield archive("", True)
    yield "record.archive", text("r") + b"\2"
    yield "node.profile", b"\1\xff"
