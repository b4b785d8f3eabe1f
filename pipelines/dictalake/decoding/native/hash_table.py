"""A hash table of numbers, with open addressing. Compiled."""

from __future__ import annotations

from dictalake.decoding.native.compiled import compiled, compiled_part
from dictalake.decoding.native.tables import Records

_SPREAD = 0x1E3779B97F4A7C15  # Fibonacci hashing, in 63 bits


@compiled_part
def find_place(table: Records, key: int) -> int:
    """Where ``key`` stands in a hash table of 2ⁿ places, or the free place where it belongs."""
    mask = len(table) - 1
    place = (key * _SPREAD >> 20) & mask
    while table[place].key != key and table[place].key != -1:
        place = (place + 1) & mask
    return place


@compiled
def insert_all(table: Records, added: Records) -> None:
    """Adds the taken places of another table, to one that has room for them."""
    for index in range(len(added)):
        if added[index].key != -1:
            place = find_place(table, added[index].key)
            table[place].key = added[index].key
            table[place].next = added[index].next
            table[place].value = added[index].value


@compiled
def insert_one(table: Records, key: int, following: int, value: float) -> int:
    """Adds a transition to a table that has room for it; returns how many were added."""
    place = find_place(table, key)
    if table[place].key == key:
        return 0
    table[place].key, table[place].next, table[place].value = key, following, value
    return 1
