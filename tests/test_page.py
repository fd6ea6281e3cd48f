"""The page of one patient: what it says, that it needs nothing else, and how a browser shows and prints it."""

from __future__ import annotations

import itertools
import re
import shutil
import subprocess
import time
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from kypho_kg import spine
from kypho_kg.candidacy import Answer, assess
from kypho_kg.errors import UsageError
from kypho_kg.explanation import explain
from kypho_kg.guidelines import EFFECTS
from kypho_kg.intake import read_records
from kypho_kg.knowledge import Knowledge
from kypho_kg.loading import load_knowledge
from kypho_kg.page import page
from kypho_kg.report import DISCLAIMER
from kypho_kg.verdicts import VERDICTS
from kypho_kg.vocabulary import KYPHO
from kypho_kg.words import said

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
VOID = {"meta", "br", "hr", "img", "input", "link"}
HOSTILE = '<script>alert(1)</script>"};</style><b>'

TWO = """
format: kypho-patient/1
constructed: true
patient: {id: two-lesions, birth_date: 1947-05-12, sex: Female}
as_of: 2026-03-02
facts:
  DiagnosedOsteoporosis: present
lesions:
  - id: first
    level: [T11, T12]
    facts: {lesionKind: FractureLesion, painNrs: {value: 7, source: {document: Clinic note, quote: "QUOTE"}}}
  - id: second
    level: L2
    facts: {lesionKind: FractureLesion, CementInVertebra: present, painNrs: 7}
  - id: third
    facts: {lesionKind: FractureLesion}
procedure: {technique: BalloonKyphoplasty, lesions: [first], state: CA, payer: Medicare, setting: HospitalOutpatient}
"""


def answer_of(path: Path, **options: object) -> Answer:
    records, problems = read_records([path], load_knowledge())
    assert problems == []
    return assess(records[0], knowledge=load_knowledge(), validate=False, **options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("patients")


@pytest.fixture(scope="module")
def answers(folder) -> dict[str, Answer]:
    path = folder / "two.yaml"
    path.write_text(TWO, "utf-8")
    return {
        "t4": answer_of(EXAMPLES / "constructed" / "t4-outpatient.yaml"),
        "ost": answer_of(EXAMPLES / "published" / "ost-02.yaml"),
        "two": answer_of(path),
    }


@pytest.fixture(scope="module")
def pages(answers) -> dict[str, str]:
    return {name: page([a], explain(a)) for name, a in answers.items()}


class Seen(HTMLParser):
    """The visible text, what a browser would fetch, the ids, links and headings; every tag must be closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.words: list[str] = []
        self.fetched: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.headings: list[int] = []
        self.attributes: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.attributes.append((tag, values))
        if tag not in VOID:
            self.open.append(tag)
        if "id" in values:
            self.ids.append(values["id"])
        if tag == "a":
            self.links.append(values["href"])
        if re.fullmatch(r"h[1-6]", tag):
            self.headings.append(int(tag[1]))
        self.fetched += [v for k, v in attributes if k in {"src", "srcset", "data", "poster", "action"}]
        self.fetched += [values["href"]] if "href" in values and tag != "a" else []

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open, tag
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def squeezed(text: str) -> str:
    return " ".join(text.split())


# --------------------------------------------------------------------------------------------------------------------
# Content


@pytest.mark.parametrize("name", ["t4", "ost", "two"])
def test_it_says_who_what_and_what_it_is_not(name, answers, pages):
    text, record = Seen(pages[name]).text, answers[name].record
    assert text.count(DISCLAIMER) == 2
    assert f"Patient {record.patient}: what the sources say" in text
    assert str(answers[name].as_of) in text
    assert ("constructed example" in text) is record.constructed
    k = answers[name].knowledge
    assert f"Knowledge base {k.version}, sha256 {k.sha256[:12]} · assumed: strict · bridges on" in text
    assert "kind of procedure: balloon kyphoplasty" in text


@pytest.mark.parametrize("name", ["t4", "ost", "two"])
def test_every_source_says_its_verdict_in_its_own_words(name, answers, pages):
    text = pages[name]
    for case in answers[name].cases:
        for a in case.assessments:
            row = text[text.index(f'href="#source-{a.guideline.id}"') :]
            if all(x.verdict == "NotApplicable" for c in answers[name].cases for x in c.assessments
                   if x.guideline == a.guideline):  # fmt: skip
                continue
            assert squeezed(said(a)) in squeezed(row[: row.index("</tr>")]), a.guideline.id
        assert {f"source-{a.guideline.id}" for a in case.assessments} <= set(Seen(text).ids)


def row_of(text: str, guideline: str) -> str:
    start = text.index(f'href="#source-{guideline}"')
    return Seen("<table><tr><th><a " + text[start : text.index("</tr>", start)] + "</tr></table>").text


def test_the_deciding_reason_and_what_is_missing_first(pages):
    assert "severity of pain in words moderate pain (asked: severe pain)" in row_of(pages["t4"], "nice-ta279")
    assert "met: kyphoplasty in a patient without nerve damage" in row_of(pages["t4"], "aaos-2010")
    assert "missing: OF score (-3 to 16)" in row_of(pages["t4"], "of-score-aospine")
    assert "advises: too little evidence for kyphoplasty" in row_of(pages["t4"], "asbmr-2019")
    assert "l2: CRAN" not in row_of(pages["ost"], "crandall-2004")
    assert "l1: CRAN-1 younger than 10 weeks or older than 16 weeks: not met" in row_of(pages["ost"], "crandall-2004")


def test_what_stands_beside_a_verdict_is_not_lost(answers, pages):
    assert "by bridge: canal-zero; without it: criteria met, cautions not addressed" in Seen(pages["t4"]).text
    assert "1 of 2 clauses were never read at any source" in row_of(pages["t4"], "asra-pain-2018")
    assert "in force" in row_of(pages["t4"], "cms-l34228")
    a = answer_of(EXAMPLES / "constructed" / "problem-list-only.yaml", assume=["problem-list"])
    text = Seen(page([a], explain(a))).text
    assert "assumed (problem-list): " in text
    assert "assumed absent: " in text
    assert "assumed: problem-list · bridges on" in text


def test_the_sections_of_the_case(pages):
    text = Seen(pages["t4"]).text
    for title in ("What to find out next", "Where the sources stand", "On what they disagree", "read by no clause"):
        assert title in text
    assert "Recorded, and not counted" not in text
    assert "Every clause of the source, with the whole proof." in text
    assert "What would change the verdict" in text


def test_one_source_is_open(answers, pages):
    def opened(text: str) -> list[str]:
        return re.findall(r'<details class="source chosen" open>\s*<summary><h3>([^<]*)', text)

    assert opened(pages["t4"]) == ["cms-l34228"]
    chosen = page([answers["t4"]], explain(answers["t4"]), guideline="nice-ta279")
    assert opened(chosen) == ["nice-ta279"]
    assert chosen.count('<details class="source') == len(answers["t4"].cases[0].assessments)
    with pytest.raises(UsageError, match="was not asked"):
        page([answers["t4"]], explain(answers["t4"]), guideline="cms-l33569")


def test_evidence_for_and_against_with_citation(pages):
    text = pages["t4"]
    part = Seen(text[text.index('<section class="evidence"') : text.index("</main>")])
    assert {"For", "Against"} <= set(part.words)
    lines = [v for t, v in part.attributes if t == "li"]
    assert 6 <= len(lines) <= 12
    assert "FREE trial" in part.text


def test_one_patient(answers):
    with pytest.raises(UsageError, match="one patient, not 2"):
        page([answers["t4"], answers["ost"]], [])
    with pytest.raises(UsageError, match="none was given"):
        page([], [])


def test_a_patient_without_a_lesion(folder):
    path = folder / "none.yaml"
    path.write_text("format: kypho-patient/1\npatient: {id: none, sex: Male}\nas_of: 2026-03-02\n", "utf-8")
    a = answer_of(path)
    assert "has no vertebral lesion" in Seen(page([a], explain(a))).text


def test_no_verdict_is_without_a_badge():
    assert set(spine.BADGES) == set(VERDICTS)
    assert len({letter for letter, _ in spine.BADGES.values()}) == len(VERDICTS)


# --------------------------------------------------------------------------------------------------------------------
# The drawing


def test_the_column_is_all_levels_from_top_to_bottom(knowledge: Knowledge):
    column = spine.column(knowledge)
    assert {v.iri for v in column} == knowledge.by_name["vertebralLevel"].values
    assert [knowledge.level_order(v.iri) for v in column] == list(range(1, len(column) + 1))
    for above, below in itertools.pairwise(column):
        assert above.y + above.tall / 2 < below.y - below.tall / 2
    assert all(v.x - v.width / 2 > 24 and v.x + v.width / 2 + 11 < spine.WIDTH - 40 for v in column)


def test_marks_on_the_column_and_in_the_tray(knowledge: Knowledge):
    levels = [v.iri for v in spine.column(knowledge)]

    def mark(lesion: str, *where: str) -> spine.Mark:
        return spine.Mark(lesion, frozenset(where), "here", "Y", "yes", "candidate")

    marks = [mark("a", levels[10]), mark("b", levels[10]), mark("c", levels[1], levels[2]), mark("d")]
    drawing = spine.draw(knowledge, marks)
    (filled,) = [p for p in drawing.places if p.strips]
    assert filled.tag == "a, b"
    assert sum(s.width for s in filled.strips) == pytest.approx(filled.vertebra.width, abs=0.2)
    assert [p.vertebra.iri for p in drawing.places if p.maybe] == levels[1:3]
    assert [m.lesion for _, m in drawing.tray] == ["c", "d"]
    assert spine.draw(knowledge, marks[:2]).tray == ()
    assert mark("x" * 30).name == "x" * 9 + "…"


def test_the_drawing_tells_itself(answers, pages):
    text = pages["two"]
    figures = re.findall(r"<figure.*?</figure>", text, re.DOTALL)
    layers = {a.guideline.layer for c in answers["two"].cases for a in c.assessments if spine.badge(a)[1] != "none"}
    assert len(figures) == len(layers)
    for figure in figures:
        assert 'role="img"' in figure
        assert "<title id=" in figure
        desc = re.search(r"<desc[^>]*>(.*?)</desc>", figure, re.DOTALL)
        assert desc
        assert "At no one level that is known: T11 or T12, lesion first: " in desc[1]
        assert "level not known, lesion third: " in desc[1]
        assert re.search(r"L2, lesion second: [^.]*; cement: ", desc[1])
        assert 'fill="url(#cement)"' in figure
    assert re.search(r"hatched: \w+", Seen(text).text)
    assert "url(#cement)" not in pages["t4"]


# --------------------------------------------------------------------------------------------------------------------
# Form


@pytest.mark.parametrize("name", ["t4", "ost", "two"])
def test_it_needs_nothing_else(name, pages):
    text = pages[name]
    seen = Seen(text)
    assert [u for u in seen.fetched if not u.startswith("#")] == []
    assert re.findall(r"@import|<script|<iframe|<base|<link|http-equiv|javascript:|\son\w+=", text) == []
    assert set(re.findall(r"url\(([^)]*)\)", text)) <= {"#cement"}
    assert all(u.startswith(("#", "https://", "http://")) for u in seen.links)
    assert {u[1:] for u in seen.links if u.startswith("#")} <= set(seen.ids)
    assert len(set(seen.ids)) == len(seen.ids)


@pytest.mark.parametrize("name", ["t4", "ost", "two"])
def test_it_can_be_read_aloud(name, pages):
    text = pages[name]
    seen = Seen(text)
    assert text.startswith("<!DOCTYPE html>")
    assert '<html lang="en">' in text
    assert "<title>Patient " in text
    assert seen.headings[0] == 1
    assert seen.headings.count(1) == 1
    assert all(b <= a + 1 for a, b in itertools.pairwise(seen.headings))
    assert all(v.get("scope") in {"col", "row", "rowgroup"} for t, v in seen.attributes if t == "th")
    assert all(v.get("role") == "img" or v.get("aria-hidden") == "true" for t, v in seen.attributes if t == "svg")
    # Every badge is a letter, hidden from the reader because the words follow.
    assert all(v.get("aria-hidden") == "true" for t, v in seen.attributes if "badge" in (v.get("class") or "").split())


@pytest.mark.parametrize("name", ["t4", "ost", "two"])
def test_plain_words_only(name, pages, knowledge: Knowledge):
    assert KYPHO not in pages[name]
    text = Seen(pages[name]).text
    names = {n for n in (*knowledge.by_name, *VERDICTS, *EFFECTS) if re.search(r"[a-z][A-Z]", n)}
    found = {w for w in re.findall(r"[A-Za-z][A-Za-z0-9]*", re.sub(r"https?://\S+", "", text)) if w in names}
    assert found == set()


def test_text_is_shown_as_it_is_written(folder):
    path = folder / "hostile.yaml"
    path.write_text(TWO.replace("QUOTE", "<script>alert(2)</script>").replace("two-lesions", "plain"), "utf-8")
    a = answer_of(path)
    a = replace(a, record=replace(a.record, patient=HOSTILE, notes=(HOSTILE,), citation=HOSTILE))
    text = page([a], explain(a))
    seen = Seen(text)
    assert "<script" not in text
    assert text.count("</style>") == 1
    assert "alert(1)" not in text[text.index("<style>") : text.index("</style>")]
    assert f"Patient {HOSTILE}: what the sources say" in seen.text
    assert "“<script>alert(2)</script>”" in seen.text


def test_the_same_input_gives_the_same_bytes(answers, pages):
    again = answer_of(EXAMPLES / "constructed" / "t4-outpatient.yaml")
    assert page([again], explain(again)) == pages["t4"]


def test_size_and_time(answers, pages):
    assert max(len(text.encode()) for text in pages.values()) < 3_000_000
    start = time.perf_counter()
    page([answers["t4"]], explain(answers["t4"]))
    assert time.perf_counter() - start < 3


# --------------------------------------------------------------------------------------------------------------------
# In a browser

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed; no page was opened")


def browse(profile: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    assert CHROMIUM
    quiet = (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
        "--disable-component-update --disable-sync --enable-logging=stderr --v=0"
    )
    command = [CHROMIUM, *quiet.split(), f"--user-data-dir={profile}", *arguments]
    run = subprocess.run(command, check=True, capture_output=True, text=True, encoding="utf-8", timeout=120)
    assert "CONSOLE" not in run.stderr
    return run


@needs_browser
def test_a_browser_opens_it(pages, answers, tmp_path):
    path = tmp_path / "page.html"
    path.write_text(pages["two"], "utf-8")
    dom = browse(tmp_path / "profile", "--dump-dom", path.as_uri()).stdout
    shown = Seen(dom).text
    for case in answers["two"].cases:
        assert all(said(a) in shown for a in case.assessments)
    assert dom.count("<details") == pages["two"].count("<details")


@needs_browser
def test_a_link_opens_a_source(pages, tmp_path):
    path = tmp_path / "page.html"
    path.write_text(pages["t4"], "utf-8")

    def opened(url: str) -> list[str]:
        dom = browse(tmp_path / "profile", "--dump-dom", url).stdout
        return re.findall(r'<details class="source[^>]* open="">\s*<summary><h3>([^<]*)', dom)

    assert opened(path.as_uri()) == ["cms-l34228"]
    assert opened(path.as_uri() + "#source-nice-ta279") == ["cms-l34228", "nice-ta279"]


@needs_browser
@pytest.mark.parametrize("paper", ["letter", "A4"])
def test_it_prints_on_three_pages(paper, pages, tmp_path):
    path, pdf = tmp_path / "page.html", tmp_path / "page.pdf"
    path.write_text(pages["t4"].replace("</style>", f"@page {{ size: {paper}; }}</style>"), "utf-8")
    browse(tmp_path / "profile", f"--print-to-pdf={pdf}", path.as_uri())
    content = pdf.read_bytes()
    assert 1 <= len(re.findall(rb"/Type\s*/Page\b", content)) <= 3
    width = 595 if paper == "A4" else 612
    assert re.search(rb"/MediaBox\s*\[\s*0 0 (\d+)", content)[1] in {b"%d" % width, b"%d" % (width - 1)}


@needs_browser
def test_it_looks_like_something(pages, tmp_path):
    path, picture = tmp_path / "page.html", tmp_path / "page.png"
    path.write_text(pages["t4"], "utf-8")
    browse(tmp_path / "profile", f"--screenshot={picture}", "--window-size=1200,1600", path.as_uri())
    assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert picture.stat().st_size > 50_000
