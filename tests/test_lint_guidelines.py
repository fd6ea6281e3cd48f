"""Lint of guidelines: each code has an example that fails and one that passes, waivers work, and ours are clean."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from builders import ROOT, between
from test_cli import kypho  # noqa: F401 - a fixture
from test_lint import GAPS, both, either, no, of_case

from kypho_kg import loading
from kypho_kg._resources import resource_dir
from kypho_kg.criteria import Criterion, Op
from kypho_kg.errors import KnowledgeBaseError
from kypho_kg.knowledge import Knowledge
from kypho_kg.lint import LOAD_CODES, RULES, LintReport, Severity, diagram, lint, lint_guideline
from kypho_kg.lint import report as lint_report
from kypho_kg.lint.logic import implied, possible
from kypho_kg.quality import read_waivers

EXAMPLES = Path(__file__).parent / "data" / "lint"
SEVERITIES = {
    **{rule.code: rule.severity for rule in RULES},
    **dict.fromkeys(("missing-mark", "missing-citation", "refused"), Severity.ERROR),
    "not-checked": Severity.NOTE,
    "unused-waiver": Severity.WARNING,
}
OF_WAIVERS = "unused-waiver"
OF_FILES = [code for code in SEVERITIES if code != OF_WAIVERS]
SOME = "cms-l34228"


def codes(found: LintReport) -> set[str]:
    return {f.code for f in found.findings}


@pytest.fixture(scope="module")
def modules() -> dict[Path, list]:
    """The files of the ontology without its guidelines."""
    files = loading.import_closure(resource_dir("ontology"))
    return {path: rows for path, rows in files.items() if path.parent.name != "guidelines"}


@pytest.fixture
def quick(monkeypatch, modules) -> None:
    """Lets lint see no guideline but that of the file, which saves a second each time."""
    for module in (loading, lint_report):
        monkeypatch.setattr(module, "import_closure", lambda root: dict(modules))


@pytest.fixture
def waived(monkeypatch):
    """Lets lint read the waivers of another folder."""

    def use(folder: Path) -> None:
        monkeypatch.setattr(lint_report, "read_waivers", lambda _, names: read_waivers(folder, names))

    return use


# -- the examples


def test_every_code_has_its_examples_and_every_example_its_code():
    assert SEVERITIES.keys() == {rule.code for rule in RULES} | LOAD_CODES.keys()
    assert {path.name for path in EXAMPLES.iterdir()} == SEVERITIES.keys()
    for code in OF_FILES:
        assert sorted(path.name for path in (EXAMPLES / code).iterdir()) == ["fail.ttl", "pass.ttl"]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("which", ["fail", "pass"])
@pytest.mark.parametrize("code", OF_FILES)
def test_an_example_has_the_code_that_it_is_for_and_no_other(kypho, code, which):  # noqa: F811
    run = kypho("guidelines", "lint", "--file", EXAMPLES / code / f"{which}.ttl", "--format", "json")
    found = run.data["findings"]
    assert {f["code"] for f in found} - ({"by-hand-only"} - {code}) == ({code} if which == "fail" else set())
    assert all(set(f) == {"code", "severity", "subject", "message"} and all(f.values()) for f in found)
    assert {f["severity"] for f in found if f["code"] == code} <= {SEVERITIES[code]}
    assert run.code == (4 if which == "fail" and SEVERITIES[code] is not Severity.NOTE else 0)
    assert run.data["guidelines"] == ["lint-example"]


@pytest.mark.parametrize("code", OF_FILES)
def test_the_examples_of_a_code_differ_in_little(code):
    fail, passes = ((EXAMPLES / code / f"{which}.ttl").read_text("utf-8").splitlines() for which in ("fail", "pass"))
    assert 1 <= len(set(fail) ^ set(passes)) <= 2


@pytest.mark.usefixtures("quick")
def test_the_table_explains_what_it_found(kypho):  # noqa: F811
    run = kypho("guidelines", "lint", "--file", EXAMPLES / "duplicate/fail.ttl")
    assert run.code == 4
    assert "warning duplicate lint-example/EX-R2: says the same as lint-example/EX-R1" in run.out
    assert "duplicate: Two clauses with the same effect and the same cases." in run.out
    assert "1 guidelines: 0 errors, 1 warnings, 0 notes, 0 waived" in run.out


def test_a_file_of_a_bundled_guideline_takes_its_place():
    found = lint(file=ROOT / "ontology/guidelines/of-score-aospine.ttl")
    assert found.guidelines == ("of-score-aospine",)
    assert found.clean


@pytest.mark.usefixtures("quick")
def test_a_file_without_a_guideline_is_refused():
    with pytest.raises(KnowledgeBaseError, match="holds no guideline"):
        lint(file=ROOT / "ontology/modules/core.ttl")


# -- what the examples do not show: more cases of a rule

MALE, PREGNANT, FEVER, PAIN = (
    of_case("sex", "Male"),
    of_case("Pregnancy"),
    of_case("Fever"),
    of_case("painNrs", between(5)),
)
MYELOMA, METASTASIS = (of_case("primaryEtiology", v) for v in ("MultipleMyeloma", "MetastaticEtiology"))


def inr(low: object = None, high: object = None, **open_: bool) -> Criterion:
    return of_case("inr", between(low, high, **open_))


def told(k: Knowledge, *clauses: tuple[str, Criterion], code: str = "", **more: object) -> list[tuple[str, str]]:
    """What lint says of a guideline of these clauses, C0 and so on: code, or subject and message of one code."""
    model = k.guideline(SOME)
    rows = (
        replace(model.recommendations[0], id=f"new/C{n}", effect=effect, criterion=tree, order=n, **more)
        for n, (effect, tree) in enumerate(clauses)
    )
    found = lint_guideline(k, replace(model, id="new", recommendations=tuple(rows)))
    return [(f.subject, f.message) for f in found if f.code == code]


def test_a_value_that_excludes_a_finding_is_known(knowledge):
    assert told(knowledge, ("Advises", both(MALE, PREGNANT)), code="contradictory")
    assert not told(knowledge, ("Advises", both(of_case("sex", "Female"), PREGNANT)), code="contradictory")
    assert implied(knowledge, MALE, no(PREGNANT))
    assert possible(knowledge, no(MALE), no(PREGNANT))


def test_a_pathway_that_an_exclusion_closes_is_unreachable(knowledge):
    closed = [("Indicates", PAIN), ("Indicates", both(MYELOMA, FEVER)), ("Excludes", MYELOMA)]
    assert [subject for subject, _ in told(knowledge, *closed, code="unreachable")] == ["new/C1"]
    assert not told(knowledge, *closed[:2], ("Excludes", METASTASIS), code="unreachable")


@pytest.mark.parametrize(
    ("clauses", "expected"),
    [
        ([("Requires", inr(high="1.5")), ("Excludes", inr("1.5"))], ["inr 1.5 both supports and excludes"]),
        (
            [("Requires", inr(high="1.5")), ("Excludes", inr("1.8"))],
            ["inr 1.65 neither supports nor excludes"],
        ),
        (
            [("Requires", inr(high="1.5", high_open=True)), ("Excludes", inr("1.5", low_open=True))],
            ["inr 1.5 neither supports nor excludes"],
        ),
        ([("Requires", inr(high="1.5")), ("Excludes", no(inr(high="1.5")))], []),
        ([("Requires", no(inr("1.5"))), ("Excludes", inr("1.5"))], []),
        (
            [("Requires", no(inr("1.5", low_open=True))), ("Excludes", either(FEVER, inr("1.5")))],
            ["inr 1.5 both supports and excludes"],
        ),
        # what an exclusion takes out of the supported range
        ([("Requires", inr("0.5")), ("Excludes", inr("1.8"))], []),
        # what is not excluded by this limit alone
        ([("Requires", inr(high="1.5")), ("Excludes", both(FEVER, inr("1.5")))], []),
        # a caution speaks of what lies between
        ([("Requires", inr(high="1.5")), ("ContraindicatesRelatively", inr("1.5")), ("Excludes", inr("1.8"))], []),
        # pathways and ratings that leave out the limit itself
        (
            [("Indicates", inr(high="1.5", high_open=True)), ("Indicates", both(FEVER, inr("1.5", low_open=True)))],
            ["clauses speak of inr below 1.5 and above, and not of 1.5 itself"],
        ),
        ([("Rates", inr(high="1.5", high_open=True)), ("Rates", inr("1.5"))], []),
        (
            [("Rates", inr(high="1.5", high_open=True)), ("Rates", inr("1.5", low_open=True))],
            ["clauses speak of inr below 1.5 and above, and not of 1.5 itself"],
        ),
    ],
)
def test_gaps_and_overlaps_at_a_threshold(knowledge, clauses, expected):
    found = [message for _, message in told(knowledge, *clauses, code="threshold")]
    assert found[: len(expected)] == expected
    assert bool(found) is bool(expected)


def test_what_is_due_at_another_time_is_no_duplicate(knowledge):
    model = knowledge.guideline(SOME)
    rows = [
        replace(model.recommendations[0], id=f"new/{due}", effect="RequiresDocumentation", criterion=FEVER, due=due)
        for due in ("BeforeRequest", "AfterProcedure")
    ]
    found = list(lint_guideline(knowledge, replace(model, id="new", recommendations=tuple(rows))))
    assert "duplicate" not in {f.code for f in found}
    assert told(knowledge, *[("RequiresDocumentation", FEVER)] * 2, code="duplicate")


def test_a_record_that_is_stale_before_the_limit_is_told_in_both_directions(knowledge):
    for limits in ({"high": 366}, {"low": 366}):
        assert told(knowledge, ("Advises", of_case("advancedImagingAge", between(**limits))), code="short-lookback")
    assert not told(knowledge, ("Advises", of_case("advancedImagingAge", between(high=365))), code="short-lookback")


def test_the_readings_of_a_condition_are_read_too(knowledge):
    gap = GAPS["an atom plain and negated"]
    band = Criterion(Op.OPEN, (both(gap, FEVER), either(gap, FEVER)), name="band")
    assert [subject for subject, _ in told(knowledge, ("Advises", band), code="kleene-weaker")] == ["new/C0"]


def test_what_is_cut_off_for_one_clause_is_told_and_the_others_are_read(knowledge):
    clauses = [("Advises", either(MALE, PREGNANT)), ("Advises", GAPS["an atom plain and negated"])]
    assert [subject for subject, _ in told(knowledge, *clauses, code="kleene-weaker")] == ["new/C1"]
    [(subject, message)] = told(knowledge, *clauses, code="not-checked")
    assert subject == "new"
    assert message.startswith("kleene-weaker: ")
    assert "sex and Pregnancy hang together" in message


def test_a_search_that_grows_too_large_is_told(knowledge, monkeypatch):
    monkeypatch.setattr(diagram, "MAX_NODES", 5)
    found = [
        message.partition(":")[0]
        for _, message in told(knowledge, ("Advises", both(FEVER, PAIN, MYELOMA)), code="not-checked")
    ]
    assert {"contradictory", "always-met"} <= set(found)


# -- waivers


def test_a_waiver_takes_a_finding_off_the_list(kypho, waived):  # noqa: F811
    assert "by-hand-only" in codes(lint([SOME]))
    waived(EXAMPLES / OF_WAIVERS / "pass")
    run = kypho("guidelines", "lint", SOME, "--format", "json")
    assert run.code == 0
    assert run.data["findings"] == []
    [row] = run.data["waived"]
    assert (row["code"], row["subject"]) == ("by-hand-only", SOME)
    assert row["reason"]


def test_a_waiver_that_waives_nothing_is_told(kypho, waived):  # noqa: F811
    waived(EXAMPLES / OF_WAIVERS / "fail")
    run = kypho("guidelines", "lint", SOME, "--format", "json")
    assert run.code == 4
    [found] = [f for f in run.data["findings"] if f["code"] != "by-hand-only"]
    assert (found["code"], found["severity"], found["subject"]) == (OF_WAIVERS, "warning", SOME)
    assert run.data["waived"] == []


def test_a_waiver_is_told_only_where_its_guideline_was_linted(waived, monkeypatch):
    waived(EXAMPLES / OF_WAIVERS / "fail")
    monkeypatch.setattr(lint_report, "lint_guideline", lambda *_: iter(()))
    assert codes(lint(["cirse-2017"])) == set()
    assert codes(lint()) == {OF_WAIVERS}


def test_a_waiver_of_an_unknown_rule_is_refused(waived, tmp_path):
    (tmp_path / "waivers.tsv").write_text("rule\tsubject\treason\tdate\nno-rule\tx\ty\t2026-11-28\n", "utf-8")
    waived(tmp_path)
    with pytest.raises(KnowledgeBaseError, match="unknown rule no-rule"):
        lint([SOME])


# -- the bundled guidelines, and the page


def test_the_bundled_guidelines_are_clean(knowledge):
    found = lint()
    assert found.guidelines == tuple(g.id for g in knowledge.guidelines.values())
    assert [str(f) for f in found.findings if f.severity is not Severity.NOTE] == []


def table() -> Iterator[tuple[str, str]]:
    text = (ROOT / "docs/lint.md").read_text("utf-8")
    for line in re.findall(r"^\| `.*\|$", text, re.MULTILINE):
        code, severity, *rest = (cell.strip() for cell in line.strip("|").split("|"))
        assert len(rest) == 2
        assert all(rest)
        yield code.strip("`"), severity


def test_the_page_names_every_code_with_its_severity():
    assert list(table()) == [(code, str(severity)) for code, severity in SEVERITIES.items()]
