"""Values as JSON: crates/mosaik-api/FORMAT.md."""

import base64
import json
import math
import re

from . import values
from .primitives import Refused, refusal

DAY_MS = 86_400_000


def days_of_year(year):
    """Days from 1970-01-01 to the first day of a year of the proleptic Gregorian calendar."""
    before = year - 1
    leaps = before // 4 - before // 100 + before // 400
    return 365 * (year - 1970) + leaps - (1969 // 4 - 1969 // 100 + 1969 // 400)


def months(year):
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    return [31, 29 if leap else 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]


def time_text(ms):
    day, rest = divmod(ms, DAY_MS)
    year = 1970 + day // 366
    while days_of_year(year + 1) <= day:
        year += 1
    while days_of_year(year) > day:
        year -= 1
    if not 0 <= year <= 9999:
        return str(ms)
    day -= days_of_year(year)
    month = 0
    while day >= months(year)[month]:
        day -= months(year)[month]
        month += 1
    clock = f"{rest // 3_600_000:02}:{rest // 60_000 % 60:02}:{rest // 1000 % 60:02}.{rest % 1000:03}"
    return f"{year:04}-{month + 1:02}-{day + 1:02}T{clock}Z"


RFC3339 = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)(?:[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d+))?(?:[Zz]|([+-])(\d\d):(\d\d)))?", re.ASCII
)


def time_ms(text):
    if re.fullmatch(r"-?\d+", text, re.ASCII):
        return whole(text)
    found = RFC3339.fullmatch(text)
    if not found:
        raise Refused("no time")
    year, month, day, hour, minute, second = (int(part or 0) for part in found.groups()[:6])
    fraction = (found[7] or "").ljust(3, "0")
    east = int(found[9] or 0) * 60 + int(found[10] or 0)
    east = -east if found[8] == "-" else east
    if not 1 <= month <= 12 or not 1 <= day <= months(year)[month - 1] or fraction[3:].strip("0"):
        raise Refused("no time")
    if hour > 23 or minute > 59 or second > 59 or int(found[9] or 0) > 23 or int(found[10] or 0) > 59:
        raise Refused("no time")
    days = days_of_year(year) + sum(months(year)[: month - 1]) + day - 1
    return days * DAY_MS + ((hour * 60 + minute - east) * 60 + second) * 1000 + int(fraction[:3])


def real(number):
    if math.isfinite(number):
        return number + 0.0
    return {"$float": "NaN" if number != number else "inf" if number > 0 else "-inf"}


def to_json(value):
    name, held = value
    match name:
        case "float":
            return real(held)
        case "bytes":
            return {"$bytes": base64.b64encode(held).decode()}
        case "list":
            return [to_json(item) for item in held]
        case "map":
            inner = {key: to_json(item) for key, item in held.items()}
            return {"$map": inner} if len(held) == 1 and next(iter(held)).startswith("$") else inner
        case "time":
            return {"$time": time_text(held)}
        case "geo":
            parts = zip(("lat", "lon", "altitude", "accuracy"), held)
            return {"$geo": {part: real(number) for part, number in parts if number is not None}}
    return held


def number(text):
    """What JSON writes without a point and an exponent. -0 is a float, as many readers have it."""
    return 0.0 if text == "-0" else whole(text)


def whole(text):
    number = int(text)
    if not -(2**63) <= number < 2**63:
        raise Refused("a whole number outside 64 bits")
    return number


def _map(entries):
    return "map", {key: from_json(item) for key, item in entries.items()}


def _tagged(tag, inner):
    match tag:
        case "$map" if isinstance(inner, dict):
            return _map(inner)
        case "$bytes" if isinstance(inner, str):
            try:
                data = base64.b64decode(inner, validate=True)
            except ValueError as error:
                raise Refused("no base64") from error
            if base64.b64encode(data).decode() != inner:
                raise Refused("no base64")
            return "bytes", data
        case "$time" if isinstance(inner, str):
            return "time", time_ms(inner)
        case "$time" if type(inner) is int:
            return "time", inner
        case "$float" if inner in ("NaN", "inf", "-inf"):
            return "float", float(inner)
        case "$geo" if isinstance(inner, dict):
            held = []
            for part in ("lat", "lon", "altitude", "accuracy"):
                number = inner.pop(part, None)
                if isinstance(number, dict):
                    name, number = from_json(number)
                    if name != "float":
                        raise Refused("a part of a geo that is no number")
                elif type(number) not in (int, float) and (number is not None or part in ("lat", "lon")):
                    raise Refused("a part of a geo that is no number")
                held.append(None if number is None else float(number))
            if inner:
                raise Refused("a part that no geo has")
            return "geo", held
    raise Refused(f"{tag} is no type, or doesn't take this")


def from_json(shown):
    match shown:
        case None:
            return "null", None
        case bool():
            return "bool", shown
        case int():
            return "int", shown
        case float():
            return "float", shown + 0.0
        case str():
            return "text", shown
        case list():
            return "list", [from_json(item) for item in shown]
        case dict():
            only = next(iter(shown)) if len(shown) == 1 else ""
            return _tagged(only, shown[only]) if only.startswith("$") else _map(shown)


def parse(text):
    """The encoding of the value that a JSON text means."""

    def constant(name):
        raise Refused(f"{name} is no JSON")

    try:
        shown = json.loads(text, parse_int=number, parse_constant=constant)
    except ValueError as error:
        raise Refused("no JSON") from error
    data = values.encode(from_json(shown))
    values.decode(data)
    return data


def vectors():
    listed = [values.decode(bytes.fromhex(one["bytes"])) for one in values.vectors()["values"]]
    inner = ("map", {"$time": ("text", "2026-11-21")})
    listed += [inner, ("map", {"$map": inner}), ("map", {"$a": values.NULL, "b": inner}), ("list", [inner])]
    times = (-62_167_219_200_000, -62_167_219_200_001, 253_402_300_799_999, 253_402_300_800_000, 951_782_400_000)
    listed += [("time", number) for number in (*times, 2**63 - 1, -(2**63))]
    shown = []
    for value in listed:
        data, text = values.encode(value), json.dumps(to_json(value), ensure_ascii=False)
        assert parse(text) == data, text
        shown.append({"bytes": data.hex(), "json": text})
    others = [
        " [ 1 , 2 ] ",
        "1e2",
        "-0.0",
        "-0",
        '{"$map": {"a": 1}}',
        '{"$map": {}}',
        '{"$time": 5}',
        '{"$time": "-5"}',
        '{"$time": "2026-11-21"}',
        '{"$time": "2026-11-21T08:00:00+05:30"}',
        '{"$time": "2026-11-21t08:00:00.5z"}',
        '{"$time": "2026-11-21 08:00:00.120000Z"}',
        '{"$geo": {"lon": 2, "lat": -1}}',
        '{"$float": "NaN"}',
        '"\\u00e9\\ud83c\\udf0d"',
    ]
    bad = [
        "",
        "nothing",
        "NaN",
        "[1,]",
        "9223372036854775808",
        "-9223372036854775809",
        '{"a": [1, "x\\"", 99999999999999999999]}',
        '{"$x": 1}',
        '{"$": 1}',
        '{"$map": 1}',
        '{"$bytes": "AQI"}',
        '{"$bytes": "AQJ="}',
        '{"$bytes": "-_8="}',
        '{"$bytes": 1}',
        '{"$time": 1.5}',
        '{"$time": true}',
        '{"$time": "today"}',
        '{"$time": "2026-02-29"}',
        '{"$time": "2026-11-21T08:00:00"}',
        '{"$time": "2026-11-21T08:00:00.0001Z"}',
        '{"$time": "2026-11-21T24:00:00Z"}',
        '{"$float": 1.5}',
        '{"$float": "nan"}',
        '{"$geo": {"lat": 1}}',
        '{"$geo": {"lat": 1, "lon": "2"}}',
        '{"$geo": {"lat": 1, "lon": 2, "height": 3}}',
        "[" * 17 + "]" * 17,
    ]
    return {
        "values": shown,
        "same": [{"json": text, "bytes": parse(text).hex()} for text in others],
        "refused": [{"why": refusal(parse, text), "json": text} for text in bad],
    }
