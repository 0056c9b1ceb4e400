"""Section 9 of crates/mosaik-core/FORMAT.md: what a set of events folds to."""

from . import foreign, records, values
from .events import MS, Author, Event, present, absent, stamp
from .keys import FINGERPRINT
from .primitives import Refused, derive, deterministic, hash32, seq, sized, text, varint
from .tries import trie_hash

# Of the fold: in its three contexts.
VERSION = 2


class Record:
    def __init__(self):
        self.sets, self.notes, self.files, self.archives = [], [], [], []
        self.floors = {}

    def floor(self, event, field):
        """A foreign set replaces all before it."""
        self.floors[field] = max(self.floors.get(field, event), event, key=lambda one: one.order())

    def candidates(self):
        """The sets that no other names, by field, ascending."""
        named = {(field, name) for _, field, _, over in self.sets for name in over}
        left = {}
        for event, field, value, _ in sorted(self.sets, key=lambda one: one[0].order()):
            floor = self.floors.get(field, event)
            if (field, event.id[:8]) not in named and event.order() >= floor.order():
                left.setdefault(field, []).append((event, value))
        return {field: left[field] for field in sorted(left, key=str.encode)}

    def archived(self):
        latest = max(self.archives, key=lambda one: one[0].order(), default=(None, False))
        return latest[1]

    def attachments(self):
        shown = {}
        for event, said in sorted(self.files, key=lambda one: one[0].order()):
            shown[said["field"].encode(), said["blob"]] = said
        return [shown[key] for key in sorted(shown)]

    def body(self, name):
        fields = []
        for field, candidates in self.candidates().items():
            shown = [event.id + values.encode(value) for event, value in candidates]
            fields.append(text(field) + seq(shown))
        notes = [event.id + text(string) for event, string in sorted(self.notes, key=lambda n: n[0].order())]
        files = [
            text(said["field"]) + said["blob"] + varint(said["size"]) + text(said["mime"]) + text(said["name"])
            for said in self.attachments()
        ]
        return text(name) + bytes([self.archived()]) + seq(fields) + seq(notes) + seq(files)


def fold(events, now):
    """Records by id, and profiles by author."""
    found, profiles = {}, {}
    counted = set()
    for event in {event.id: event for event in events}.values():
        if event.payload.data is None:
            continue
        kind, is_foreign = event.kind, event.kind == "foreign.meshlog"
        try:
            if is_foreign:
                inner = foreign.Foreign(event.payload.data)
                kind, event, said = inner.kind, inner.event(), inner.said()
            else:
                said = records.decode(kind, event.payload.data)
        except Refused:
            continue
        if said is None or event.hlc >> 16 > now + 600_000 or event.id in counted:
            continue
        counted.add(event.id)
        if kind == "node.profile":
            held = profiles.get(event.author)
            if held is None or held[0].order() < event.order():
                profiles[event.author] = event, said["name"]
            continue
        record = found.setdefault(said["record"], Record())
        if is_foreign and kind in ("record.create", "field.set"):
            record.floor(event, said.get("field", ""))
        match kind:
            case "record.create":
                record.sets.append((event, "", ("text", said["form"]), []))
                record.archives.append((event, False))
            case "field.set":
                record.sets.append((event, said["field"], said["value"], said["over"]))
            case "note.add":
                record.notes.append((event, said["text"]))
            case "attachment.add":
                record.files.append((event, said))
            case "record.archive":
                record.archives.append((event, said["archived"]))
    return found, profiles


def digests(found):
    return {name: derive("view record", found[name].body(name), VERSION) for name in found}


def view_digest(found):
    items = {hash32(name.encode()): hash32(name.encode()) + digest for name, digest in digests(found).items()}
    return trie_hash(items, context="view", size=32, version=VERSION)


def show(events, now, name):
    found, profiles = fold(events, now)
    shown = []
    for record in sorted(found, key=str.encode):
        state = found[record]
        candidates = state.candidates()
        shown.append(
            {
                "record": record,
                "archived": state.archived(),
                "fields": {
                    field: [{"id": event.id.hex(), "value": values.show(value)} for event, value in sets]
                    for field, sets in candidates.items()
                },
                "conflicts": [
                    field
                    for field, sets in candidates.items()
                    if len({values.encode(value) for _, value in sets}) > 1
                ],
                "notes": [string for _, string in sorted(state.notes, key=lambda n: n[0].order())],
                "attachments": [records.show(said) for said in state.attachments()],
                "digest": digests(found)[record].hex(),
            }
        )
        if len(state.body(record)) < 1000:
            shown[-1]["digest_of"] = state.body(record).hex()
    return {
        "name": name,
        "now": now,
        "events": [event.show() for event in events],
        "records": shown,
        "profiles": {author.hex(): name for author, (_, name) in sorted(profiles.items())},
        "digest": view_digest(found).hex(),
    }


class Writer:
    """One author's feed as it is written, with chosen stamps."""

    def __init__(self, label):
        self.author, self.last = Author(label), (0, bytes(32))

    def say(self, ms, said, counter=0, without=False):
        kind, data = said
        payload = absent(len(data), hash32(data)) if without else present(data)
        event = Event(self.author.key, self.last[0] + 1, self.last[1], stamp(ms, counter), kind, payload)
        self.last = event.seq, event.id
        return event


def over(*events):
    return [event.id[:8] for event in events]


def number(value):
    return "int", value


def vectors():
    return {"fingerprint": FINGERPRINT.hex(), "views": [show(*case) for case in _cases()]}


def _cases():
    now = MS + 1_000_000
    yield [], now, "nothing"

    one, two = Writer("one"), Writer("two")
    low, high = sorted((one, two), key=lambda writer: writer.author.key)
    events = [one.say(MS, records.create("r1", "site")), one.say(MS + 1, records.note("r1", "first"))]
    yield events, now, "a record and a note"

    one = Writer("one")
    first = one.say(MS, records.field_set("r", "f", number(1)))
    second = one.say(MS + 1, records.field_set("r", "f", number(2), over(first)))
    third = one.say(MS + 2, records.field_set("r", "f", number(3), over(first)))
    yield [first], now, "a set alone makes a record without a form"
    yield [second, first], now, "a set is replaced"
    yield [third, second, first], now, "two sets replaced the same one: a conflict"
    same = one.say(MS + 3, records.field_set("r", "f", number(3), over(second)))
    yield [first, second, third, same], now, "two candidates with one value are no conflict"
    chain = one.say(MS + 4, records.field_set("r", "f", values.NULL, over(third, same) * 2))
    yield [first, second, third, same, chain], now, "null is a candidate, repeats in over mean nothing"
    late = one.say(MS - 5, records.field_set("r", "f", number(9), over(chain)))
    yield [first, second, third, same, chain, late], now, "an earlier stamp replaces a later one"
    other_field = one.say(MS + 6, records.field_set("r", "g", number(9), over(late)))
    other_record = one.say(MS + 7, records.field_set("s", "f", number(9), over(late)))
    all_of_it = [first, second, third, same, chain, late, other_field, other_record]
    yield all_of_it, now, "over reaches neither another field nor another record"

    one, two = Writer("one"), Writer("two")
    a = one.say(MS, records.field_set("r", "f", number(1)))
    b = two.say(MS, records.field_set("r", "f", number(2), over(a)))
    c = one.say(MS + 1, records.field_set("r", "f", number(3), over(b)))
    d = one.say(MS + 2, records.field_set("r", "f", number(4), over(c)))
    e = one.say(MS + 3, records.note("r", "what replaced is replaced itself"))
    yield [e, d, c, b, a], now, "a replaced set still replaces"
    back = one.say(MS + 4, records.field_set("r", "f", number(5), over(d)))
    loop = two.say(MS + 4, records.field_set("r", "f", number(6), [b"\xee" * 8] + over(back)))
    gone = two.say(MS + 5, records.field_set("r", "f", number(7), over(loop)))
    without = two.say(MS + 6, records.field_set("r", "f", number(8), over(gone)), without=True)
    yield [a, b, c, d, back, loop, gone, without], now, "a set without its payload replaces nothing"

    low, high = Writer("one"), Writer("two")
    if low.author.key > high.author.key:
        low, high = high, low
    tie_low = low.say(MS, records.field_set("r", "f", ("text", "low")))
    tie_high = high.say(MS, records.field_set("r", "f", ("text", "high")))
    tie_counter = low.say(MS, records.field_set("r", "g", ("text", "counter 1")), counter=1)
    tie_zero = high.say(MS, records.field_set("r", "g", ("text", "counter 0")))
    yield [tie_high, tie_low, tie_counter, tie_zero], now, "ties are broken by author, the counter counts first"

    one = Writer("one")
    left = Writer("one")
    fork_a = one.say(MS, records.field_set("r", "f", number(1)))
    fork_b = left.say(MS, records.field_set("r", "f", number(2)))
    seq_two = one.say(MS, records.field_set("r", "g", number(1)))
    seq_three = one.say(MS, records.field_set("r", "g", number(2)))
    yield [fork_a, fork_b, seq_three, seq_two], now, "a branch: equal stamp, author and seq, so the id decides"

    one, two = Writer("one"), Writer("two")
    created = one.say(MS, records.create("r", "site"))
    again = two.say(MS + 10, records.create("r", "tower"))
    formed = one.say(MS + 20, records.field_set("r", "", ("text", "mast"), over(created)))
    yield [created, again], now, "created twice: two forms in conflict"
    yield [created, again, formed], now, "a create can be replaced like a set"
    settled = two.say(MS + 30, records.field_set("r", "", ("text", ""), over(again, formed)))
    yield [created, again, formed, settled], now, "an empty form is a form"
    wrong = two.say(MS + 40, records.field_set("r", "", number(1), over(settled)))
    yield [created, again, formed, settled, wrong], now, "a form that is not text replaces nothing"
    only_wrong = two.say(MS + 50, records.field_set("elsewhere", "", number(1)))
    yield [only_wrong], now, "a record whose events all count for nothing does not exist"

    one = Writer("one")
    archive = [one.say(MS + i, records.archive("r", i % 2 == 0)) for i in range(3)]
    yield archive[:1], now, "archived"
    yield archive[1::-1], now, "taken out again"
    yield archive, now, "the latest word on the archive counts"
    revived = one.say(MS + 3, records.create("r", "site"))
    yield archive + [revived], now, "a create takes a record out of the archive"
    early = one.say(MS - 3, records.create("s", "site"))
    away = one.say(MS - 2, records.archive("s", True))
    yield [early, away], now, "an earlier create does not"

    one, two = Writer("one"), Writer("two")
    blob, other = deterministic("a file"), deterministic("another file")
    events = [
        one.say(MS, records.attach("r", "photo", blob, 10, "image/png", "a.png")),
        two.say(MS + 1, records.attach("r", "photo", blob, 11, "image/jpeg", "b.jpg")),
        one.say(MS + 2, records.attach("r", "photo", other, 12, "", "")),
        two.say(MS + 3, records.attach("r", "", blob, 2**64 - 1, "text/plain", "c")),
        one.say(MS + 4, records.attach("r", "phot", blob, 0, "text/plain", "d")),
        one.say(MS + 5, records.attach("r", "photo\0", blob, 0, "text/plain", "e")),
        two.say(MS + 6, records.note("r", "later")),
        one.say(MS + 5, records.note("r", "earlier")),
        one.say(MS + 5, records.note("r", "earlier"), counter=2),
    ]
    yield events, now, "attachments by field and blob, notes in the order"

    one, two = Writer("one"), Writer("two")
    events = [
        one.say(MS, records.profile("kitchen")),
        one.say(MS - 1, records.profile("older")),
        two.say(MS, records.profile("x")),
        two.say(MS + 1, records.profile("")),
        one.say(MS, ("app.reading", values.encode(number(1)))),
        one.say(MS, ("event.erase", b"\1" + bytes(8))),
        one.say(MS, ("record.create", text("r") + b"\x84\0site")),
        one.say(MS, ("field.set", text("r") + text("f") + b"\0" + varint(17) + bytes(17 * 8))),
        one.say(MS, ("note.add", sized(b"\xff") + text("t"))),
        one.say(MS, ("x", b"no value at all")),
    ]
    yield events, now, "profiles, applications and what is ill-typed leave the digest at zeros"

    one = Writer("one")
    shown = one.say(MS, records.field_set("r", "f", number(1)))
    ahead = one.say(now + 600_000, records.field_set("r", "f", number(2)), counter=65535)
    beyond = one.say(now + 600_001, records.field_set("r", "f", number(3), over(shown)))
    only = one.say(now + 600_001, records.create("s", "site"))
    yield [shown, ahead, beyond, only], now, "what is more than ten minutes ahead is held back"
    yield [shown, ahead, beyond, only], now + 1, "a millisecond later it counts"

    yield from _foreign_cases(now)

    one = Writer("one")
    names = ["", "B", "a", "a\0b", "ab", "b", "é", "\uffff", "\U00010000"]
    events = [one.say(MS, records.field_set("r", name, ("text", name))) for name in names[::-1]]
    events += [one.say(MS, records.note("r\0" + name, name)) for name in names]
    events += [one.say(MS, records.field_set("r", "value", value)) for value in (values.DEEPEST, ("float", float("nan")))]
    yield events, now, "names sort by their bytes"

    for count in (32, 33):
        yield _many([f"record {i}" for i in range(count)]), now, f"{count} records"
    names = (f"record {i}" for i in range(20_000))
    alike = [name for name in names if hash32(name.encode())[0] == 0x77][:34]
    names = alike + [f"record {i}" for i in range(10)]
    yield _many(names), now, "34 records whose keys begin with the same two nibbles, and ten others"


def _foreign_cases(now):
    one, two = Writer("one"), Writer("two")

    def carried(writer, kind, payload, name="north", seq=1, ms=MS, counter=0, **how):
        prev = "" if seq == 1 else "0f" * 16
        wire, _ = foreign.compose(name, seq, ms, counter, kind, payload, prev)
        return writer.say(how.pop("outer", MS + 100), ("foreign.meshlog", wire.encode()), **how)

    def field(value, field="f"):
        return {"record": "r", "field": field, "value": value}

    def inner(event):
        return foreign.Foreign(event.payload.data).event()

    a = one.say(MS, records.field_set("r", "f", number(1)))
    b = two.say(MS + 1, records.field_set("r", "f", number(2)))
    c = carried(one, "field.set", field(3), ms=MS + 1, counter=5)
    d = two.say(MS + 2, records.field_set("r", "f", number(4)))
    yield [a, b, c], now, "a foreign set replaces all sets of its field before it"
    yield [d, c, a, b], now, "and those after it stand beside it"
    e = two.say(MS + 3, records.field_set("r", "f", number(5), over(inner(c), d)))
    yield [e, d, c, b, a], now, "a set names a foreign one, which still replaces what was before it"
    twice = carried(two, "field.set", field(3), ms=MS + 1, counter=5)
    yield [twice, c, d, e, a, b], now, "an event that two bridges brought counts once"
    later = carried(two, "field.set", field(6), name="south", seq=7, ms=MS + 9)
    again = carried(two, "field.set", field(7, "g"), name="south", seq=8, ms=MS + 9)
    yield [later, again, c, d, a, b], now, "the later foreign set replaces the earlier"

    created = one.say(MS, records.create("r", "site"))
    formed = carried(one, "record.create", {"record": "r", "form": "tower"}, seq=2, ms=MS + 1)
    noted = carried(two, "note.add", {"record": "r", "text": "seen"}, seq=3, ms=MS + 2)
    own = one.say(MS + 1, records.note("r", "before"))
    archived = carried(two, "record.archive", {"record": "r", "archived": True}, seq=4, ms=MS + 3)
    yield [created, formed, noted, own], now, "a foreign create sets the form, notes stand among ours"
    yield [archived, created, formed, noted, own], now, "a foreign word on the archive"

    wire, _ = foreign.compose("north", 1, MS, 0, "note.add", {"record": "r", "text": "t"})
    events = [
        one.say(MS, ("foreign.meshlog", wire.replace('"t"', '"u"').encode())),
        one.say(MS, ("foreign.meshlog", wire.encode() + b"}")),
        one.say(MS, ("foreign.meshlog", wire.encode()), without=True),
        one.say(MS, ("foreign.other", wire.encode())),
        carried(one, "note.add", {"record": "r", "text": "t"}, name="0f" * 32),
        carried(one, "attachment.add", {"record": "r", "field": "f"}),
        carried(one, "field.set", field(1, "x" * 129)),
    ]
    yield events, now, "what was changed, is cut, has no payload, or means nothing here"

    ahead = carried(one, "note.add", {"record": "r", "text": "ahead"}, ms=now + 600_000)
    beyond = carried(one, "note.add", {"record": "r", "text": "beyond"}, ms=now + 600_001)
    outer = carried(one, "note.add", {"record": "r", "text": "outer"}, ms=MS, outer=now + 600_001)
    yield [ahead, beyond, outer], now, "the stamp inside holds a foreign event back, not the one outside"
    yield [ahead, beyond, outer], now + 1, "a millisecond later that one counts"


def _many(names):
    one = Writer("one")
    return [one.say(MS + i, records.create(name, "site")) for i, name in enumerate(names)]
