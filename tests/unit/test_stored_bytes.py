"""Every form of bytes that the benchmark compares gives the bytes back."""

import pytest

from benchmarks.stored_bytes import FORMS


@pytest.mark.parametrize("name", FORMS)
def test_a_form_gives_back_what_was_written(name: str) -> None:
    data = bytes(range(256)) * 3 + b"rest"
    read = FORMS[name].read(FORMS[name].write(data))
    assert read[: len(data)] == data
    assert not read[len(data) :].strip(b"\0")
