"""Many values in one call of compiled code, which holds no lock of the interpreter: several callers go side by side.

It does what it can and says how far it came; who calls does the rest one by one, and knows what a failure means. Where
it was not compiled, all of it is the rest: slower, with the same answers. No key, format or file is known here.
"""

from secure_embed.bulk._calls import coarse_products, compiled, open_values, read_slots, score_halves
from secure_embed.bulk._search import Asked, CodeTables, CompiledSearch, Found

__all__ = [
    "Asked",
    "CodeTables",
    "CompiledSearch",
    "Found",
    "coarse_products",
    "compiled",
    "open_values",
    "read_slots",
    "score_halves",
]
