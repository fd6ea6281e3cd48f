"""How long a population takes, and how much longer whatever a user would run instead.

    python benchmarks/cohort.py [--quick] [--sizes 1000,10000,100000] [--json FILE]

Every alternative answers the same clauses of the same cases, in the same run, and where it answers in sets its answers
are compared with ours. Times are medians; memory is the peak of all processes of a run together.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from pyarrow import parquet

from kypho_kg.candidacy import ALL, assess
from kypho_kg.cohort.counts import Asked, count
from kypho_kg.cohort.judge import Judged, _Inference, judge
from kypho_kg.cohort.layout import (
    CHOICE,
    LESIONS,
    PATIENTS,
    PROCEDURES,
    QUANTITY,
    Layout,
    layout_of,
    scaled_range,
)
from kypho_kg.cohort.logic import BLOCKS, MET, Logic
from kypho_kg.cohort.rows import rows_of
from kypho_kg.cohort.source import FactTable, facts_of
from kypho_kg.cohort.subjects import subjects_of
from kypho_kg.cohort.verdicts import conclusions
from kypho_kg.criteria import Criterion, Op
from kypho_kg.fact_table import read_fact_table
from kypho_kg.intake_report import IntakeReport
from kypho_kg.loading import load_knowledge
from kypho_kg.validation import validate_record

Row = dict[str, Any]
Triple = tuple[str, str, str | int]


def timed(work: Callable[[], object]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def median(work: Callable[[], object], rounds: int) -> float:
    """The median of several calls after a first one."""
    work()
    return statistics.median(timed(work) for _ in range(rounds))


# --------------------------------------------------------------------------------------------------------------------
# Whole runs


def resident(pid: int) -> int:
    """Bytes that a process and its children hold, shared pages counted once."""
    total, todo = 0, [pid]
    while todo:
        one = todo.pop()
        try:
            rollup = Path(f"/proc/{one}/smaps_rollup").read_text()
            total += next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")) * 1024
            for task in Path(f"/proc/{one}/task").iterdir():
                todo += map(int, (task / "children").read_text().split())
        except (OSError, StopIteration, ValueError):
            continue
    return total


def whole(folder: Path, out: Path, processes: int) -> tuple[float, float]:
    """Seconds and peak MiB of ``kypho-kg cohort`` from facts to tables."""
    command = [sys.executable, "-m", "kypho_kg", "cohort", str(folder), "-o", str(out), "--again"]
    command += ["--processes", str(processes), "--json"]
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    peak = 0

    def watch() -> None:
        nonlocal peak
        while process.poll() is None:
            peak = max(peak, resident(process.pid))
            time.sleep(0.1)

    watcher = threading.Thread(target=watch)
    watcher.start()
    _, told = process.communicate()
    watcher.join()
    if process.returncode not in (0, 3):
        raise SystemExit(f"kypho-kg cohort failed: {told[-2000:]}")
    return time.perf_counter() - start, peak / 2**20


def generate(n: int, folder: Path) -> float:
    """A fact table of generated patients; seconds."""
    command = [sys.executable, "-m", "kypho_kg", "synth", "-n", str(n), "--seed", "1", "-o", str(folder)]
    return timed(lambda: subprocess.run(command, check=True, capture_output=True))


# --------------------------------------------------------------------------------------------------------------------
# Stages of one part


def stages(folder: Path, layout: Layout, asked: Asked, rounds: int) -> tuple[list[Row], int]:
    """Seconds of each stage on one part."""
    table = FactTable(folder)
    cases = table.dated(None, None)
    part = next(iter(table.parts(cases, 25_000)))
    some = cases.slice(part.start, part.stop - part.start)
    facts, subjects = facts_of(part), subjects_of(some)
    judged = judge(facts, some, layout)
    clauses = [layout.shared(r.criterion) for r in asked.clauses]
    verdicts = [conclusions(judged, g, layout)[0] for g in asked.guidelines]

    def truths() -> None:
        logic = Logic(judged.snapshot)
        for c in clauses:
            logic.truth(c)

    def causes() -> None:
        logic = Logic(judged.snapshot)
        for c in clauses:
            logic.cause(c)

    found = {
        "read the facts": median(lambda: facts_of(part), rounds),
        "facts to arrays": median(lambda: rows_of(facts, subjects, layout), rounds),
        "resolve, bridges and scores": median(lambda: _Inference(facts, subjects, layout, True).run(()), rounds),
        f"truths of {len(clauses)} clauses": median(truths, rounds),
        "the same with causes of unknown": median(causes, rounds),
        f"verdicts of {len(asked.guidelines)} guidelines": median(
            lambda: [conclusions(judged, g, layout) for g in asked.guidelines], rounds
        ),
        "counts": median(lambda: count(judged, asked, verdicts, np.arange(some.num_rows)), rounds),
    }
    return [{"stage": name, "seconds": s, "cases": some.num_rows} for name, s in found.items()], some.num_rows


# --------------------------------------------------------------------------------------------------------------------
# Alternatives


def triples(judged: Judged, layout: Layout) -> Iterator[Triple]:
    """The resolved cases as a graph for SPARQL: every class with those above it, every exclusion with those below."""
    s, series, findings = judged.subjects, judged.snapshot.series, judged.snapshot.findings
    n = len(s.patients)
    for case, patient in enumerate(s.owner):
        yield f"case{case}", "patient", f"s{patient}"
        yield f"case{case}", "lesion", f"s{2 * n + case}"
        if s.in_session[case]:
            yield f"case{case}", "procedure", f"s{n + patient}"
    kinds = [f for f in layout.features if f.kind is Op.FINDING]
    for slot, feature in enumerate(kinds):
        present = np.logical_or.reduce(findings.present[layout.narrower[slot]], axis=0)
        absent = np.logical_or.reduce(findings.absent[layout.narrower[:, slot]], axis=0)
        lesions, patients = s.block(LESIONS), s.block(PATIENTS)
        absent[lesions] |= absent[patients][s.owner]
        np.logical_or.at(present, s.owner, present[lesions])
        for subject in np.flatnonzero(present):
            yield f"s{subject}", "has", feature.name
        for subject in np.flatnonzero(absent & ~present):
            yield f"s{subject}", "lacks", feature.name
    for place, feature in enumerate(layout.features):
        slot = layout.slot[place]
        if layout.kind[place] == QUANTITY:
            for subject in np.flatnonzero(series.low[slot] <= series.high[slot]):
                yield f"s{subject}", f"low-{feature.name}", int(series.low[slot, subject])
                yield f"s{subject}", f"high-{feature.name}", int(series.high[slot, subject])
        elif layout.kind[place] == CHOICE:
            for bit in range(len(layout.values[place])):
                for subject in np.flatnonzero(series.bits[slot] & np.uint64(1 << bit)):
                    yield f"s{subject}", f"may-{feature.name}", str(bit)
                for subject in np.flatnonzero(series.out[slot] & np.uint64(1 << bit)):
                    yield f"s{subject}", f"out-{feature.name}", str(bit)
        elif place in layout.categories:
            known = layout.categories[place]
            for subject in np.flatnonzero(series.cls[slot] >= 0):
                mine = known.classes[series.cls[slot, subject]]
                for other in known.classes:
                    if layout.k.subsumes(other, mine):
                        yield f"s{subject}", f"is-{feature.name}", str(known.place[other])
                    elif layout.k.disjoint(other, mine):
                        yield f"s{subject}", f"isnt-{feature.name}", str(known.place[other])
            for bit, cls in enumerate(known.classes):
                for subject in np.flatnonzero(series.cls_out[slot] & np.uint64(1 << bit)):
                    for other in known.classes:
                        if layout.k.subsumes(cls, other):
                            yield f"s{subject}", f"isnt-{feature.name}", str(known.place[other])


_LINKS = {PATIENTS: "patient", LESIONS: "lesion", PROCEDURES: "procedure"}


def sparql(c: Criterion, layout: Layout, subject: str = "?case", wanted: bool = True) -> str:
    """A group pattern that holds for the cases that meet a criterion, or that fail it."""
    if c.op is Op.LINK:
        inner = _LINKS[BLOCKS[c.term]]
        return f"{subject} <urn:b:{inner}> ?{inner} . {sparql(c.children[0], layout, f'?{inner}', wanted)}"
    if c.op is Op.NOT:
        return sparql(c.children[0], layout, subject, not wanted)
    if c.op is Op.AT_LEAST:
        raise NotImplementedError
    if c.op is Op.OPEN:
        return sparql(c.children[0 if wanted else 1], layout, subject, wanted)
    if c.children:
        parts = [sparql(x, layout, subject, wanted) for x in c.children]
        return " ".join(parts) if (c.op is Op.AND) is wanted else " UNION ".join(f"{{ {p} }}" for p in parts)
    place = layout.place[c.term]
    name = layout.features[place].name
    if c.op is Op.FINDING:
        return f"{subject} <urn:b:{'has' if wanted else 'lacks'}> <urn:b:{name}> ."
    if c.op is Op.QUANTITY:
        assert c.range
        low, high = scaled_range(c.range)
        v = f"?{name}{abs(hash((subject, name))) % 10**6}"
        bounds = f"{subject} <urn:b:low-{name}> {v}l . {subject} <urn:b:high-{name}> {v}h ."
        test = f"{v}l >= {low} && {v}h <= {high}" if wanted else f"{v}l > {high} || {v}h < {low}"
        return f"{bounds} FILTER({test})"
    if c.op is Op.CATEGORY:
        asked = layout.categories[place].place[next(iter(c.values))]
        return f"{subject} <urn:b:{'is' if wanted else 'isnt'}-{name}> <urn:b:{asked}> ."
    bits = [i for i, v in enumerate(layout.values[place]) if v in c.values]
    inside = ", ".join(f"<urn:b:{b}>" for b in bits)
    some = f"{subject} <urn:b:may-{name}> ?any{name}"
    if wanted:
        return f"{some} . FILTER NOT EXISTS {{ {subject} <urn:b:may-{name}> ?x . FILTER(?x NOT IN ({inside})) }}"
    none = f"{some} . FILTER NOT EXISTS {{ {subject} <urn:b:may-{name}> ?x . FILTER(?x IN ({inside})) }}"
    out = " ".join(f"{subject} <urn:b:out-{name}> <urn:b:{b}> ." for b in bits)
    return f"{{ {none} }} UNION {{ {out} }}"


def alternatives(folder: Path, layout: Layout, asked: Asked, n: int, quick: bool) -> list[Row]:
    """Seconds per case of each way to judge, on the first cases of a table."""
    import pyoxigraph as ox
    import rdflib

    k = layout.k
    table = FactTable(folder)
    cases = table.dated(None, None)
    part = next(iter(table.parts(cases, n)))
    some, facts = cases.slice(part.start, part.stop - part.start), facts_of(part)
    judged = judge(facts, some, layout)
    m = some.num_rows
    rows: list[Row] = []

    def add(name: str, seconds: float, of: int, clauses: int, note: str = "") -> None:
        rows.append({"engine": name, "ms per case": 1000 * seconds / of, "clauses": clauses, "cases": of, "note": note})

    def ours() -> None:
        j = judge(facts, some, layout)
        for r in asked.clauses:
            j.logic.truth(layout.shared(r.criterion))

    add("arrays, one process", median(ours, 3), m, len(asked.clauses), "resolution of dated facts included")

    # The same clauses as sets in SPARQL, from cases that are resolved already.
    queries, truths = {}, {}
    for r in asked.clauses:
        try:
            body = sparql(r.criterion, layout)
        except NotImplementedError:
            continue
        if len(body) < 2000:
            queries[r.id] = f"SELECT DISTINCT ?case WHERE {{ ?case <urn:b:lesion> ?index . {body} }}"
            truths[r.id] = {
                f"urn:b:case{i}" for i in np.flatnonzero(judged.logic.truth(layout.shared(r.criterion)) == MET)
            }
    graph = list(dict.fromkeys(triples(judged, layout)))
    store = ox.Store()
    node = {t: ox.NamedNode(f"urn:b:{t}") for s, p, o in graph for t in (s, p, o) if isinstance(t, str)}
    quads = [ox.Quad(node[s], node[p], node[o] if isinstance(o, str) else ox.Literal(o)) for s, p, o in graph]
    load = timed(lambda: store.extend(quads))
    chosen = list(queries)[:: 6 if quick else 1]
    wrong = 0
    start = time.perf_counter()
    for id_ in chosen:
        wrong += {row[0].value for row in store.query(queries[id_])} != truths[id_]
    took = time.perf_counter() - start
    add("SPARQL in sets, Oxigraph", took * len(queries) / len(chosen), m, len(queries),
        f"met only; from resolved cases; loading {load:.1f} s apart; {wrong} of {len(chosen)} differ")  # fmt: skip

    few = {f"case{i}" for i in range(200)}
    mine = {o for s, p, o in graph if s in few and p in ("patient", "lesion", "procedure")} | few
    small = rdflib.Graph()
    for s, p, o in graph:
        if s in mine:
            value = rdflib.URIRef(f"urn:b:{o}") if isinstance(o, str) else rdflib.Literal(o)
            small.add((rdflib.URIRef(f"urn:b:{s}"), rdflib.URIRef(f"urn:b:{p}"), value))
    sample = chosen[:: 40 if quick else 12]
    took = timed(lambda: [list(small.query(queries[id_])) for id_ in sample])
    add(
        "SPARQL in sets, rdflib",
        took * len(queries) / len(sample),
        min(200, m),
        len(queries),
        "met only; sampled clauses",
    )

    # One case after another.
    records = [
        r for r, _ in zip(read_fact_table(folder, k, IntakeReport("bench")), range(40 if quick else 200), strict=False)
    ]
    cases_of = sum(len(r.lesions) for r in records)
    one = timed(lambda: [assess(r, knowledge=k, guidelines=[ALL], validate=False) for r in records])
    add("our own engine, one case at a time, with proof", one, cases_of, len(asked.clauses))
    shapes = timed(lambda: [validate_record(r) for r in records])
    add("pySHACL: only whether the facts conform", shapes, cases_of, 0, "no clause judged")
    if not quick:
        from kypho_kg.crosscheck import compare

        tried = records[:3]
        took = timed(lambda: [compare(r, k, None, None, None, 600) for r in tried])
        add("HermiT, one case at a time", took, len(tried), len(asked.clauses), "resolved by us first; first lesion")
    base = rows[0]["ms per case"]
    for row in rows:
        row["times ours"] = row["ms per case"] / base
    return rows


# --------------------------------------------------------------------------------------------------------------------


def main() -> None:
    """Run everything, print the tables, and write them as JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="10,000 patients at most, no reasoner")
    parser.add_argument("--sizes", default="1000,10000,100000,1000000", help="numbers of patients")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    sizes = [1000, 10_000] if options.quick else [int(s) for s in options.sizes.split(",")]
    k = load_knowledge()
    layout = layout_of(k)
    asked = Asked(layout, tuple(k.guidelines.values()))
    runs: list[Row] = []
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        folders = {}
        for n in sizes:
            folder = folders[n] = Path(scratch) / f"cohort-{n}"
            made = generate(n, folder)
            cases = parquet.read_metadata(folder / "cases.parquet").num_rows
            facts = parquet.read_metadata(folder / "facts.parquet").num_rows
            seconds, peak = whole(folder, Path(scratch) / f"out-{n}", os.cpu_count() or 1)
            runs.append({"cases": cases, "facts": facts, "seconds": seconds, "peak MiB": peak, "generated in": made})
            print(f"{cases:>10,} cases  {facts:>12,} facts  {seconds:8.1f} s  {1e6 * seconds / cases:8.1f} us/case"
                  f"  peak {peak:,.0f} MiB  (generated in {made:.1f} s)", flush=True)  # fmt: skip
        big = [r for r in runs if r["cases"] >= 10_000]
        if len(big) > 1:
            first, last = big[0], big[-1]
            growth = math.log(last["seconds"] / first["seconds"]) / math.log(last["cases"] / first["cases"])
            found["growth exponent"] = growth
            print(f"growth exponent from {first['cases']:,} to {last['cases']:,} cases: {growth:.2f}")
        last = runs[-1]
        per_clause = 1e9 * last["seconds"] / last["cases"] / len(asked.clauses)
        print(f"per case and clause: {per_clause:.0f} ns ({len(asked.clauses)} clauses, everything included)")
        middle = folders[min(sizes, key=lambda n: abs(n - 20_000))]
        found["stages"], m = stages(middle, layout, asked, 3 if options.quick else 5)
        print(f"\nstages of a part of {m:,} cases, one process")
        for row in found["stages"]:
            print(f"  {row['stage']:40} {row['seconds']:7.3f} s  {1e6 * row['seconds'] / m:7.2f} us/case")
        found["alternatives"] = alternatives(middle, layout, asked, 300 if options.quick else 2000, options.quick)
    print("\nwhat could be run instead, the same cases and clauses")
    for row in found["alternatives"]:
        print(
            f"  {row['engine']:48} {row['ms per case']:12.3f} ms/case  {row['times ours']:12,.0f} times  {row['note']}"
        )
    if options.json:
        options.json.write_text(json.dumps({"runs": runs, **found}, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
