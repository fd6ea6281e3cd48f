"""Guidelines and their recommendations, read from the ontology."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date

from kypho_kg.criteria import Criterion, Op
from kypho_kg.errors import KnowledgeBaseError
from kypho_kg.store import Triples
from kypho_kg.vocabulary import DCTERMS, DEFINITION, EDITOR_NOTE, KYPHO, LABEL, SKOS, TYPE, local

SCOPE, REQUIRES, INDICATES, WITHIN = "DefinesScope", "Requires", "Indicates", "RequiresWithinPathway"
EXCLUDES, ABSOLUTE, RELATIVE = "Excludes", "ContraindicatesAbsolutely", "ContraindicatesRelatively"
DOCUMENTATION, RATES, ADVISES = "RequiresDocumentation", "Rates", "Advises"
EFFECTS = (SCOPE, REQUIRES, INDICATES, WITHIN, EXCLUDES, ABSOLUTE, RELATIVE, DOCUMENTATION, RATES, ADVISES)
DECIDING = (SCOPE, REQUIRES, INDICATES, EXCLUDES, ABSOLUTE, RELATIVE)
UNVERIFIED = "Unverified"


@dataclass(frozen=True, slots=True)
class OptionRating:
    """The category in which a panel put one option for the cases of a clause."""

    option: str
    """IRI of the option; that of a technique where one technique was rated."""
    label: str
    category: str
    """Local name of the category."""
    words: str
    stance: str
    """Local name of what the category says of the option: for it, against it or neither."""
    number: int | None
    is_proposed: bool
    """Whether the option is a way of doing what is proposed, and not an alternative to it."""


@dataclass(frozen=True, slots=True)
class Recommendation:
    """One clause of a guideline."""

    iri: str
    id: str
    """``guideline/clause``."""
    effect: str
    criterion: Criterion
    label: str
    text: str
    mark: str
    citation: str
    url: str
    order: int
    due: str = ""
    reading: str = ""
    """The alternative reading to which alone the clause belongs."""
    conjunct_of: str = ""
    strength: str = ""
    grade: str = ""
    ratings: tuple[OptionRating, ...] = ()
    replaces: tuple[str, ...] = ()
    """Ids of the clauses of older versions that it succeeds."""
    note: str = ""
    """What its editor wants a reader to know."""

    @property
    def clause(self) -> str:
        """The id within the guideline."""
        return self.id.partition("/")[2]


@dataclass(frozen=True, slots=True)
class Guideline:
    """A source of recommendations."""

    iri: str
    id: str
    title: str
    plain: str
    publisher: str
    version: str
    layer: str
    use: str
    misuse: str
    licence: str
    citation: str
    url: str
    recommendations: tuple[Recommendation, ...]
    readings: dict[str, str]
    """Alternative readings: name and label."""
    wording: dict[str, str]
    """Verdict to the words of the layer."""
    effective_from: date | None = None
    effective_until: date | None = None
    states: tuple[str, ...] = ()
    payers: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    replaces: tuple[str, ...] = ()
    """Ids of the older versions that it supersedes."""
    note: str = ""
    eligible: str = ""
    eligible_and_clear: str = ""

    @property
    def rests_on_unverified(self) -> bool:
        """Whether a clause that a verdict or rating can rest on was never read at any source."""
        return any(r.mark == UNVERIFIED and r.effect in {*DECIDING, WITHIN, RATES} for r in self.recommendations)

    def words(self, verdict: str) -> str:
        """A verdict in the words of its layer."""
        return self.wording.get(verdict, verdict)

    @property
    def is_policy(self) -> bool:
        """Whether it binds in some places or for some payers only."""
        return bool(self.states or self.payers or self.settings)

    def by_clause(self, clause: str) -> Recommendation | None:
        """A recommendation by its id within the guideline."""
        return next((r for r in self.recommendations if r.clause == clause), None)


def read_guidelines(t: Triples, compile_: Callable[[str], Criterion]) -> Iterator[Guideline]:
    """All guidelines of the ontology, each with its compiled recommendations in order.

    :raises KnowledgeBaseError: with every violation found.
    """
    violations: list[str] = []
    for iri in sorted(t.subjects(TYPE, KYPHO + "Guideline")):
        id_ = t.text(iri, SKOS + "notation")
        recommendations = []
        for node in t.resources(iri, KYPHO + "hasRecommendation"):
            try:
                recommendations.append(_recommendation(t, node, compile_))
            except KnowledgeBaseError as error:
                violations.extend(error.violations)
        recommendations.sort(key=lambda r: r.order)
        violations.extend(_check(id_, recommendations))
        layer = t.resource(iri, KYPHO + "layer") or ""
        readings = {t.text(r, SKOS + "notation"): t.text(r, LABEL) for r in t.subjects(TYPE, KYPHO + "Reading")}
        used = {r.reading for r in recommendations}
        yield Guideline(
            iri=iri,
            id=id_,
            title=t.text(iri, LABEL),
            plain=t.text(iri, KYPHO + "plainLabel"),
            publisher=t.text(iri, DCTERMS + "publisher"),
            version=t.text(iri, KYPHO + "guidelineVersion"),
            layer=local(layer),
            use=t.text(iri, KYPHO + "use"),
            misuse=t.text(iri, KYPHO + "misuse"),
            licence=t.text(iri, KYPHO + "licenceNote"),
            citation=t.text(iri, DCTERMS + "bibliographicCitation"),
            url=t.text(iri, DCTERMS + "source"),
            recommendations=tuple(recommendations),
            readings={n: label for n, label in readings.items() if n in used},
            wording={
                local(t.resource(w, KYPHO + "forVerdict") or ""): t.text(w, KYPHO + "plainLabel")
                for w in t.subjects(KYPHO + "forLayer", layer)
            },
            effective_from=_date(t, iri, "effectiveFrom"),
            effective_until=_date(t, iri, "effectiveUntil"),
            states=t.texts(iri, KYPHO + "jurisdiction"),
            payers=t.resources(iri, KYPHO + "appliesToPayer"),
            settings=t.resources(iri, KYPHO + "appliesToSetting"),
            replaces=_replaced(t, iri),
            note=t.text(iri, EDITOR_NOTE),
            eligible=t.resource(iri, KYPHO + "eligibleClass") or "",
            eligible_and_clear=t.resource(iri, KYPHO + "eligibleAndClearClass") or "",
        )
    if violations:
        raise KnowledgeBaseError(violations)


def _date(t: Triples, iri: str, name: str) -> date | None:
    text = t.text(iri, KYPHO + name)
    try:
        return date.fromisoformat(text) if text else None
    except ValueError:
        raise KnowledgeBaseError(f"{local(iri)} {name} {text!r}: expected a date YYYY-MM-DD") from None


def _recommendation(t: Triples, iri: str, compile_: Callable[[str], Criterion]) -> Recommendation:
    id_ = t.text(iri, SKOS + "notation")
    effects = t.resources(iri, KYPHO + "effect")
    conditions = t.resources(iri, KYPHO + "condition")
    if len(effects) != 1 or local(effects[0]) not in EFFECTS:
        raise KnowledgeBaseError(f"{id_ or iri}: needs one effect of {', '.join(EFFECTS)}")
    if len(conditions) != 1:
        raise KnowledgeBaseError(f"{id_ or iri}: needs one condition, has {len(conditions)}")
    reading = t.resource(iri, KYPHO + "inReading")
    pathway = t.resource(iri, KYPHO + "conjunctOf")
    return Recommendation(
        iri=iri,
        id=id_,
        effect=local(effects[0]),
        criterion=compile_(conditions[0]),
        label=t.text(iri, KYPHO + "plainLabel"),
        text=t.text(iri, DEFINITION),
        mark=local(t.resource(iri, KYPHO + "mark") or ""),
        citation=t.text(iri, DCTERMS + "bibliographicCitation"),
        url=t.text(iri, DCTERMS + "source"),
        order=t.whole_number(iri, KYPHO + "orderNumber") or 0,
        due=local(t.resource(iri, KYPHO + "due") or ""),
        reading=t.text(reading, SKOS + "notation") if reading else "",
        conjunct_of=t.text(pathway, SKOS + "notation") if pathway else "",
        strength=t.text(iri, KYPHO + "strength"),
        grade=t.text(iri, KYPHO + "grade"),
        ratings=tuple(sorted(_ratings(t, iri), key=lambda r: (-(r.number or 0), r.label))),
        replaces=_replaced(t, iri),
        note=t.text(iri, EDITOR_NOTE),
    )


def _replaced(t: Triples, iri: str) -> tuple[str, ...]:
    return tuple(t.text(old, SKOS + "notation") for old in t.resources(iri, DCTERMS + "replaces"))


def _ratings(t: Triples, iri: str) -> Iterator[OptionRating]:
    for node in t.resources(iri, KYPHO + "hasOptionRating"):
        option = t.resource(node, KYPHO + "ratesOption")
        category = t.resource(node, KYPHO + "ratingCategory")
        if not (option and category):
            raise KnowledgeBaseError(f"{local(node)}: a rating needs one option and one category")
        yield OptionRating(
            option=option,
            label=t.text(option, LABEL),
            category=local(category),
            words=t.text(category, LABEL),
            stance=local(t.resource(category, KYPHO + "ratingStance") or ""),
            number=t.whole_number(node, KYPHO + "ratingNumber"),
            is_proposed=t.text(option, KYPHO + "isProposedOption") == "true",
        )


def _check(id_: str, recommendations: list[Recommendation]) -> Iterator[str]:
    """What must hold among the recommendations of one guideline."""
    if not recommendations:
        yield f"{id_}: a guideline without recommendations"
    seen: set[str] = set()
    for r in recommendations:
        if r.id in seen or not r.id.startswith(id_ + "/"):
            yield f"{r.id}: the notation must be unique and begin with {id_}/"
        seen.add(r.id)
        if not (r.mark and r.citation):
            yield f"{r.id}: a clause needs a verification mark and a citation"
        if r.effect == WITHIN:
            pathway = next((p for p in recommendations if p.id == r.conjunct_of and p.effect == INDICATES), None)
            operands = pathway.criterion.children if pathway and pathway.criterion.op is Op.AND else ()
            if r.criterion not in operands:
                yield f"{r.id}: is no conjunct of the pathway {r.conjunct_of or '(none)'}"
