"""Values that properties are tried with."""

from __future__ import annotations

from typing import Final

from hypothesis import strategies as st

# What JSON can hold that is no list and no object, lone surrogates included.
JSON_SCALARS: Final = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=())),
)
