"""The search of bytes finds what a plain search finds."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from deltamem_agents.forgetting.fingerprints import blocks_of, found_in, needles_of, pieces_of

ALPHABET = 'ab\n"é'
TEXTS = st.lists(st.text(ALPHABET, max_size=150), max_size=6)


@given(TEXTS, st.lists(st.one_of(st.text(ALPHABET, max_size=200), st.integers(0, 5)), max_size=6))
def test_a_text_is_found_exactly_where_a_piece_of_it_is(texts: list[str], parts: list[str | int]) -> None:
    """Against `in`, the definition; the texts have few letters, so that they occur in each other."""
    data = b"".join(
        part.encode() if isinstance(part, str) else texts[part].encode() if part < len(texts) else b"" for part in parts
    )
    expected = set()
    for number, text in enumerate(texts):
        forms = (text.encode(), text.replace('"', '\\"').replace("\n", "\\n").replace("é", "\\u00e9").encode())
        expected |= {number} if any(piece in data for form in forms for piece in pieces_of(form)) else set()
    assert {needle.text for needle in found_in([data], needles_of(texts))} == expected


def test_a_file_is_searched_across_its_blocks(tmp_path: Path) -> None:
    """A text that lies across the end of a block of 4 MiB is found."""
    text = "the canary sings in cage 4711"
    file = tmp_path / "file"
    file.write_bytes(b"\0" * (4 * 2**20 - 10) + text.encode() + b"\0" * 100)
    needles = needles_of([text, "the sparrow lives on roof 1234"])
    assert found_in(blocks_of(file), needles) == set(needles_of([text]))
