#!/usr/bin/env python3
"""Writes the golden vectors beside this file. Needs Python 3.11 and the package `blake3`.

    python3 tests/vectors/generate.py           writes them
    python3 tests/vectors/generate.py --check   says which would change, and fails if one would
"""

import json
import sys
from pathlib import Path

sys.dont_write_bytecode = True

from generator import events, foreign, hints, jsons, keys, messages, records, slots, tickets, tries, values, views

FILES = {
    "keys": keys.vectors,
    "event": events.event_vectors,
    "head": events.head_vectors,
    "run": events.run_vectors,
    "item": tries.item_vectors,
    "trie": tries.trie_vectors,
    "ticket": tickets.vectors,
    "slot": slots.vectors,
    "value": values.vectors,
    "json": jsons.vectors,
    "record": records.vectors,
    "view": views.vectors,
    "foreign": foreign.vectors,
    "message": messages.vectors,
    "session": messages.session_vectors,
    "hint": hints.vectors,
}


def main():
    check = sys.argv[1:] == ["--check"]
    changed = []
    for name, vectors in FILES.items():
        path = Path(__file__).parent / f"{name}.json"
        content = json.dumps(vectors(), indent=1, ensure_ascii=False) + "\n"
        if not path.exists() or path.read_text(encoding="utf-8") != content:
            changed.append(path.name)
            if not check:
                path.write_text(content, encoding="utf-8")
    print("changed:", ", ".join(changed) or "nothing")
    return 1 if check and changed else 0


if __name__ == "__main__":
    sys.exit(main())
