"""Every answer of khugepaged has its words; each word is one sentence."""

import pytest

from secondsight.glossary import NOTIFIER_METHODS, TERMS, WORDS, Term
from secondsight.mm.khugepaged.result import ScanResult as Scan


def test_every_answer_of_the_judgement_has_words():
    assert {str(code) for code in Scan} <= {term.code for term in TERMS.values() if term.words}


def test_a_term_stands_under_its_code_and_says_something():
    assert all(
        term.code == code and term.code and (term.words or term.meaning) for code, term in TERMS.items()
    )
    assert all(isinstance(term, Term) for term in TERMS.values())


def test_what_cites_the_kernel_has_a_rule_and_what_is_for_people_ends_in_no_stop():
    assert [term.code for term in TERMS.values() if bool(term.cite) != bool(term.meaning)] == []
    assert [term.code for term in TERMS.values() if term.words.endswith(".")] == []
    assert [term.code for term in TERMS.values() if term.meaning and not term.meaning.endswith(".")] == []


def test_good_is_what_leaves_a_huge_block():
    good = {code for code, term in TERMS.items() if term.good}
    assert "succeeded" in good and not good & {"lack_referenced_page", "exceed_none_pte", "failed"}


@pytest.mark.parametrize("said", [*WORDS.values(), *NOTIFIER_METHODS.values()])
def test_a_word_is_explained_in_sentences(said):
    assert said.endswith((".", "?")) and len(said) > 20 and "\n" not in said
