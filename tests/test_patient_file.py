"""Patient files: every form that may be written, and one clear message for everything else."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import bad_input
import pytest
from bad_input import ALL, GOOD, Bad, swap
from builders import EXAMPLES, ROOT, A, between, iri, span
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kypho_kg.candidacy import assess
from kypho_kg.errors import InputError, Problem
from kypho_kg.intake import read_records, reject_invalid
from kypho_kg.loading import load_knowledge
from kypho_kg.record import PATIENT, PROCEDURE, Procedure, Range, Record
from kypho_kg.sources.patient_file import merge, overlay, read_overlay, read_patient_file
from kypho_kg.sources.yaml_tree import parse_tree


@pytest.fixture
def read(tmp_path, knowledge):
    """Reads a text as a patient file."""

    def reader(text: str | bytes, name: str = "patient.yaml") -> Record:
        file = tmp_path / name
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_patient_file(file, knowledge)

    return reader


def facts_of(record: Record, name: str):
    return [f for f in record.facts if f.feature == iri(name)]


# -- what is wrong, one message each


@pytest.mark.parametrize("kind", ALL)
def test_a_bad_file_has_one_problem_that_says_where_what_and_what_would_be_right(tmp_path, knowledge, kind):
    bad: Bad = ALL[kind]
    (tmp_path / "patient.yaml").write_bytes(bad.data)
    records, problems = read_records([tmp_path / "patient.yaml"], knowledge)
    assert records == []
    [problem] = problems
    assert problem.where.startswith("patient.yaml" + bad.where)
    assert bad.what in problem.what
    assert bad.expected in f"{problem.what} {problem.expected}"
    assert "\n" not in str(problem)


def test_the_file_that_all_others_vary_is_good(read, knowledge):
    record = read(GOOD)
    reject_invalid(record, knowledge)
    assert record.patient == "good"


def test_all_problems_of_a_file_are_found_at_once(read):
    text = swap("age: 75", "age: old").replace("painNrs: 6", "painNsr: 6").replace("level: L1", "level: T13")
    with pytest.raises(InputError) as bad:
        read(text)
    assert [p.where for p in bad.value.problems] == [
        "patient.yaml:3, patient.age",
        "patient.yaml:9, lesions[0].level",
        "patient.yaml:11, lesions[0].facts.painNsr",
    ]


def test_all_violations_of_shapes_are_found_at_once(read, knowledge):
    record = read(bad_input.nrs("11").replace("inr: {value: 1.1,", "inr: {value: -1,"))
    with pytest.raises(InputError) as bad:
        reject_invalid(record, knowledge)
    assert [p.where for p in bad.value.problems] == ["patient.yaml:6, patient", "patient.yaml:11, lesion a"]


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda p: p / "missing.yaml", "cannot be read: No such file or directory"),
        (lambda p: p, "the folder holds no NDJSON"),
        (lambda p: Path("/dev/zero"), "the input has no end"),
    ],
    ids=["missing", "a directory", "an endless device"],
)
def test_what_is_no_file_is_said_so(tmp_path, knowledge, make, what):
    _, [problem] = read_records([make(tmp_path)], knowledge)
    assert what in problem.what


def test_a_file_of_the_largest_size_is_read(read):
    assert read(GOOD + "#" + "x" * (1_000_000 - len(GOOD) - 1)).patient == "good"
    with pytest.raises(InputError, match="1,000,001 bytes"):
        read(GOOD + "#" + "x" * (1_000_000 - len(GOOD)))


# -- what may be written


def one(read, name: str, text: str, *, lesion: bool = True):
    """The facts of one feature, written so."""
    put = ("painNrs: 6", f"{name}: {text}") if lesion else ("inr: {value: 1.1, time: 2026-03-01}", f"{name}: {text}")
    return facts_of(read(swap(*put)), name)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("6", between(6, 6)),
        ("6.50", between("6.5", "6.5")),
        ("+6", between(6, 6)),
        (".5", between("0.5", "0.5")),
        ("1e1", between(10, 10)),
        ("{value: 6}", between(6, 6)),
        ("{min: 4, max: 7}", between(4, 7)),
        ("{above: 4, below: 7}", between(4, 7, low_open=True, high_open=True)),
        ("{min: 4}", between(4)),
        ("{below: 7}", between(None, 7, high_open=True)),
        ("{min: 5, max: 5}", between(5, 5)),
        ("{value: 62, unit: mm}", between("6.2", "6.2")),
    ],
)
def test_every_form_of_a_quantity(read, text, value):
    [fact] = one(read, "painNrs", text)
    assert (fact.value, fact.unit, fact.polarity, fact.subject) == (value, "{score}", "present", A)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("plateletCount", '{value: 210000, unit: "/uL"}', 210),
        ("plateletCount", "{value: 210, unit: 10*3/uL}", 210),
        ("analgesicTrialWeeks", "{value: 42, unit: d}", 6),
        ("analgesicTrialWeeks", "{value: 6, unit: wk}", 6),
    ],
)
def test_other_units_are_converted_and_what_was_stated_is_kept(read, name, text, value):
    [fact] = one(read, name, text, lesion=False)
    assert fact.value == Range.exactly(value)
    assert fact.words == ("" if "wk" in text else text.strip("{}").replace("value: ", "").replace(', unit: "', " ")
                          .replace(", unit: ", " ").rstrip('"'))  # fmt: skip


def test_a_number_keeps_its_digits(read):
    [fact] = one(read, "painNrs", "5.10")
    assert str(fact.value) == "5.10"


def test_a_quantity_in_words_only(read):
    [fact] = one(read, "painNrs", "{words: severe}")
    assert (fact.polarity, fact.cause, fact.words) == ("indeterminate", "InWordsOnly", "severe")


@pytest.mark.parametrize("said", ["present", "absent", "indeterminate"])
def test_every_form_of_a_finding(read, said):
    for text in (said, f"{{value: {said}}}"):
        [fact] = one(read, "Retropulsion", text)
        assert (fact.polarity, fact.value) == (said, None)


@pytest.mark.parametrize("cause", ["NotAssessable", "Pending", "Indeterminate", "InWordsOnly"])
@pytest.mark.parametrize("name", ["Retropulsion", "painNrs", "painTrend", "primaryEtiology", "onsetDate"])
def test_every_feature_may_be_unknown_for_a_stated_cause(read, name, cause):
    [fact] = one(read, name, f"{{unknown: {cause}, reason: pacemaker}}")
    assert (fact.polarity, fact.cause, fact.reason) == ("indeterminate", cause, "pacemaker")


def test_every_form_of_a_choice(read):
    assert [f.value for f in one(read, "painTrend", "Stable")] == [frozenset({iri("Stable")})]
    [several] = one(read, "painTrend", "{one_of: [Stable, Worsening]}")
    assert several.value == frozenset({iri("Stable"), iri("Worsening")})
    [out] = one(read, "painTrend", "{absent: Improving}")
    assert (out.polarity, out.value) == ("absent", frozenset({iri("Improving")}))


def test_every_form_of_a_category(read):
    assert [f.value for f in one(read, "primaryEtiology", "MultipleMyeloma")] == [iri("MultipleMyeloma")]
    [out] = one(read, "primaryEtiology", "{absent: MalignantEtiology}")
    assert (out.polarity, out.value) == ("absent", iri("MalignantEtiology"))


@pytest.mark.parametrize("text", ["2026", "2026-01", "2026-01-31", "2026-01-31T08:30"])
def test_dates_may_be_partial(read, text):
    assert [f.value for f in one(read, "onsetDate", text)] == [span(text)]
    assert [f.time for f in one(read, "painNrs", f"{{value: 6, time: {text}}}")] == [span(text)]


def test_a_fact_with_everything_said_of_it(read):
    [fact] = one(
        read, "painNrs",
        "{value: 6, time: 2026-03-01, mood: planned, verification: provisional, reason: asked twice, "
        "source: {document: note, date: 2026-03-01, author: DW, quote: six of ten}}",
    )  # fmt: skip
    assert (fact.time, fact.mood, fact.status, fact.reason) == (
        span("2026-03-01"),
        "planned",
        "provisional",
        "asked twice",
    )
    assert str(fact.source) == "note, 2026-03-01, DW: “six of ten”"
    assert fact.source.origin == "patient.yaml:11"


def test_several_facts_of_one_feature(read):
    facts = one(read, "painNrs", "[{value: 9, time: 2026-02-20}, {value: 6, time: 2026-02-28}, 5]")
    assert [str(f.value) for f in facts] == ["9", "6", "5"]
    assert [str(f.time) for f in facts] == ["2026-02-20", "2026-02-28", "None"]


def test_present_and_absent_at_once_is_a_conflict_and_no_mistake_of_the_file(read):
    record = read(GOOD.replace("facts:\n  inr", "facts:\n  ActiveInfection: [present, absent]\n  inr"))
    [assessment] = assess(record, guidelines=["seed-guidelines"], validate=False).cases[0].assessments
    [clause] = [c for c in assessment.clauses if c.recommendation.clause == "SEED-A1"]
    [leaf] = clause.proof.unknown_leaves()
    assert leaf.gap.cause == "Conflicting"


@pytest.mark.parametrize(
    ("text", "levels"),
    [("T12", {"T12"}), ("[T11, T12]", {"T11", "T12"}), ("LumbarSpine", {"L1", "L2", "L3", "L4", "L5"}),
     ("[L5, SacralSpine]", {"L5", "S1", "S2", "S3", "S4", "S5"})],
)  # fmt: skip
def test_every_form_of_a_level(read, text, levels):
    [fact] = facts_of(read(swap("level: L1", f"level: {text}")), "vertebralLevel")
    assert fact.value == frozenset(map(iri, levels))


def test_a_lesion_may_have_no_level_and_two_may_share_one(read):
    record = read(
        swap("    level: L1\n", "").replace("procedure:", "  - {id: b, level: L1}\n  - {id: c, level: L1}\nprocedure:")
    )
    assert [lesion.id for lesion in record.lesions] == ["a", "b", "c"]
    assert [f.subject for f in facts_of(record, "vertebralLevel")] == ["lesion:b", "lesion:c"]


def test_the_patient_in_short(read):
    record = read(swap("age: 75", "birth_date: 1950-05"))
    assert facts_of(record, "birthDate")[0].value == span("1950-05")
    assert facts_of(record, "sex")[0].value == frozenset({iri("Female")})
    [age] = facts_of(read(swap("age: 75", "age: {value: 75, time: 2025}")), "age")
    assert age.time == span("2025")


def test_a_birth_in_the_month_of_the_as_of_is_possible(read):
    assert facts_of(read(swap("age: 75", "birth_date: 2026-03")), "birthDate")


def test_the_procedure_in_short(read):
    text = (
        "technique: Vertebroplasty, cement: PmmaCement, levels: 2, setting: PhysicianOffice, service_date: 2026-03, "
        "facts: {FusionPlanned: absent}"
    )
    record = read(swap("technique: BalloonKyphoplasty", text))
    assert record.procedure == Procedure(("a",), span("2026-03"), "CA")
    names = ("technique", "cementType", "sessionLevelCount", "placeOfService", "payer", "FusionPlanned")
    assert {f.subject for n in names for f in facts_of(record, n)} == {PROCEDURE}
    assert facts_of(record, "sessionLevelCount")[0].value == between(2, 2)


def test_a_procedure_may_leave_its_lesions_open(read):
    assert read(swap("lesions: [a], ", "")).procedure.lesions is None


def test_features_of_a_lesion_may_stand_with_the_patient(read):
    record = read(swap("  inr:", "  painNrs: 7\n  inr:"))
    assert [f.subject for f in facts_of(record, "painNrs")] == [PATIENT, A]


def test_words_that_other_formats_read_as_yes_or_no_stay_words(read):
    assert read(swap("id: good", "id: no")).patient == "no"
    assert read(swap("id: good", "id: 007")).patient == "007"
    assert read(swap("state: CA", "state: NO")).procedure.state == "NO"


def test_notes_citation_and_address(read):
    record = read(GOOD + "notes: [one, two]\ncitation: Smith 2020\nurl: https://example.org\n")
    assert (record.notes, record.citation) == (("one", "two"), "Smith 2020 https://example.org")
    assert record.constructed
    assert not read(swap("constructed: true\n", "")).constructed
    assert record.files == ("patient.yaml",)


def test_a_byte_order_mark_and_windows_lines_do_no_harm(read):
    plain, odd = read(GOOD), read(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())
    assert odd == plain


def test_the_recipe_for_a_patient_is_a_good_file(read, knowledge):
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8").partition("## Add a patient")[2]
    record = read(text.partition("```yaml\n")[2].partition("```")[0])
    reject_invalid(record, knowledge)
    assert record.constructed


# -- JSON


def as_json(node) -> str:
    """A file as JSON: numbers stay numbers, words become texts."""
    if isinstance(node.value, dict):
        return "{" + ", ".join(f"{json.dumps(k)}: {as_json(v)}" for k, v in node.value.items()) + "}"
    if isinstance(node.value, list):
        return "[" + ", ".join(map(as_json, node.value)) + "]"
    return str(node.value) if node.number() is not None or node.value in {"true", "false"} else json.dumps(node.value)


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*/*.yaml"))[::6], ids=lambda p: p.stem)
def test_json_says_the_same_as_yaml(read, knowledge, file):
    def bare(record: Record) -> Record:
        facts = (replace(f, source=replace(f.source, origin="")) for f in record.facts)
        return replace(record, facts=tuple(facts), files=())

    text = as_json(parse_tree(file.read_text("utf-8"), "x"))
    assert json.loads(text)
    assert bare(read(text, "patient.json")) == bare(read_patient_file(file, knowledge))


# -- several files of one patient


def test_files_of_one_patient_become_one_record(read):
    first = read(swap("lesions:\n", "notes: [first]\nlesions:\n"), "first.yaml")
    second = read(
        "format: kypho-patient/1\npatient: {id: good}\nnotes: [second]\nfacts: {Pregnancy: absent}\n"
        "lesions: [{id: a, facts: {Retropulsion: absent}}, {id: b, level: T12}]\n",
        "second.yaml",
    )
    other = replace(second, patient="other")
    both, alone = merge([first, other, second])
    assert alone == other
    assert both.files == ("first.yaml", "second.yaml")
    assert [lesion.id for lesion in both.lesions] == ["a", "b"]
    assert (both.as_of, both.procedure, both.notes) == (first.as_of, first.procedure, ("first", "second"))
    assert set(both.facts) == {*first.facts, *second.facts}


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (("as_of: 2026-03-02", "as_of: 2026-03-03"), "as_of is 2026-03-02 and 2026-03-03"),
        (("state: CA", "state: OH"), "each file proposes another procedure"),
    ],
)
def test_files_of_one_patient_that_disagree_are_refused(tmp_path, knowledge, change, what):
    for name, text in (("a.yaml", GOOD), ("b.yaml", swap(*change)), ("c.yaml", GOOD.replace("good", "other"))):
        (tmp_path / name).write_text(text)
    records, problems = read_records([tmp_path / n for n in ("a.yaml", "b.yaml", "c.yaml")], knowledge)
    assert [r.patient for r in records] == ["other"]
    [problem] = problems
    assert problem.what == what
    assert problem.where == "a.yaml and b.yaml, of one patient"


# -- overlays

OVER = """\
format: kypho-patient/1
author: Dr. W
reason: measured again
lesions: [{id: a, facts: {painNrs: 3}}]
"""


@pytest.fixture
def overlaid(tmp_path, knowledge, read):
    """The good file with an overlay."""

    def run(text: str) -> Record:
        (tmp_path / "over.yaml").write_text(text)
        return overlay(read(GOOD), read_overlay(tmp_path / "over.yaml", knowledge))

    return run


def test_an_overlay_replaces_a_fact_and_both_stay(overlaid):
    old, new = facts_of(overlaid(OVER), "painNrs")
    assert (old.value, str(old.overridden_by), old.overridden_by.author) == (between(6, 6), "Dr. W", "Dr. W")
    assert (new.value, new.source.author, new.reason) == (between(3, 3), "Dr. W", "measured again")
    assert new.overridden_by is None


def test_an_overlay_adds_facts_and_lesions(overlaid):
    text = OVER.replace("}}]", "}}, {id: b, level: T12}]\nfacts: {Pregnancy: absent}")
    record = overlaid(text)
    assert [lesion.id for lesion in record.lesions] == ["a", "b"]
    assert facts_of(record, "Pregnancy")[0].source.author == "Dr. W"
    assert [f.overridden_by for f in facts_of(record, "inr")] == [None]
    assert record.files == ("patient.yaml", "over.yaml")


def test_an_overlay_changes_what_is_proposed(overlaid):
    record = overlaid(
        "format: kypho-patient/1\nauthor: W\nreason: r\nprocedure: {state: OH, technique: Vertebroplasty}\n"
    )
    assert record.procedure == Procedure(("a",), None, "OH")
    old, new = facts_of(record, "technique")
    assert old.overridden_by is not None
    assert new.value == frozenset({iri("Vertebroplasty")})


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (OVER.replace("author: Dr. W\n", ""), "needs author and reason"),
        (OVER.replace("reason: measured again\n", ""), "needs author and reason"),
        (OVER + "as_of: 2026-03-02\n", "as_of in a file for --with"),
        (OVER.replace("painNrs: 3", "painNrs: x"), "no finite number"),
        (OVER + "patient: {id: somebody}\n", "patient 'somebody' is not among those read"),
        (OVER.replace("painNrs: 3", "painNrs: 33"), "painNrs is 33"),
        (OVER + "procedure: {lesions: [z]}\n", "names a lesion that the record does not list"),
    ],
)
def test_a_bad_overlay_stops_everything(tmp_path, knowledge, text, what):
    (tmp_path / "patient.yaml").write_text(GOOD)
    (tmp_path / "over.yaml").write_text(text)
    with pytest.raises(InputError) as bad:
        read_records([tmp_path / "patient.yaml"], knowledge, [tmp_path / "over.yaml"])
    [problem] = bad.value.problems
    assert what in str(problem)


def test_an_overlay_of_nobody_in_particular_needs_a_single_patient(tmp_path, knowledge):
    for name in ("one", "two"):
        (tmp_path / f"{name}.yaml").write_text(GOOD.replace("good", name))
    (tmp_path / "over.yaml").write_text(OVER)
    files = [tmp_path / "one.yaml", tmp_path / "two.yaml"]
    with pytest.raises(InputError, match=r"over\.yaml: names no patient; expected the id of a patient of the sources"):
        read_records(files, knowledge, [tmp_path / "over.yaml"])
    (tmp_path / "over.yaml").write_text(OVER + "patient: {id: two}\n")
    first, second = read_records(files, knowledge, [tmp_path / "over.yaml"])[0]
    assert (len(facts_of(first, "painNrs")), len(facts_of(second, "painNrs"))) == (1, 2)


def test_a_bad_base_file_is_not_hidden_by_its_overlay(tmp_path, knowledge):
    (tmp_path / "patient.yaml").write_text(GOOD.replace("L1", "T13"))
    (tmp_path / "over.yaml").write_text(OVER)
    with pytest.raises(InputError, match="T13"):
        read_records([tmp_path / "patient.yaml"], knowledge, [tmp_path / "over.yaml"])


# -- anything at all

quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def survives(folder: Path, data: bytes) -> None:
    """Whatever is in the file, it is read or refused with problems that name it."""
    file = folder / "fuzz.yaml"
    file.write_bytes(data)
    problems: tuple[Problem, ...] = ()
    try:
        record = read_patient_file(file, load_knowledge())
    except InputError as error:
        problems = error.problems
    assert problems or record.patient
    assert all(p.where.startswith("fuzz.yaml") and p.what and "\n" not in str(p) for p in problems)


@quick
@given(data=st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(tmp_path, data):
    survives(tmp_path, data)


@quick
@given(text=st.text(max_size=200))
def test_any_text_is_read_or_refused(tmp_path, text):
    survives(tmp_path, text.encode("utf-8", "surrogatepass"))
    survives(tmp_path, f"format: kypho-patient/1\npatient: {{id: x}}\n{text}".encode("utf-8", "surrogatepass"))


@settings(quick, max_examples=150)
@given(data=st.data())
def test_a_good_file_with_a_piece_cut_or_put_in_is_read_or_refused(tmp_path, data):
    start = data.draw(st.integers(0, len(GOOD)))
    end = data.draw(st.integers(start, min(len(GOOD), start + 12)))
    piece = data.draw(st.sampled_from("{}[]:,&*!|>'\"%@`#?-\n\t 09aé\x85\u2028") | st.text(max_size=4))
    survives(tmp_path, (GOOD[:start] + piece + GOOD[end:]).encode("utf-8", "surrogatepass"))


trees = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 12)
    | st.sampled_from(["present", "absent", "T12", "2026-03", "a", "Stable"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["value", "min", "time", "source", "one_of", "unknown", "unit", "id"]), inner, max_size=3
        )
    ),
    max_leaves=6,
)


@settings(quick, max_examples=150)
@given(place=st.sampled_from(["patient", "as_of", "facts", "lesions", "procedure", "notes", "painNrs", "painTrend",
                              "Retropulsion", "primaryEtiology", "onsetDate", "level"]), tree=trees)  # fmt: skip
def test_any_value_in_any_place_is_read_or_refused(tmp_path, place, tree):
    document = {
        "format": "kypho-patient/1",
        "patient": {"id": "x"},
        "lesions": [{"id": "a", "level": "L1", "facts": {}}],
    }
    lesion = document["lesions"][0]
    if place == "level":
        lesion["level"] = tree
    elif place in {"patient", "as_of", "facts", "lesions", "procedure", "notes"}:
        document[place] = tree
    else:
        lesion["facts"][place] = tree
    survives(tmp_path, json.dumps(document).encode())
