"""What a row of samples says, and its provenance: what cannot be is one line of the file."""

import msgspec
import pytest

from secondsight.errors import InputError
from secondsight.trace import Space
from secondsight.trace.provenance import encode
from secondsight.trace.sampled import BITS, CHANNELS, SAMPLE_COLUMNS, SIZES, SampleProvenance, decode_samples
from support.samples import provenance


def test_a_provenance_reads_as_it_was_written():
    made = provenance(interval=2.5, cleared=["1", "4"], damon_samples=20)
    read = decode_samples(msgspec.json.encode(made), "s.parquet")
    assert read == made and isinstance(read, SampleProvenance) and read.interval == 2_500_000_000


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"version": 2}, r"samples of version 2, and this is a reader of version 1"),
        ({"version": None}, "samples of version None"),
        ({"interval": 0}, "an interval of 0 ns between looks"),
        ({"interval": -1}, "an interval of -1 ns"),
        ({"interval": "1"}, "provenance is not readable: "),
        ({"spaces": [{"id": 1, "name": "p"}]}, "space"),
    ],
)
def test_what_cannot_be_is_one_line(change, said):
    raw = msgspec.json.decode(msgspec.json.encode(provenance())) | change
    with pytest.raises(InputError, match=rf"s\.parquet: metadata: {said}") as caught:
        decode_samples(msgspec.json.encode(raw), "s.parquet")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("raw", [b"[]", b"", b"\xff", b'{"version":'])
def test_what_is_no_provenance_at_all(raw):
    with pytest.raises(InputError, match="metadata: provenance is not readable"):
        decode_samples(raw, "s.parquet")


def test_every_channel_tells_used_and_unused_and_bits_how_they_stand():
    for name in CHANNELS:
        words = {
            column.removeprefix(f"{name}_") for column in SAMPLE_COLUMNS if column.startswith(f"{name}_")
        }
        assert words == {"used", "unused"} | ({"set", "clear"} if name in BITS else set())
    # Counts of pages fit their columns: 512 needs more than a byte.
    counts = set(SAMPLE_COLUMNS) - {"time", "space", "address", "form"}
    assert {SAMPLE_COLUMNS[name](512) for name in counts} == {512}
    assert set(SIZES) < set(SAMPLE_COLUMNS) and SIZES[9] == "order_9" and SIZES[-1] == "order_part"


def test_another_spaces_number_is_kept():
    spaces = [Space(id=0, name="a"), Space(id=1, name="b", type="vm", parent=0)]
    assert decode_samples(encode(provenance(spaces=spaces)), "s").spaces == spaces
