"""The command that generates patients. No logic of its own."""

from __future__ import annotations

from collections import Counter
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from kypho_kg.cli_shared import GuidelineIds, knowledge

synth_app = typer.Typer()


class SynthFormat(StrEnum):
    """Forms of generated patients."""

    FACTS = "facts"
    PATIENT = "patient"
    FHIR = "fhir"


@synth_app.command()
def synth(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write to.")],
    number: Annotated[int, typer.Option("--number", "-n", min=1, max=100_000_000, help="How many patients.")] = 1000,
    seed: Annotated[
        int, typer.Option("--seed", min=0, max=2**63 - 1, help="The same seed gives the same patients.")
    ] = 1,
    format_: Annotated[
        SynthFormat,
        typer.Option("--format", help="facts: a fact table; patient: a file each; fhir: a Bundle in each line."),
    ] = SynthFormat.FACTS,
    population: Annotated[str, typer.Option("--population", help="A bundled population, or a file.")] = "us-referrals",
    missing: Annotated[float, typer.Option(min=0, max=1, help="Chance that a feature is not recorded.")] = 0.3,
    contradictions: Annotated[float, typer.Option(min=0, max=1, help="Chance that a feature is contradicted.")] = 0.02,
    dirty: Annotated[float, typer.Option(min=0, max=1, help="Chance that a feature is recorded badly.")] = 0.01,
    aimed: Annotated[
        float, typer.Option(min=0, max=1, help="Share of patients built towards a clause and a known truth.")
    ] = 0.2,
    guideline: GuidelineIds = None,
) -> None:
    """Generate patients that are nobody, with what was planted and which answers are known by construction."""
    from kypho_kg.synth import Generator, Rates
    from kypho_kg.synth_aims import Aims
    from kypho_kg.synth_population import find_population
    from kypho_kg.synth_reader import read_population
    from kypho_kg.synth_run import synthesize

    k = knowledge()
    drawn = read_population(find_population(population), k)
    aims = Aims(k, guideline or ()) if aimed else None
    generator = Generator(drawn, k, seed, Rates(missing, contradictions, dirty, aimed), aims)
    done = synthesize(generator, k, number, output, format_.value)
    each = done.facts / done.cases
    typer.echo(f"{done.patients:,} patients, {done.cases:,} cases, {done.facts:,} facts, {each:.1f} per case")
    typer.echo("planted: " + (", ".join(f"{n:,} {kind}" for kind, n in done.planted.items() if n) or "nothing"))
    typer.echo("aimed: " + (", ".join(f"{n:,} {truth}" for truth, n in sorted(done.expected.items())) or "none"))
    if format_ is SynthFormat.FHIR:
        why: Counter[str] = Counter()
        for what, n in done.left_out.items():
            why[what.partition(": ")[0]] += n
        lost = ", ".join(f"{n:,} {reason}" for reason, n in sorted(why.items(), key=lambda w: (-w[1], w[0])))
        typer.echo(f"in FHIR: {done.carried.total():,} facts; left out: {why.total():,} ({lost or 'nothing'})")
