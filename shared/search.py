"""Finding Dutch words in what people wrote, the same on SQLite and PostgreSQL (R18).

Python does the language: `stems` folds letters, drops stop words and cuts every word to its stem, and the row keeps the outcome in
its column `stems`. The databases only look words up: SQLite in an FTS5 table beside it that triggers keep current, PostgreSQL in
a GIN index. So both find the same rows, and a word is never stemmed by two different hands.

A table becomes searchable with `searchable(Lesson.__table__)`, once, below its class; a migration runs `statements(…)` instead,
also after a batch migration rebuilt the table, which drops its triggers. `matching` and `rank` go into an ordinary query.

On SQLite the two tables are tied by rowid. A searchable table therefore has a primary key that is an index of its own (text, or
several columns): only then does VACUUM leave rowids as they are.
"""

import re
import unicodedata
from functools import cache, lru_cache
from typing import Any

from sqlalchemy import DDL, ColumnElement, Table, event, false, literal_column, text, true
from sqlalchemy.orm import Session

from shared.db import is_sqlite

QUERY_WORDS, WORD_MAX = 12, 60
"""Most words of a query that are looked at; longest word, in characters."""
_STOP = frozenset(
    [
        "aan",
        "al",
        "alles",
        "als",
        "altijd",
        "andere",
        "ben",
        "bij",
        "daar",
        "dan",
        "dat",
        "de",
        "der",
        "deze",
        "die",
        "dit",
        "doch",
        "doen",
        "door",
        "dus",
        "een",
        "eens",
        "en",
        "er",
        "ge",
        "geen",
        "geweest",
        "haar",
        "had",
        "heb",
        "hebben",
        "heeft",
        "hem",
        "het",
        "hier",
        "hij",
        "hoe",
        "hun",
        "iemand",
        "iets",
        "ik",
        "in",
        "is",
        "ja",
        "je",
        "kan",
        "kon",
        "kunnen",
        "maar",
        "me",
        "meer",
        "men",
        "met",
        "mij",
        "mijn",
        "moet",
        "na",
        "naar",
        "niet",
        "niets",
        "nog",
        "nu",
        "of",
        "om",
        "omdat",
        "onder",
        "ons",
        "ook",
        "op",
        "over",
        "reeds",
        "te",
        "tegen",
        "toch",
        "toen",
        "tot",
        "u",
        "uit",
        "uw",
        "van",
        "veel",
        "voor",
        "want",
        "waren",
        "was",
        "wat",
        "we",
        "werd",
        "wezen",
        "wie",
        "wil",
        "worden",
        "wordt",
        "ze",
        "zelf",
        "zich",
        "zij",
        "zijn",
        "zo",
        "zonder",
        "zou",
    ]
)
_WORD = re.compile(r"[^\W_]+")


def _words(said: str) -> list[str]:
    """The words, in small letters without accents."""
    if not said.isascii():
        said = "".join(sign for sign in unicodedata.normalize("NFKD", said) if not unicodedata.combining(sign))
    return [word[:WORD_MAX] for word in _WORD.findall(said.casefold())]


@cache
def _stemmer() -> Any:
    import snowballstemmer  # noqa: PLC0415  # the stemmers of all languages come with it, three megabytes, and few processes need one

    return snowballstemmer.stemmer("dutch_porter")


@lru_cache(maxsize=20_000)
def _stem(word: str) -> str:
    return str(_stemmer().stemWord(word))


def stems(said: str) -> str:
    """What a text is found by: its words without stop words, each cut to its stem."""
    return " ".join(_stem(word) for word in _words(said) if word not in _STOP)


# ---- What the database needs for it ----------------------------------------------------------------------------------------


def statements(table: Table | str, dialect: str) -> list[str]:
    """The DDL that makes an existing table searchable; the rows that are there already are entered too."""
    name = table if isinstance(table, str) else table.name
    if dialect == "postgresql":
        return [f"CREATE INDEX ix_{name}_stems ON {name} USING gin (to_tsvector('simple', stems))"]
    return [
        f"CREATE VIRTUAL TABLE {name}_search USING fts5(stems)",
        f"INSERT INTO {name}_search (rowid, stems) SELECT rowid, stems FROM {name}",  # the name is a table of ours
        (
            f"CREATE TRIGGER {name}_search_insert AFTER INSERT ON {name} BEGIN"
            f" INSERT INTO {name}_search (rowid, stems) VALUES (new.rowid, new.stems); END"
        ),
        (
            f"CREATE TRIGGER {name}_search_update AFTER UPDATE OF stems ON {name} BEGIN"
            f" UPDATE {name}_search SET stems = new.stems WHERE rowid = new.rowid; END"
        ),
        f"CREATE TRIGGER {name}_search_delete AFTER DELETE ON {name} BEGIN DELETE FROM {name}_search WHERE rowid = old.rowid; END",
    ]


def searchable(table: Any) -> None:
    """Whenever this table is created from its class, create with it what finding needs."""
    for dialect in ("sqlite", "postgresql"):
        for statement in statements(table, dialect):
            event.listen(table, "after_create", DDL(statement).execute_if(dialect=dialect))
    event.listen(table, "after_drop", DDL(f"DROP TABLE IF EXISTS {table.name}_search").execute_if(dialect="sqlite"))


# ---- Asking ----------------------------------------------------------------------------------------------------------------


def _asked(said: str) -> list[str]:
    """The words of a query. One that consists of stop words alone still asks something: its last word is being typed."""
    words = _words(said[:1000])
    return ([word for word in words if word not in _STOP] or words[-1:])[:QUERY_WORDS]


def _expression(words: list[str], *, sqlite: bool) -> str:
    """Every word by its stem, and the last one also by how it begins, because it may not be finished."""
    *before, last = words
    quote, start, both, either = ('"{}"', '"{}"*', " AND ", " OR ") if sqlite else ("'{}'", "'{}':*", " & ", " | ")
    begins = either.join(start.format(word) for word in dict.fromkeys((_stem(last), last)))
    return both.join([*(quote.format(_stem(word)) for word in before), f"({begins})"])


def matching(session: Session, table: Any, said: str) -> ColumnElement[bool]:
    """The condition that a row holds every word that was asked. Asking nothing finds everything; asking no word, nothing."""
    table = getattr(table, "__table__", table)
    words = _asked(said)
    if not words:
        return false() if said.strip() else true()
    if is_sqlite(session):
        found = text(
            f"{table.name}.rowid IN (SELECT rowid FROM {table.name}_search WHERE {table.name}_search MATCH :asked)"
        )  # our own table; the query is bound
        return found.bindparams(asked=_expression(words, sqlite=True))  # type: ignore[return-value]  # a text is a condition too
    found = text(f"to_tsvector('simple', {table.name}.stems) @@ to_tsquery('simple', :asked)")
    return found.bindparams(asked=_expression(words, sqlite=False))  # type: ignore[return-value]


def rank(session: Session, table: Any, said: str) -> ColumnElement[Any]:
    """What to order by, so that the best match comes first; only together with `matching`."""
    table = getattr(table, "__table__", table)
    words = _asked(said)
    if not words:
        return literal_column("0 + 0")
    if is_sqlite(session):
        best = text(
            f"(SELECT bm25({table.name}_search) FROM {table.name}_search"  # our own table; the query is bound
            f" WHERE {table.name}_search MATCH :asked AND {table.name}_search.rowid = {table.name}.rowid)"
        )
        return best.bindparams(asked=_expression(words, sqlite=True))  # type: ignore[return-value]
    best = text(f"ts_rank(to_tsvector('simple', {table.name}.stems), to_tsquery('simple', :asked)) DESC")
    return best.bindparams(asked=_expression(words, sqlite=False))  # type: ignore[return-value]
