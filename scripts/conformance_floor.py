"""Compares a conformance table with the committed floor: exits with 1 where an area has fallen below it.

    conformance_floor.py [--raise] FLOOR TABLE
"""

import json
import pathlib
import re
import sys


def main():
    arguments = [argument for argument in sys.argv[1:] if argument != "--raise"]
    floor_file, table_file = map(pathlib.Path, arguments)
    now = {}
    for line in table_file.read_text().splitlines():
        row = re.fullmatch(r"(\S+)\s+(\d+)/(\d+)\s+(\d+)/(\d+)\s*", line)
        if row:
            now[row[1]] = {"cases": int(row[2]), "steps": int(row[4])}
    if "all" not in now:
        sys.exit("conformance: no table was printed")
    floor = json.loads(floor_file.read_text()) if floor_file.exists() else {}
    if "--raise" in sys.argv:
        for area, row in now.items():
            old = floor.get(area, {})
            floor[area] = {key: max(value, old.get(key, 0)) for key, value in row.items()}
        floor_file.write_text(json.dumps(floor, indent=2, sort_keys=True) + "\n")
    fallen = [
        f"{area}: {now.get(area, {}).get(key, 0)} {key}, the floor is {least}"
        for area, row in sorted(floor.items())
        for key, least in row.items()
        if now.get(area, {}).get(key, 0) < least
    ]
    if fallen:
        sys.exit("conformance has fallen:\n  " + "\n  ".join(fallen))
    print(f"conformance: at or above {floor_file}")


main()
