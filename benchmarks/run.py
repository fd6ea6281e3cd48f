"""Benchmarks: one command, one table; the same work by what a user would run instead, in the same run.

    python benchmarks/run.py [--quick] [--json FILE]

Times are medians of interleaved rounds in milliseconds; memory is the peak resident size of a fresh process.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / "examples" / "constructed" / "t4-outpatient.yaml"


def timed(work: Callable[[], object]) -> float:
    """Milliseconds of one call."""
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) * 1000


def paired(works: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Medians of several pieces of work, run in turns so that a noisy moment hits all of them."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for work in works.values():
        work()
    for _ in range(rounds):
        for name, work in works.items():
            times[name].append(timed(work))
    return {name: statistics.median(t) for name, t in times.items()}


def cold(arguments: list[str], rounds: int) -> tuple[float, float]:
    """Median wall time in milliseconds and peak memory in MiB of a fresh process."""
    times, peak = [], 0.0
    probe = (
        "import resource,subprocess,sys;"
        "subprocess.run(sys.argv[1:],stdout=subprocess.DEVNULL,check=True);"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    for _ in range(rounds):
        start = time.perf_counter()
        out = subprocess.run([sys.executable, "-c", probe, *arguments], capture_output=True, text=True, check=True)
        times.append((time.perf_counter() - start) * 1000)
        peak = max(peak, int(out.stdout) / 1024)
    # The probe itself starts a Python; its own start-up is taken off.
    base = statistics.median(
        timed(lambda: subprocess.run([sys.executable, "-c", "import resource"], check=True)) for _ in range(3)
    )
    return statistics.median(times) - base, peak


def elsewhere(name: str, *, quick: bool) -> Any:
    """The figures of another benchmark, from a process of its own: what it starts inherits no peak of ours."""
    with tempfile.NamedTemporaryFile(suffix=".json") as figures:
        print(f"\n{name}", flush=True)
        words = ["--json", figures.name, *(["--quick"] if quick else [])]
        subprocess.run([sys.executable, str(ROOT / "benchmarks" / f"{name}.py"), *words], check=True)
        return json.loads(Path(figures.name).read_text("utf-8"))


def main() -> None:
    """Run everything and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds, no reasoner")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    rounds = 5 if options.quick else 21
    rows: list[tuple[str, float, str]] = []

    command = [sys.executable, "-m", "kypho_kg"]
    for name, arguments in {
        "cold: --help": ["--help"],
        "cold: assess one file": ["assess", str(EXAMPLE)],
        "cold: assess one file as JSON": ["assess", str(EXAMPLE), "--format", "json"],
    }.items():
        wall, peak = cold([*command, *arguments], 3 if options.quick else 7)
        rows.append((name, wall, f"peak {peak:.0f} MiB"))

    from kypho_kg import report
    from kypho_kg.candidacy import ALL, assess
    from kypho_kg.conflicts import conflicts_of
    from kypho_kg.evaluation import Evaluator
    from kypho_kg.explanation import explain
    from kypho_kg.inference import infer
    from kypho_kg.intake import mark_invalid
    from kypho_kg.loading import load_knowledge, read_knowledge
    from kypho_kg.reasons import reasons_of
    from kypho_kg.record import LESION, Lesion
    from kypho_kg.sources.patient_file import read_patient_file
    from kypho_kg.verdicts import conclude, derive_query, verdict_graph

    k = load_knowledge()
    record = read_patient_file(EXAMPLE, k)
    bridges = tuple(k.bridges.values())
    snapshot = infer(record, k, record.as_of, bridges=bridges)
    clauses = [r for g in k.guidelines.values() for r in g.recommendations]

    def evaluate() -> None:
        evaluator = Evaluator(snapshot, LESION + record.lesions[0].id, has_procedure=True)
        for r in clauses:
            evaluator.evaluate(r.criterion)

    answer = assess(record, knowledge=k, guidelines=[ALL], validate=False)

    # The same case with 20 of its features forgotten, explained in full.
    known = dict.fromkeys((f.subject, f.feature) for f in record.facts)
    forgotten = set(list(known)[:: len(known) // 20][:20])
    fewer = tuple(f for f in record.facts if (f.subject, f.feature) not in forgotten)
    open_answer = assess(replace(record, facts=fewer), knowledge=k, guidelines=[ALL], validate=False)

    def explained(of: object) -> None:
        for e in explain(of):
            for a in e.case.assessments:
                e.needs(a)
                e.flips(a)
                for clause in a.clauses:
                    reasons_of(e.case.snapshot, clause)
            _ = (e.steps, e.unobtainable, e.disagreement, e.unread)

    stages = paired(
        {
            "load the knowledge base": lambda: read_knowledge(ROOT / "ontology"),
            "read a patient file": lambda: read_patient_file(EXAMPLE, k),
            "check its record with SHACL": lambda: mark_invalid(record),
            "resolve the snapshot, with bridges": lambda: infer(record, k, record.as_of, bridges=bridges),
            f"truths of {len(clauses)} clauses with proof": evaluate,
            "one case, all guidelines, with proof": lambda: assess(
                record, knowledge=k, guidelines=[ALL], validate=False
            ),
            "the same, SHACL included": lambda: assess(record, knowledge=k, guidelines=[ALL]),
            "one case, those asked by default": lambda: assess(record, knowledge=k, validate=False),
            "conflicts among all on the case": lambda: conflicts_of(k, answer.cases[0]),
            "one case explained, all guidelines, 20 features unknown": lambda: explained(open_answer),
            "its proof as JSON": lambda: json.dumps(report.answers_json([answer], [], "bench")),
        },
        rounds,
    )
    rows += [(f"warm: {name}", t, "") for name, t in stages.items()]
    one = stages["one case, all guidelines, with proof"]

    # Growth: the same patient with ever more lesions, which is ever more cases.
    sizes = (1, 4, 16)
    growth: dict[str, Callable[[], object]] = {}
    for n in sizes:
        ids = [f"l{i}" for i in range(n)]
        facts = [f for f in record.facts if not f.subject.startswith(LESION)]
        facts += [replace(f, subject=LESION + i) for i in ids for f in record.facts if f.subject.startswith(LESION)]
        many = replace(record, lesions=tuple(Lesion(i) for i in ids), facts=tuple(facts), procedure=None)
        growth[f"{n} lesions"] = lambda many=many: assess(many, knowledge=k, guidelines=[ALL], validate=False)
    grown = paired(growth, max(3, rounds // 4))
    first = grown["1 lesions"]
    rows += [(f"growth: {name}", t, f"{t / first:.1f} times one lesion") for name, t in grown.items()]

    # What a user would run instead for the same verdicts from the same truths: rdflib's SPARQL engine.
    import rdflib

    case = answer.cases[0]
    variants = {(a.guideline.id, ""): [(c.recommendation, c.truth) for c in a.clauses if not c.recommendation.reading]
                for a in case.assessments}  # fmt: skip
    graph = rdflib.Graph()
    for s, p, o in verdict_graph(variants):
        graph.add((rdflib.URIRef(s), rdflib.URIRef(p), rdflib.URIRef(str(o))))
    query = derive_query("verdict")
    engines = paired(
        {
            "verdicts by Oxigraph": lambda: conclude(variants),
            "verdicts by rdflib": lambda: list(graph.query(query)),
        },
        max(3, rounds // 4),
    )
    ours = engines["verdicts by Oxigraph"]
    rows += [(f"instead: {name}", t, f"{t / ours:.1f} times") for name, t in engines.items()]
    if not options.quick:
        from kypho_kg.crosscheck import compare
        from kypho_kg.reasoning import classify

        wall = timed(lambda: compare(record, k, None, None, None, 300))
        rows.append(
            ("instead: HermiT on the same case, both polarities", wall, f"{wall / one:.0f} times one case of ours")
        )
        rows.append(("HermiT classifies the whole ontology", timed(lambda: classify(k, 600)), ""))

    width = max(len(name) for name, _, _ in rows)
    for name, t, note in rows:
        print(f"{name:{width}}  {t:10.1f} ms  {note}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    more = {name: elsewhere(name, quick=options.quick) for name in ("fhir_stream", "cohort")}
    print(f"peak memory of this process: {peak:.0f} MiB; {len(k.triples):,} triples, {len(clauses)} clauses")
    if options.json:
        single = [{"name": name, "milliseconds": round(t, 3), "note": note} for name, t, note in rows]
        with tempfile.NamedTemporaryFile("w", dir=options.json.parent, delete=False, encoding="utf-8") as file:
            json.dump({"one case": single, **more}, file, indent=1)
        Path(file.name).replace(options.json)


if __name__ == "__main__":
    main()
