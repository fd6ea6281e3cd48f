"""The packet for prior authorization: what it picks, what it leaves blank, and its three forms."""

from __future__ import annotations

import copy
import functools
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest
from builders import EXAMPLES, ROOT, every
from fhir.resources.R4B.bundle import Bundle
from jsonschema import Draft202012Validator
from test_cli import kypho  # noqa: F401 - a fixture
from test_page import HOSTILE, Seen, browse, needs_browser

from kypho_kg.coverage import coverage_line
from kypho_kg.errors import InputError, UsageError
from kypho_kg.evaluation import Truth
from kypho_kg.intake import read_records
from kypho_kg.knowledge import Knowledge
from kypho_kg.loading import load_knowledge
from kypho_kg.mappings import EXACT, load_mappings
from kypho_kg.packet import AFTER, BEFORE, STATEMENT, Packet, Stance, build_packet
from kypho_kg.packet_fhir import CANONICAL, ORIGIN, SOURCE, packet_fhir
from kypho_kg.packet_header import FORMAT, Header, Origin, read_header, request_fields
from kypho_kg.packet_html import packet_html
from kypho_kg.packet_json import packet_json
from kypho_kg.vocabulary import KYPHO

FILES = sorted(EXAMPLES.glob("*/*.yaml"))
SOFTWARE = "kypho-kg test"
SCHEMAS = ROOT / "kypho_kg" / "schemas"
LCD, MODEL = "cms-l34228", "cms-wiser-2026"
NAMED = ("cms-l35130", MODEL, "evicore-cmm-607", "cms-l38213")
SMALL = """
format: kypho-patient/1
patient: {id: small, birth_date: 1950-04, sex: Female}
as_of: 2026-03-02
lesions:
  - id: a
    level: L1
    facts:
      lesionKind: FractureLesion
      primaryEtiology: PrimaryOsteoporosis
procedure: {technique: BalloonKyphoplasty, lesions: [a]PROCEDURE}
"""


def schema(name: str) -> dict:
    return json.loads((SCHEMAS / f"{name}.schema.json").read_text("utf-8"))


def packet_of(path: Path, *overlays: Path, **options: object) -> Packet:
    [record], problems = read_records([path], load_knowledge(), overlays)
    assert problems == []
    return build_packet(record, load_knowledge(), **options)


@functools.cache
def both(path: Path) -> tuple[Packet, Packet]:
    """The packet of an example for the policies in force, and for some that are named."""
    return packet_of(path), packet_of(path, guidelines=NAMED)


@pytest.fixture
def small(tmp_path):
    """A packet of a small patient with more said of the procedure."""

    def made(procedure: str = "", **options: object) -> Packet:
        path = tmp_path / "small.yaml"
        path.write_text(SMALL.replace("PROCEDURE", procedure), "utf-8")
        return packet_of(path, **options)

    return made


@pytest.fixture
def head(tmp_path, knowledge: Knowledge):
    """A header file that is read."""

    def read(text: str) -> Header:
        path = tmp_path / "head.yaml"
        path.write_text(text, "utf-8")
        return read_header(path, knowledge)

    return read


@pytest.fixture(scope="module")
def packets() -> dict[str, Packet]:
    return {
        "yes": packet_of(EXAMPLES / "constructed" / "t4-outpatient.yaml"),
        "open": packet_of(EXAMPLES / "constructed" / "pain-in-words-only.yaml", state="TX", payer="Medicare"),
        "two": packet_of(EXAMPLES / "constructed" / "two-levels-one-session.yaml"),
        "torn": packet_of(EXAMPLES / "constructed" / "contradicting-infection-notes.yaml"),
        "bare": packet_of(EXAMPLES / "published" / "ost-02.yaml"),
    }


def ids(packet: Packet) -> list[str]:
    return [part.guideline.id for part in packet.parts]


def value(packet: Packet, key: str) -> tuple[tuple[str, ...], str]:
    [filled] = [f for f in packet.header if f.field.key == key]
    return filled.values, str(filled.origin)


# --------------------------------------------------------------------------------------------------------------------
# Which policies


def test_the_policy_of_the_state_and_the_payer(small):
    place = ", setting: HospitalOutpatient, service_date: 2026-03-09, payer: Medicare"
    assert ids(small(place + ", state: CA")) == [LCD]
    assert ids(small(place + ", state: OH")) == ["cms-l38201", MODEL]
    assert small(place + ", state: OH").maybe == ()


def test_the_command_line_comes_before_the_record(small):
    packet = small(", setting: HospitalOutpatient, state: CA, payer: Medicare", state="OH")
    assert ids(packet) == ["cms-l38201", MODEL]
    assert value(packet, "service.state") == (("OH",), "option")


@pytest.mark.parametrize(
    ("day", "there"), [("2026-01-14", False), ("2026-01-15", True), ("2031-12-31", True), ("2032-01-01", False)]
)
def test_a_policy_has_its_first_and_its_last_day(small, day, there):
    packet = small(f", setting: PhysicianOffice, state: TX, payer: Medicare, service_date: {day}")
    assert (MODEL in ids(packet)) is there
    assert not packet.undated


def test_a_date_that_may_lie_on_either_side_is_not_known(small):
    packet = small(", setting: PhysicianOffice, state: TX, payer: Medicare, service_date: 2026-01")
    assert MODEL not in ids(packet)
    assert [(m.guideline.id, m.missing) for m in packet.maybe] == [(MODEL, ("date of service (more exactly)",))]


def test_without_a_state_nothing_is_guessed(small):
    packet = small(", setting: HospitalOutpatient, payer: Medicare")
    assert packet.parts == ()
    assert packet.lacking == ("state",)
    assert {LCD, MODEL, "cms-l38201"} <= {m.guideline.id for m in packet.maybe}
    assert all(m.guideline.layer == "CoveragePolicy" for m in packet.maybe)


def test_without_anything_every_missing_piece_is_named(small):
    packet = small()
    assert packet.parts == ()
    assert set(packet.lacking) == {"state", "payer", "place of service"}
    wiser = next(m for m in packet.maybe if m.guideline.id == MODEL)
    assert wiser.missing == ("state", "payer", "place of service")
    assert packet.undated


def test_a_kind_of_payer_keeps_its_members_open(small):
    packet = small(", state: OH, payer: CommercialPayer, setting: HospitalOutpatient")
    assert "payer (more exactly)" in packet.lacking
    assert {"aetna-cpb-0016", "cigna-spine"} <= {m.guideline.id for m in packet.maybe}


def test_a_state_without_a_policy(small):
    packet = small(", state: ZZ, payer: Medicare, setting: HospitalOutpatient")
    assert (packet.parts, packet.maybe) == ((), ())
    assert "No coverage policy of the knowledge base applies" in Seen(packet_html(packet, SOFTWARE)).text


def test_a_named_policy_says_that_it_was_named(small):
    packet = small(", state: OH, payer: Medicare, setting: HospitalOutpatient", guidelines=[LCD])
    [part] = packet.parts
    assert (part.guideline.id, part.named, part.in_force) == (LCD, True, False)
    assert "named by the user; not in force for this service" in Seen(packet_html(packet, SOFTWARE)).text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"guidelines": ["cms-l3422"]}, "unknown guideline"),
        ({"payer": "Medicar"}, "unknown payer"),
        ({"lesion": "z"}, "no lesion 'z'; known: a"),
    ],
)
def test_what_is_not_there_is_a_usage_error(small, options, message):
    with pytest.raises(UsageError, match=message):
        small(**options)


def test_a_date_is_needed(packets, knowledge: Knowledge):
    with pytest.raises(UsageError, match="no as-of date"):
        build_packet(replace(packets["yes"].record, as_of=None), knowledge)
    made = build_packet(replace(packets["yes"].record, as_of=None), knowledge, as_of=date(2026, 3, 2))
    assert made.as_of == date(2026, 3, 2)


# --------------------------------------------------------------------------------------------------------------------
# The checklist


@pytest.mark.parametrize("name", ["yes", "open", "two", "torn"])
def test_every_clause_once_in_the_order_of_the_policy(name, packets):
    for part in packets[name].parts:
        counted = [r.id for r in part.guideline.recommendations if not r.reading]
        for section in part.sections:
            assert [c.clause.recommendation.id for c in section.checks] == counted


def test_what_the_state_of_a_clause_means(packets):
    [section] = packets["yes"].parts[0].sections
    found = {c.clause.recommendation.clause: (c.words, c.stance) for c in section.checks}
    assert found["LCD-I1"] == ("met", Stance.SATISFIED)
    assert found["LCD-A1"] == ("not met", Stance.SATISFIED)
    assert found["LCD-R1"] == ("not met", Stance.SATISFIED)
    assert found["LCD-D2"] == ("met", Stance.NOTE)
    assert not section.open
    assert section.wanting == section.cautions == section.documents(BEFORE) == section.documents(AFTER) == ()


def test_what_stands_against_and_what_calls_for_caution():
    many = packet_of(EXAMPLES / "constructed" / "four-levels-one-session.yaml", guidelines=[LCD])
    stances = {c.clause.recommendation.clause: c.stance for c in many.parts[0].sections[0].checks}
    assert stances["LCD-R1"] is Stance.CAUTION
    assert next(c.clause.recommendation.clause for c in many.parts[0].sections[0].cautions) == "LCD-R1"
    expecting = packet_of(EXAMPLES / "constructed" / "pregnant.yaml", guidelines=[LCD])
    stances = {c.clause.recommendation.clause: c.stance for c in expecting.parts[0].sections[0].checks}
    assert stances["LCD-A3"] is Stance.AGAINST


def test_a_pathway_that_is_not_needed_stands_not_against(packets):
    [section] = packets["torn"].parts[0].sections
    found = {c.clause.recommendation.clause: (c.words, c.stance) for c in section.checks}
    assert found["EVI-I1"] == ("met", Stance.SATISFIED)
    assert found["EVI-M1"] == ("not met", Stance.NOTE)


def test_what_is_open_says_why_and_what_to_find_out(packets):
    section = packets["open"].parts[0].sections[0]
    found = {c.clause.recommendation.clause: c for c in section.checks}
    assert found["LCD-I2"].words == "not addressed"
    assert any("words" in cause for cause in found["LCD-I2"].causes)
    wanted = {w.need.feature.removeprefix(KYPHO): w for w in section.wanting}
    assert wanted["painNrs"].settles
    assert "cms-l35130/LCD-I2" in wanted["painNrs"].need.clauses
    assert [c.clause.recommendation.clause for c in section.documents(BEFORE)] == ["LCD-D1"]
    assert section.open
    assert all(c.unverified for c in section.checks)


def test_points_hold_value_limit_and_source(packets):
    [section] = packets["yes"].parts[0].sections
    check = next(c for c in section.checks if c.clause.recommendation.clause == "LCD-I1")
    point = next(p for p in check.points if "weeks since onset" in p.words)
    assert point.decides
    assert point.asked == "<= 12 wk"
    assert float(point.proof.distance) == pytest.approx(12 - 30 / 7, abs=1e-4)
    edema = next(p for p in check.points if p.proof.criterion.term == KYPHO + "MarrowEdemaOnMri")
    assert [(f.source.document, f.source.author) for f in edema.proof.facts] == [("MRI report", "Radiology")]
    assert len({(p.proof.subject, p.proof.criterion) for p in check.points}) == len(check.points)


def test_contradictions_are_shown_with_both_sides(packets):
    [found] = packets["torn"].contradictions
    assert found.feature == KYPHO + "ActiveInfection"
    assert sorted(str(f.polarity) for f in found.facts) == ["absent", "present"]
    text = Seen(packet_html(packets["torn"], SOFTWARE)).text
    assert "the record contradicts itself; neither statement counts" in text
    assert packets["yes"].contradictions == ()


def test_the_lesions_of_the_session(packets):
    assert packets["two"].lesions == ("a", "b")
    assert [s.case.lesion.id for s in packets["two"].parts[0].sections] == ["a", "b"]
    one = packet_of(EXAMPLES / "constructed" / "two-levels-one-session.yaml", lesion="b")
    assert [s.case.lesion.id for p in one.parts for s in p.sections] == ["b"]


def test_a_patient_without_a_lesion(tmp_path):
    path = tmp_path / "none.yaml"
    path.write_text(
        "format: kypho-patient/1\npatient: {id: none, sex: Male}\nas_of: 2026-03-02\n"
        "procedure: {state: CA, payer: Medicare}\n", "utf-8"
    )  # fmt: skip
    packet = packet_of(path)
    assert (ids(packet), packet.parts[0].sections, packet.lesions) == ([LCD], (), ())
    assert "so there is no case to check" in Seen(packet_html(packet, SOFTWARE)).text
    assert packet_json(packet, SOFTWARE)["policies"][0]["lesions"] == []
    Bundle.model_validate(packet_fhir(packet, SOFTWARE))


# --------------------------------------------------------------------------------------------------------------------
# The head of the request


def test_the_fields_are_data(knowledge: Knowledge):
    fields = request_fields(knowledge)
    assert len({f.key for f in fields}) == len(fields) >= 25
    assert all(f.group and f.label and f.definition for f in fields)
    assert {f.type for f in fields} == {"text", "code", "date", "number"}
    assert all(bool(f.pattern) == bool(f.form) for f in fields)
    assert all(re.compile(f.pattern) for f in fields)
    assert all(iri in knowledge.features for f in fields for iri in f.filled_from)


def test_what_the_record_says_is_filled_in_and_the_rest_is_blank(packets):
    packet = packets["yes"]
    assert value(packet, "beneficiary.birth_date") == (("1947-05-12",), "record")
    assert value(packet, "service.levels") == (("T4",), "record")
    assert value(packet, "service.level_count") == (("1",), "record")
    assert value(packet, "service.procedure_codes") == (("22513",), "record")
    assert value(packet, "service.diagnosis_codes") == (("M80.08XA",), "record")
    for key in ("beneficiary.name", "beneficiary.member_id", "facility.npi", "physician.name", "requestor.phone"):
        assert value(packet, key) == ((), "blank")
    bare = {f.field.key for f in packets["bare"].header if not f.values}
    assert {"service.state", "service.payer", "service.place", "service.date", "beneficiary.birth_date"} <= bare


def test_codes_are_noted_and_never_filled_in(packets):
    [codes] = [f for f in packets["bare"].header if f.field.key == "service.procedure_codes"]
    assert codes.values == ()
    assert codes.notes == (
        "fits the technique and the level: 22513 or 22514 for the first level",
        "and 22515 for each further level (1)",
    )
    [codes] = [f for f in packets["yes"].header if f.field.key == "service.procedure_codes"]
    assert codes.notes == ("fits the technique and the level: 22513 for the first level",)


@pytest.mark.parametrize(
    ("procedure", "notes"),
    [
        ("{technique: Vertebroplasty, lesions: [a]}", ("22511 for the first level",)),
        ("{technique: Sacroplasty, lesions: [a]}", ()),
        ("{lesions: [a]}", ()),
    ],
)
def test_the_code_fits_technique_and_level(tmp_path, procedure, notes):
    path = tmp_path / "code.yaml"
    text = SMALL.partition("procedure:")[0] + f"procedure: {procedure}\n"
    path.write_text(text, "utf-8")
    [codes] = [f for f in packet_of(path).header if f.field.key == "service.procedure_codes"]
    assert len(codes.notes) == len(notes)
    assert all(note.endswith(end) for note, end in zip(codes.notes, notes, strict=True))


def test_a_policy_asks_for_fields(packets):
    asked = {f.field.key for f in packets["open"].header if MODEL in f.asked_by}
    assert {"beneficiary.name", "beneficiary.member_id", "facility.npi", "service.date"} <= asked
    assert {f.field.key for f in packets["open"].blanks} == {
        k for k in asked if value(packets["open"], k) == ((), "blank")
    }
    assert packets["yes"].blanks == ()


GOOD = f"""
format: {FORMAT}
author: Utilization nurse
beneficiary: {{name: Jane Roe, birth_date: 1947-05-13}}
facility: {{npi: 1234567893, address: }}
service: {{procedure_codes: [22513, "22515"], request_kind: initial}}
"""


def test_a_header_file_fills_in(head, packets, knowledge: Knowledge):
    header = head(GOOD)
    packet = build_packet(packets["yes"].record, knowledge, header=header)
    assert value(packet, "beneficiary.name") == (("Jane Roe",), "header")
    assert value(packet, "facility.npi") == (("1234567893",), "header")
    assert value(packet, "facility.address") == ((), "blank")
    assert value(packet, "service.procedure_codes") == (("22513", "22515"), "header")
    [born] = [f for f in packet.header if f.field.key == "beneficiary.birth_date"]
    assert (born.values, born.recorded, born.origin) == (("1947-05-13",), ("1947-05-12",), Origin.HEADER)
    assert "the record says 1947-05-12" in Seen(packet_html(packet, SOFTWARE)).text
    assert packet.author == "Utilization nurse"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("beneficiary:", "beneficary:", "beneficary: unknown key 'beneficary'; expected beneficiary"),
        ("npi:", "nip:", "facility.nip: unknown key 'nip'; expected npi"),
        ("1234567893", "123456789", "facility.npi: is not of the form that the field takes; expected ten digits"),
        ("1234567893", "12345678931", "expected ten digits"),
        ("1947-05-13", "1947-02-30", "beneficiary.birth_date: is not of the form"),
        ("1947-05-13", "13.05.1947", "expected a date YYYY-MM-DD"),
        ("initial", "first", "expected initial or resubmission"),
        ("Jane Roe", "[Jane, Roe]", "beneficiary.name: a list; expected one value"),
        ("Jane Roe", "{first: Jane}", "beneficiary.name: is a map"),
        ("Jane Roe", '"a\\nb"', "control characters"),
        ("Jane Roe", '""', "beneficiary.name: is empty"),
        ("Jane Roe", "x" * 201, "is too long"),
        ("22513", "2251", "service.procedure_codes[0]: is not of the form"),
        ("request_kind: initial", "state: TX", "service.state: is not taken from a header file"),
        ("request_kind: initial", "levels: [L1]", "expected it in the record, or in a file for --with"),
        ("author: Utilization nurse", "", "the file has no author"),
        (FORMAT, "kypho-packet-header/2", f"expected format: {FORMAT}"),
        (f"format: {FORMAT}", "", "format is missing"),
    ],
)
def test_a_wrong_header_file_says_what_is_wrong(head, old, new, message):
    with pytest.raises(InputError) as bad:
        head(GOOD.replace(old, new))
    assert message in str(bad.value)
    assert str(bad.value).startswith("head.yaml:")
    assert len(bad.value.problems) == 1


def test_a_message_holds_no_value_of_the_patient(head):
    with pytest.raises(InputError) as bad:
        head(GOOD.replace("1234567893", "1EG4TE5MK73").replace("initial", "Jane"))
    assert "1EG4" not in str(bad.value)
    assert "Jane" not in str(bad.value)
    assert len(bad.value.problems) == 2


@pytest.mark.parametrize("text", ["", "- a\n", "format: [x\n", "null\n"])
def test_no_map_is_an_error(head, text):
    with pytest.raises(InputError, match=r"head\.yaml"):
        head(text)


def test_the_schema_of_the_header_file_has_the_fields_of_the_ontology(knowledge: Knowledge):
    form = schema("packet-header")
    Draft202012Validator.check_schema(form)
    groups = {k: v["properties"] for k, v in form["properties"].items() if k not in {"format", "author"}}
    listed = {f"{group}.{name}": one for group, names in groups.items() for name, one in names.items()}
    assert set(listed) == {f.key for f in request_fields(knowledge) if not f.record_only}
    for f in request_fields(knowledge):
        if not f.record_only:
            assert listed[f.key]["description"] == f.definition
            assert json.dumps(f"^({f.pattern})$" if f.pattern else "") in json.dumps(listed[f.key]) or not f.pattern


# --------------------------------------------------------------------------------------------------------------------
# JSON

ANSWER = Draft202012Validator(schema("packet"))


@pytest.mark.parametrize("path", every(4, FILES), ids=lambda p: p.stem)
def test_json_of_every_example_conforms(path):
    for packet in both(path):
        data = json.loads(json.dumps(packet_json(packet, SOFTWARE), allow_nan=False))
        assert [f"{e.json_path}: {e.message[:200]}" for e in ANSWER.iter_errors(data)] == []


def test_the_schema_is_closed_and_notices_what_is_wrong(packets):
    Draft202012Validator.check_schema(ANSWER.schema)
    assert ANSWER.schema["$id"] == "https://w3id.org/kypho/schemas/packet.schema.json"

    def objects(node: object) -> Iterator[dict]:
        if isinstance(node, dict):
            if "properties" in node:
                yield node
            for child in node.values():
                yield from objects(child)

    assert all(o["additionalProperties"] is False for o in objects(ANSWER.schema))
    good = packet_json(packets["yes"], SOFTWARE)
    for change in ({"approved": True}, {"lesions": None}):
        bad = copy.deepcopy(good) | change
        assert not ANSWER.is_valid(bad)
    assert ANSWER.is_valid(good)


def test_json_says_what_is_blank_and_what_is_missing(packets):
    data = packet_json(packets["bare"], SOFTWARE)
    values = {f["key"]: f["value"] for f in data["request"]}
    assert values["beneficiary.name"] is None
    assert values["service.levels"] == ["T12", "L1"]
    assert data["policies"] == []
    assert set(data["not_known"]) == {"payer", "state", "place of service"}
    assert not data["service_date_known"]
    data = packet_json(packets["open"], SOFTWARE)
    assert data["blank_fields"] == [f.field.key for f in packets["open"].blanks] != []
    assert data["run"]["assumptions"] == []
    assert data["statement"] == STATEMENT


def test_it_names_the_mapping_sets_and_what_was_filled(small, knowledge: Knowledge):
    packet = small()
    assert packet_json(packet, SOFTWARE)["run"]["mappings"] == []
    packet = replace(packet, record=replace(packet.record, mappings=("f1" * 32, "0a" * 32)))
    data, text = packet_json(packet, SOFTWARE), Seen(packet_html(packet, SOFTWARE)).text
    assert list(Draft202012Validator(schema("packet")).iter_errors(data)) == []
    assert data["run"]["mappings"] == ["0a" * 32, "f1" * 32]
    assert all(f"mapping set, sha256 {sha256}" in text for sha256 in packet.record.mappings)
    line = coverage_line(knowledge, [packet.record])
    number, total = data["coverage"]["filled_features"], len(data["coverage"]["unfilled_features"])
    assert number > 0
    assert line.startswith(f"Of {number + total} features on which verdicts turn, {number} were filled")
    assert line in text


def test_it_states_no_decision(packets):
    for packet in packets.values():
        for text in (json.dumps(packet_json(packet, SOFTWARE)), packet_html(packet, SOFTWARE)):
            assert STATEMENT in text
            said = Seen(text).text if text.startswith("<!") else text
            assert re.findall(r"\b(?:approv|affirm|den(?:y|ied|ial)|is covered)\w*", said.replace(STATEMENT, "")) == []


# --------------------------------------------------------------------------------------------------------------------
# FHIR


def resources(bundle: dict, kind: str) -> list[dict]:
    return [e["resource"] for e in bundle["entry"] if e["resource"]["resourceType"] == kind]


def items(node: dict) -> Iterator[dict]:
    for item in node.get("item", ()):
        yield item
        yield from items(item)


VALUES = {
    "boolean": "valueBoolean", "choice": "valueCoding", "decimal": "valueDecimal", "date": "valueDate",
    "string": "valueString", "integer": "valueInteger",
}  # fmt: skip


def faults(bundle: dict) -> list[str]:
    """Where responses do not fit their questionnaires."""
    forms = {f"{q['url']}|{q['version']}": q for q in resources(bundle, "Questionnaire")}
    wrong = []
    for form in forms.values():
        links = [i["linkId"] for i in items(form)]
        wrong += [f"twice {x}" for x in links if links.count(x) > 1]
        wrong += [f"empty group {i['linkId']}" for i in items(form) if i["type"] == "group" and not i.get("item")]
    for response in resources(bundle, "QuestionnaireResponse"):
        asked = {i["linkId"]: i for i in items(forms[response["questionnaire"]])}
        parents = {c["linkId"]: i["linkId"] for i in asked.values() for c in i.get("item", ())}
        for item in items(response):
            question = asked.get(item["linkId"])
            if question is None:
                wrong.append(f"unknown {item['linkId']}")
                continue
            wrong += [
                f"misplaced {c['linkId']}" for c in item.get("item", ()) if parents.get(c["linkId"]) != item["linkId"]
            ]
            wrong += [f"several {item['linkId']}"] * (len(item.get("answer", ())) > 1 and not question.get("repeats"))
            for answer in item.get("answer", ()):
                if VALUES[question["type"]] not in answer:
                    wrong.append(f"type {item['linkId']}")
                options = [o["valueCoding"] for o in question.get("answerOption", ())]
                if question["type"] == "choice" and answer["valueCoding"] not in options:
                    wrong.append(f"option {item['linkId']}")
                [origin] = [x for x in answer["extension"] if x["url"] == ORIGIN]
                parts = {x["url"]: x for x in origin["extension"]}
                by_hand = parts["source"]["valueCode"] in {"override", "manual"}
                if by_hand is not ("author" in parts):  # dtrx-1
                    wrong.append(f"author {item['linkId']}")
        if response["status"] == "completed":
            answered = {i["linkId"] for i in items(response) if i.get("answer")}
            wrong += [f"blank {i}" for i, q in asked.items() if q.get("required") and i not in answered]
    return wrong


@pytest.mark.parametrize("path", every(4, FILES), ids=lambda p: p.stem)
def test_fhir_of_every_example_is_valid_and_fits(path):
    for packet in both(path):
        bundle = packet_fhir(packet, SOFTWARE)
        Bundle.model_validate(bundle)
        assert faults(bundle) == []
        assert len(resources(bundle, "QuestionnaireResponse")) == len(packet.parts) * len(packet.lesions)
    assert len(packet.parts) == len(NAMED)


def test_the_check_of_the_answers_notices_what_is_wrong(packets):
    bundle = packet_fhir(packets["yes"], SOFTWARE)
    response = resources(bundle, "QuestionnaireResponse")[0]
    first = next(i for i in items(response) if i["linkId"].endswith("LCD-I1/state"))
    first["answer"][0]["valueString"] = first["answer"][0].pop("valueCoding")["code"]
    first["answer"][0]["valueCoding"] = {"code": "maybe"}
    assert faults(bundle) == ["option cms-l34228/LCD-I1/state"]
    first["linkId"] = "nowhere"
    assert {"unknown nowhere", "misplaced nowhere"} <= set(faults(bundle))


def test_the_questions_follow_the_policy(packets, knowledge: Knowledge):
    bundle = packet_fhir(packets["yes"], SOFTWARE)
    [form] = resources(bundle, "Questionnaire")
    assert (form["url"], form["version"], form["status"]) == (CANONICAL + LCD, knowledge.version, "active")
    head, *groups = form["item"]
    assert head["linkId"] == "header"
    counted = [r for r in knowledge.guideline(LCD).recommendations if not r.reading]
    assert [g["linkId"] for g in groups] == [r.id for r in counted]
    assert [(g["prefix"], g["text"]) for g in groups] == [(r.clause, r.text) for r in counted]
    kinds = {i["linkId"]: i["type"] for i in items(form)}
    assert kinds["cms-l34228/LCD-I1/weeksSinceOnset"] == "decimal"
    assert kinds["cms-l34228/LCD-I1/MarrowEdemaOnMri"] == "boolean"
    assert kinds["cms-l34228/LCD-I2/painTrend"] == "choice"
    assert kinds["cms-l34228/LCD-I1/primaryEtiology"] == "choice"
    assert kinds["header/service.date"] == "date"
    trend = next(i for i in items(form) if i["linkId"] == "cms-l34228/LCD-I2/painTrend")
    values = knowledge.by_name["painTrend"].values
    assert {KYPHO + o["valueCoding"]["code"] for o in trend["answerOption"]} == values


def test_the_questions_are_the_same_for_every_patient(packets, small):
    one = resources(packet_fhir(packets["two"], SOFTWARE), "Questionnaire")
    other = resources(packet_fhir(small(", state: CA, payer: Medicare"), SOFTWARE), "Questionnaire")
    assert one == other


def test_items_have_codes_that_mean_the_same(packets, knowledge: Knowledge):
    [form] = resources(packet_fhir(packets["yes"], SOFTWARE), "Questionnaire")
    codes = {i["linkId"]: i["code"] for i in items(form) if i.get("code")}
    pain = codes["cms-l34228/LCD-I2/painNrs"]
    assert pain[0] == {"system": "https://w3id.org/kypho", "code": "painNrs", "display": "pain (NRS)"}
    rows = load_mappings(knowledge).of_term(KYPHO + "painNrs")
    exact = [r.code for r in rows if r.predicate == EXACT]
    assert [c["code"] for c in pain[1:]] == exact != []
    assert all(c["system"].startswith("http") for c in pain)


def answers(response: dict) -> dict[str, dict]:
    return {i["linkId"]: i["answer"][0] for i in items(response) if i.get("answer")}


def test_answers_and_where_they_come_from(packets):
    [response] = resources(packet_fhir(packets["yes"], SOFTWARE), "QuestionnaireResponse")
    said = answers(response)
    assert response["status"] == "completed"
    assert response["authored"] == "2026-03-02"
    assert said["cms-l34228/LCD-I1/state"]["valueCoding"]["code"] == "met"
    assert said["cms-l34228/LCD-A3/Pregnancy"]["valueBoolean"] is False
    assert said["cms-l34228/LCD-I2/painNrs"]["valueDecimal"] == 6
    edema = said["cms-l34228/LCD-I1/MarrowEdemaOnMri"]
    assert edema["valueBoolean"] is True
    origin, source = edema["extension"]
    assert origin == {"url": ORIGIN, "extension": [{"url": "source", "valueCode": "auto"}]}
    assert source["url"] == SOURCE
    parts = {p["url"]: p["valueString"] for p in source["extension"]}
    assert (parts["document"], parts["author"]) == ("MRI report", "Radiology")
    assert parts["place"].startswith("t4-outpatient.yaml:")


def test_what_is_not_known_has_no_answer(packets):
    responses = resources(packet_fhir(packets["open"], SOFTWARE), "QuestionnaireResponse")
    policy, model = responses
    assert policy["status"] == model["status"] == "in-progress"  # a document, and fields that are blank
    said = answers(policy)
    assert said["cms-l35130/LCD-I2/state"]["valueCoding"]["code"] == "not-addressed"
    assert "cms-l35130/LCD-I2/painNrs" not in said
    assert "header/beneficiary.name" not in said
    state = said["header/service.state"]["extension"][0]["extension"]
    assert state[0] == {"url": "source", "valueCode": "manual"}


def test_a_range_is_no_number(tmp_path):
    path = tmp_path / "range.yaml"
    text = SMALL.replace("PROCEDURE", ", state: CA, payer: Medicare")
    path.write_text(text.replace("      lesionKind", "      painNrs: {min: 5, max: 7}\n      lesionKind"), "utf-8")
    [response] = resources(packet_fhir(packet_of(path), SOFTWARE), "QuestionnaireResponse")
    assert "cms-l34228/LCD-I2/painNrs" not in answers(response)
    assert "cms-l34228/LCD-OTHER/primaryEtiology" in answers(response)


def test_what_was_put_in_place_of_the_record_says_so(tmp_path, head, packets, knowledge: Knowledge):
    over = tmp_path / "over.yaml"
    over.write_text(
        "format: kypho-patient/1\nauthor: Dr. Grey\nreason: asked again\n"
        "lesions: [{id: a, facts: {painNrs: 8}}]\n", "utf-8"
    )  # fmt: skip
    path = EXAMPLES / "constructed" / "t4-outpatient.yaml"
    packet = packet_of(path, over, header=head(GOOD))
    bundle = packet_fhir(packet, SOFTWARE)
    said = answers(resources(bundle, "QuestionnaireResponse")[0])
    assert faults(bundle) == []

    def origin(link: str) -> tuple[str, str]:
        parts = {p["url"]: p for p in said[link]["extension"][0]["extension"]}
        return parts["source"]["valueCode"], parts.get("author", {}).get("valueReference", {}).get("display", "")

    assert said["cms-l34228/LCD-I2/painNrs"]["valueDecimal"] == 8
    assert origin("cms-l34228/LCD-I2/painNrs") == ("override", "Dr. Grey")
    assert origin("cms-l34228/LCD-I1/MarrowEdemaOnMri") == ("auto", "")
    assert origin("header/beneficiary.name") == ("manual", "Utilization nurse")
    assert origin("header/beneficiary.birth_date") == ("override", "Utilization nurse")


def test_without_a_policy_an_outcome_says_what_is_missing(packets, small):
    bundle = packet_fhir(packets["bare"], SOFTWARE)
    assert resources(bundle, "Questionnaire") == []
    [outcome] = resources(bundle, "OperationOutcome")
    assert "not known: payer, state, place of service" in outcome["issue"][0]["diagnostics"]
    bundle = packet_fhir(small(", state: ZZ, payer: Medicare, setting: HospitalOutpatient"), SOFTWARE)
    assert "no coverage policy" in resources(bundle, "OperationOutcome")[0]["issue"][0]["diagnostics"]
    assert resources(packet_fhir(packets["yes"], SOFTWARE), "OperationOutcome") == []


# --------------------------------------------------------------------------------------------------------------------
# The page


@pytest.fixture(scope="module")
def pages(packets) -> dict[str, str]:
    return {name: packet_html(packet, SOFTWARE) for name, packet in packets.items()}


@pytest.mark.parametrize("name", ["yes", "open", "two", "torn", "bare"])
def test_the_page_needs_nothing_else(name, pages):
    seen = Seen(pages[name])
    assert [u for u in seen.fetched if not u.startswith("#")] == []
    assert re.findall(r"@import|<script|<iframe|<base|<link|http-equiv|javascript:|\son\w+=|url\(", pages[name]) == []
    assert all(u.startswith(("#", "https://", "http://")) for u in seen.links)
    assert {u[1:] for u in seen.links if u.startswith("#")} <= set(seen.ids)
    assert len(set(seen.ids)) == len(seen.ids)
    assert seen.headings.count(1) == 1
    assert all(b <= a + 1 for a, b in zip(seen.headings, seen.headings[1:], strict=False))
    assert all(v.get("scope") in {"col", "row"} for t, v in seen.attributes if t == "th")
    assert all(v.get("aria-label") for t, v in seen.attributes if t == "svg")


@pytest.mark.parametrize("name", ["yes", "open", "two", "torn", "bare"])
def test_the_page_says_what_was_run(name, pages, packets, knowledge: Knowledge):
    text, packet = Seen(pages[name]).text, packets[name]
    assert f"Knowledge base {knowledge.version}, sha256 {knowledge.sha256}" in text
    assert SOFTWARE in text
    assert f"as of {packet.as_of}" in text
    assert all(f in text for f in packet.record.files)
    assert text.count(STATEMENT) == 2
    assert "Assumptions: none" in text


@pytest.mark.parametrize("name", ["yes", "open", "two", "torn"])
def test_every_clause_is_on_the_page_with_its_state_and_mark(name, pages, packets, knowledge: Knowledge):
    text = pages[name]
    rows = [Seen(f"<table><tr{r}</table>").text for r in re.findall(r"<tr( class=.*?</tr>)", text, re.DOTALL)]
    checks = [c for p in packets[name].parts for s in p.sections for c in s.checks]
    assert len(rows) == len(checks)
    for row, check in zip(rows, checks, strict=True):
        r = check.clause.recommendation
        for said in (r.clause, r.text, r.citation, check.words, knowledge.plain(KYPHO + r.mark), *check.causes):
            assert " ".join(said.split()) in row
    assert text.count('<span class="unread">') == sum(c.unverified for c in checks) + any(c.unverified for c in checks)


def test_a_blank_field_is_an_empty_line(pages, packets):
    for name in ("yes", "bare"):
        assert pages[name].count('<span class="blank"></span>') == sum(not f.values for f in packets[name].header)


@pytest.mark.parametrize("name", ["yes", "open", "two", "torn", "bare"])
def test_plain_words_only(name, pages, knowledge: Knowledge):
    assert KYPHO not in pages[name]
    names = {n for n in (*knowledge.by_name, *map(str, Truth), "BeforeRequest") if re.search(r"[a-z][A-Z]", n)}
    text = re.sub(r"https?://\S+", "", Seen(pages[name]).text)
    assert {w for w in re.findall(r"[A-Za-z][A-Za-z0-9]*", text) if w in names} == set()


def test_text_is_shown_as_it_is_written(tmp_path, head):
    path = tmp_path / "hostile.yaml"
    quoted = "      painNrs: {value: 7, source: {document: Note, quote: '<script>alert(2)</script>'}}\n      lesionKind"
    text = SMALL.replace("PROCEDURE", ", state: CA, payer: Medicare").replace("      lesionKind", quoted)
    path.write_text(text, "utf-8")
    header = head(GOOD.replace("Jane Roe", json.dumps(HOSTILE)))
    [record], _ = read_records([path], load_knowledge())
    packet = build_packet(replace(record, patient=HOSTILE), load_knowledge(), header=header)
    page = packet_html(packet, SOFTWARE)
    assert "<script" not in page
    assert page.count("</style>") == 1
    assert "alert(1)" not in page[page.index("<style>") : page.index("</style>")]
    seen = Seen(page)
    assert seen.text.count(HOSTILE) >= 3
    assert "<script>alert(2)</script>" in seen.text
    Bundle.model_validate(packet_fhir(packet, SOFTWARE))


def test_the_same_input_gives_the_same_bytes(packets, pages):
    again = packet_of(EXAMPLES / "constructed" / "t4-outpatient.yaml")
    assert packet_html(again, SOFTWARE) == pages["yes"]
    assert json.dumps(packet_fhir(again, SOFTWARE)) == json.dumps(packet_fhir(packets["yes"], SOFTWARE))
    assert packet_json(again, SOFTWARE) == packet_json(packets["yes"], SOFTWARE)


@needs_browser
@pytest.mark.parametrize(("paper", "width"), [("letter", 612), ("A4", 595)])
def test_it_prints(paper, width, pages, tmp_path):
    path, pdf = tmp_path / "page.html", tmp_path / "page.pdf"
    path.write_text(pages["yes"].replace("</style>", f"@page {{ size: {paper}; }}</style>"), "utf-8")
    browse(tmp_path / "profile", f"--print-to-pdf={pdf}", path.as_uri())
    content = pdf.read_bytes()
    assert 3 <= len(re.findall(rb"/Type\s*/Page\b", content)) <= 7
    assert re.search(rb"/MediaBox\s*\[\s*0 0 (\d+)", content)[1] in {b"%d" % width, b"%d" % (width - 1)}


@needs_browser
def test_a_browser_opens_it(pages, packets, tmp_path):
    path, picture = tmp_path / "page.html", tmp_path / "page.png"
    path.write_text(pages["open"], "utf-8")
    shown = Seen(browse(tmp_path / "profile", "--dump-dom", path.as_uri()).stdout).text
    assert all(c.clause.recommendation.clause in shown for c in packets["open"].parts[0].sections[0].checks)
    browse(tmp_path / "profile", f"--screenshot={picture}", "--window-size=1050,1600", path.as_uri())
    assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert picture.stat().st_size > 50_000


# --------------------------------------------------------------------------------------------------------------------
# The command

T4 = EXAMPLES / "constructed" / "t4-outpatient.yaml"


def test_the_command_writes_each_form(kypho, tmp_path):  # noqa: F811
    assert kypho("packet", T4).out.startswith("<!DOCTYPE html>")
    assert ANSWER.is_valid(kypho("packet", T4, "--format", "json").data)
    target = tmp_path / "deep" / "packet.json"
    run = kypho("packet", T4, "--format", "fhir", "-o", target)
    assert (run.code, run.out) == (0, "")
    Bundle.model_validate(json.loads(target.read_text("utf-8")))


def test_the_command_says_what_is_not_known(kypho):  # noqa: F811
    run = kypho("packet", EXAMPLES / "published" / "ost-02.yaml", "--payer", "Medicare", "--format", "json")
    assert run.code == 0
    assert "not known: state, place of service; so it is not known whether these apply: " in run.err
    assert LCD in run.err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--state", "Texas"), 2, "is no postal code"),
        (("--as-of", "today"), 2, "is no date"),
        (("--guideline", "nothing"), 2, "unknown guideline"),
        (("--lesion", "b"), 2, "no lesion 'b'; known: a"),
        (("--header", "missing.yaml"), 3, "missing.yaml: cannot be read"),
    ],
)
def test_a_wrong_call_is_a_message(kypho, arguments, code, message):  # noqa: F811
    run = kypho("packet", T4, *arguments)
    assert (run.code, run.out) == (code, "")
    assert message in run.err


def test_one_patient_and_no_broken_file(kypho, tmp_path):  # noqa: F811
    run = kypho("packet", T4, EXAMPLES / "constructed" / "pregnant.yaml")
    assert (run.code, run.out) == (2, "")
    assert "one patient; the files name 2" in run.err
    (tmp_path / "broken.yaml").write_text("format: nothing\n", "utf-8")
    run = kypho("packet", tmp_path / "broken.yaml")
    assert (run.code, run.out) == (3, "")
    run = kypho("packet", T4, tmp_path / "broken.yaml", "--format", "json")
    assert run.code == 3
    assert "broken.yaml" in run.data["rejected"][0]["where"]


def test_the_date_of_the_command_comes_before_that_of_the_file(kypho):  # noqa: F811
    run = kypho("packet", T4, "--as-of", "2026-03-05", "--format", "json")
    assert run.data["run"]["as_of"] == "2026-03-05"
    assert "as of 2026-03-05, not 2026-03-02" in run.err


# --------------------------------------------------------------------------------------------------------------------
# The page of docs/


def test_the_header_file_that_is_shown_is_read(head):
    [shown] = re.findall(r"^```yaml\n(.*?)^```$", (ROOT / "docs" / "packet.md").read_text("utf-8"), re.DOTALL | re.M)
    assert len(head(shown).values) == 13
    assert Draft202012Validator(schema("packet-header")).is_valid(
        {
            "format": FORMAT,
            "author": "a",
            "facility": {"npi": "1234567893"},
            "service": {"procedure_codes": ["22513"]},
        }
    )
