"""Opening an OMOP CDM: a DuckDB file read-only, or a folder of CSV or Parquet.

Of files in a folder the columns that are read go into a database in a temporary folder, which is removed at the end;
rows that sort or join what does not fit into memory are spilled there too.
"""

from __future__ import annotations

import gzip
import itertools
import re
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kypho_kg.errors import InputError, Problem
from kypho_kg.intake_report import IntakeReport
from kypho_kg.sources.omop_model import FILE, TABLES, VOCABULARY, Table
from kypho_kg.sources.omop_tables import MOST, Database, Part, Relation, quoted, shaped, usable

_LINE = 1_000_000
_MEMORY = "1GB"
_BROKEN = "a carriage return within the row"
_WRONG = {
    _BROKEN: (_BROKEN, "none outside of a quotation"),
    "MISSING COLUMNS": ("fewer cells than the table has columns", "as many"),
    "TOO MANY COLUMNS": ("more cells than the table has columns", "as many"),
    "UNQUOTED VALUE": (
        "a quotation that is not closed, or a line end unlike that of the first row",
        'cells such as "a ""b"" c"',
    ),
    "INVALID ENCODING": ("not in UTF-8", "text in UTF-8"),
    "LINE SIZE OVER MAXIMUM": ("a row without an end", "a row of at most 2 MB"),
}
_LONGEST = 4_000_000


@contextmanager
def opened(path: Path, report: IntakeReport) -> Iterator[Database]:
    """Open a DuckDB file read-only, or a folder of tables.

    :raises InputError: when it cannot be read, or holds no table of persons.
    """
    import duckdb

    with tempfile.TemporaryDirectory(prefix="kypho-omop-") as work:
        config: dict[str, str | bool | int | float | list[str]] = {
            "temp_directory": f"{work}/spilled",
            "memory_limit": _MEMORY,
            "autoinstall_known_extensions": "false",  # nothing is fetched
            "autoload_known_extensions": "false",
        }
        try:
            con = duckdb.connect(f"{work}/work.duckdb", config=config)
            try:
                database = Database(con, report)
                if path.is_dir():
                    _load(database, path, Path(work))
                else:
                    _attach(database, path)
                if "person" not in database.relations:
                    raise InputError(Problem(path.name, "no table person", "the tables of an OMOP CDM"))
                yield database
            finally:
                con.close()
        except duckdb.Error as error:
            told = str(error).splitlines()[0][:200]
            if "lock" in told:
                what, expected = "another program has it open for writing", "a file that nobody writes, or a copy of it"
            else:
                what, expected = f"cannot be read: {told}", "an OMOP CDM that DuckDB can read"
            raise InputError(Problem(path.name, what, expected)) from None


# --------------------------------------------------------------------------------------------------------------------
# A DuckDB file


def _attach(database: Database, path: Path) -> None:
    import duckdb

    if not is_duckdb(path):
        raise InputError(Problem(path.name, "no DuckDB database", "a DuckDB file, or a folder of CSV or Parquet"))
    con, report = database.con, database.report
    con.execute(f"ATTACH '{str(path).replace(chr(39), chr(39) * 2)}' AS source (READ_ONLY, TYPE duckdb)")
    con.execute("SET enable_external_access = false")  # a view of the file reads no other file
    found: dict[str, dict[str, str]] = {}
    for kind in ("table", "view"):
        listed = (
            f"SELECT schema_name, {kind}_name FROM duckdb_{kind}s() WHERE database_name = 'source' AND NOT internal"
        )
        for schema, name in con.execute(listed + " ORDER BY ALL").fetchall():
            found.setdefault(schema, {}).setdefault(name.lower(), name)
    holding = [schema for schema, names in found.items() if "person" in names]
    if len(holding) > 1 and "main" not in holding:
        what = f"the schemas {', '.join(sorted(holding))} all hold a table person"
        raise InputError(Problem(path.name, what, "one CDM to a file, or the CDM in the schema main"))
    if not holding:
        return
    own = "main" if "main" in holding else holding[0]
    for table in TABLES:
        places = [s for s in found if table.name in found[s] and (s == own or table in VOCABULARY)]
        schema = own if own in places else places[0] if len(places) == 1 else ""
        if not schema:
            report.left(table.name, "no such table", 0)
            continue
        name = found[schema][table.name]
        try:
            raw = database.named(name, ("source", schema))
            if usable(table, raw.columns, table.name, report):
                database.relations[table.name] = Relation(table, database.view(table.name, shaped(table, raw)))
        except duckdb.Error:
            report.reject(table.name, "the table cannot be read", "a table, or a view of tables of this file")
    known = {table.name for table in TABLES}
    for low, name in sorted(found[own].items()):
        if low not in known:
            full = ".".join(map(quoted, ("source", own, name)))
            try:
                database.others[low] = con.execute(f"SELECT count(*) FROM {full}").fetchall()[0][0]
            except duckdb.Error:
                report.left(low, "this table is not read, and cannot be")


def is_duckdb(path: Path) -> bool:
    """Whether a file has the mark of a DuckDB database."""
    try:
        with path.open("rb") as file:
            return file.read(12)[8:] == b"DUCK"
    except OSError:
        return False


# --------------------------------------------------------------------------------------------------------------------
# A folder


def tables_of(folder: Path) -> dict[str, list[Path]]:
    """The files of each table in a folder, by the name of the table in lower case.

    A table is one file, or a folder of files; where it comes in two formats, Parquet is taken.
    """
    found: dict[str, list[Path]] = {}
    for entry in sorted(folder.iterdir()):
        name = FILE.fullmatch(entry.name)
        inner = sorted(p for p in entry.rglob("*") if p.is_file() and FILE.fullmatch(p.name)) if entry.is_dir() else []
        if inner:
            found.setdefault(entry.name.lower(), []).extend(inner)
        elif name and entry.is_file():
            found.setdefault(name[1].lower(), []).append(entry)
    for table, files in found.items():
        columnar = [p for p in files if p.suffix.lower() == ".parquet"]
        found[table] = columnar or files
    return found


def _load(database: Database, folder: Path, work: Path) -> None:
    import duckdb

    files, report = tables_of(folder), database.report
    for table in TABLES:
        parts: list[Part] = []
        if table.name not in files:
            report.left(table.name, "no such table", 0)
            continue
        for path in files[table.name]:
            try:
                _load_part(database, table, parts, path, work)
            except InputError as error:
                report.rejected.extend(error.problems)
            except duckdb.Error as error:
                what = f"cannot be read: {str(error).splitlines()[0][:200]}"
                report.reject(path.name, what, "CSV in UTF-8, or Parquet")
        if parts:
            rows = database.named(table.name)
            database.relations[table.name] = Relation(table, rows.mutate(n=rows.rowid()), parts)
    known = {table.name for table in TABLES}
    for name in sorted(set(files) - known):
        try:
            for path in files[name]:
                database.scans += 1
                source, _ = _scan(path, f"skipped_{database.scans}")
                rows = database.con.execute(f"SELECT count(*) FROM {source}").fetchall()[0][0]
                database.others[name] = database.others.get(name, 0) + rows
        except (duckdb.Error, InputError):
            report.left(name, "this table is not read, and cannot be")


def _load_part(database: Database, table: Table, parts: list[Part], path: Path, work: Path) -> None:
    """Add the rows of one file to its table."""
    import duckdb

    con, name, columnar = database.con, table.name, path.suffix.lower() == ".parquet"
    part = Part(path.name, con.execute(f"SELECT count(*) FROM {name}").fetchall()[0][0] if parts else 0)
    try:
        rejects = _insert(database, table, path, path.name, more=bool(parts))
    except duckdb.Error:
        if columnar:
            raise
        # One line that ends in another way than the first stops DuckDB, and would cost the whole table.
        copy = work / "even.csv"
        _even(path, copy)
        rejects = _insert(database, table, copy, path.name, more=bool(parts))
        copy.unlink()
    if not rejects:
        return
    parts.append(part)
    if columnar:
        return
    kinds = f"CASE WHEN csv_line = '{_BROKEN}' THEN csv_line ELSE error_type::VARCHAR END"
    lines = f"SELECT line, min({kinds}) FROM {rejects} GROUP BY line ORDER BY line"
    for line, kind in con.execute(lines).fetchall():
        part.skipped.append(line)
        database.report.reject(f"{path.name}:{line}", *_WRONG.get(kind, ("a row that cannot be read", "valid CSV")))
    if len(part.skipped) >= MOST:
        database.report.left(name, f"further rows that are no valid CSV, beyond the {MOST:,} that are listed")


def _insert(database: Database, table: Table, path: Path, file: str, *, more: bool) -> str:
    """Read a file into its table; gives the name of the table of its rejected lines, or nothing if it is unusable.

    :param file: its name for messages.
    :param more: whether the table has rows of another file.
    """
    import ibis

    con, name = database.con, table.name
    database.scans += 1
    rejects = f"skipped_{database.scans}"
    source, columns = _scan(path, rejects)
    if not columns:
        columns = [row[0] for row in con.execute(f"DESCRIBE SELECT * FROM {source}").fetchall()]
    if not usable(table, columns, file, database.report):
        return ""
    con.execute(f"CREATE OR REPLACE TEMP VIEW part AS SELECT * FROM {source}")
    rows = ibis.to_sql(shaped(table, database.named("part")), dialect="duckdb")
    try:
        con.execute(f"INSERT INTO {name} {rows}" if more else f"CREATE TABLE {name} AS {rows}")
    finally:
        con.execute("DROP VIEW part")
    return rejects


def _even(path: Path, target: Path) -> None:
    """Copy a CSV file with one kind of line end.

    Within a quotation a carriage return becomes a line feed; a row with one outside of it becomes ``_BROKEN``.
    """
    opener: Mapping[bool, Any] = {True: gzip.open, False: open}
    try:
        with opener[path.name.lower().endswith(".gz")](path, "rb") as source, target.open("wb") as out:
            for line in iter(lambda: source.readline(_LONGEST), b""):
                row = line.rstrip(b"\r\n")
                quotes = itertools.accumulate(part.count(b'"') for part in row.split(b"\r")[:-1])
                if not all(number % 2 for number in quotes):
                    row = _BROKEN.encode()
                out.write(row.replace(b"\r", b"\n") + (b"\n" if line.endswith(b"\n") else b""))
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(Problem(path.name, f"cannot be read: {error}", "CSV in UTF-8, or Parquet")) from None


def _scan(path: Path, rejects: str) -> tuple[str, list[str]]:
    """The call by which DuckDB reads a file, and the columns of a CSV file."""
    place = "'" + re.sub(r"([\[*?])", r"[\1]", str(path)).replace("'", "''") + "'"
    if path.suffix.lower() == ".parquet":
        return f"read_parquet({place})", []
    line = _first_line(path)
    sign = max("\t;|,", key=lambda s: (line.count(s), s == ","))
    quote = "" if sign == "\t" and '"' not in line else '"'  # the vocabularies are handed out without quotation
    columns = [cell.strip().strip('"').strip() for cell in line.split(sign)]
    named = [name or f"column {number}" for number, name in enumerate(columns)]
    named = [n if n.lower() not in map(str.lower, named[:i]) else f"{n} again {i}" for i, n in enumerate(named)]
    struct = ", ".join("'" + n.replace("'", "''") + "': 'VARCHAR'" for n in named)
    packed = "gzip" if path.name.lower().endswith(".gz") else "none"
    options = f"columns={{{struct}}}, delim='{sign}', quote='{quote}', escape='{quote}', compression='{packed}'"
    rejected = f"rejects_table='{rejects}', rejects_scan='scan_{rejects}', rejects_limit={MOST}"
    call = f"read_csv({place}, auto_detect=false, header=true, {options}, store_rejects=true, {rejected})"
    return call, columns


def _first_line(path: Path) -> str:
    opener: Mapping[bool, Any] = {True: gzip.open, False: open}
    expected = "a first row with the names of the columns, in UTF-8"
    try:
        with opener[path.name.lower().endswith(".gz")](path, "rb") as file:
            line = file.readline(_LINE).decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError:
        raise InputError(Problem(f"{path.name}:1", "not in UTF-8", expected)) from None
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(Problem(path.name, f"cannot be read: {error}", expected)) from None
    if not line.strip():
        raise InputError(Problem(f"{path.name}:1", "the table is empty", expected))
    return str(line)
