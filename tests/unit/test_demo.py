"""What `mooring demo` counts as a right answer."""

import pytest

from mooring.demo import Question


@pytest.mark.parametrize(
    ("answer", "said", "right"),
    [
        ("8 bar", "The pressure of the power cable is 8 bar.", True),
        ("8 bar", "8 Bar", True),
        ("8 bar", "The pressure of the spare drum is 28 bar.", False),
        ("280 euros", "It costs 1,280 euros.", False),
        ("74 cm", "74 cmx", False),
        ("not in the document", "The price of the sensor is not in the document.", True),
        ("PG9190", "", False),
    ],
)
def test_an_answer_is_right_when_it_has_the_value_as_a_whole(answer: str, said: str, right: bool):
    assert Question("?", answer).is_answered_by(said) is right
