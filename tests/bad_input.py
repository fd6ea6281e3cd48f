"""Every kind of bad patient file: the text, where it is wrong, what is wrong, and what would be right."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

GOOD = """\
format: kypho-patient/1
constructed: true
patient: {id: good, age: 75, sex: Female}
as_of: 2026-03-02
facts:
  inr: {value: 1.1, time: 2026-03-01}
lesions:
  - id: a
    level: L1
    facts:
      painNrs: 6
procedure: {technique: BalloonKyphoplasty, lesions: [a], state: CA, payer: Medicare}
"""


@dataclass(frozen=True)
class Bad:
    """A bad file and the one problem that it has."""

    text: str | bytes
    where: str
    """What follows the name of the file: line and field, as far as there are any."""
    what: str
    expected: str = ""

    @property
    def data(self) -> bytes:
        """The content of the file."""
        return self.text if isinstance(self.text, bytes) else self.text.encode()


def swap(old: str, new: str) -> str:
    """The good file with one piece exchanged."""
    assert GOOD.count(old) == 1, old
    return GOOD.replace(old, new)


def nrs(value: str) -> str:
    """The good file with another pain score (on line 11)."""
    return swap("painNrs: 6", f"painNrs: {value}")


NRS = ":11, lesions[0].facts.painNrs"

SYNTAX = {
    "broken YAML": Bad("format: kypho-patient/1\n  patient: {id: x}\n", ":2", "not valid YAML"),
    "an open bracket": Bad(GOOD + "facts2: {a: [1,\n", ":14", "not valid YAML"),
    "broken JSON": Bad('{"format": "kypho-patient/1", "patient": {"id": ', ":1", "not valid YAML"),
    "a tab as indentation": Bad(swap("\n  inr", "\n\tinr"), ":6", "not valid YAML"),
    "empty": Bad("", "", "the file is empty", "begins with format: kypho-patient/1"),
    "comments only": Bad("# nothing\n", "", "the file is empty", "begins with format: kypho-patient/1"),
    "null": Bad("null\n", "", "the file is empty", "begins with format: kypho-patient/1"),
    "a list instead of a map": Bad("- a\n- b\n", ":1", "a list", "a map with the keys format, patient"),
    "a word": Bad("hello\n", ":1", "'hello'", "a map with the keys format, patient"),
    "binary": Bad(b"\x89PNG\r\n\x1a\n\x00\x00", "", "byte 0 is no UTF-8; the file is binary", "YAML or JSON in UTF-8"),
    "null bytes": Bad(b"format: \x00\x01", "", "not valid YAML"),
    "Latin-1": Bad(GOOD.replace("good", "M\xfcller").encode("latin-1"), "", "is no UTF-8", "YAML or JSON in UTF-8"),
    "UTF-16": Bad(GOOD.encode("utf-16"), "", "byte 0 is no UTF-8", "YAML or JSON in UTF-8"),
    "10 MB": Bad(GOOD + "# " + "x" * 10_000_000, "", "the file has 10,000,", "at most 1,000,000"),
    "an alias": Bad(
        swap("age: 75", "age: &n 75").replace("value: 1.1", "value: *n"), ":6", "alias *n", "aliases are off"),
    "an alias bomb": Bad(
        "a: &a [x, x, x]\n" + "".join(f"{b}: &{b} [*{a}, *{a}, *{a}]\n" for a, b in itertools.pairwise("abcdefghi")),
        ":2", "alias *a", "the value itself; aliases are off"),
    "nested too deep": Bad("[" * 2000 + "]" * 2000, ":1", "nested too deep", "at most 20 levels"),
    "too many values": Bad("a: [" + "1, " * 60_000 + "1]", ":1", "too many values", "50,000 values"),
    "two documents": Bad(GOOD + "---\nformat: kypho-patient/1\n", ":13", "more than one document", "one document"),
    "a key twice": Bad(swap("age: 75", "age: 75, age: 80"), ":3, patient.age", "the key stands twice", "each key once"),
    "a key that is a list": Bad(GOOD + "[a, b]: c\n", ":13", "a key that is no plain name", "a name"),
}  # fmt: skip

CONTENT = {
    "no format": Bad(swap("format: kypho-patient/1\n", ""), ":1", "format is missing", "format: kypho-patient/1"),
    "another format": Bad(
        swap("patient/1", "patient/2"), ":1, format", "format is 'kypho-patient/2'", "kypho-patient/1"),
    "an unknown key": Bad(
        swap("facts:\n  inr", "fact:\n  inr"), ":6, fact", "unknown key 'fact'", "facts (did you mean"),
    "an unknown key of no likeness": Bad(
        GOOD + "xyzzy: 1\n", ":13, xyzzy", "unknown key 'xyzzy'", "one of format, patient"),
    "a patient that is a list": Bad(
        swap("{id: good, age: 75, sex: Female}", "[good]"), ":3, patient", "a list", "a map"),
    "no patient id": Bad(swap("id: good, ", ""), ":3, patient", "the patient has no id", "patient: {id: ...}"),
    "no patient": Bad("format: kypho-patient/1\n", ":1", "the patient has no id", "patient: {id: ...}"),
    "a patient id that is a map": Bad(swap("id: good", "id: {a: b}"), ":3, patient.id", "id is a map", "a text"),
    "constructed perhaps": Bad(swap("constructed: true", "constructed: maybe"), ":2, constructed",
                               "constructed is 'maybe'", "true or false"),
    "notes that are no list": Bad(GOOD + "notes: hello\n", ":13, notes", "'hello'", "a list"),
    "a note that is a map": Bad(GOOD + "notes: [{a: b}]\n", ":13, notes[0]", "a note is a map", "a text"),
    "facts that are a list": Bad(swap("facts:\n  inr: {value: 1.1, time: 2026-03-01}\n", "facts: [inr]\n"),
                                 ":5, facts", "a list", "a map of feature names"),
    "an unknown feature": Bad(swap("painNrs", "painNsr"), ":11, lesions[0].facts.painNsr", "unknown feature 'painNsr'",
                              "painNrs (did you mean that?)"),
    "an unknown feature of no likeness": Bad(
        swap("painNrs", "xyzzy"), ":11, lesions[0].facts.xyzzy", "unknown feature 'xyzzy'",
        "a feature of the ontology (kypho-kg query features)"),
    "a feature of the patient in a lesion": Bad(
        swap("painNrs: 6", "inr: 1"), ":11, lesions[0].facts.inr", "inr is not recorded here",
        "inr among the facts of the patient"),
    "a feature of the procedure in the patient": Bad(
        swap("  inr: {value: 1.1, time: 2026-03-01}", "  technique: Vertebroplasty"), ":6, facts.technique",
        "technique is not recorded here", "technique among the facts of the procedure"),
    "a number in quotes": Bad(nrs("'6'"), NRS, "painNrs is '6', no finite number", "a number in {score}"),
    "a number in words": Bad(nrs("six"), NRS, "painNrs is 'six', no finite number", "a number in {score}"),
    "a yes for a number": Bad(nrs("no"), NRS, "painNrs is 'no', no finite number", "a number in {score}"),
    "not a number": Bad(nrs("NaN"), NRS, "painNrs is 'NaN', no finite number", "a number in {score}"),
    "YAML's not a number": Bad(nrs(".nan"), NRS, "painNrs is '.nan', no finite number", "a number in {score}"),
    "infinity": Bad(nrs("-.inf"), NRS, "painNrs is '-.inf', no finite number", "a number in {score}"),
    "an enormous number": Bad(nrs("1e999"), NRS, "painNrs is '1e999', no finite number", "a number in {score}"),
    "a comma": Bad(nrs("6,5"), NRS, "painNrs is '6,5', no finite number", "a number in {score}"),
    "nothing": Bad(nrs(""), NRS, "painNrs is nothing", "a number in {score}"),
    "a wrong unit": Bad(nrs("{value: 6, unit: cm}"), NRS + ".value", "unit 'cm' of painNrs", "one of {score}, mm"),
    "a unit that is a list": Bad(nrs("{value: 6, unit: [cm]}"), NRS + ".unit", "unit is a list", "a text"),
    "an unknown key of a fact": Bad(
        nrs("{valeu: 6}"), NRS + ".valeu", "unknown key 'valeu'", "value (did you mean that?)"),
    "a fact without a value": Bad(nrs("{time: 2026-03-01}"), NRS, "painNrs has no value", "one of value, min, max"),
    "value and bounds": Bad(nrs("{value: 6, min: 4}"), NRS, "painNrs has value and min", "one of value, min, max"),
    "two lower bounds": Bad(nrs("{min: 6, above: 4}"), NRS, "painNrs has min and above", "one of value, min, max"),
    "bounds the wrong way round": Bad(
        nrs("{min: 7, max: 5}"), NRS, "painNrs ranges from 7 to 5", "the smaller number first"),
    "an empty range": Bad(
        nrs("{above: 5, max: 5}"), NRS, "painNrs ranges from 5 to 5 without that number", "min and max"),
    "words that are a map": Bad(nrs("{words: {a: b}}"), NRS + ".words", "words is a map", "a text"),
    "absent of a number": Bad(nrs("{absent: 6}"), NRS + ".absent", "unknown key 'absent'", "one of value, min, max"),
    "a time that is no date": Bad(
        nrs("{value: 6, time: yesterday}"), NRS + ".time", "'yesterday' is not a date", "YYYY-MM-DD"),
    "an impossible date": Bad(
        nrs("{value: 6, time: 2026-02-30}"), NRS + ".time", "'2026-02-30' is not a date that exists"),
    "a time that is a list": Bad(nrs("{value: 6, time: [2026]}"), NRS + ".time", "a list is no date", "YYYY-MM-DD"),
    "an unknown mood": Bad(
        nrs("{value: 6, mood: hoped}"), NRS + ".mood", "'hoped'", "one of observed, planned, ordered"),
    "an unknown verification": Bad(
        nrs("{value: 6, verification: sure}"), NRS + ".verification", "'sure'", "one of confirmed"),
    "a cause of ours alone": Bad(nrs("{unknown: Stale}"), NRS + ".unknown", "'Stale'", "one of NotAssessable, Pending"),
    "a source that is a text": Bad(
        nrs("{value: 6, source: note}"), NRS + ".source", "'note'", "a map with the keys document"),
    "a source with a strange key": Bad(nrs("{value: 6, source: {page: 3}}"), NRS + ".source.page", "unknown key 'page'",
                                       "one of document, date, author, quote"),
    "a source of a list": Bad(nrs("{value: 6, source: {document: [a]}}"), NRS + ".source.document",
                              "document is a list", "a text"),
    "a source of an impossible date": Bad(nrs("{value: 6, source: {date: 2026-13}}"), NRS + ".source.date",
                                          "'2026-13' is not a date that exists"),
    "a finding that is a number": Bad(
        swap("painNrs: 6", "Retropulsion: 1"), ":11, lesions[0].facts.Retropulsion", "'1'",
                                      "one of present, absent, indeterminate"),
    "an unknown choice": Bad(swap("painNrs: 6", "painTrend: Worsning"), ":11, lesions[0].facts.painTrend",
                             "painTrend is 'Worsning'", "Worsening (did you mean that?)"),
    "one of nothing": Bad(swap("painNrs: 6", "painTrend: {one_of: []}"), ":11, lesions[0].facts.painTrend.one_of",
                          "painTrend is one of nothing", "at least one value"),
    "an unknown category": Bad(
        swap("painNrs: 6", "primaryEtiology: Osteoporosis"), ":11, lesions[0].facts.primaryEtiology",
                               "primaryEtiology is 'Osteoporosis'", "PrimaryOsteoporosis"),
    "a patient of an unknown sex": Bad(swap("Female", "F"), ":3, patient.sex", "sex is 'F'", "one of Female, Male"),
    "level T13": Bad(
        swap("level: L1", "level: T13"), ":9, lesions[0].level", "level 'T13' is no vertebral level", "C1 to S5"),
    "a level of a list": Bad(swap("level: L1", "level: [L1, L6]"), ":9, lesions[0].level[1]", "level 'L6'", "C1 to S5"),
    "no level in the list": Bad(
        swap("level: L1", "level: []"), ":9, lesions[0].level", "a list without a level", "one level"),
    "a duplicate lesion id": Bad(swap("procedure:", "  - {id: a, level: L1}\nprocedure:"), ":12, lesions[1].id",
                                 "lesion id 'a' stands twice", "one id for each lesion"),
    "a lesion without id": Bad(
        swap("procedure:", "  - {level: L1}\nprocedure:"), ":12, lesions[1]", "a lesion without id",
                               "id: a short name"),
    "a lesion id that is a list": Bad(swap("procedure:", "  - {id: [b]}\nprocedure:"), ":12, lesions[1].id",
                                      "id is a list", "a text"),
    "a lesion that is a word": Bad(
        swap("procedure:", "  - b\nprocedure:"), ":12, lesions[1]", "'b'", "a map with the keys id"),
    "a procedure of an unknown lesion": Bad(swap("lesions: [a]", "lesions: [b]"), ":12, procedure.lesions[0]",
                                            "lesion 'b' is not in the file", "one of a"),
    "a procedure that is a word": Bad(
        swap("procedure: {technique: BalloonKyphoplasty, lesions: [a], state: CA, payer: Medicare}", "procedure: yes"),
        ":12, procedure", "'yes'", "a map with the keys technique"),
    "a state in words": Bad(swap("state: CA", "state: California"), ":12, procedure.state",
                            "state 'California' is no postal code", "two capitals such as OH"),
    "an unknown technique": Bad(swap("BalloonKyphoplasty", "Kyphoplasty"), ":12, procedure.technique",
                                "technique is 'Kyphoplasty'", "BalloonKyphoplasty (did you mean that?)"),
    "an as_of without a day": Bad(
        swap("as_of: 2026-03-02", "as_of: 2026-03"), ":4, as_of", "as_of '2026-03' is no full date",
                                  "YYYY-MM-DD"),
    "an as_of that does not exist": Bad(swap("as_of: 2026-03-02", "as_of: 2026-02-30"), ":4, as_of",
                                        "'2026-02-30' is not a date that exists"),
    "a birth after the as_of": Bad(swap("age: 75", "birth_date: 2026-03-03"), ":3, patient.birth_date",
                                   "birth_date '2026-03-03' lies after as_of 2026-03-02", "an earlier date"),
}  # fmt: skip

SHAPES = {
    "NRS 11": Bad(nrs("11"), ":11, lesion a", "painNrs is 11", "Pain on the numeric scale must lie between 0 and 10."),
    "a negative age": Bad(swap("age: 75", "age: -75"), ":3", "age is -75", "between 0 and 130 years"),
    "a huge number in another unit": Bad(
        nrs("{value: 1e25, unit: mm}"), ":11, lesion a", "painNrs is ", "between 0 and 10"
    ),
    "a range beyond the scale": Bad(
        nrs("{min: 5, max: 12}"), ":11, lesion a", "painNrs is 5 to 12", "between 0 and 10"
    ),
    "a birth before anybody": Bad(swap("age: 75", "birth_date: 1850-01-01"), ":3", "birthDate is 1850-01-01"),
}
"""Readable files whose values no shape allows."""

ALL = {**SYNTAX, **CONTENT, **SHAPES}
