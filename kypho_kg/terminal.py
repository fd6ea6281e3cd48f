"""Answers as text for a terminal: a table per lesion, a matrix for many, and the full tree of one guideline."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from kypho_kg.candidacy import Answer, Assessment, CaseAnswer, documentation
from kypho_kg.classification import lesion_types
from kypho_kg.coverage import coverage_line
from kypho_kg.evaluation import Truth
from kypho_kg.explanation import Explained, explain
from kypho_kg.guidelines import ABSOLUTE, EXCLUDES, RELATIVE, Guideline
from kypho_kg.knowledge import Knowledge
from kypho_kg.narrative import Node, Section, narrate
from kypho_kg.reasons import no_candidate_either_way
from kypho_kg.record import LESION, PATIENT, PROCEDURE, Cause, Fact
from kypho_kg.report import DISCLAIMER, level_words
from kypho_kg.summary import STYLES, beside_lines, bridge_words, lesion_words, print_counts, print_summary, short
from kypho_kg.vocabulary import KYPHO
from kypho_kg.words import choice_words, fact_words, reason_words

if TYPE_CHECKING:
    from rich.console import Console
    from rich.tree import Tree

MANY = 8
"""With more sources than this they are summed up, one line each."""
_FORCE = {True: "", False: "not in force for this case", None: "in force: not known"}
_TRUTH_STYLES = {Truth.MET: "green", Truth.NOT_MET: "red", Truth.UNKNOWN: "yellow"}


def print_cases(console: Console, answers: Sequence[Answer]) -> None:
    """One table per lesion: verdict, why, and what is missing."""
    from rich.table import Table
    from rich.text import Text

    for answer in answers:
        k = answer.knowledge
        if _many_sources(answer):
            for case in answer.cases:
                console.print(Text(case_title(k, answer, case), style="bold"))
            print_summary(console, answer)
            for case in answer.cases:
                for line in unused_lines(k, case):
                    console.print(Text(line, style="dim"))
            console.print(Text("Name a source for its clauses: kypho-kg explain FILE --guideline ID", style="dim"))
            continue
        for explained in explain(answer):
            case = explained.case
            console.print(Text(case_title(k, answer, case), style="bold"))
            table = Table(show_lines=True, expand=True)
            table.add_column("Source", ratio=3, overflow="fold")
            table.add_column("Verdict", ratio=3, overflow="fold")
            table.add_column("Why", ratio=7)
            table.add_column("Still missing", ratio=5)
            for a in case.assessments:
                verdict = Text()
                for i, (line, style) in enumerate(verdict_lines(a)):
                    verdict.append(("\n" if i else "") + line, style)
                why, missing = Text("\n".join(why_lines(k, a))), Text("\n".join(missing_lines(explained, a)))
                table.add_row(Text(source_words(a)), verdict, why, missing)
            console.print(table)
            for line in unused_lines(k, case):
                console.print(Text(line, style="dim"))
        if not answer.cases:
            console.print(f"Patient {answer.record.patient}: the record has no vertebral lesion, so there is no case.")
    if answers:
        console.print(Text(footer(*answers), style="dim"))


def _many_sources(answer: Answer) -> bool:
    return any(len(case.assessments) > MANY for case in answer.cases)


def print_matrix(console: Console, answers: Sequence[Answer]) -> None:
    """Many cases at a glance: one row per lesion, one column per source."""
    from rich.table import Table
    from rich.text import Text

    if any(map(_many_sources, answers)):
        print_counts(console, answers)
        _print_legend(console, answers)
        return
    guidelines: dict[str, Guideline] = {
        a.guideline.id: a.guideline for answer in answers for c in answer.cases for a in c.assessments
    }
    table = Table(show_lines=False)
    table.add_column("Patient", no_wrap=True)
    table.add_column("Lesion", no_wrap=True)
    for id_ in guidelines:
        table.add_column(id_.replace("-", "-\n", 1), overflow="fold")
    for answer in answers:
        for case in answer.cases:
            by_id = {a.guideline.id: a for a in case.assessments}
            cells = [
                Text(short(by_id[g]), STYLES.get(by_id[g].verdict, "dim")) if g in by_id else Text("")
                for g in guidelines
            ]
            table.add_row(answer.record.patient, lesion_words(answer.knowledge, case), *cells)
    console.print(table)
    _print_legend(console, answers)


def _print_legend(console: Console, answers: Sequence[Answer]) -> None:
    from rich.text import Text

    console.print(Text(footer(*answers) if answers else DISCLAIMER, style="dim"))
    legend = (
        "yes = candidate · yes! = with caution · yes? = cautions still to be screened · no = not indicated · "
        "CONTRA = contraindicated · open = cannot say yet · open/no = cannot say which, but no candidate either way · "
        "n/a = does not apply. "
        "Name one file to see why and what is missing."
    )
    console.print(Text(legend, style="dim"))


def case_title(k: Knowledge, answer: Answer, case: CaseAnswer) -> str:
    """Patient, lesion, level, date and what is proposed."""
    parts = [
        f"Patient {answer.record.patient}",
        f"lesion {case.lesion.id}",
        level_words(k, case) or "level unknown",
    ]
    technique = case.snapshot.value(PROCEDURE, k.by_name["technique"].iri).value
    if case.in_session and isinstance(technique, frozenset):
        parts.append("proposed: " + " or ".join(choice_words(k, technique)))
    elif case.in_session:
        parts.append("proposed: technique not stated")
    elif answer.record.procedure:
        parts.append("not in the proposed session")
    parts.append(f"as of {answer.as_of}")
    if answer.record.constructed:
        parts.append("constructed example")
    return " · ".join(parts)


def source_words(a: Assessment) -> str:
    """The source, its kind, and whether it is in force."""
    return "\n".join(filter(None, (a.guideline.id, a.guideline.plain, _FORCE[a.in_force])))


def verdict_lines(a: Assessment) -> list[tuple[str, str]]:
    """The verdict in the words of its layer, its alternatives beside it, and what it can still become."""
    lines = [(a.guideline.words(a.verdict).upper(), STYLES.get(a.verdict, ""))]
    if len(a.conclusion.reachable) > 1:
        lines.append(("can become: " + "; ".join(map(a.guideline.words, a.conclusion.reachable)), "dim"))
    if no_candidate_either_way(a):
        lines.append(("no candidate either way", ""))
    rated = dict.fromkeys(r.words for _, r in a.ratings if r.category in a.categories)
    lines += [(f"rated: {words}", "") for words in rated]
    lines += beside_lines(a)
    return [*lines, (bridge_words(a), "dim")] if a.bridges else lines


def why_lines(k: Knowledge, a: Assessment) -> list[str]:
    """The deciding clauses in words."""
    found = reason_words(k, a)
    if a.verdict in {"Candidate", "NoVerdict", "Rated"}:
        names = [f"{c.recommendation.clause} {c.recommendation.label}" for c, _ in found]
        against = [c for e in (ABSOLUTE, RELATIVE, EXCLUDES) for c in a.having(e)]
        ruled_out = "every contraindication ruled out" if against else "the source names no contraindication"
        return [f"met: {n}" for n in names] + ([ruled_out] if a.verdict == "Candidate" else [])
    lines = []
    for clause, leaves in found:
        # An open clause with many unknown leaves is told by what is missing.
        shown = leaves if clause.truth is not Truth.UNKNOWN or len(leaves) <= 2 else []
        detail = f" [{'; '.join(shown)}]" if shown else ""
        lines.append(f"{clause.recommendation.clause} {clause.recommendation.label}: {clause.truth.words}{detail}")
    if a.verdict == "NotApplicable":
        met = (c.recommendation for c in a.having(ABSOLUTE, Truth.MET))
        lines += [f"although outside its scope, contraindication met: {r.clause} {r.label}" for r in met]
    if a.assumed and a.assumed.assumptions:
        absolute = {
            f.feature for c in a.assumed.clauses if c.recommendation.effect == ABSOLUTE
            for leaf in c.proof.leaves() for f in leaf.facts
        }  # fmt: skip
        ordered = sorted(a.assumed.assumptions, key=lambda f: f.feature not in absolute)
        lines.append("assumed absent: " + ", ".join(k.label(f.feature) for f in ordered))
    return lines


def missing_lines(explained: Explained, a: Assessment, limit: int = 6) -> list[str]:
    """What to get next, the least burdensome first, and what the file must still show."""
    k, wanted = explained.knowledge, explained.needs(a)
    lines = []
    for need in wanted[:limit]:
        why = "" if need.causes == (Cause.NOT_RECORDED,) else f" ({', '.join(k.plain(KYPHO + c) for c in need.causes)})"
        lines.append(f"- {k.plain(need.feature)}{why}")
    if len(wanted) > limit:
        lines.append(f"and {len(wanted) - limit} more (kypho-kg explain)")
    _, papers = documentation(a)
    if papers and a.verdict not in {"NotApplicable", "NotIndicated", "Contraindicated"}:
        lines.append("not shown in the file: " + ", ".join(p.partition("/")[2] for p in papers))
    return lines


def unused_lines(k: Knowledge, case: CaseAnswer) -> list[str]:
    """Recorded facts that did not count, with the reason; nothing recorded is silent."""
    mine = {PATIENT, PROCEDURE, LESION + case.lesion.id}

    def said(fact: Fact) -> str:
        words = fact_words(k, fact)
        return words if words.startswith(k.label(fact.feature)) else f"{k.label(fact.feature)}: {words}"

    stale = [
        f"{said(f)}, {f.time} (looks back {k.features[f.feature].lookback} days)"
        for f in case.snapshot.stale
        if f.subject in mine
    ]
    ignored = [f"{said(f)} ({why})" for f, why in case.snapshot.ignored if f.subject in mine]
    lines = ["Too old to count: " + "; ".join(stale)] if stale else []
    return lines + (["Not counted: " + "; ".join(ignored)] if ignored else [])


def footer(answer: Answer, *more: Answer) -> str:
    """What was run, and what it is not."""
    k = answer.knowledge
    # Whoever writes a patient file knows what is in it; of what codes carry, nobody does.
    records = [a.record for a in (answer, *more)]
    filled = f"{coverage_line(k, records)} " if any(r.mappings for r in records) else ""
    return (
        f"{filled}Knowledge base {k.version}, sha256 {k.sha256[:12]}; assumed: {', '.join(answer.policies)}; "
        f"bridges {'on' if answer.bridged else 'off'}. {DISCLAIMER}"
    )


def heading_lines(explained: Explained, a: Assessment) -> list[tuple[str, str]]:
    """What stands above the explanation of one guideline, each line with its style."""
    k = explained.knowledge
    lines = [
        (f"{a.guideline.id}: {a.guideline.title}", ""),
        *([(_FORCE[a.in_force], "")] if a.in_force is not True else []),
        (f"Use: {a.guideline.use}", ""),
        (f"Not for: {a.guideline.misuse}", ""),
        *(("  " + line, style) for line, style in verdict_lines(a)),
    ]
    types = [
        k.plain(t.iri) for t in lesion_types(explained.case.snapshot, explained.case.lesion.id) if t.truth is Truth.MET
    ]
    return lines + ([(f"Derived types of the lesion: {', '.join(types)}", "dim")] if types else [])


def print_explanation(console: Console, explained: Explained, a: Assessment) -> None:
    """One guideline for one lesion: every clause with its proof, what is missing, and what would change the verdict."""
    from rich.text import Text

    console.print(Text(case_title(explained.knowledge, explained.answer, explained.case), style="bold"))
    for line, style in heading_lines(explained, a):
        console.print(Text(line, style))
    print_sections(console, narrate(explained, a))
    for line in unused_lines(explained.knowledge, explained.case):
        console.print(Text(line, style="dim"))
    console.print(Text(footer(explained.answer), style="dim"))


def print_sections(console: Console, sections: Iterable[Section]) -> None:
    """Sections as trees under their headings."""
    from rich.text import Text
    from rich.tree import Tree

    def grow(node: Node, tree: Tree | None) -> Tree:
        text = Text()
        if node.truth is None and tree is None:
            text.append("- ")
        elif node.truth is not None:
            text.append(f"[{node.truth.words}] ", _TRUTH_STYLES[node.truth])
        text.append(node.text)
        for note in node.notes:
            text.append(f"\n{note}", "dim")
        branch = Tree(text) if tree is None else tree.add(text)
        for child in node.children:
            grow(child, branch)
        return branch

    for section in sections:
        console.print(Text(f"\n{section.title}", style="bold"))
        if section.lead:
            console.print(Text(section.lead, style="dim"))
        for node in section.nodes:
            console.print(grow(node, None))
