"""FHIR intake against only parsing the same bytes: seconds and peak memory, each in a process of its own.

    python benchmarks/fhir_stream.py [--quick] [--json FILE]

The patients are those of clinosim (extra `samples`), taken again and again under new ids: as Bundles in lines, and as
bulk NDJSON, one resource in a line, in files by type. Rounds alternate between intake and the parsers, so that a noisy
moment hits all of them; the median counts. The start of Python and the loading of the knowledge base are not
counted.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

SIZES = (100, 1_000, 10_000)
MOST = 2.0
"""How many times as long as the fastest parser the intake may take."""
PER_PATIENT = 150
"""Resources of one patient, at most: 10,000 patients are then about a gigabyte and a half."""
_ONE = """
import resource, sys, time
from pathlib import Path
how, source = sys.argv[1], Path(sys.argv[2])
if how == "intake":
    from kypho_kg.intake_report import IntakeReport
    from kypho_kg.loading import load_knowledge
    from kypho_kg.mappings import load_mappings
    from kypho_kg.sources.fhir import read_fhir
    k = load_knowledge()
    mappings = load_mappings(k)
    start = time.perf_counter()
    count = sum(1 for _ in read_fhir(source, k, IntakeReport("x"), mappings=mappings))
else:
    if how == "orjson":
        from orjson import loads
    else:
        from msgspec.json import decode as loads
    start, count = time.perf_counter(), 0
    for path in sorted(source.glob("*.ndjson")) if source.is_dir() else [source]:
        with path.open("rb") as lines:
            for line in lines:
                loads(line)
                count += 1
seconds = time.perf_counter() - start
print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, count)
"""


def main() -> None:
    """Run everything and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round, no 10,000 patients")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    rows = measure(SIZES[:2] if options.quick else SIZES, 1 if options.quick else 3)
    print_rows(rows)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n", "utf-8")


def measure(sizes: tuple[int, ...], rounds: int) -> list[dict[str, float | str]]:
    """The figures of each form and size."""
    rows: list[dict[str, float | str]] = []
    with tempfile.TemporaryDirectory() as folder:
        people = template(Path(folder))
        for form, write in {"Bundles": bundles, "bulk": bulk}.items():
            for size in sizes:
                source = write(people, size, Path(folder))
                files = list(source.glob("*")) if source.is_dir() else [source]
                found: dict[str, list[tuple[float, float]]] = defaultdict(list)
                for _ in range(rounds):
                    for how in ("intake", "orjson", "msgspec"):
                        command = [sys.executable, "-c", _ONE, how, str(source)]
                        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
                        found[how].append((float(out[0]), float(out[1])))
                seconds = {how: statistics.median(s for s, _ in runs) for how, runs in found.items()}
                rows.append(
                    {
                        "form": form,
                        "patients": size,
                        "megabytes": sum(p.stat().st_size for p in files) / 1e6,
                        **{f"{how}_s": s for how, s in seconds.items()},
                        "ratio": seconds["intake"] / min(seconds["orjson"], seconds["msgspec"]),
                        "peak_mib": max(m for _, m in found["intake"]),
                    }
                )
                for path in files:
                    path.unlink()
    return rows


def print_rows(rows: list[dict[str, float | str]]) -> None:
    """Print the table."""
    print(
        f"{'FHIR':8} {'patients':>8} {'MB':>7} {'intake s':>9} {'orjson s':>9} {'msgspec s':>9} {'ratio':>6} {'MiB':>6}"
    )
    for r in rows:
        print(
            f"{r['form']:8} {r['patients']:>8,} {r['megabytes']:7.1f} {r['intake_s']:9.3f} {r['orjson_s']:9.3f} "
            f"{r['msgspec_s']:9.3f} {r['ratio']:6.2f} {r['peak_mib']:6.0f}"
        )


def template(folder: Path) -> list[tuple[str, list[str]]]:
    """Patients of clinosim: the id, and the resources as JSON without spaces."""
    out = folder / "clinosim"
    words = "simulate --population 60 --seed 1 --start 2025-01-01 --end 2025-12-31 --format fhir-r4 --output".split()
    subprocess.run(
        [str(Path(sys.executable).parent / "clinosim"), *words, str(out)], stdout=subprocess.DEVNULL, check=True
    )
    people: dict[str, list[str]] = defaultdict(list)
    for path in sorted((out / "fhir_r4").glob("*.ndjson")):
        for line in path.read_text("utf-8").splitlines():
            resource = json.loads(line)
            owner = resource.get("subject") or resource.get("patient") or {}
            id_ = (
                resource["id"]
                if resource["resourceType"] == "Patient"
                else owner.get("reference", "").partition("/")[2]
            )
            people[id_].append(json.dumps(resource, ensure_ascii=False, separators=(",", ":")))
    people.pop("", None)
    picked = []
    for id_, rows in people.items():
        step = max(1, len(rows) // PER_PATIENT)
        first = [r for r in rows if '"resourceType":"Patient"' in r[:40]]
        picked.append((id_, first + [r for r in rows if r not in first][::step][:PER_PATIENT]))
    return picked


def bundles(people: list[tuple[str, list[str]]], size: int, folder: Path) -> Path:
    """A Bundle of each patient in a line."""
    path = folder / "bundles.ndjson"
    with path.open("w", encoding="utf-8") as file:
        for n in range(size):
            id_, rows = people[n % len(people)]
            entries = ",".join(f'{{"resource":{row}}}' for row in rows).replace(id_, f"{id_}-{n}")
            file.write(f'{{"resourceType":"Bundle","type":"collection","entry":[{entries}]}}\n')
    return path


def bulk(people: list[tuple[str, list[str]]], size: int, folder: Path) -> Path:
    """A folder with one resource in a line, a file for each type."""
    path = folder / "bulk"
    path.mkdir(exist_ok=True)
    files = {}
    for n in range(size):
        id_, rows = people[n % len(people)]
        for row in rows:
            kind = json.loads(row)["resourceType"]
            if kind not in files:
                files[kind] = (path / f"{kind}.ndjson").open("w", encoding="utf-8")
            files[kind].write(row.replace(id_, f"{id_}-{n}") + "\n")
    for file in files.values():
        file.close()
    return path


if __name__ == "__main__":
    main()
