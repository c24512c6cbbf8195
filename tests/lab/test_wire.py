import pytest
from hypothesis import given
from hypothesis import strategies as st

from secondsight.lab import wire

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)


@given(VALUES)
def test_a_value_is_one_line_and_comes_back(value: object) -> None:
    line = wire.encode(value)
    assert line.count(b"\n") == 1 and line.endswith(b"\n")
    assert wire.decode(line) == value


def test_a_long_value_is_packed() -> None:
    value = list(range(5000))
    assert len(wire.encode(value)) < len(str(value)) / 2
    assert wire.decode(wire.encode(value)) == value


@given(st.binary(max_size=60))
def test_noise_is_a_value_error(noise: bytes) -> None:
    for line in (noise, b"z" + noise):
        try:
            wire.decode(line)
        except ValueError:
            continue


@pytest.mark.parametrize("cut", [1, 20, 300])
def test_a_cut_line_is_refused(cut: int) -> None:
    line = wire.encode({"pages": list(range(3000))})
    with pytest.raises(ValueError):
        wire.decode(line[:cut])
