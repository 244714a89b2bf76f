"""IAM condition operators, three-valued. Expected values follow the IAM reference, condition operators."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from credx.sandbox.aws.conditions import OPERATORS, Condition, known_operator, split_arn
from credx.sandbox.aws.context import UNKNOWN, Context, resolve

CONTEXT = Context(
    {
        "k": "Value",
        "many": ("a", "b"),
        "n": "5",
        "when": "2026-11-23T20:00:00Z",
        "yes": "true",
        "arn": "arn:aws:s3:::bucket/a:b/c",
        "ip": "127.0.0.1",
        "aws:PrincipalTag/Target": "i-1*",
    },
    frozenset({"absent", "aws:PrincipalTag/", "none-many"}),
)


@pytest.mark.parametrize(
    ("operator", "key", "values", "expected"),
    [
        ("StringEquals", "K", ["Value"], True),
        ("StringEquals", "k", ["value"], False),
        ("StringEquals", "k", ["x", "Value"], True),
        ("StringEquals", "k", ["V*"], False),
        ("StringEqualsIgnoreCase", "k", ["vALUE"], True),
        ("StringNotEquals", "k", ["x", "Value"], False),
        ("StringNotEquals", "k", ["x", "y"], True),
        ("StringLike", "k", ["V?l*"], True),
        ("StringLike", "k", ["alu"], False),
        ("StringNotLike", "k", ["V*"], False),
        ("StringEquals", "absent", ["x"], False),
        ("StringEqualsIfExists", "absent", ["x"], True),
        ("StringNotEquals", "absent", ["x"], True),
        ("StringEquals", "unheard", ["x"], UNKNOWN),
        ("StringNotEquals", "unheard", ["x"], UNKNOWN),
        ("StringEqualsIfExists", "unheard", ["x"], UNKNOWN),
        ("Null", "unheard", ["true"], UNKNOWN),
        ("Null", "absent", ["true"], True),
        ("Null", "k", ["true"], False),
        ("Null", "k", ["false"], True),
        ("Null", "k", ["maybe"], UNKNOWN),
        ("ForAllValues:StringEquals", "many", ["a", "b", "c"], True),
        ("ForAllValues:StringEquals", "many", ["a"], False),
        ("ForAllValues:StringEquals", "absent", ["a"], True),
        ("ForAnyValue:StringEquals", "many", ["b"], True),
        ("ForAnyValue:StringEquals", "many", ["c"], False),
        ("ForAnyValue:StringEquals", "absent", ["c"], False),
        ("ForAnyValue:StringNotEquals", "absent", ["c"], False),
        ("ForAnyValue:StringNotEquals", "many", ["a"], True),
        ("ForAllValues:StringNotEquals", "many", ["a"], False),
        ("StringEquals", "many", ["a"], UNKNOWN),
        ("ForSomeValues:StringEquals", "many", ["a"], UNKNOWN),
        ("StringSounds", "k", ["Value"], UNKNOWN),
        ("NumericLessThan", "n", ["6"], True),
        ("NumericGreaterThanEquals", "n", ["5.0"], True),
        ("NumericNotEquals", "n", ["5"], False),
        ("NumericEquals", "n", ["five"], UNKNOWN),
        ("NumericLessThan", "n", ["Infinity"], UNKNOWN),
        ("DateLessThan", "when", ["2026-11-23T20:00:01Z"], True),
        ("DateLessThan", "when", ["2026-11-23T20:00:00Z"], False),
        ("DateGreaterThan", "when", ["2026-11-23"], True),
        ("DateGreaterThan", "when", ["1700000000"], True),
        ("DateGreaterThan", "when", ["2026-11-23T20:00:00"], UNKNOWN),
        ("Bool", "yes", ["True"], True),
        ("Bool", "yes", ["false"], False),
        ("Bool", "yes", ["1"], UNKNOWN),
        ("ArnLike", "arn", ["arn:aws:s3:::bucket/*"], True),
        ("ArnLike", "arn", ["arn:aws:*:bucket/*"], UNKNOWN),
        ("ArnEquals", "arn", ["arn:*:s3:::bucket/a:b/c"], True),
        ("ArnNotLike", "arn", ["arn:aws:s3:::other/*"], True),
        ("ArnLike", "k", ["arn:aws:s3:::bucket/*"], False),
        ("IpAddress", "ip", ["127.0.0.0/8"], True),
        ("NotIpAddress", "ip", ["127.0.0.0/8"], False),
        ("IpAddress", "ip", ["home"], UNKNOWN),
    ],
)
def test_operators(operator: str, key: str, values: list[str], expected: object) -> None:
    assert Condition(operator, key, tuple(values)).holds(CONTEXT) is expected


@pytest.mark.parametrize(
    ("operator", "value", "expected"),
    [
        ("StringEquals", "${aws:PrincipalTag/target}", True),
        ("StringEquals", "${aws:PrincipalTag/none}", False),
        ("StringNotEquals", "${aws:PrincipalTag/none}", UNKNOWN),
        ("StringEquals", "${aws:PrincipalTag/none, 'i-1*'}", True),
        ("StringEquals", "${unheard}", UNKNOWN),
        ("StringEquals", "${many}", UNKNOWN),
        ("StringEquals", "${aws:PrincipalTag/target", UNKNOWN),
        ("StringLike", "i-1${*}", True),
        ("StringLike", "i-${?}*", False),
    ],
)
def test_variables(operator: str, value: str, expected: object) -> None:
    context = CONTEXT.plus({"v": "i-1*"})
    assert Condition(operator, "v", (value,)).holds(context) is expected


@settings(deadline=None)
@given(st.text(max_size=20), st.text(max_size=20))
def test_what_a_variable_brings_in_is_literal(tag: str, actual: str) -> None:
    context = Context({"aws:PrincipalTag/t": tag})
    pattern = resolve("${aws:PrincipalTag/t}", context, wildcards=True)
    assert pattern is not UNKNOWN
    assert pattern is not None
    assert (pattern.fullmatch(actual) is not None) is (tag == actual)


@settings(deadline=None)
@given(st.sampled_from(sorted(OPERATORS)), st.text(max_size=8), st.text(max_size=8))
def test_no_operator_raises_and_none_guesses_an_unknown_key(operator: str, wanted: str, actual: str) -> None:
    condition = Condition(operator, "key", (wanted,))
    assert condition.holds(Context({"key": actual})) in (True, False, UNKNOWN)
    assert condition.holds(Context({})) is UNKNOWN
    assert known_operator(operator)
    assert known_operator(f"ForAnyValue:{operator}IfExists")


def test_unknown_is_neither_true_nor_false() -> None:
    with pytest.raises(TypeError):
        bool(UNKNOWN)


def test_colons_inside_a_variable_separate_nothing() -> None:
    assert split_arn("arn:aws:ec2:*:1:instance/${aws:PrincipalTag/t}") == [
        "arn", "aws", "ec2", "*", "1", "instance/${aws:PrincipalTag/t}",
    ]  # fmt: skip
    assert split_arn("arn:aws:s3") is None
