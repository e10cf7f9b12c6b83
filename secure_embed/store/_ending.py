"""The end of a whole collection, in steps that each can be the last before a crash and be taken again.

The tables of its sealed values are its own, so emptying them moves nobody else's cells, and ``secure_delete`` zeroes every
page that they give back; its blocks are overwritten where they are. The space goes to later rows; the file does not shrink.
"""

from sqlcipher3.dbapi2 import Connection

from secure_embed.keys import SealedDatabase
from secure_embed.store._held import Held
from secure_embed.store._requests import Requests
from secure_embed.store._schema import drop_collection_tables, ends, records, value_tables

__all__ = ["end_collection"]

rows_at_once = 500  # texts have up to 64 KiB: at most 32 MiB in one transaction
blocks_at_once = 500  # of 8 KiB
counters_at_once = 10_000

going, gone = 1, 2  # collection.ended


def end_collection(database: SealedDatabase, held: Held, requests: Requests) -> None:
    """Takes up where an earlier call was cut off. The caller hides the collection first, and empties the log after."""
    ending = requests.of(held.number)
    with database.transaction() as run:
        run.execute("UPDATE collection SET ended = ? WHERE number = ?", (going, held.number))
        requests.end(run, ending)
    requests.ended(ending)
    for table in value_tables:
        _delete_in_parts(database, f"{table}_{held.number}", "position", "TRUE", rows_at_once)
    for blocks in (records, ends):
        ended = blocks_at_once
        while ended == blocks_at_once:
            with database.transaction() as run:
                ended = blocks.end(run, held.number, blocks_at_once)
    held.segments.discard(held.segments.known())
    held.segments.remove_folder()
    for table, column in (("change", "sequence"), ("scrub", "position"), ("segment", "first")):
        _delete_in_parts(database, table, column, f"collection = {held.number}", counters_at_once)
    with database.transaction() as run:
        _end_row(run, held.number)


def _delete_in_parts(database: SealedDatabase, table: str, column: str, where: str, limit: int) -> None:
    sql = f"""DELETE FROM {table} WHERE {where} AND {column} IN
        (SELECT {column} FROM {table} WHERE {where} ORDER BY {column} LIMIT {limit})"""
    deleted = limit
    while deleted == limit:
        with database.transaction() as run:
            deleted = run.execute(sql).rowcount


def _end_row(run: Connection, number: int) -> None:
    """The row stays: its number and uuid are never used again. Its name is free."""
    run.execute("UPDATE codebook SET sealed = zeroblob(length(sealed)) WHERE collection = ?", (number,))
    run.execute("DELETE FROM codebook WHERE collection = ?", (number,))
    for statement in drop_collection_tables(number):
        run.execute(statement)
    run.execute(
        """UPDATE collection SET ended = ?, name_tag = randomblob(32), descriptor = zeroblob(length(descriptor)),
        slot_bytes = 0, data_version = 0, erasure_epoch = 0, codebook_version = 0, next_position = 0, record_count = 0
        WHERE number = ?""",
        (gone, number),
    )
