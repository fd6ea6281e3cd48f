"""The page of the ontology: every term with its words, nothing from elsewhere, links that lead somewhere."""

from __future__ import annotations

import builtins
import logging
import re
import shutil
import socket
import subprocess
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest
from test_cli import kypho  # noqa: F401 - a fixture
from test_ontology_export import small

from kypho_kg.ontology_docs import page
from kypho_kg.ontology_export import ROOT, merged
from kypho_kg.store import Literal, Triple, Triples
from kypho_kg.vocabulary import DCTERMS, DEFINITION, KYPHO, LABEL, OWL, RDFS, TYPE

FOLDER = Path(__file__).resolve().parent.parent / "ontology"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Page(HTMLParser):
    """The entries by anchor with their text, the links, and what a browser would fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: set[str] = set()
        self.fetched: list[str] = []
        self.entries: dict[str, list[str]] = {}
        self.entry = ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        if "id" in values:
            self.ids.append(values["id"])
        if tag == "div" and "entity" in values.get("class", ""):
            self.entry = values["id"]
            self.entries[self.entry] = []
        if tag == "a":
            self.links.add(values["href"])
        self.fetched += [v for k, v in attributes if k in {"src", "srcset", "data", "poster"}]
        self.fetched += [values["href"]] if tag == "link" else []

    def handle_data(self, data):
        if self.entry:
            self.entries[self.entry].append(data)

    def said(self, anchor: str) -> str:
        """The text of an entry."""
        return " ".join(" ".join(self.entries[anchor]).split())


def tiny(tmp_path: Path, *axioms: str) -> list[Triple]:
    """A small ontology with the name of ours and a title."""
    rows = [row for row in small(tmp_path, *axioms) if row[0] != "urn:o"]
    return [(ROOT, TYPE, OWL + "Ontology"), (ROOT, DCTERMS + "title", Literal("T")), *rows]


def offline(*_: object) -> None:
    raise AssertionError("the network was asked")


@pytest.fixture(scope="module")
def ontology() -> Triples:
    return Triples(merged(FOLDER))


@pytest.fixture(scope="module")
def text() -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", offline)
        patch.setattr(socket, "getaddrinfo", offline)
        return page(merged(FOLDER))


@pytest.fixture(scope="module")
def seen(text) -> Page:
    return Page(text)


def anchor(iri: str) -> str:
    return iri.removeprefix(KYPHO).removeprefix("https://w3id.org/kypho/guidelines/").replace("/", ".")


def squeezed(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize(
    "kind", ["Class", "ObjectProperty", "DatatypeProperty", "AnnotationProperty", "NamedIndividual"]
)
def test_every_term_has_its_label_and_definition(ontology, seen, kind):
    terms = [s for s in ontology.subjects(TYPE, OWL + kind) if s.startswith("https://w3id.org/kypho")]
    assert terms
    for iri in terms:
        said = seen.said(anchor(iri))
        assert said.startswith(squeezed(ontology.text(iri, LABEL))), iri
        for words in (*ontology.texts(iri, DEFINITION), *ontology.texts(iri, KYPHO + "plainLabel")):
            assert squeezed(words) in said, iri


def test_a_unit_a_definition_in_owl_and_the_place_in_the_tree(ontology, seen):
    (unit,) = ontology.texts(KYPHO + "painNrs", KYPHO + "ucumUnit")
    assert f"{ontology.text(KYPHO + 'ucumUnit', LABEL)}: {unit}" in seen.said("painNrs")
    defined = next(c for c in ontology.subjects(TYPE, OWL + "Class") if c.endswith("/EligibleAndClear"))
    assert " and " in seen.said(anchor(defined))
    assert "Sub Class Of" in seen.said("Discitis")


def test_nothing_is_fetched(text, seen):
    assert [url for url in seen.fetched if not url.startswith("data:")] == []
    assert re.findall(r"@import|url\(|<iframe|<base|http-equiv=.refresh", text) == []
    scripts = re.findall(r"<script([^>]*)>", text)
    assert len(scripts) == 1
    assert 'type="application/ld+json"' in scripts[0]


def test_anchors_are_unique_and_links_lead_to_them(seen):
    assert [name for name, count in Counter(seen.ids).items() if count > 1] == []
    inside = {link[1:] for link in seen.links if link.startswith("#")}
    assert inside - set(seen.ids) == set()
    outside = [u for u in seen.links if u.startswith("https://w3id.org/kypho") and not re.search(r"/\d{4}-", u)]
    assert outside == []


def test_the_contents_are_a_tree(text):
    contents = text[text.index('id="toc"') :]
    depth = {
        name: len(indent) for name, indent in re.findall(r'<a href="#([\w.-]+)">(\u2003*)', contents, re.IGNORECASE)
    }
    assert depth["Discitis"] > depth["SafetyFinding"] > 0 == depth["Case"]


def test_text_is_shown_as_it_is_written(tmp_path):
    said = "A *b* _c_ [d](e) <i> & `f` # 1. x^2 ~ 2 < 3; http://example.org/x_y_z"
    rows = tiny(tmp_path)
    rows += [(KYPHO + "A", DEFINITION, Literal(said)), (KYPHO + "B", DEFINITION, Literal("http://example.org/a is it"))]
    seen = Page(page(rows))
    assert said in seen.said("A")
    assert "http://example.org/a is it" in seen.said("B")
    assert "http://example.org/a is it" not in seen.links


def test_terms_of_one_name_are_kept_apart(tmp_path):
    clauses = [f"<https://w3id.org/kypho/guidelines/{g}/Same> a owl:Class ; rdfs:subClassOf :A ." for g in "abc"]
    rows = tiny(tmp_path, *clauses)
    rows += [(KYPHO + "A", RDFS + "label", Literal("same")), (KYPHO + "B", RDFS + "label", Literal("same"))]
    seen = Page(page(rows))
    assert {"a.Same", "b.Same", "c.Same", "A", "B"} <= set(seen.ids)
    assert {"#a.Same", "#b.Same", "#c.Same", "#A"} <= seen.links


def test_nothing_stays_behind(tmp_path, monkeypatch):
    from pylode import utils

    root = logging.getLogger()
    before = root.level, list(root.handlers), utils.RDF_FOLDER, sorted(utils.RDF_FOLDER.glob("*"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    page(tiny(tmp_path))
    assert list((tmp_path / "tmp").iterdir()) == []
    assert before == (root.level, list(root.handlers), utils.RDF_FOLDER, sorted(utils.RDF_FOLDER.glob("*")))


@pytest.mark.slow
def test_the_command(kypho, tmp_path, text):  # noqa: F811 - the fixture
    run = kypho("ontology", "docs", "-o", tmp_path / "site")
    path = tmp_path / "site" / "ontology.html"
    assert (run.code, run.out, run.err) == (0, f"{path}\n", "")
    assert path.read_text("utf-8") == text


def test_without_pylode_the_command_says_how_to_get_it(kypho, tmp_path, monkeypatch):  # noqa: F811
    real = builtins.__import__

    def without(name, *arguments, **options):
        if name.startswith("pylode"):
            raise ImportError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    run = kypho("ontology", "docs", "-o", tmp_path)
    assert run.code == 2
    assert "pip install 'kypho-kg[docs]'" in run.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed; the page was not opened in a browser")
def test_a_browser_shows_the_page(text, tmp_path):
    path = tmp_path / "ontology.html"
    path.write_text(text, "utf-8")
    picture = tmp_path / "page.png"
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    subprocess.run([*command, f"--screenshot={picture}", path.as_uri()], check=True, capture_output=True, timeout=120)
    assert picture.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert picture.stat().st_size > 20_000
