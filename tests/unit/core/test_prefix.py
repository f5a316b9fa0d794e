"""Token prefixes: how much two prompts share, and what makes two prefixes the same one."""

from hypothesis import given
from hypothesis import strategies as st

from mooring.core.prefix import Prefix, Tokens, common_length, common_tokens, pack

TOKENS = st.lists(st.integers(0, 200_000), max_size=40).map(tuple)
FEW_TOKENS = st.lists(st.integers(0, 1), max_size=12).map(tuple)


def naive_common_length(a: Tokens, b: Tokens) -> int:
    length = 0
    while length < min(len(a), len(b)) and a[length] == b[length]:
        length += 1
    return length


@given(shared=TOKENS, rest_of_a=FEW_TOKENS, rest_of_b=FEW_TOKENS)
def test_common_length_equals_a_naive_loop(shared, rest_of_a, rest_of_b):
    a, b = shared + rest_of_a, shared + rest_of_b
    assert common_length(a, b) == naive_common_length(a, b)


@given(shared=TOKENS, rest=FEW_TOKENS)
def test_common_length_of_a_beginning_is_the_beginning(shared, rest):
    assert common_length(shared, shared + rest) == common_length(shared + rest, shared) == len(shared)


def test_common_length_sees_a_difference_in_the_first_token():
    assert common_length((1, 2, 3), (9, 2, 3)) == 0


def test_common_length_ignores_agreement_behind_the_first_difference():
    assert common_length((1, 2, 3, 4), (1, 9, 3, 4)) == 1


def test_prefix_id_is_the_same_in_every_process():
    """Bytes on disk are found by it, so it may never change between releases."""
    expected = "eaefea51508681a01a03edb89eda17afb6262c0608139e75a428f5bdc65ac7fb"
    assert Prefix("tenant", (1, 2, 3)).id == expected


def test_prefix_id_is_64_hex_digits():
    found = Prefix("tenant", (1, 2, 3)).id
    assert len(found) == 64
    assert set(found) <= set("0123456789abcdef")


def test_prefix_id_differs_between_tenants():
    assert Prefix("one", (1, 2, 3)).id != Prefix("two", (1, 2, 3)).id


def test_prefix_id_differs_between_tokens():
    assert Prefix("one", (1, 2, 3)).id != Prefix("one", (1, 2, 4)).id


def test_prefix_id_does_not_confuse_the_scope_with_tokens():
    """The bytes of the two concatenations are equal."""
    token = int.from_bytes(b"abcd", "little")
    assert Prefix("tenantabcd", ()).id != Prefix("tenant", (token,)).id


@given(
    one=st.tuples(st.text(alphabet="ab\u00e9", max_size=5), FEW_TOKENS),
    other=st.tuples(st.text(alphabet="ab\u00e9", max_size=5), FEW_TOKENS),
)
def test_prefix_ids_are_equal_exactly_when_scope_and_tokens_are(one, other):
    assert (Prefix(*one).id == Prefix(*other).id) == (one == other)


def test_prefix_length_counts_tokens():
    assert len(Prefix("tenant", (5, 6, 7))) == 3


@given(TOKENS)
def test_packed_tokens_are_little_endian_and_four_bytes_each(tokens):
    packed = pack(tokens)
    assert [int.from_bytes(packed[at : at + 4], "little") for at in range(0, len(packed), 4)] == list(
        tokens
    )


@given(shared=TOKENS, rest_of_a=FEW_TOKENS, rest_of_b=FEW_TOKENS)
def test_common_tokens_equals_a_naive_loop(shared, rest_of_a, rest_of_b):
    a, b = shared + rest_of_a, shared + rest_of_b
    assert common_tokens(pack(a), pack(b)) == naive_common_length(a, b)


def test_common_tokens_counts_whole_tokens():
    """The two agree in three bytes of four."""
    assert common_tokens(pack((7, 1)), pack((7, 1 + (1 << 24)))) == 1
