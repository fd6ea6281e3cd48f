"""The tables and columns of the OMOP CDM 5.3 and 5.4 that are read, with the ids that OMOP itself gives a meaning.

These are structure: nothing here says what a diagnosis, a drug or a result is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from kypho_kg.record import Status

FILE = re.compile(r"(.+?)\.(?:csv|csv\.gz|parquet)", re.IGNORECASE)
"""Name of the file of a table in a folder, with the name of the table."""

KEYS = frozenset({"row", "person", "concept", "source_concept", "value_concept", "unit_concept", "one", "two"})
"""Roles of columns that hold ids by which rows are joined."""


@dataclass(frozen=True, slots=True)
class Table:
    """One table: its columns by their role, and what it may lack."""

    name: str
    columns: Mapping[str, str] = field(hash=False)
    needed: frozenset[str] = frozenset({"row", "person", "concept"})
    """Roles of columns without which a table cannot be read."""
    identity: frozenset[str] = frozenset({"row", "person"})
    """Roles of columns without which a row cannot be read."""
    optional: frozenset[str] = frozenset()
    """Roles of columns that one version of the CDM has and another lacks."""
    vocabularies: tuple[str, ...] = ()
    """OMOP ids of vocabularies in which a source value without one is looked up."""


def _event(name: str, stem: str, **more: str) -> dict[str, str]:
    """The columns that all tables of events have."""
    columns = {"row": f"{name}_id", "person": "person_id", "concept": f"{stem}_concept_id"}
    return columns | {"source_concept": f"{stem}_source_concept_id", "source_value": f"{stem}_source_value"} | more


def _period(stem: str) -> dict[str, str]:
    names = {"start": "start_date", "start_time": "start_datetime", "end": "end_date", "end_time": "end_datetime"}
    return {role: f"{stem}_{name}" for role, name in names.items()}


_MEASURED = {
    "number": "value_as_number",
    "value_concept": "value_as_concept_id",
    "unit_concept": "unit_concept_id",
    "unit": "unit_source_value",
    "source_words": "value_source_value",
}

PERSON = Table(
    "person",
    {
        "person": "person_id",
        "concept": "gender_concept_id",
        "year": "year_of_birth",
        "month": "month_of_birth",
        "day": "day_of_birth",
        "start_time": "birth_datetime",
    },
    frozenset({"person"}),
    frozenset({"person"}),
)
CONDITION = Table(
    "condition_occurrence",
    _event("condition_occurrence", "condition", **_period("condition"), state="condition_status_concept_id"),
    vocabularies=("ICD10CM",),
)
PROCEDURE = Table(
    "procedure_occurrence",
    _event("procedure_occurrence", "procedure", start="procedure_date", start_time="procedure_datetime"),
    vocabularies=("CPT4", "HCPCS", "ICD10PCS"),
)
DRUG = Table(
    "drug_exposure",
    _event(
        "drug_exposure", "drug", **_period("drug_exposure"), verbatim_end="verbatim_end_date", stopped="stop_reason"
    ),
)
MEASUREMENT = Table(
    "measurement",
    _event(
        "measurement",
        "measurement",
        start="measurement_date",
        start_time="measurement_datetime",
        operator="operator_concept_id",
        **_MEASURED,
    ),
    vocabularies=("LOINC",),
)
OBSERVATION = Table(
    "observation",
    _event(
        "observation",
        "observation",
        start="observation_date",
        start_time="observation_datetime",
        words="value_as_string",
        **_MEASURED,
    ),
    optional=frozenset({"source_words"}),  # 5.4 only
    vocabularies=("LOINC", "ICD10CM"),
)
_VISIT = _event("visit_occurrence", "visit", **_period("visit"))
VISIT = Table("visit_occurrence", {role: _VISIT[role] for role in _VISIT if role != "source_value"})  # a name, no code
EVENTS = (CONDITION, PROCEDURE, DRUG, MEASUREMENT, OBSERVATION, VISIT)
"""Tables whose rows become facts."""

CONCEPT = Table(
    "concept",
    {"concept": "concept_id", "vocabulary": "vocabulary_id", "code": "concept_code", "name": "concept_name"},
    frozenset({"concept", "vocabulary", "code"}),
    frozenset({"concept"}),
    frozenset({"name"}),
)
ANCESTOR = Table(
    "concept_ancestor",
    {"one": "descendant_concept_id", "two": "ancestor_concept_id", "far": "min_levels_of_separation"},
    frozenset({"one", "two"}),
    frozenset({"one", "two"}),
)
RELATIONSHIP = Table(
    "concept_relationship",
    {"one": "concept_id_1", "two": "concept_id_2", "relation": "relationship_id", "invalid": "invalid_reason"},
    frozenset({"one", "two", "relation"}),
    frozenset({"one", "two"}),
)
VOCABULARY = (CONCEPT, ANCESTOR, RELATIONSHIP)
"""Tables that say what a concept is; a source may lack them, or keep them in a schema of their own."""

TABLES = (PERSON, *EVENTS, *VOCABULARY)

UNTOLD = frozenset(
    """
    care_site cdm_source cohort cohort_attribute cohort_definition concept_class concept_synonym domain drug_strength
    location metadata ontime provider relationship source_to_concept_map vocabulary
    """.split()
)
"""Tables that hold nothing of a person; that they are not read is not worth telling."""

MAPS_TO = "Maps to"
UPWARD = ("Maps to", "Is a", "RxNorm has ing", "Consists of", "Tradename of", "RxNorm is a")
"""Relationships that lead from a concept to something it falls under, or to what it consists of."""

SEX: Mapping[int, str] = {8507: "male", 8532: "female"}

OPERATORS: Mapping[int, str] = {4171756: "<", 4171754: "<=", 4172703: "", 4171755: ">=", 4172704: ">"}

RESOLVED = 32906
"""Condition status: no longer there."""

_STATES: Mapping[Status, str] = {
    Status.CONFIRMED: "32891 32893 32894 32895 32896 32897 32898 32902 32903 32906 32908 32909 32911 4230359",
    Status.PROVISIONAL: "32890 32892 32899 32900 32901 32907 4033240 4203942",
    Status.UNCONFIRMED: "32904 32905 32910",
}
STATES: Mapping[int, Status] = {int(id_): status for status, ids in _STATES.items() for id_ in ids.split()}
"""Verification by condition status. What was thought on admission, before an operation or before the procedure that
is to show it is provisional; the reason of a referral is unconfirmed."""
